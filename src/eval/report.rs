//! What an evaluation found: the one value that `--json` prints, and that the text and the plot are drawn from.
//!
//! Fields are added, never renamed. Called by `cli::eval`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::judge::{Judged, Judgement};
use super::measure::{
    Area, Axis, Case, Point, Rate, Reliability, area, best, needed, reliability, rounded, widened,
};
use super::pairs::{BadLine, Pair};
use crate::cache::calibration::CalibrationFile;
use crate::cache::decision::{Floors, MissReason};
use crate::cache::outcome::Layer;

/// The similarity thresholds shown, besides the configured one.
const THRESHOLDS: [f32; 13] = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.99];

/// The least confidences shown, besides the configured one.
const CONFIDENCES: [f32; 12] = [0.0, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.99];

/// What an evaluation found. All rates and intervals are of 95 % confidence, between 0 and 1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The program's version.
    pub version: &'static str,
    /// The file, `-` for standard input.
    pub file: String,
    /// The embedder's name.
    pub embedder: String,
    /// Whether each pair was asked both ways round. Counts then are of cases, two for each pair, and intervals
    /// still count each pair once.
    pub both_ways: bool,
    /// The pairs.
    pub pairs: Pairs,
    /// How well scores tell pairs with one answer from those without.
    pub area_under_curve: Areas,
    /// What is reused at the configured operating point.
    pub configured: Point,
    /// What is reused at other similarity thresholds, all else as configured.
    pub by_similarity: Vec<Point>,
    /// What is reused at other least confidences, all else as configured.
    pub by_confidence: Vec<Point>,
    /// What keeps the false-hit rate under `--max-error`.
    pub recommended: Recommended,
    /// Each kind's share reused at the configured operating point.
    pub kinds: Vec<Group>,
    /// Each source's.
    pub sources: Vec<Group>,
    /// What became of the cases at the configured operating point, by the layer or the reason of the miss.
    pub outcomes: BTreeMap<&'static str, Count>,
    /// The rules that spoke: the guard's of the cases as similar as configured, and those of prompts never
    /// matched by meaning.
    pub rules: BTreeMap<&'static str, Count>,
    /// How often confidence comes true, over the cases that nothing but a floor could stop. It depends on the
    /// share of pairs with one answer among these pairs.
    pub reliability: Option<Reliability>,
    /// The calibration that `--calibrate` wrote; absent without it. The figures above are without it.
    pub calibration: Option<CalibrationFile>,
    /// The curves of the plot: false-hit rate and recall from the strictest operating point on.
    #[serde(skip)]
    pub curves: Vec<Curve>,
}

/// How many pairs there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pairs {
    /// All that were judged.
    pub total: u32,
    /// Those with one answer (label 1).
    pub positive: u32,
    /// Those without (label 0).
    pub negative: u32,
    /// Those without whose prompts are one prompt: the exact layer reuses them whatever is configured.
    pub negative_but_equal: u32,
    /// The lines left out by `--skip-bad`.
    pub skipped: Vec<BadLine>,
}

/// Areas under the ROC curve; absent where all pairs have one label.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Areas {
    /// Of the bare similarity.
    pub similarity: Option<Area>,
    /// Of the decision: what a rule stopped scores lowest, what the exact layer reuses highest, the rest by
    /// confidence.
    pub decision: Option<Area>,
}

/// What keeps the false-hit rate under the error accepted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recommended {
    /// The error accepted: false hits of all pairs with different answers.
    pub max_error: f64,
    /// How many such pairs it takes to show it without a single false hit.
    pub negatives_needed: Option<u32>,
    /// Whether there are as many.
    pub can_be_shown: bool,
    /// By `similarity_threshold`, all else as configured.
    pub similarity_threshold: Advice,
    /// By `cache.min_confidence`, all else as configured.
    pub min_confidence: Advice,
}

/// The operating points along one setting that keep to the error accepted; absent where none does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Advice {
    /// The one of the most recall whose false-hit rate on these pairs is not above it.
    pub observed: Option<Point>,
    /// The one of the most recall where even the upper end of the interval is not.
    pub shown: Option<Point>,
}

