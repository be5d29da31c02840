//! Products by AVX2's multiplication of pairs of 16-bit integers (`vpmaddwd`), for machines with AVX2 and nothing faster for
//! integers of 8 bits: levels of weights stay 8 bits in memory, a quarter of float32's bytes, and are widened as they are read;
//! rows are levels of 14 bits, so that nothing saturates and hardly anything is lost.
//!
//! Called by [`super::Dense`]. Own, since rten-gemm's kernel for these machines saturates unless rows have 7 bits, at the same
//! speed: both take two of the machine's multiplications for 32 products, where float32 takes four.

use std::arch::x86_64::{
    __m256, __m256i, _mm256_add_epi32, _mm256_add_ps, _mm256_andnot_ps, _mm256_cvtepi8_epi16,
    _mm256_cvtepi32_ps, _mm256_cvtps_epi32, _mm256_fmadd_ps, _mm256_madd_epi16, _mm256_max_ps, _mm256_mul_ps,
    _mm256_packs_epi32, _mm256_permute4x64_epi64, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps,
    _mm256_setzero_si256,
};

use fearless_simd::prelude::{SimdBase, SimdFrom};
use fearless_simd::x86::Avx2;
use fearless_simd::{Level, f32x8, i8x16, i32x8};

use super::Onto;

/// Outputs that are summed side by side: two vectors of eight.
const COLUMNS: usize = 16;
/// Rows that a panel's weights serve while they are in registers: with two sums for each, that is what AVX2's registers hold.
const MOST_ROWS: usize = 6;
/// The largest level of a row; the least is its negative.
const ROW_LEVELS: f32 = 8191.0;
/// Inputs whose products 32 bits hold the sum of, at levels of 8191 and 127.
const MOST_INPUTS: usize = 2064;

/// A matrix of weights, `weight = scale * level` with a scale for each output.
pub struct Pairs {
    /// For each [`COLUMNS`] outputs one after another: for each two inputs one after another, their levels for each output.
    panels: Vec<[i8; 2 * COLUMNS]>,
    inputs: usize,
    scales: Vec<f32>,
}

/// Rows as levels, `number = scale * level` with a scale for each row. Kept from one product to the next, so that none
/// allocates.
#[derive(Default)]
pub struct Rows {
    /// For each block of rows one after another: for each two inputs one after another, both levels of each row.
    pairs: Vec<i32>,
    scales: Vec<f32>,
}

impl Pairs {
    /// Weights whose levels are given all of the first output first. `None` where they do not fit the panels.
    pub fn new(levels: &[i8], inputs: usize, scales: Vec<f32>) -> Option<Self> {
        let fits = inputs.is_multiple_of(COLUMNS) && (1..=MOST_INPUTS).contains(&inputs);
        if !fits || !scales.len().is_multiple_of(COLUMNS) || levels.len() != inputs * scales.len() {
            return None;
        }
        let mut panels = Vec::with_capacity(levels.len() / (2 * COLUMNS));
        for outputs in levels.chunks_exact(COLUMNS * inputs) {
            for first in (0..inputs).step_by(2) {
                let mut panel = [0; 2 * COLUMNS];
                for (place, output) in panel.chunks_exact_mut(2).zip(outputs.chunks_exact(inputs)) {
                    place.copy_from_slice(output.get(first..first + 2)?);
                }
                panels.push(panel);
            }
        }
        Some(Self { panels, inputs, scales })
    }

    /// Whether these are as many numbers as whole rows have, and come out as many.
    pub fn fit(&self, input: &[f32], output: &[f32]) -> bool {
        let rows = input.len() / self.inputs;
        input.len() == rows * self.inputs && output.len() == rows * self.scales.len()
    }
}

/// How rows are parted: blocks of at most [`MOST_ROWS`], nearly alike, as their first row and their number.
fn blocks(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = rows.div_ceil(MOST_ROWS);
    let mut first = 0;
    (0..count).map(move |block| {
        let (start, size) = (first, (rows - first).div_ceil(count - block));
        first += size;
        (start, size)
    })
}

/// Proof that the machine has AVX2.
pub type Machine = Avx2;

/// This machine, if it has AVX2.
pub fn detect() -> Option<Machine> {
    Level::new().as_avx2()
}

/// What sixteen outputs are made of.
struct Panel<'a> {
    weights: &'a [[i8; 2 * COLUMNS]],
    scales: &'a [f32; COLUMNS],
    bias: &'a [f32; COLUMNS],
    onto: Onto,
    /// How many outputs a row has in all.
    width: usize,
}

