//! Calibration files: how sure one may be of a similarity of one embedder, as `rejoinder eval --calibrate` finds it
//! on a user's own pairs and `cache.calibration` names it.
//!
//! Written by `cli`, read by `server` at the start.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::decision::Calibration;

/// The version of the file's keys; another one is refused.
const VERSION: u32 = 1;

/// The longest file that is read, in bytes; those that are written have a few hundred.
const LONGEST: u64 = 64 << 10;

/// What a calibration file says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CalibrationFile {
    version: u32,
    /// The embedder's name; the similarities of others mean something else.
    pub embedder: String,
    /// The curve's intercept.
    pub intercept: f32,
    /// The curve's slope; positive.
    pub slope: f32,
    /// The pairs it was fitted to, those that no rule stopped.
    pub pairs: u32,
    /// How many of them have one answer.
    pub positive: u32,
    /// The expected calibration error, cross-validated.
    pub expected_calibration_error: f64,
}

/// Why a calibration file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum CalibrationError {
    /// It cannot be read.
    #[error("cannot read the calibration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no calibration.
    #[error("{} is no calibration: {reason}; write one by `rejoinder eval PAIRS --calibrate FILE`", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It is one of another embedder.
    #[error(
        "{} is of the embedder {found}, and {wanted} is in use; write one for it by `rejoinder eval PAIRS --calibrate FILE`",
        path.display()
    )]
    Embedder {
        /// The file.
        path: PathBuf,
        /// The embedder it is of.
        found: String,
        /// The embedder in use.
        wanted: String,
    },
}

impl CalibrationFile {
    /// A file for a curve.
    pub fn new(embedder: String, curve: Calibration, pairs: u32, positive: u32, error: f64) -> Self {
        let Calibration { intercept, slope } = curve;
        Self {
            version: VERSION,
            embedder,
            intercept,
            slope,
            pairs,
            positive,
            expected_calibration_error: error,
        }
    }

    /// The file's text.
    pub fn to_text(&self) -> Result<String, toml::ser::Error> {
        let head = "# Written by `rejoinder eval --calibrate`; name it as cache.calibration. Of similarity s:\n\
                    # P(one answer) = 1 / (1 + exp(-(intercept + slope * s)))\n";
        Ok(format!("{head}{}", toml::to_string(self)?))
    }

    /// The curve.
    pub fn curve(&self) -> Calibration {
        Calibration { intercept: self.intercept, slope: self.slope }
    }

    /// Reads the curve of an embedder.
    pub fn read(path: &Path, embedder: &str) -> Result<Calibration, CalibrationError> {
        let failed = |source| CalibrationError::Read { path: path.to_owned(), source };
        let content = |reason: String| CalibrationError::Content { path: path.to_owned(), reason };
        if std::fs::metadata(path).map_err(failed)?.len() > LONGEST {
            return Err(content("it is too long".to_owned()));
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let file: Self = toml::from_str(&text).map_err(|error| content(error.message().to_owned()))?;
        if file.version != VERSION {
            return Err(content(format!("its version is {}, and {VERSION} is known", file.version)));
        }
        if !file.intercept.is_finite() || !file.slope.is_finite() || file.slope <= 0.0 {
            return Err(content("its slope must be positive and both numbers finite".to_owned()));
        }
        if file.embedder != embedder {
            let (path, wanted) = (path.to_owned(), embedder.to_owned());
            return Err(CalibrationError::Embedder { path, found: file.embedder, wanted });
        }
        Ok(file.curve())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn what_is_written_is_read() {
        let curve = Calibration { intercept: -7.25, slope: 11.125 };
        let file = CalibrationFile::new("ollama/x".to_owned(), curve, 40, 30, 0.0125);
        let file = written(&file.to_text().unwrap());
        assert_eq!(CalibrationFile::read(file.path(), "ollama/x").unwrap(), curve);
        let error = CalibrationFile::read(file.path(), "openai/y").unwrap_err().to_string();
        assert!(error.contains("ollama/x") && error.contains("openai/y"), "{error}");
    }

    #[test]
    fn what_is_no_calibration_says_why() {
        let good =
            CalibrationFile::new("e".to_owned(), Calibration::BUILTIN, 40, 30, 0.01).to_text().unwrap();
        for (text, reason) in [
            ("a = 1".to_owned(), "missing field"),
            (good.replace("version = 1", "version = 2"), "its version is 2"),
            (good.replace("slope = 12", "slope = -12"), "slope must be positive"),
            (good.replace("slope = 12.557", "slope = nan"), "slope must be positive"),
            ("#".repeat(70_000), "too long"),
        ] {
            let error = CalibrationFile::read(written(&text).path(), "e").unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains("--calibrate"), "{error}");
        }
        assert!(matches!(
            CalibrationFile::read(Path::new("/nowhere"), "e"),
            Err(CalibrationError::Read { .. })
        ));
    }
}
