//! Products of rows of numbers with a matrix of weights: nearly all that a model computes.
//!
//! Called by [`super::layers`] and by the models for what they have beside layers. Weights are levels of 8 bits with a scale for
//! each output. Where the machine multiplies integers of 8 bits at four times the numbers per instruction of float32
//! (AVX512-VNNI, and NEON with dot products), rten-gemm does so: rows are levels of 8 or 13 bits ([`RowBits`]) with a scale and a
//! zero for each row. With AVX2 alone rows are levels of 14 bits ([`pairs`]). Sums are exact: nothing saturates, 32 bits hold the
//! worst. Other machines multiply the same weights in float32: all differ by what the rows' bits lose.
//!
//! Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
//! Inference".

#![expect(
    clippy::inline_always,
    reason = "what is not inlined into a function for certain instructions is compiled for none of them"
)]

#[cfg(target_arch = "x86_64")]
mod pairs;

use rten_gemm::{BiasVector, GemmExecutor, GemmInputA, GemmInputB, GemmOptions, PackedBMatrix};
use rten_simd::ops::{BitOps, FloatOps, IntOps, NarrowSaturate, NumOps, ToFloat};
use rten_simd::{Isa, Simd, SimdOp};
use rten_tensor::Matrix;
use rten_vecmath::MinMax;

use self::pairs::Pairs;
use super::layers::InferenceError;
use super::weights::{DamagedModel, Reader};

/// The kernels of rten-gemm that multiply 8-bit integers at four times the numbers per instruction of float32. Those
/// for other machines must widen first, or saturate.
const FAST: [&str; 3] = ["x86_64-u8i8i32-avx512", "aarch64-u8i8i32-dotprod", "aarch64-u8i8i32-i8mm"];
/// The largest level of a weight; the least is its negative.
const WEIGHT_LEVELS: f32 = 127.0;
/// Bits of the lower part of a row's levels of 13 bits; the upper part has 8. With 1536 inputs, a sum is at most
/// 8191 · 127 · 1536, which 32 bits hold.
const LOW_BITS: i32 = 5;
/// Inputs and outputs of every matrix are a multiple of this, and it of what one vector holds, whatever the machine.
const BLOCK: usize = 64;

/// In how many bits the numbers of a row are multiplied, where rten-gemm multiplies integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowBits {
    /// As precise as the weights. Loses four times as much as [`RowBits::Thirteen`], since some numbers of a row are 70 times the
    /// size of the others.
    Eight,
    /// As two numbers of 8 and 5 bits whose products are put together after: at twice the arithmetic.
    Thirteen,
}

/// A matrix product and what is added to it.
pub struct Dense {
    weights: Weights,
    bias: Vec<f32>,
}

enum Weights {
    Levels(Levels),
    Pairs(Pairs, pairs::Machine),
    Floats(PackedBMatrix<f32>),
}

/// How a machine multiplies.
#[derive(Clone, Copy)]
enum Way {
    /// Integers of 8 bits, by rten-gemm.
    Levels,
    /// Pairs of integers of 16 bits.
    Pairs(pairs::Machine),
    /// Float32.
    Floats,
}

/// `weight = scale * level`, a scale for each output.
struct Levels {
    packed: PackedBMatrix<i8>,
    row_bits: RowBits,
    scales: Vec<f32>,
    /// Of each output's levels: what a row's zero contributes, divided by that zero.
    sums: Vec<i32>,
}

/// What a product is added to, its bias apart.
#[derive(Clone, Copy)]
pub enum Onto {
    /// Nothing: what was there does not matter.
    Nothing,
    /// What the output holds: the connection past the layer.
    Output,
}

/// What one thread multiplies with. Its buffers are kept from one product to the next so that none allocates.
pub struct Products {
    /// The kernels for this machine, the same in all threads and those the weights were packed for.
    integers: GemmExecutor<u8, i8, i32>,
    floats: GemmExecutor,
    way: Way,
    rows: Rows,
    sums: Vec<i32>,
    pairs: pairs::Rows,
}

/// `number = scale * (high * 2^LOW_BITS + low - zero)`, a scale and a zero for each row; without a lower part
/// `scale * (level - zero)`.
#[derive(Default)]
struct Rows {
    /// All rows' upper parts, then all rows' lower parts if there are any: one product serves both and reads the weights once.
    levels: Vec<u8>,
    scales: Vec<f32>,
    zeros: Vec<i32>,
}