/// What is reused of a kind or a source.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Of its pairs with one answer; absent without such.
    pub recall: Option<Rate>,
    /// Of its pairs without; absent without such.
    pub false_hit_rate: Option<Rate>,
}

/// Cases by label.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// With one answer.
    pub positive: u32,
    /// Without.
    pub negative: u32,
}

impl Count {
    fn add(&mut self, same: bool) {
        if same {
            self.positive += 1;
        } else {
            self.negative += 1;
        }
    }
}

/// A curve of the plot.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// What it shows.
    pub name: &'static str,
    /// False-hit rate and recall, from the origin on.
    pub points: Vec<(f64, f64)>,
}

/// What a report is made of.
pub struct Material<'a> {
    /// The file's name.
    pub file: String,
    /// The embedder's name.
    pub embedder: String,
    /// The pairs.
    pub pairs: &'a [Pair],
    /// What the cache says of each.
    pub judged: &'a [Judged],
    /// The lines left out.
    pub skipped: Vec<BadLine>,
    /// The configured operating point.
    pub floors: Floors,
    /// The error accepted.
    pub max_error: f64,
    /// The calibration fitted to the pairs, where one was.
    pub calibration: Option<CalibrationFile>,
}

impl Material<'_> {
    fn cases(&self) -> Vec<Case<'_>> {
        let pairs = self.pairs.iter().zip(self.judged);
        pairs
            .flat_map(|(pair, judged)| judged.ways().map(|judgement| Case { same: pair.same, judgement }))
            .collect()
    }

    /// The report.
    pub fn report(self) -> Report {
        let both_ways = self.judged.iter().any(|judged| judged.back.is_some());
        let ways = if both_ways { 2 } else { 1 };
        let cases = self.cases();
        let point = |floors| Point::at(floors, &cases, ways);
        let along = |axis: Axis, values: &[f32], configured: f32| {
            let mut values = values.to_vec();
            if !values.contains(&configured) {
                values.push(configured);
                values.sort_by(f32::total_cmp);
            }
            values.into_iter().map(|value| point(axis.with(self.floors, value))).collect()
        };
        Report {
            version: env!("CARGO_PKG_VERSION"),
            both_ways,
            pairs: self.counts(),
            area_under_curve: areas(&cases, ways),
            configured: point(self.floors),
            by_similarity: along(Axis::Similarity, &THRESHOLDS, self.floors.similarity),
            by_confidence: along(Axis::Confidence, &CONFIDENCES, self.floors.confidence),
            recommended: recommended(self.max_error, self.floors, &cases, ways),
            kinds: self.groups(ways, |pair| &pair.kind),
            sources: self.groups(ways, |pair| &pair.source),
            outcomes: outcomes(self.floors, &cases),
            rules: rules(self.floors, &cases),
            reliability: reliability(&trusted(&cases), ways),
            curves: curves(&cases),
            calibration: self.calibration,
            file: self.file,
            embedder: self.embedder,
        }
    }

    fn counts(&self) -> Pairs {
        let count = |of: &dyn Fn(&Pair, &Judged) -> bool| {
            let all = self.pairs.iter().zip(self.judged);
            u32::try_from(all.filter(|(pair, judged)| of(pair, judged)).count()).unwrap_or(u32::MAX)
        };
        Pairs {
            total: count(&|_, _| true),
            positive: count(&|pair, _| pair.same),
            negative: count(&|pair, _| !pair.same),
            negative_but_equal: count(&|pair, judged| !pair.same && judged.there.found == Ok(Layer::Exact)),
            skipped: self.skipped.clone(),
        }
    }

    fn groups(&self, ways: u32, name: impl Fn(&Pair) -> &String) -> Vec<Group> {
        let mut groups: BTreeMap<&str, Vec<Case<'_>>> = BTreeMap::new();
        for (pair, judged) in self.pairs.iter().zip(self.judged) {
            let group = groups.entry(name(pair)).or_default();
            group.extend(judged.ways().map(|judgement| Case { same: pair.same, judgement }));
        }
        let rate = |rate: Rate| (rate.of > 0).then_some(rate);
        groups
            .into_iter()
            .filter(|(name, _)| !name.is_empty())
            .map(|(name, cases)| {
                let point = Point::at(self.floors, &cases, ways);
                Group {
                    name: name.to_owned(),
                    recall: rate(point.recall),
                    false_hit_rate: rate(point.false_hit_rate),
                }
            })
            .collect()
    }
}