fearless_simd::kernel!(
    /// Maps rows of numbers to those of `output`, of which each has as many as there are in `bias`.
    pub fn multiply(
        machine: Avx2,
        weights: &Pairs,
        bias: &[f32],
        rows: &mut Rows,
        input: &[f32],
        output: &mut [f32],
        onto: Onto,
    ) {
        let (inputs, width) = (weights.inputs, bias.len());
        let count = input.len() / inputs;
        rows.quantise(machine, input, inputs);
        let outputs = weights.scales.as_chunks().0.iter().zip(bias.as_chunks().0);
        for (number, (weights, (scales, bias))) in
            weights.panels.chunks_exact(inputs / 2).zip(outputs).enumerate()
        {
            let panel = Panel { weights, scales, bias, onto, width };
            for (first, size) in blocks(count) {
                let pairs = rows.pairs.get(first * inputs / 2..).unwrap_or_default();
                let scales = rows.scales.get(first..).unwrap_or_default();
                let output = output.get_mut(first * width + number * COLUMNS..).unwrap_or_default();
                match size {
                    1 => tile::<1>(machine, &panel, pairs, scales, output),
                    2 => tile::<2>(machine, &panel, pairs, scales, output),
                    3 => tile::<3>(machine, &panel, pairs, scales, output),
                    4 => tile::<4>(machine, &panel, pairs, scales, output),
                    5 => tile::<5>(machine, &panel, pairs, scales, output),
                    _ => tile::<MOST_ROWS>(machine, &panel, pairs, scales, output),
                }
            }
        }
    }
);

impl Rows {
    #[target_feature(enable = "avx2")]
    fn quantise(&mut self, machine: Avx2, input: &[f32], inputs: usize) {
        self.pairs.resize(input.len() / 2, 0);
        self.scales.clear();
        for (first, size) in blocks(input.len() / inputs) {
            let numbers = input.get(first * inputs..).unwrap_or_default().chunks_exact(inputs);
            let block = self.pairs.get_mut(first * inputs / 2..).unwrap_or_default();
            for (row, numbers) in numbers.take(size).enumerate() {
                let pairs = block.get_mut(row..).unwrap_or_default();
                self.scales.push(quantise(machine, numbers, pairs.iter_mut().step_by(size)));
            }
        }
    }
}

/// A row's numbers to levels, two at a time; gives the row's scale.
#[target_feature(enable = "avx2")]
#[inline]
fn quantise<'a>(machine: Avx2, numbers: &[f32], mut pairs: impl Iterator<Item = &'a mut i32>) -> f32 {
    let (sign, mut most) = (_mm256_set1_ps(-0.0), _mm256_setzero_ps());
    for numbers in numbers.as_chunks().0 {
        most = _mm256_max_ps(_mm256_andnot_ps(sign, floats(machine, numbers)), most);
    }
    let most: [f32; 8] = f32x8::simd_from(machine, most).into();
    let most = most.into_iter().fold(0.0, f32::max);
    let scale = (most / ROW_LEVELS).max(f32::MIN_POSITIVE);
    let inverse = _mm256_set1_ps(1.0 / scale);
    let (vectors, _) = numbers.as_chunks();
    for vectors in vectors.as_chunks::<2>().0 {
        let [first, second] = [&vectors[0], &vectors[1]]
            .map(|numbers| _mm256_cvtps_epi32(_mm256_mul_ps(floats(machine, numbers), inverse)));
        // Halves of both in turns become the first, then the second.
        let levels = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(first, second));
        let levels: [i32; 8] = i32x8::simd_from(machine, levels).into();
        for (levels, pair) in levels.into_iter().zip(pairs.by_ref()) {
            *pair = levels;
        }
    }
    scale
}

/// Sixteen outputs of some rows.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn tile<const ROWS: usize>(
    machine: Avx2,
    panel: &Panel<'_>,
    pairs: &[i32],
    scales: &[f32],
    output: &mut [f32],
) {
    let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
    for (weights, pairs) in panel.weights.iter().zip(pairs.as_chunks::<ROWS>().0) {
        let (left, right) = weights.split_at(COLUMNS);
        let (left, right) = (widened(machine, left), widened(machine, right));
        for ([left_sum, right_sum], pair) in sums.iter_mut().zip(pairs) {
            let pair = _mm256_set1_epi32(*pair);
            *left_sum = _mm256_add_epi32(*left_sum, _mm256_madd_epi16(pair, left));
            *right_sum = _mm256_add_epi32(*right_sum, _mm256_madd_epi16(pair, right));
        }
    }
    for ((sums, scale), output) in sums.iter().zip(scales).zip(output.chunks_mut(panel.width)) {
        let row_scale = _mm256_set1_ps(*scale);
        let (scales, bias) = (panel.scales.as_chunks().0, panel.bias.as_chunks().0);
        let parts = sums.iter().zip(scales).zip(bias).zip(output.as_chunks_mut().0);
        for (((sum, scales), bias), output) in parts {
            let scale = _mm256_mul_ps(floats(machine, scales), row_scale);
            let value = _mm256_fmadd_ps(_mm256_cvtepi32_ps(*sum), scale, floats(machine, bias));
            let value = match panel.onto {
                Onto::Nothing => value,
                Onto::Output => _mm256_add_ps(value, floats(machine, output)),
            };
            *output = f32x8::simd_from(machine, value).into();
        }
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn floats(machine: Avx2, numbers: &[f32; 8]) -> __m256 {
    f32x8::simd_from(machine, *numbers).into()
}

#[target_feature(enable = "avx2")]
#[inline]
fn widened(machine: Avx2, levels: &[i8]) -> __m256i {
    _mm256_cvtepi8_epi16(i8x16::from_slice(machine, levels).into())
}