impl Default for Products {
    fn default() -> Self {
        let integers = GemmExecutor::<u8, i8, i32>::default();
        let way = if FAST.contains(&integers.kernel_name()) && !integers.may_saturate() {
            Way::Levels
        } else {
            pairs::detect().map_or(Way::Floats, Way::Pairs)
        };
        Self {
            integers,
            floats: GemmExecutor::default(),
            way,
            rows: Rows::default(),
            sums: Vec::new(),
            pairs: pairs::Rows::default(),
        }
    }
}

impl Dense {
    /// The next matrix of a file, which maps rows of `inputs` numbers to rows of `outputs`, and its bias.
    pub fn load(
        reader: &mut Reader<'_>,
        products: &Products,
        (inputs, outputs): (usize, usize),
        row_bits: RowBits,
    ) -> Result<Self, DamagedModel> {
        let weights = reader.matrix(outputs, inputs)?.widen();
        Self::new(&weights, reader.vector(outputs)?, products, row_bits)
            .ok_or(DamagedModel("a matrix has another size"))
    }

    /// Packs weights, all of the first output first, for this machine's kernel.
    fn new(weights: &[f32], bias: Vec<f32>, products: &Products, row_bits: RowBits) -> Option<Self> {
        let (inputs, outputs) = (weights.len().checked_div(bias.len())?, bias.len());
        if inputs == 0 || inputs % BLOCK != 0 || outputs % BLOCK != 0 {
            return None;
        }
        let (mut levels, mut scales, mut sums) = (Vec::with_capacity(weights.len()), vec![], vec![]);
        for weights in weights.chunks_exact(inputs) {
            let (least, most) = MinMax::new(weights).dispatch();
            let scale = (most.max(-least) / WEIGHT_LEVELS).max(f32::MIN_POSITIVE);
            #[expect(clippy::cast_possible_truncation, reason = "at most 127 by the choice of scale")]
            let column = weights.iter().map(|weight| (weight / scale).round() as i8);
            sums.push(column.clone().map(i32::from).sum());
            levels.extend(column);
            scales.push(scale);
        }
        let weights = match products.way {
            Way::Levels => {
                let levels = Matrix::try_from_data([outputs, inputs], levels.as_slice()).ok()?;
                let packed = products.integers.prepack_b(levels.transposed());
                Weights::Levels(Levels { packed, row_bits, scales, sums })
            }
            Way::Pairs(machine) => Weights::Pairs(Pairs::new(&levels, inputs, scales)?, machine),
            Way::Floats => {
                let columns = levels.chunks_exact(inputs).zip(&scales);
                let weights: Vec<f32> = columns
                    .flat_map(|(levels, scale)| levels.iter().map(move |level| f32::from(*level) * scale))
                    .collect();
                let weights = Matrix::try_from_data([outputs, inputs], weights.as_slice()).ok()?;
                Weights::Floats(products.floats.prepack_b(weights.transposed()))
            }
        };
        Some(Self { weights, bias })
    }

    /// Maps the rows of `input` to those of `output`.
    pub fn apply(
        &self,
        products: &mut Products,
        input: &[f32],
        output: &mut [f32],
        onto: Onto,
    ) -> Result<(), InferenceError> {
        match &self.weights {
            Weights::Levels(levels) => match levels.row_bits {
                RowBits::Eight => self.multiply_levels::<false>(levels, products, input, output, onto),
                RowBits::Thirteen => self.multiply_levels::<true>(levels, products, input, output, onto),
            },
            Weights::Pairs(weights, machine) => {
                if !weights.fit(input, output) {
                    return Err(InferenceError::Shape);
                }
                pairs::multiply(*machine, weights, &self.bias, &mut products.pairs, input, output, onto);
                Ok(())
            }
            Weights::Floats(weights) => self.multiply_floats(weights, &products.floats, input, output, onto),
        }
    }