/// What the exact layer reuses above all, what a rule stopped below all, the rest by confidence.
fn score(judgement: &Judgement) -> f64 {
    match judgement.found {
        Ok(Layer::Exact) => f64::INFINITY,
        Ok(_) => f64::from(judgement.confidence),
        Err(_) => f64::NEG_INFINITY,
    }
}

fn bare(judgement: &Judgement) -> f64 {
    judgement.similarity.map_or(f64::NEG_INFINITY, f64::from)
}

fn of_label(cases: &[Case<'_>], same: bool, score: impl Fn(&Judgement) -> f64) -> Vec<f64> {
    cases.iter().filter(|case| case.same == same).map(|case| score(case.judgement)).collect()
}

fn areas(cases: &[Case<'_>], ways: u32) -> Areas {
    let of = |score: fn(&Judgement) -> f64| {
        area(&of_label(cases, true, score), &of_label(cases, false, score), ways)
    };
    Areas { similarity: of(bare), decision: of(score) }
}

fn recommended(max_error: f64, floors: Floors, cases: &[Case<'_>], ways: u32) -> Recommended {
    let observed = |point: &Point| point.false_hit_rate.value.is_some_and(|rate| rate <= max_error);
    let shown = |point: &Point| point.false_hit_rate.high <= max_error;
    let advice = |axis| Advice {
        observed: best(axis, floors, cases, ways, observed),
        shown: best(axis, floors, cases, ways, shown),
    };
    let negatives = u32::try_from(cases.iter().filter(|case| !case.same).count()).unwrap_or(u32::MAX) / ways;
    let needed = needed(max_error);
    Recommended {
        max_error: rounded(max_error),
        negatives_needed: needed,
        can_be_shown: needed.is_some_and(|needed| negatives >= needed),
        similarity_threshold: advice(Axis::Similarity),
        min_confidence: advice(Axis::Confidence),
    }
}

fn outcomes(floors: Floors, cases: &[Case<'_>]) -> BTreeMap<&'static str, Count> {
    let mut outcomes: BTreeMap<_, Count> = BTreeMap::new();
    for case in cases {
        let outcome = case.judgement.outcome(floors);
        outcomes.entry(outcome.map_or_else(MissReason::as_str, Layer::as_str)).or_default().add(case.same);
    }
    outcomes
}

fn rules(floors: Floors, cases: &[Case<'_>]) -> BTreeMap<&'static str, Count> {
    let mut rules: BTreeMap<_, Count> = BTreeMap::new();
    for case in cases {
        let Some(rule) = case.judgement.rule else { continue };
        let near = case.judgement.similarity.is_some_and(|similarity| similarity >= floors.similarity);
        if case.judgement.found == Err(MissReason::ExactOnly) || near {
            rules.entry(rule).or_default().add(case.same);
        }
    }
    rules
}

/// Confidence and label of the cases that nothing but a floor could stop.
fn trusted(cases: &[Case<'_>]) -> Vec<(f64, bool)> {
    cases
        .iter()
        .filter(|case| case.judgement.found == Ok(Layer::Semantic))
        .map(|case| (widened(case.judgement.confidence), case.same))
        .collect()
}

fn curves(cases: &[Case<'_>]) -> Vec<Curve> {
    vec![
        Curve { name: "similarity alone", points: curve(cases, bare) },
        Curve { name: "the decision", points: curve(cases, score) },
    ]
}

/// False-hit rate and recall at every score, from the highest on; what a rule stopped is never reused.
fn curve(cases: &[Case<'_>], score: fn(&Judgement) -> f64) -> Vec<(f64, f64)> {
    let mut scored: Vec<(f64, bool)> = cases.iter().map(|case| (score(case.judgement), case.same)).collect();
    scored.sort_by(|one, other| other.0.total_cmp(&one.0));
    let all = Count {
        positive: u32::try_from(scored.iter().filter(|(_, same)| *same).count()).unwrap_or(u32::MAX),
        negative: u32::try_from(scored.iter().filter(|(_, same)| !*same).count()).unwrap_or(u32::MAX),
    };
    let share = |count: u32, of: u32| f64::from(count) / f64::from(of.max(1));
    let mut points = vec![(0.0, 0.0)];
    let mut count = Count::default();
    for level in scored.chunk_by(|one, other| one.0.total_cmp(&other.0).is_eq()) {
        if level.iter().any(|(score, _)| *score == f64::NEG_INFINITY) {
            break;
        }
        for (_, same) in level {
            count.add(*same);
        }
        points.push((share(count.negative, all.negative), share(count.positive, all.positive)));
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(found: Result<Layer, MissReason>, similarity: f32, confidence: f32) -> Judged {
        let rule = match found {
            Err(MissReason::GuardRejected) => Some("number"),
            Err(MissReason::ExactOnly) => Some("moment"),
            _ => None,
        };
        Judged {
            there: Judgement { found, similarity: Some(similarity), confidence, likeness: None, rule },
            back: None,
        }
    }

    fn pair(same: bool, kind: &str) -> Pair {
        let text = String::new;
        Pair { a: text(), b: text(), same, kind: kind.to_owned(), source: text(), line: 1 }
    }

    #[test]
    fn a_report_counts_what_the_cache_said() {
        let pairs = [
            pair(true, "para"),
            pair(true, "para"),
            pair(true, ""),
            pair(false, "hard"),
            pair(false, "hard"),
        ];
        let judged = [
            judged(Ok(Layer::Semantic), 0.9, 0.9),
            judged(Ok(Layer::Semantic), 0.8, 0.7),
            judged(Err(MissReason::ExactOnly), 0.99, 0.0),
            judged(Err(MissReason::GuardRejected), 0.95, 0.95),
            judged(Ok(Layer::Exact), 1.0, 1.0),
        ];
        let material = Material {
            file: "pairs.csv".to_owned(),
            embedder: "none".to_owned(),
            pairs: &pairs,
            judged: &judged,
            skipped: Vec::new(),
            floors: Floors { similarity: 0.85, confidence: 0.75 },
            max_error: 0.5,
            calibration: None,
        };
        let report = material.report();
        assert_eq!((report.pairs.total, report.pairs.positive, report.pairs.negative_but_equal), (5, 3, 1));
        let configured = report.configured;
        assert_eq!((configured.recall.count, configured.recall.of), (1, 3));
        assert_eq!((configured.false_hit_rate.count, configured.false_hit_rate.of), (1, 2));
        assert_eq!(report.kinds.len(), 2, "a pair without a kind is in none");
        assert_eq!(report.kinds[1].recall.map(|rate| rate.count), Some(1));
        assert_eq!(report.outcomes["guard-rejected"], Count { positive: 0, negative: 1 });
        assert_eq!(report.outcomes["below-threshold"], Count { positive: 1, negative: 0 });
        assert_eq!(report.rules["moment"], Count { positive: 1, negative: 0 });
        assert_eq!(report.rules["number"], Count { positive: 0, negative: 1 });
        // By bare similarity: .9, .8 and .99 against .95 and 1: one of six comparisons is won.
        let area = report.area_under_curve.similarity.map(|area| area.value);
        assert_eq!(area, Some(rounded(1.0 / 6.0)));
        assert_eq!(report.reliability.map(|found| found.bins.len()), Some(2));
        let floor = report.recommended.similarity_threshold.observed;
        assert_eq!(floor.map(|point| point.recall.count), Some(1), "confidence stays as configured");
        let floor = report.recommended.min_confidence.observed;
        assert_eq!(floor.map(|point| point.min_confidence), Some(0.9));
        let last = report.curves[1].points.last().copied();
        assert_eq!(last, Some((0.5, 2.0 / 3.0)), "what a rule stopped is never reused");
    }
}
