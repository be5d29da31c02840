//! The decision of verified mode: whether a candidate found by meaning is served, or explored: sent upstream like
//! a miss, its stored reply compared with the one that comes. What comes of that is evidence, from which it is
//! learned online how far candidates may be trusted. After vCache (Schroeder et al., arXiv 2502.03771), with a
//! pool where that has none.
//!
//! **Trust.** Each entry has a logistic model of its own, `P(right) = sigmoid(logit(score) + offset)`: the score is
//! the calibrated probability that the reuse decision gives, the offset is the entry's, by evidence of its own, and
//! shrunk towards 0 where there is little ([`trust`]). So an entry without evidence is trusted as its score says,
//! and one whose replies differed far less.
//!
//! **The ladder.** What such trust is worth is not believed but tested ([`Ladder`]). Levels of trust are rungs;
//! candidates on rungs not yet trusted are all explored, so their trials are a fair sample. A range of rungs is
//! trusted when a bet against "a share of more than `max_error` of these is wrong" has paid enough: an e-process,
//! which may be looked at after every trial (Ville's inequality), in which all ranges ever tested share the
//! `1 - confidence` that may go wrong. Of what is trusted a share of [`AUDITED`] stays explored; where these audits
//! speak against it, all trust is taken back and earned anew.
//!
//! **What is guaranteed.** For each process, which begins with what the store remembers: with a probability of at least `confidence` no range of rungs is ever trusted whose
//! candidates are wrong at a higher rate than `max_error`, so that the expected share of wrong replies among those
//! served by meaning stays within it; the share among a finite number of them varies around that by chance. This
//! holds for whatever score, since scores only order candidates, provided that candidates of a range go on being
//! as often wrong as they were when tested (an exchangeable stream; audits find changes, with delay), and that
//! the comparison errs as [`Limits::comparison_error`] says and is not more often unclear for replies that differ.
//!
//! Called by [`super`] and by `eval`'s simulation. Pure but for the lock in [`Verified`].

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::Serialize;

use super::comparison::Agreement;
use crate::store::evidence::{Evidence, Observation};

/// The share of trusted candidates that is explored all the same.
pub const AUDITED: f32 = 0.05;

/// The variance of entries' offsets, in squared log odds: how much one entry may differ from what scores say.
const OFFSET_VARIANCE: f64 = 4.0;

/// Scores are taken for no surer than this, so that evidence can speak against any.
const SUREST: f64 = 0.999;

/// The most steps towards the offset of the highest posterior density; five do as a rule.
const STEPS: usize = 40;

/// The step below which it is near enough.
const NEAR: f64 = 1e-9;

/// The trust, in log odds, from which a candidate is on each rung: 0.62 to 0.997. Below the first one is never
/// served.
const RUNGS: [f64; 9] = [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.5, 6.0];

/// The error rates that bets are placed on, as shares of the limit. A mixture: what is lost by not knowing the
/// rate is the logarithm of their number.
const BELOW: [f64; 3] = [0.125, 0.25, 0.5];

/// The same for the alarm, as multiples.
const ABOVE: [f64; 3] = [2.0, 4.0, 10.0];

/// The audits after which, on the average, trust is taken back for no reason where the error is just the limit.
const ALARM: f64 = 1000.0;

/// Observations remembered as counted, so that those which the store gives back are not counted again. Once there are as
/// many only a process's own trials count: none is forgotten, so none can count twice.
const REMEMBERED: usize = 1 << 18;

/// What is to be kept to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Limits {
    /// The share of served semantic answers that may be wrong, 0 to 0.5.
    pub max_error: f64,
    /// The probability that it is kept to, 0 to 1.
    pub confidence: f64,
    /// Of replies that say the same, a share that comparisons find to differ, 0 to 0.5: one that they reach at least,
    /// since as many differences are allowed for, and what they err less may be wrong beyond `max_error`. Of replies
    /// that differ they must miss no more than this. 0 counts each difference found as one.
    pub comparison_error: f64,
}

/// What becomes of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Its reply is served.
    Serve,
    /// The request goes upstream, and the replies are compared.
    Explore,
    /// The request goes upstream; so little speaks for the reply that to compare it is not worth the while.
    Decline,
}

