//! How sure one may be: from what is known of two prompts to the probability that both want one answer. And the files
//! in which `rejoinder eval --calibrate` keeps what it found on a user's own pairs, and which `cache.calibration` names.
//!
//! Called by the reuse decision. The files are written by `cli` and read by `server` at the start.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::decision::Likeness;
use super::guard::{Rule, Verdict};

/// What probability is reckoned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// The similarity of the embeddings, where there is no verifier. Each rule of the guard then is a veto.
    Similarity,
    /// What the verifier says, with what the guard's soft rules and similarity add to it ([`log_odds`]).
    Verifier,
}

/// A logistic curve over its basis: `1 / (1 + exp(-(intercept + slope × basis)))` (Platt scaling).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calibration {
    /// What it is over.
    pub basis: Basis,
    /// The intercept.
    pub intercept: f32,
    /// The slope; positive.
    pub slope: f32,
}

/// What each part of the evidence adds to the log-odds, fitted by `scripts/calibrate` to pairs that the verifier has
/// not learnt from.
struct Weights {
    intercept: f32,
    /// Of the verifier's score.
    score: f32,
    /// Of the similarity.
    similarity: f32,
    /// Of each soft rule that speaks.
    soft: &'static [(Rule, f32)],
}

const WEIGHTS: Weights = Weights {
    intercept: -1.870,
    score: 0.896,
    similarity: 2.389,
    soft: &[
        (Rule::Action, -0.042),
        (Rule::Antonym, -0.942),
        (Rule::Aspect, -0.172),
        (Rule::Audience, -0.697),
        (Rule::Code, -0.369),
        (Rule::Comparative, -0.294),
        (Rule::Direction, -0.368),
        (Rule::Entity, -0.141),
        (Rule::Format, -1.275),
        (Rule::Role, -0.489),
        (Rule::Scope, -0.335),
        (Rule::Substitution, -1.434),
        (Rule::Tense, -0.380),
        (Rule::Unit, -0.114),
    ],
};

/// False-hit rates, the greatest first, and the least confidence that kept to each, by `scripts/calibrate`.
const VERIFIER_POINTS: [(f64, f32); 8] = [
    (0.15, 0.239),
    (0.1, 0.420),
    (0.05, 0.673),
    (0.03, 0.783),
    (0.02, 0.841),
    (0.01, 0.900),
    (0.005, 0.929),
    (0.003, 0.943),
];

/// Likewise without a verifier.
const SIMILARITY_POINTS: [(f64, f32); 8] = [
    (0.15, 0.174),
    (0.1, 0.388),
    (0.05, 0.614),
    (0.03, 0.712),
    (0.02, 0.758),
    (0.01, 0.819),
    (0.005, 0.855),
    (0.003, 0.880),
];

/// The log-odds that both prompts want one answer, as all of the evidence has it; `None` where the guard or the
/// verifier was not asked.
pub fn log_odds(likeness: Likeness) -> Option<f32> {
    let (score, differences) = likeness.score.zip(likeness.differences)?;
    let spoke = WEIGHTS.soft.iter().filter(|(rule, _)| differences.soft.contains(*rule));
    let soft: f32 = spoke.map(|(_, weight)| weight).sum();
    Some(WEIGHTS.intercept + WEIGHTS.score * score.0 + WEIGHTS.similarity * likeness.similarity.0 + soft)
}

impl Calibration {
    /// Of the built-in embedder behind the guard, without a verifier.
    pub const SIMILARITY: Self = Self { basis: Basis::Similarity, intercept: -7.937, slope: 10.267 };

    /// Of the verifier, by which the weights of the evidence are fitted.
    pub const VERIFIER: Self = Self { basis: Basis::Verifier, intercept: 0.0, slope: 1.0 };

    /// The least confidence that keeps the share of wrong reuse among look-alikes at `max_error`, as measured on pairs
    /// that nothing was fitted to.
    pub fn least_confidence(self, max_error: f64) -> f32 {
        let points: &[(f64, f32)] = match self.basis {
            Basis::Similarity => &SIMILARITY_POINTS,
            Basis::Verifier => &VERIFIER_POINTS,
        };
        points.iter().find(|(error, _)| *error <= max_error).map_or(1.0, |(_, least)| *least)
    }

    /// Whether it takes the verifier's score.
    pub fn needs_score(self) -> bool {
        self.basis == Basis::Verifier
    }

    /// What the curve is over, of these prompts; `None` where it is not known yet.
    pub fn basis_of(self, likeness: Likeness) -> Option<f32> {
        match self.basis {
            Basis::Similarity => Some(likeness.similarity.0),
            Basis::Verifier => log_odds(likeness),
        }
    }

    /// The curve at a point.
    pub fn at(self, basis: f32) -> f32 {
        1.0 / (1.0 + (-self.slope.mul_add(basis, self.intercept)).exp())
    }

