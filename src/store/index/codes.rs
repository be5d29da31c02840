//! Embeddings in two bytes a component, in two planes: the high bytes alone rank rows in a scan, both together
//! give the similarity that is reported.
//!
//! A component is `scale · (256 · high + low)`, so it is off by at most `scale / 2`, and a similarity by at
//! most `√dimension / 65024`: 0.0003 for 384 components, 0.0009 for 3072, in the worst case that can be built;
//! 0.000002 is usual. Half the memory of `f32`, and a scan reads a quarter of it.

use rten_simd::{Isa, SimdOp};

use crate::embed::Similarity;

/// More components than any known model gives; up to here the sums of a scan fit in 32 bits.
pub(in crate::store) const MAX_DIMENSION: usize = 65_536;

/// The largest code: the largest high byte with a low byte of zero.
const LARGEST: f32 = 127.0 * 256.0;

/// An embedding in two planes.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::store) struct Codes {
    /// The high bytes: the component rounded to eight bits.
    pub(in crate::store) high: Box<[i8]>,
    /// What is left below them.
    pub(in crate::store) low: Box<[i8]>,
    /// What one unit of the low plane stands for.
    pub(in crate::store) scale: f32,
}

impl Codes {
    /// The codes of a vector. `None` where it has no direction, or more than [`MAX_DIMENSION`] components.
    pub(in crate::store) fn of(values: &[f32]) -> Option<Self> {
        let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let scale = largest / LARGEST;
        if values.len() > MAX_DIMENSION || !scale.is_normal() {
            return None;
        }
        let (high, low): (Vec<i8>, Vec<i8>) = values.iter().map(|value| split(value / scale)).unzip();
        Some(Self { high: high.into(), low: low.into(), scale })
    }

    /// How many components there are.
    pub(in crate::store) fn dimension(&self) -> usize {
        self.high.len()
    }
}

/// A scaled component in its two bytes.
fn split(value: f32) -> (i8, i8) {
    #[expect(clippy::cast_possible_truncation, reason = "rounded and within ±LARGEST; a NaN becomes zero")]
    let code = value.round().clamp(-LARGEST, LARGEST) as i32;
    let high = (code + 128) >> 8;
    let low = code - (high << 8);
    (i8::try_from(high).unwrap_or(i8::MAX), i8::try_from(low).unwrap_or(0))
}

/// What is searched for: the embedding as it is, and widened high bytes to rank rows by.
#[derive(Debug)]
pub(in crate::store) struct Query<'a> {
    values: &'a [f32],
    ranks: Vec<i16>,
    scale: f32,
}

impl<'a> Query<'a> {
    /// `None` as for [`Codes::of`].
    pub(in crate::store) fn of(values: &'a [f32]) -> Option<Self> {
        let codes = Codes::of(values)?;
        Some(Self {
            values,
            ranks: codes.high.iter().copied().map(i16::from).collect(),
            scale: codes.scale * 256.0,
        })
    }

    /// How many components there are.
    pub(in crate::store) fn dimension(&self) -> usize {
        self.values.len()
    }

    /// Appends the nearly exact similarity of each row; `scales` are the rows' [`Codes::scale`].
    pub(in crate::store) fn rank(&self, high: &[i8], scales: &[f32], out: &mut Vec<f32>) {
        Rank { high, scales, query: &self.ranks, scale: self.scale * 256.0, out }.dispatch();
    }

    /// The similarity to report of one row.
    pub(in crate::store) fn similarity(&self, high: &[i8], low: &[i8], scale: f32) -> Similarity {
        let dot = Dot { high, low, values: self.values }.dispatch();
        // Rounding can carry a vector's similarity to itself a little past one.
        Similarity((dot * scale).clamp(-1.0, 1.0))
    }
}

/// The widened high bytes of a row, to find the nearest of other rows by [`nearest`].
pub(in crate::store) fn widen(high: &[i8], out: &mut Vec<i16>) {
    out.clear();
    out.extend(high.iter().copied().map(i16::from));
}

/// How near each row is to a row widened by [`widen`], in units of that row's scale.
pub(in crate::store) fn ranks(widened: &[i16], high: &[i8], scales: &[f32], out: &mut Vec<f32>) {
    out.clear();
    Rank { high, scales, query: widened, scale: 1.0, out }.dispatch();
}