    /// With levels of one part or of two.
    fn multiply_levels<const TWO_PARTS: bool>(
        &self,
        levels: &Levels,
        products: &mut Products,
        input: &[f32],
        output: &mut [f32],
        onto: Onto,
    ) -> Result<(), InferenceError> {
        let Products { integers, rows, sums, .. } = products;
        let inputs = levels.packed.rows();
        rows.quantise::<TWO_PARTS>(input, inputs);
        let parts = if TWO_PARTS { 2 } else { 1 };
        sums.resize(parts * output.len(), 0);
        let parts = Matrix::try_from_data([parts * rows.scales.len(), inputs], rows.levels.as_slice())
            .map_err(|_| InferenceError::Shape)?;
        // The rows' zeros are not given to it: rten-gemm 0.27 takes those of the first rows for all others too.
        integers.gemm(
            sums,
            GemmInputA::Unpacked(parts),
            GemmInputB::Packed(&levels.packed),
            GemmOptions::default(),
        )?;
        Widen::<TWO_PARTS> { rows, sums, levels, bias: &self.bias, output, onto }.dispatch();
        Ok(())
    }

    fn multiply_floats(
        &self,
        weights: &PackedBMatrix<f32>,
        gemm: &GemmExecutor,
        input: &[f32],
        output: &mut [f32],
        onto: Onto,
    ) -> Result<(), InferenceError> {
        let inputs = weights.rows();
        let beta = match onto {
            Onto::Nothing => 0.0,
            Onto::Output => 1.0,
        };
        let rows = Matrix::try_from_data([input.len() / inputs, inputs], input)
            .map_err(|_| InferenceError::Shape)?;
        gemm.gemm(
            output,
            GemmInputA::Unpacked(rows),
            GemmInputB::Packed(weights),
            GemmOptions { beta, bias: Some(BiasVector::Row(&self.bias)), ..GemmOptions::default() },
        )?;
        Ok(())
    }
}

impl Rows {
    fn quantise<const TWO_PARTS: bool>(&mut self, input: &[f32], width: usize) {
        // What was there does not matter: all of it is written.
        self.levels.resize(if TWO_PARTS { 2 * input.len() } else { input.len() }, 0);
        self.scales.clear();
        self.zeros.clear();
        let (high, low) = self.levels.split_at_mut(input.len());
        let mut low = low.chunks_exact_mut(width);
        for (row, high) in input.chunks_exact(width).zip(high.chunks_exact_mut(width)) {
            let low = low.next().unwrap_or_default();
            let (scale, zero) = Quantise::<TWO_PARTS> { row, high, low }.dispatch();
            self.scales.push(scale);
            self.zeros.push(zero);
        }
    }
}

/// Numbers of a row to levels; gives the row's scale and zero.
struct Quantise<'a, const TWO_PARTS: bool> {
    row: &'a [f32],
    high: &'a mut [u8],
    /// Empty where levels have no lower part.
    low: &'a mut [u8],
}

impl<const TWO_PARTS: bool> SimdOp for Quantise<'_, TWO_PARTS> {
    type Output = (f32, i32);

    /// Written out: neither what maps an array nor `MinMax` is inlined here, and what is not is compiled for none of this
    /// machine's instructions, which made them a third of an inference.
    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> (f32, i32) {
        let (floats, integers, bytes) = (isa.f32(), isa.i32(), isa.u8());
        let (mut least, mut most) = (floats.zero(), floats.zero());
        for numbers in self.row.chunks_exact(floats.len()) {
            let numbers = floats.load(numbers);
            (least, most) = (floats.min(numbers, least), floats.max(numbers, most));
        }
        let least = least.to_array().into_iter().fold(0.0, f32::min);
        let most = most.to_array().into_iter().fold(0.0, f32::max);
        // From the least number to the largest; one less than the bits have, since both are rounded.
        #[expect(clippy::cast_precision_loss, reason = "at most 13 bits")]
        let steps = ((1 << if TWO_PARTS { 8 + LOW_BITS } else { 8 }) - 2) as f32;
        let scale = ((most - least) / steps).max(f32::MIN_POSITIVE);
        let inverse = 1.0 / scale;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "at most the number of steps, by the choice of scale"
        )]
        let zero = (-least * inverse).round_ties_even() as i32;
        let (inverses, zeros) = (floats.splat(inverse), integers.splat(zero));
        let low_bits = integers.splat((1 << LOW_BITS) - 1);
        let (vector, four) = (bytes.len(), 4 * floats.len());
        let level = |numbers| integers.add(floats.to_int_round(floats.mul(numbers, inverses)), zeros);
        let high_part = |level| if TWO_PARTS { integers.shift_right::<LOW_BITS>(level) } else { level };
        let low_part = |level| integers.and(level, low_bits);
        let mut low_parts = self.low.chunks_exact_mut(vector);
        for (numbers, high) in self.row.chunks_exact(four).zip(self.high.chunks_exact_mut(vector)) {
            let [first, second, third, fourth] = floats.load_many::<4>(numbers);
            let (first, second, third, fourth) = (level(first), level(second), level(third), level(fourth));
            bytes.store(
                narrow(isa, [high_part(first), high_part(second), high_part(third), high_part(fourth)]),
                high,
            );
            if TWO_PARTS && let Some(low) = low_parts.next() {
                bytes.store(
                    narrow(isa, [low_part(first), low_part(second), low_part(third), low_part(fourth)]),
                    low,
                );
            }
        }
        (scale, zero)
    }
}