/// A choice and what it rests on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judgement {
    /// The choice.
    pub choice: Choice,
    /// The score it was asked for.
    pub score: f32,
    /// The probability that the reply is right, by the score and the entry's own evidence.
    pub trust: f32,
}

/// The probability that an entry's reply is right for a prompt of this score, by its own evidence too.
pub fn trust(evidence: &[Observation], score: f32) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "a probability")]
    let trust = sigmoid(log_odds(score) + offset(evidence)) as f32;
    trust
}

/// The entry's offset of highest posterior density, under a normal prior around 0. Each agreement raises it, each
/// difference lowers it, the more the less it was to be expected at its score.
fn offset(evidence: &[Observation]) -> f64 {
    if evidence.is_empty() {
        return 0.0;
    }
    // The posterior's slope falls strictly in the offset: its zero is enclosed, and Newton's steps that would leave
    // the enclosure are halved.
    let most = f64::from(u32::try_from(evidence.len()).unwrap_or(u32::MAX)) * OFFSET_VARIANCE;
    let (mut low, mut high, mut offset) = (-most, most, 0.0);
    for _ in 0..STEPS {
        let (mut slope, mut curve) = (-offset / OFFSET_VARIANCE, 1.0 / OFFSET_VARIANCE);
        for observation in evidence {
            let expected = sigmoid(log_odds(observation.score) + offset);
            slope += f64::from(u8::from(observation.same)) - expected;
            curve += expected * (1.0 - expected);
        }
        if slope > 0.0 {
            low = offset;
        } else {
            high = offset;
        }
        let next = offset + slope / curve;
        let next = if next > low && next < high { next } else { f64::midpoint(low, high) };
        let step = (next - offset).abs();
        offset = next;
        if step < NEAR {
            break;
        }
    }
    offset
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The log odds of a score. What is no number is as good as 0.
fn log_odds(score: f32) -> f64 {
    let score = if score.is_nan() { 0.0 } else { f64::from(score) }.clamp(1.0 - SUREST, SUREST);
    (score / (1.0 - score)).ln()
}

/// Trials of a kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Trials {
    same: u32,
    different: u32,
}

impl Trials {
    fn note(&mut self, same: bool) {
        let count = if same { &mut self.same } else { &mut self.different };
        *count = count.saturating_add(1);
    }

    /// The logarithm of what a unit has become that was bet, in equal parts, on the rates `limit * multiples` and
    /// against `limit`. Where all rates lie below the limit it is expected to fall if the true one is not.
    fn log_wealth(self, limit: f64, multiples: [f64; 3]) -> f64 {
        let part = |multiple: f64| {
            let rate = (limit * multiple).min(0.999);
            f64::from(self.different) * (rate / limit).ln()
                + f64::from(self.same) * ((1.0 - rate) / (1.0 - limit)).ln()
        };
        let parts = multiples.map(part);
        let largest = parts.into_iter().fold(f64::NEG_INFINITY, f64::max);
        largest + (parts.into_iter().map(|part| (part - largest).exp()).sum::<f64>() / 3.0).ln()
    }
}

/// What is trusted so far, by the trials of all entries.
#[derive(Debug, Clone)]
pub struct Ladder {
    /// The share of trials that may find a difference.
    limit: f64,
    /// The probability with which it may be exceeded.
    risk: f64,
    /// The lowest rung that is trusted; one more than there are where none is.
    trusted: usize,
    /// For each rung below `trusted`, the trials since the ladder last moved of the candidates from it to there.
    ranges: [Trials; RUNGS.len()],
    /// The logarithms of what the bets for the alarm have become since each last was 0.
    alarm: [f64; 3],
    /// How often trust was taken back.
    setbacks: u32,
}

impl Ladder {
    /// A ladder on which nothing is trusted yet.
    pub fn new(limits: Limits) -> Self {
        let error = limits.comparison_error.clamp(0.0, 0.5);
        Self {
            // Of the right ones, too, a comparison finds some to differ: at least so many, else this is too much.
            limit: (limits.max_error * (1.0 - 2.0 * error) + error).clamp(0.0, 0.9),
            risk: (1.0 - limits.confidence).clamp(0.0, 1.0),
            trusted: RUNGS.len(),
            ranges: [Trials::default(); RUNGS.len()],
            alarm: [0.0; 3],
            setbacks: 0,
        }
    }

