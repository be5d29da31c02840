//! Files of models: 8-bit weights in groups that share a scale and a minimum, and the vectors beside them.
//!
//! Read once at start by the embedder's and the verifier's models. `scripts/make-model` and `scripts/train-verifier`
//! write the files and are the description of their order: magic and version, seven little-endian `u32` of the
//! architecture, then tensors without gaps. A matrix is its rows' bytes, then one bfloat16 scale per group, then one
//! bfloat16 minimum per group; `weight = minimum + scale * byte`. Vectors are little-endian `f32`.

/// The architecture the program is built for; the file repeats it.
pub const LAYERS: usize = 6;
/// Width of a word piece's vector, and of an embedding.
pub const HIDDEN: usize = 384;
/// Attention heads of a layer.
pub const HEADS: usize = 12;
/// Width between the two halves of a layer's feed-forward part.
pub const INTERMEDIATE: usize = 1536;
/// Word pieces known.
pub const VOCABULARY: usize = 30522;
const GROUP: usize = 64;

/// A model's file is not what this program was built for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a built-in model's file is damaged: {0}")]
pub struct DamagedModel(pub &'static str);

/// Reads the file front to back.
#[derive(Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Checks magic, which names a model and the version of its content, and architecture.
    pub fn new(file: &'a [u8], magic: &[u8]) -> Result<Self, DamagedModel> {
        let mut reader = Self(file);
        if reader.take(magic.len())? != magic {
            return Err(DamagedModel("it does not begin with the name and version of the format"));
        }
        for expected in [LAYERS, HIDDEN, HEADS, INTERMEDIATE, VOCABULARY, super::wordpiece::WINDOW, GROUP] {
            let number = reader.take(4)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
            if number.and_then(|number| usize::try_from(number).ok()) != Some(expected) {
                return Err(DamagedModel("its architecture is another"));
            }
        }
        Ok(reader)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DamagedModel> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(DamagedModel("it is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    /// The next `length` numbers.
    pub fn vector(&mut self, length: usize) -> Result<Vec<f32>, DamagedModel> {
        let (numbers, _) = self.take(length * 4)?.as_chunks();
        Ok(numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    /// The next matrix; `columns` is a multiple of the group's size.
    pub fn matrix(&mut self, rows: usize, columns: usize) -> Result<Quantised<'a>, DamagedModel> {
        let groups = rows * columns / GROUP;
        Ok(Quantised {
            levels: self.take(rows * columns)?,
            scales: self.take(groups * 2)?.as_chunks().0,
            minima: self.take(groups * 2)?.as_chunks().0,
            columns,
        })
    }

    /// Nothing may follow the last tensor.
    pub fn finish(self) -> Result<(), DamagedModel> {
        if self.0.is_empty() { Ok(()) } else { Err(DamagedModel("it is too long")) }
    }
}

/// A matrix that stays as it is in the file.
#[derive(Debug, Clone, Copy)]
pub struct Quantised<'a> {
    levels: &'a [u8],
    scales: &'a [[u8; 2]],
    minima: &'a [[u8; 2]],
    columns: usize,
}

impl Quantised<'_> {
    /// All rows as float32.
    pub fn widen(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.levels.len()];
        self.widen_groups(0, &mut values);
        values
    }

    /// One row as float32; `None` where there is no such row, or `out` is not as long as a row.
    pub fn widen_row(&self, row: usize, out: &mut [f32]) -> Option<()> {
        let start = row.checked_mul(self.columns)?;
        if out.len() != self.columns || start.checked_add(self.columns)? > self.levels.len() {
            return None;
        }
        self.widen_groups(start / GROUP, out);
        Some(())
    }

    fn widen_groups(&self, first: usize, out: &mut [f32]) {
        let levels = self.levels.chunks(GROUP).skip(first);
        let scales = self.scales.iter().skip(first);
        let minima = self.minima.iter().skip(first);
        for (((levels, scale), minimum), out) in levels.zip(scales).zip(minima).zip(out.chunks_mut(GROUP)) {
            let (scale, minimum) = (bfloat(*scale), bfloat(*minimum));
            for (level, out) in levels.iter().zip(out) {
                *out = minimum + scale * f32::from(*level);
            }
        }
    }
}

/// bfloat16 is the upper half of a float32.
fn bfloat(bytes: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_are_refused() {
        let magic = b"RJTEST01";
        let numbers =
            [LAYERS, HIDDEN, HEADS, INTERMEDIATE, VOCABULARY, super::super::wordpiece::WINDOW, GROUP];
        let numbers = numbers.map(|number| u32::try_from(number).unwrap().to_le_bytes());
        let mut file = [magic.as_slice(), numbers.as_flattened()].concat();
        assert!(Reader::new(&file, magic).is_ok());
        assert_eq!(Reader::new(&[], magic).unwrap_err(), DamagedModel("it is cut short"));
        assert!(Reader::new(&file, b"RJTEST02").is_err());
        file[8] = 12;
        assert_eq!(Reader::new(&file, magic).unwrap_err(), DamagedModel("its architecture is another"));
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "sums and products of small powers of two are exact")]
    fn groups_are_widened_by_their_own_scale_and_minimum() {
        let levels: Vec<u8> = (0..=255).collect();
        // 1.0, 2.0, 0.5, 0.25 and 0.0, -1.0, 4.0, -2.0 as bfloat16.
        let scales = [0x3f80_u16, 0x4000, 0x3f00, 0x3e80].map(u16::to_le_bytes);
        let minima = [0x0000_u16, 0xbf80, 0x4080, 0xc000].map(u16::to_le_bytes);
        let matrix = Quantised { levels: &levels, scales: &scales, minima: &minima, columns: 128 };
        let all = matrix.widen();
        assert_eq!([all[0], all[63], all[64], all[128], all[255]], [0.0, 63.0, 127.0, 68.0, 61.75]);
        let mut row = [0.0; 128];
        matrix.widen_row(1, &mut row).unwrap();
        assert_eq!(row, all[128..]);
        assert!(matrix.widen_row(2, &mut row).is_none());
        assert!(matrix.widen_row(0, &mut row[..64]).is_none());
    }
}