/// Four vectors to one, in their order.
#[inline(always)]
fn narrow<I: Isa>(isa: I, [first, second, third, fourth]: [I::I32; 4]) -> I::U8 {
    let (integers, shorts) = (isa.i32(), isa.i16());
    shorts.narrow_saturate(integers.narrow_saturate(first, second), integers.narrow_saturate(third, fourth))
}

/// Sums of products of levels to numbers.
struct Widen<'a, const TWO_PARTS: bool> {
    rows: &'a Rows,
    sums: &'a [i32],
    levels: &'a Levels,
    bias: &'a [f32],
    output: &'a mut [f32],
    onto: Onto,
}

impl<const TWO_PARTS: bool> SimdOp for Widen<'_, TWO_PARTS> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let (floats, integers) = (isa.f32(), isa.i32());
        let (width, vector) = (self.bias.len(), floats.len());
        let (high, low) = self.sums.split_at(self.output.len());
        let mut low_rows = low.chunks_exact(width);
        let rows = self.rows.scales.iter().zip(&self.rows.zeros).zip(high.chunks_exact(width));
        for (((&scale, &zero), high), output) in rows.zip(self.output.chunks_exact_mut(width)) {
            let (row_scale, zero) = (floats.splat(scale), integers.splat(zero));
            let mut low = low_rows.next().unwrap_or_default().chunks_exact(vector);
            let columns = self.levels.sums.chunks_exact(vector).zip(self.levels.scales.chunks_exact(vector));
            let columns = columns.zip(self.bias.chunks_exact(vector)).zip(high.chunks_exact(vector));
            for ((((level_sums, scales), bias), high), output) in columns.zip(output.chunks_exact_mut(vector))
            {
                let mut sum = integers.load(high);
                if TWO_PARTS && let Some(low) = low.next() {
                    sum = integers.add(integers.shift_left::<LOW_BITS>(sum), integers.load(low));
                }
                let sum = integers.sub(sum, integers.mul(integers.load(level_sums), zero));
                let scale = floats.mul(floats.load(scales), row_scale);
                let value = floats.add(floats.mul(integers.to_float(sum), scale), floats.load(bias));
                let value = match self.onto {
                    Onto::Nothing => value,
                    Onto::Output => floats.add(value, floats.load(output)),
                };
                floats.store(value, output);
            }
        }
    }
}

/// Other architectures have no AVX2: nothing of this is ever made.
#[cfg(not(target_arch = "x86_64"))]
mod pairs {
    use super::Onto;

    #[derive(Clone, Copy)]
    pub enum Machine {}

    pub enum Pairs {}

    #[derive(Default)]
    pub struct Rows;

    pub fn detect() -> Option<Machine> {
        None
    }

    impl Pairs {
        pub fn new(_: &[i8], _: usize, _: Vec<f32>) -> Option<Self> {
            None
        }

        pub fn fit(&self, _: &[f32], _: &[f32]) -> bool {
            match *self {}
        }
    }