    /// How many rungs a trust has climbed; 0 for one below the first.
    fn climbed(trust: f32) -> usize {
        let log_odds = log_odds(trust);
        RUNGS.iter().filter(|rung| log_odds >= **rung).count()
    }

    fn is_trusted(&self, trust: f32) -> bool {
        Self::climbed(trust) > self.trusted
    }

    /// What becomes of a candidate of this trust. `draw` is a random number from 0 to 1, of its own.
    pub fn choose(&self, trust: f32, draw: f32) -> Choice {
        match Self::climbed(trust) {
            0 => Choice::Decline,
            climbed if climbed > self.trusted && draw >= AUDITED => Choice::Serve,
            _ => Choice::Explore,
        }
    }

    /// A candidate of this trust was explored.
    pub fn note(&mut self, trust: f32, same: bool) {
        // An error rate of nothing cannot be shown, and nothing is served.
        if self.limit <= 0.0 {
            return;
        }
        if self.is_trusted(trust) {
            return self.audit(same);
        }
        for range in self.ranges.iter_mut().take(Self::climbed(trust)) {
            range.note(same);
        }
        let needed = self.needed();
        let above = self.ranges.iter().skip(1).copied().chain([Trials::default()]);
        // A range whose lowest rung was not tried itself says nothing of it.
        let shown = |(range, above): (&Trials, Trials)| {
            *range != above && range.log_wealth(self.limit, BELOW) >= needed
        };
        let lowest = self.ranges.iter().zip(above).take(self.trusted).position(shown);
        if let Some(lowest) = lowest {
            self.trusted = lowest;
            self.ranges = Default::default();
        }
    }

    /// The logarithm of what a bet must come to. The risk is shared: half of it by the ranges up to the top, half
    /// by those below what is trusted already; and each time that trust was taken back there is less of it left.
    fn needed(&self) -> f64 {
        let count = f64::from(u8::try_from(RUNGS.len()).unwrap_or(u8::MAX));
        let ranges = if self.trusted == RUNGS.len() { count } else { count * (count - 1.0) / 2.0 };
        let round = f64::from(self.setbacks) + 1.0;
        // The inverse squares sum up to π²/6.
        let share = 6.0 / (std::f64::consts::PI * round).powi(2);
        -(self.risk * share / (2.0 * ranges)).ln()
    }

    /// A trusted candidate was explored.
    fn audit(&mut self, same: bool) {
        for (wealth, multiple) in self.alarm.iter_mut().zip(ABOVE) {
            let rate = (self.limit * multiple).min(0.999);
            let factor = if same { (1.0 - rate) / (1.0 - self.limit) } else { rate / self.limit };
            *wealth = wealth.max(0.0) + factor.ln();
        }
        let wealth = self.alarm.iter().map(|wealth| wealth.exp()).sum::<f64>() / 3.0;
        if wealth >= ALARM {
            self.trusted = RUNGS.len();
            self.ranges = Default::default();
            self.alarm = [0.0; 3];
            self.setbacks = self.setbacks.saturating_add(1);
        }
    }

    /// The least trust that is served, a probability; `None` while nothing is.
    pub fn least(&self) -> Option<f32> {
        #[expect(clippy::cast_possible_truncation, reason = "a probability")]
        RUNGS.get(self.trusted).map(|rung| sigmoid(*rung) as f32)
    }

    /// How often trust was taken back.
    pub fn setbacks(&self) -> u32 {
        self.setbacks
    }
}

/// The decision of a process: its ladder, and which observations it has counted.
#[derive(Debug)]
pub struct Verified {
    limits: Limits,
    state: Mutex<State>,
    served: AtomicU64,
    explored: AtomicU64,
    compared: [AtomicU64; Agreement::ALL.len()],
    dropped: AtomicU64,
}