/// The number of the row nearest to a row widened by [`widen`].
pub(in crate::store) fn nearest(
    widened: &[i16],
    high: &[i8],
    scales: &[f32],
    scratch: &mut Vec<f32>,
) -> Option<usize> {
    ranks(widened, high, scales, scratch);
    scratch.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(row, _)| row)
}

/// Ranks a block of rows. Plain loops: dispatched to a function with the machine's instructions enabled, the
/// compiler turns them into multiply-add instructions of its full width (measured: 10 ns a row of 384, four
/// times faster than without).
struct Rank<'a> {
    high: &'a [i8],
    scales: &'a [f32],
    query: &'a [i16],
    scale: f32,
    out: &'a mut Vec<f32>,
}

impl SimdOp for Rank<'_> {
    type Output = ();

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "rten-simd's rule: only what is inlined uses the instructions")]
    fn eval<I: Isa>(self, _isa: I) {
        let Self { high, scales, query, scale, out } = self;
        if query.is_empty() {
            return;
        }
        out.extend(high.chunks_exact(query.len()).zip(scales).map(|(row, row_scale)| {
            let dot: i32 = row.iter().zip(query).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum();
            #[expect(clippy::cast_precision_loss, reason = "ranks only; one part in 2²⁴")]
            let dot = dot as f32;
            dot * row_scale * scale
        }));
    }
}

/// The dot product of a row's codes, in units of its scale, with an embedding.
struct Dot<'a> {
    high: &'a [i8],
    low: &'a [i8],
    values: &'a [f32],
}

impl SimdOp for Dot<'_> {
    type Output = f32;

    #[inline(always)]
    fn eval<I: Isa>(self, _isa: I) -> f32 {
        // Sixteen sums side by side, since the compiler may not reorder one sum of floats.
        const LANES: usize = 16;
        let mut sums = [0.0_f32; LANES];
        let rows = self.high.chunks(LANES).zip(self.low.chunks(LANES)).zip(self.values.chunks(LANES));
        for ((high, low), values) in rows {
            for (((sum, &high), &low), value) in sums.iter_mut().zip(high).zip(low).zip(values) {
                *sum += (f32::from(high) * 256.0 + f32::from(low)) * value;
            }
        }
        sums.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::embed::Embedding;

    fn embedding(dimension: usize) -> impl Strategy<Value = Embedding> {
        prop::collection::vec(-1.0_f32..1.0, dimension).prop_filter_map("has a direction", Embedding::new)
    }

    proptest! {
        #[test]
        fn similarity_is_exact_within_a_thousandth(
            (a, b) in (1_usize..500).prop_flat_map(|dimension| (embedding(dimension), embedding(dimension)))
        ) {
            let codes = Codes::of(b.values()).unwrap();
            let query = Query::of(a.values()).unwrap();
            let exact = a.similarity(&b).unwrap().0;
            let reported = query.similarity(&codes.high, &codes.low, codes.scale).0;
            prop_assert!((exact - reported).abs() < 1e-3, "{exact} {reported}");
            let mut ranks = Vec::new();
            query.rank(&codes.high, &[codes.scale], &mut ranks);
            prop_assert!((exact - ranks[0]).abs() < 0.01, "{exact} {}", ranks[0]);
        }
    }

    #[test]
    fn a_vector_is_wholly_similar_to_itself_and_to_nothing_else() {
        let embedding = Embedding::new((0..384_u16).map(|i| f32::from(i).sin()).collect()).unwrap();
        let codes = Codes::of(embedding.values()).unwrap();
        let query = Query::of(embedding.values()).unwrap();
        let similarity = query.similarity(&codes.high, &codes.low, codes.scale).0;
        assert!((similarity - 1.0).abs() < 1e-5, "{similarity}");
    }

    #[test]
    fn extremes_are_coded_and_nonsense_is_refused() {
        let codes = Codes::of(&[1.0, -1.0, 0.0]).unwrap();
        assert_eq!((&*codes.high, &*codes.low), (&[127, -127, 0][..], &[0, 0, 0][..]));
        assert!(Codes::of(&[]).is_none());
        assert!(Codes::of(&[0.0]).is_none());
        assert!(Codes::of(&[f32::INFINITY]).is_none());
        assert!(Codes::of(&vec![1.0; MAX_DIMENSION + 1]).is_none());
    }
}