    pub fn multiply(machine: Machine, _: &Pairs, _: &[f32], _: &mut Rows, _: &[f32], _: &mut [f32], _: Onto) {
        match machine {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUTS: usize = 128;
    const OUTPUTS: usize = 192;

    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        let mut random = fastrand::Rng::with_seed(seed);
        std::iter::repeat_with(|| random.f32() - 0.4).take(count).collect()
    }

    /// This machine's own ways, pairs where it has what they take, and float32.
    fn all_ways() -> impl Iterator<Item = (Products, RowBits)> {
        let own = [RowBits::Thirteen, RowBits::Eight].map(|bits| (Products::default().way, bits));
        let pairs = pairs::detect().map(|machine| (Way::Pairs(machine), RowBits::Thirteen));
        let ways = own.into_iter().chain(pairs).chain([(Way::Floats, RowBits::Thirteen)]);
        ways.map(|(way, bits)| (Products { way, ..Products::default() }, bits))
    }

    #[test]
    fn products_are_those_of_the_numbers() {
        let (weights, bias) = (numbers(INPUTS * OUTPUTS, 1), numbers(OUTPUTS, 2));
        for (mut products, row_bits) in all_ways() {
            let dense = Dense::new(&weights, bias.clone(), &products, row_bits).unwrap();
            // Each row has another scale and another zero, and one number far from the others.
            for rows in [1, 2, 9, 40] {
                let mut input = numbers(rows * INPUTS, 3);
                for (place, row) in input.chunks_exact_mut(INPUTS).enumerate() {
                    row[place % INPUTS] = if place % 2 == 0 { 30.0 } else { -20.0 };
                    let times = f32::from(u8::try_from(place + 1).unwrap());
                    for number in row {
                        *number *= times;
                    }
                }
                let before = numbers(rows * OUTPUTS, 4);
                for onto in [Onto::Nothing, Onto::Output] {
                    let mut output = before.clone();
                    dense.apply(&mut products, &input, &mut output, onto).unwrap();
                    for (place, value) in output.iter().enumerate() {
                        let (row, column) = (place / OUTPUTS, place % OUTPUTS);
                        let row = &input[row * INPUTS..][..INPUTS];
                        let weights = &weights[column * INPUTS..][..INPUTS];
                        let mut expected = bias[column];
                        expected += row.iter().zip(weights).map(|(one, other)| one * other).sum::<f32>();
                        if matches!(onto, Onto::Output) {
                            expected += before[place];
                        }
                        let length = row.iter().map(|number| number * number).sum::<f32>().sqrt();
                        let tolerance = if row_bits == RowBits::Eight { 0.04 } else { 0.01 };
                        assert!((value - expected).abs() < tolerance * length, "{value} for {expected}");
                    }
                }
            }
        }
    }

    #[test]
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    fn the_largest_sums_fit() {
        let inputs = 1536;
        for (mut products, row_bits) in all_ways() {
            for sign in [1.0, -1.0] {
                let weights = vec![sign; inputs * BLOCK];
                let dense = Dense::new(&weights, vec![0.0; BLOCK], &products, row_bits).unwrap();
                let mut output = vec![0.0; BLOCK];
                for input in [3.0, -3.0] {
                    dense.apply(&mut products, &vec![input; inputs], &mut output, Onto::Nothing).unwrap();
                    let expected = sign * input * inputs as f32;
                    assert!(output.iter().all(|value| (value / expected - 1.0).abs() < 0.001), "{output:?}");
                }
            }
        }
    }

    #[test]
    fn nothing_gives_the_bias() {
        let bias = numbers(OUTPUTS, 2);
        for (mut products, row_bits) in all_ways() {
            let dense = Dense::new(&vec![0.0; INPUTS * OUTPUTS], bias.clone(), &products, row_bits).unwrap();
            let mut output = vec![1.0; OUTPUTS];
            dense.apply(&mut products, &[0.0; INPUTS], &mut output, Onto::Nothing).unwrap();
            assert_eq!(output, bias);
        }
    }

    #[test]
    fn matrices_that_no_vector_divides_are_refused() {
        let products = Products::default();
        let dense = |weights: usize, outputs: usize| {
            Dense::new(&vec![0.0; weights], vec![0.0; outputs], &products, RowBits::Thirteen)
        };
        assert!(dense(64 * 64, 64).is_some());
        for (weights, outputs) in [(65 * 64, 64), (64 * 65, 65), (0, 0), (0, 64)] {
            assert!(dense(weights, outputs).is_none(), "{weights} {outputs}");
        }
    }
}