/// What mode verified has done in this process, and what it has learned, for people.
#[derive(Debug, Clone, PartialEq)]
pub struct Learned {
    /// What is to be kept to.
    pub limits: Limits,
    /// Candidates that were served.
    pub served: u64,
    /// Candidates that were explored.
    pub explored: u64,
    /// The least trust that is served, a probability; `None` while nothing is.
    pub least_trust: Option<f32>,
    /// How often trust was taken back.
    pub setbacks: u32,
    /// Explored candidates that were compared, by what was found.
    pub compared: [(Agreement, u64); Agreement::ALL.len()],
    /// Those that were not, since too many comparisons waited.
    pub dropped: u64,
}

#[derive(Debug)]
struct State {
    ladder: Ladder,
    counted: HashSet<u32>,
}

impl State {
    /// Counts what of an entry's observations is not counted yet.
    fn count(&mut self, observations: &[Observation]) {
        for (index, observation) in observations.iter().enumerate() {
            if self.counted.len() < REMEMBERED && self.counted.insert(observation.id) {
                let before = observations.get(..index).unwrap_or_default();
                self.ladder.note(trust(before, observation.score), observation.same);
            }
        }
    }

    /// Notes that an own observation is counted; `false` where it was before.
    fn is_new(&mut self, id: u32) -> bool {
        // Where there is no room it is not met again either: the store's are no longer counted.
        self.counted.len() >= REMEMBERED || self.counted.insert(id)
    }
}

impl Verified {
    /// One that trusts nothing yet.
    pub fn new(limits: Limits) -> Self {
        let ladder = Ladder::new(limits);
        let state = State { ladder, counted: HashSet::new() };
        let (served, explored) = Default::default();
        Self {
            limits,
            state: Mutex::new(state),
            served,
            explored,
            compared: Default::default(),
            dropped: AtomicU64::new(0),
        }
    }

    /// What becomes of a candidate whose entry has this evidence. What others observed of the entry (another
    /// replica, or this one before it was started anew) counts for the ladder from now on. `draw` is a random
    /// number from 0 to 1, of its own.
    pub fn decide(&self, evidence: &Evidence, score: f32, draw: f32) -> Judgement {
        let observations = evidence.observations();
        let trust = trust(observations, score);
        let choice = {
            let mut state = self.state.lock();
            state.count(observations);
            state.ladder.choose(trust, draw)
        };
        if choice == Choice::Serve {
            self.served.fetch_add(1, Ordering::Relaxed);
        }
        Judgement { choice, score, trust }
    }

    /// What would become of a candidate whose entry has this evidence, if no lot fell on it. Nothing is counted.
    pub fn judge(&self, evidence: &Evidence, score: f32) -> Judgement {
        let trust = trust(evidence.observations(), score);
        Judgement { choice: self.state.lock().ladder.choose(trust, 1.0), score, trust }
    }

    /// A candidate is explored: its reply goes on trial.
    pub fn explored(&self) {
        self.explored.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts what was observed of an entry before this process was started.
    pub fn recall(&self, evidence: &Evidence) {
        self.state.lock().count(evidence.observations());
    }

    /// A candidate that was judged so was explored, and the replies compared: counts it, and gives the observation
    /// for the entry. `id` is a random number.
    pub fn note(&self, judgement: &Judgement, same: bool, id: u32) -> Observation {
        let mut state = self.state.lock();
        if state.is_new(id) {
            state.ladder.note(judgement.trust, same);
        }
        Observation { id, score: judgement.score.clamp(0.0, 1.0), same }
    }

    /// A comparison found this.
    pub fn compared(&self, agreement: Agreement) {
        for (count, other) in self.compared.iter().zip(Agreement::ALL) {
            if other == agreement {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// A comparison was given up, since too many waited.
    pub fn dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// What was learned.
    pub fn learned(&self) -> Learned {
        let state = self.state.lock();
        let mut compared = Agreement::ALL.map(|agreement| (agreement, 0));
        for ((_, count), counted) in compared.iter_mut().zip(&self.compared) {
            *count = counted.load(Ordering::Relaxed);
        }
        Learned {
            limits: self.limits,
            served: self.served.load(Ordering::Relaxed),
            explored: self.explored.load(Ordering::Relaxed),
            least_trust: state.ladder.least(),
            setbacks: state.ladder.setbacks(),
            compared,
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests;