    /// The probability that prompts of this likeness want one answer. Where what it takes is not known yet: as
    /// similarity alone has it.
    pub fn probability(self, likeness: Likeness) -> f32 {
        match self.basis_of(likeness) {
            Some(basis) => self.at(basis),
            None => Self::SIMILARITY.at(likeness.similarity.0),
        }
    }

    /// The guard's rule that alone forbids a reuse. The soft ones do where nobody else judges what they doubt.
    pub fn veto(self, differences: Verdict) -> Option<Rule> {
        match self.basis {
            Basis::Similarity => differences.first(),
            Basis::Verifier => differences.certain,
        }
    }
}

/// The version of the file's keys; another one is refused.
const VERSION: u32 = 2;

/// The longest file that is read, in bytes; those that are written have a few hundred.
const LONGEST: u64 = 64 << 10;

/// What a calibration file says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CalibrationFile {
    version: u32,
    /// What the curve is over.
    pub basis: Basis,
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
        let Calibration { basis, intercept, slope } = curve;
        Self {
            version: VERSION,
            basis,
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
        let head = "# Written by `rejoinder eval --calibrate`; name it as cache.calibration. Of the basis x, which is the\n\
                    # verifier's judgement or, without a verifier, the similarity:\n\
                    # P(one answer) = 1 / (1 + exp(-(intercept + slope * x)))\n";
        Ok(format!("{head}{}", toml::to_string(self)?))
    }

    /// The curve.
    pub fn curve(&self) -> Calibration {
        Calibration { basis: self.basis, intercept: self.intercept, slope: self.slope }
    }

    /// Reads the curve of an embedder, over the basis in use.
    pub fn read(path: &Path, embedder: &str, basis: Basis) -> Result<Calibration, CalibrationError> {
        let failed = |source| CalibrationError::Read { path: path.to_owned(), source };
        let content = |reason: String| CalibrationError::Content { path: path.to_owned(), reason };
        if std::fs::metadata(path).map_err(failed)?.len() > LONGEST {
            return Err(content("it is too long".to_owned()));
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        Self::parse(path, &text, embedder, basis)
    }

    /// Reads a file's text; `path` is named in errors.
    pub(crate) fn parse(
        path: &Path,
        text: &str,
        embedder: &str,
        basis: Basis,
    ) -> Result<Calibration, CalibrationError> {
        let content = |reason: String| CalibrationError::Content { path: path.to_owned(), reason };
        let file: Self = toml::from_str(text).map_err(|error| content(error.message().to_owned()))?;
        if file.version != VERSION {
            return Err(content(format!("its version is {}, and {VERSION} is known", file.version)));
        }
        if !file.intercept.is_finite() || !file.slope.is_finite() || file.slope <= 0.0 {
            return Err(content("its slope must be positive and both numbers finite".to_owned()));
        }
        if file.basis != basis {
            let (found, set) = match file.basis {
                Basis::Similarity => ("similarity alone", "true"),
                Basis::Verifier => ("the verifier", "false"),
            };
            return Err(content(format!("it is over {found}, and cache.verifier is {set}")));
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
        let curve = Calibration { basis: Basis::Verifier, intercept: -7.25, slope: 11.125 };
        let file = CalibrationFile::new("ollama/x".to_owned(), curve, 40, 30, 0.0125);
        let file = written(&file.to_text().unwrap());
        let read = |embedder, basis| CalibrationFile::read(file.path(), embedder, basis);
        assert_eq!(read("ollama/x", Basis::Verifier).unwrap(), curve);
        let error = read("ollama/x", Basis::Similarity).unwrap_err().to_string();
        assert!(error.contains("cache.verifier is false"), "{error}");
        let error = read("openai/y", Basis::Verifier).unwrap_err().to_string();
        assert!(error.contains("ollama/x") && error.contains("openai/y"), "{error}");
    }

    #[test]
    fn what_is_no_calibration_says_why() {
        let good =
            CalibrationFile::new("e".to_owned(), Calibration::SIMILARITY, 40, 30, 0.01).to_text().unwrap();
        for (text, reason) in [
            ("a = 1".to_owned(), "missing field"),
            (good.replace("version = 2", "version = 1"), "its version is 1"),
            (good.replace("slope = ", "slope = -"), "slope must be positive"),
            (good.replace("slope = 10", "slope = nan # "), "slope must be positive"),
            ("#".repeat(70_000), "too long"),
        ] {
            let error =
                CalibrationFile::read(written(&text).path(), "e", Basis::Similarity).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains("--calibrate"), "{error}");
        }
        assert!(matches!(
            CalibrationFile::read(Path::new("/nowhere"), "e", Basis::Similarity),
            Err(CalibrationError::Read { .. })
        ));
    }
}
