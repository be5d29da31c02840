//! Verified mode over a stream of prompts whose right answers are known: how far the error of what it serves stays
//! under the bound, and what it serves.
//!
//! Prompts are those of labelled pairs; pairs with one answer join theirs into a need, and prompts of different
//! needs want different answers. Each run draws needs by Zipf's law in an order of its own, and one wording of each
//! at random. The very cache finds the candidates and the very [`Verified`] decides on them, with the labels as the
//! judge. A wording asked again word for word is the exact layer's and counts for neither. Entries leave, and their
//! evidence with them, when as many requests have passed as an entry lives.
//!
//! Called by `cli::eval`.

pub mod plot;
pub mod text;

use std::collections::HashMap;
use std::time::SystemTime;

use fastrand::Rng;
use serde::Serialize;

use super::judge::{Judge, JudgeError};
use super::measure::{amount, rounded};
use super::pairs::Pair;
use crate::cache::decision::MissReason;
use crate::cache::normalise;
use crate::cache::verified::{Choice, Limits, Verified};

/// Points of a run's curve.
const POINTS: u32 = 100;

/// The exponent of Zipf's law: the need of rank r is asked in proportion to 1/r.
const EXPONENT: f64 = 1.0;

/// What is simulated.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Plan {
    /// Requests of each run.
    pub requests: u32,
    /// Runs, each with the seed of its number.
    pub runs: u32,
    /// Requests after which all entries have expired.
    pub lifetime: u32,
    /// The share of comparisons in which the judge errs. What the decision is told of it is in the limits.
    pub judge_error: f64,
    /// What is to be kept to.
    pub limits: Limits,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Simulation {
    /// What was simulated.
    pub plan: Plan,
    /// Different prompts.
    pub prompts: u32,
    /// Different needs.
    pub needs: u32,
    /// The runs.
    pub runs: Vec<Run>,
    /// Runs that served anything by meaning: one that served nothing cannot exceed.
    pub served: u32,
    /// The share of runs whose served semantic answers were wrong more often than `max_error`.
    pub exceeded: f64,
    /// The share of wrong ones among all served semantic answers of all runs; absent where none was served.
    pub error: Option<f64>,
    /// The share of requests, but for those of the exact layer, that were served by meaning.
    pub hit_rate: Option<f64>,
    /// The share of them that had a right candidate.
    pub right_candidates: Option<f64>,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// The seed.
    pub seed: u64,
    /// Requests that the exact layer served.
    pub exact: u32,
    /// Counts at its end.
    pub end: Counts,
    /// How often trust was taken back.
    pub setbacks: u32,
    /// The least trust that is served at its end; absent where nothing is.
    pub least_trust: Option<f32>,
    /// The counts along it.
    pub curve: Vec<Counts>,
}

/// Counts of the requests that the exact layer did not serve.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// All of them.
    pub requests: u32,
    /// Those with a candidate.
    pub candidates: u32,
    /// Those with a right one.
    pub right_candidates: u32,
    /// Those explored.
    pub explored: u32,
    /// Those served by meaning.
    pub served: u32,
    /// Those served wrongly.
    pub wrong: u32,
}

impl Counts {
    /// The share of wrong ones among those served; `None` where none was.
    pub fn error(self) -> Option<f64> {
        share(self.wrong, self.served)
    }

    /// The share that was served.
    pub fn hit_rate(self) -> Option<f64> {
        share(self.served, self.requests)
    }
}

fn share(count: u32, of: u32) -> Option<f64> {
    (of > 0).then(|| rounded(f64::from(count) / f64::from(of)))
}

/// Prompts by need.
struct Needs {
    prompts: Vec<String>,
    /// The need of each prompt.
    need: Vec<usize>,
    /// The prompts of each need.
    wordings: Vec<Vec<usize>>,
}

impl Needs {
    fn of(pairs: &[Pair]) -> Self {
        let mut numbers = HashMap::new();
        let mut prompts = Vec::new();
        let mut parent: Vec<usize> = Vec::new();
        for pair in pairs {
            let [one, other] = [&pair.a, &pair.b].map(|text| {
                let prompt = normalise::normalise(text).into_owned();
                *numbers.entry(prompt.clone()).or_insert_with(|| {
                    parent.push(prompts.len());
                    prompts.push(prompt);
                    prompts.len() - 1
                })
            });
            if pair.same {
                let (one, other) = (root(&parent, one), root(&parent, other));
                if let Some(parent) = parent.get_mut(one) {
                    *parent = other;
                }
            }
        }
        let mut wordings: Vec<Vec<usize>> = Vec::new();
        let mut of_root = HashMap::new();
        let need = (0..prompts.len()).map(|prompt| {
            let need = *of_root.entry(root(&parent, prompt)).or_insert_with(|| {
                wordings.push(Vec::new());
                wordings.len() - 1
            });
            if let Some(wordings) = wordings.get_mut(need) {
                wordings.push(prompt);
            }
            need
        });
        let need = need.collect();
        Self { prompts, need, wordings }
    }
}

fn root(parent: &[usize], mut at: usize) -> usize {
    while let Some(next) = parent.get(at).copied().filter(|next| *next != at) {
        at = next;
    }
    at
}

/// Draws needs by Zipf's law, and their wordings.
struct Stream<'a> {
    needs: &'a Needs,
    /// Needs by popularity, with the sum of the weights up to each.
    ranks: Vec<(f64, usize)>,
    random: Rng,
}

impl<'a> Stream<'a> {
    fn new(needs: &'a Needs, seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let mut order: Vec<usize> = (0..needs.wordings.len()).collect();
        random.shuffle(&mut order);
        let mut sum = 0.0;
        let weigh = |(rank, need): (usize, usize)| {
            sum += amount(rank + 1).powf(-EXPONENT);
            (sum, need)
        };
        Self { needs, ranks: order.into_iter().enumerate().map(weigh).collect(), random }
    }

    fn next(&mut self) -> Option<usize> {
        let (sum, _) = self.ranks.last()?;
        let at = self.random.f64() * sum;
        let rank = self.ranks.partition_point(|(sum, _)| *sum <= at);
        let (_, need) = self.ranks.get(rank).or(self.ranks.last())?;
        let wordings = self.needs.wordings.get(*need)?;
        self.random.choice(wordings).copied()
    }
}

/// Runs a plan over the prompts of these pairs, and says so after each.
pub async fn simulate(
    judge: &Judge,
    pairs: &[Pair],
    plan: Plan,
    mut done: impl FnMut(),
) -> Result<Simulation, JudgeError> {
    let needs = Needs::of(pairs);
    let mut runs = Vec::new();
    for seed in 0..u64::from(plan.runs) {
        runs.push(run(judge, &needs, plan, seed).await?);
        done();
    }
    let over = |run: &&Run| run.end.error().is_some_and(|error| error > plan.limits.max_error);
    let exceeded = amount(runs.iter().filter(over).count()) / amount(runs.len()).max(1.0);
    let sum = |of: fn(&Counts) -> u32| runs.iter().map(|run| of(&run.end)).fold(0, u32::saturating_add);
    let (requests, served) = (sum(|counts| counts.requests), sum(|counts| counts.served));
    Ok(Simulation {
        plan,
        prompts: u32::try_from(needs.prompts.len()).unwrap_or(u32::MAX),
        needs: u32::try_from(needs.wordings.len()).unwrap_or(u32::MAX),
        served: u32::try_from(runs.iter().filter(|run| run.end.served > 0).count()).unwrap_or(u32::MAX),
        exceeded: rounded(exceeded),
        error: share(sum(|counts| counts.wrong), served),
        hit_rate: share(served, requests),
        right_candidates: share(sum(|counts| counts.right_candidates), requests),
        runs,
    })
}

async fn run(judge: &Judge, needs: &Needs, plan: Plan, seed: u64) -> Result<Run, JudgeError> {
    let verified = Verified::new(plan.limits);
    let mut stream = Stream::new(needs, seed);
    let mut random = Rng::with_seed(seed ^ u64::MAX);
    let (mut counts, mut exact, mut curve) = (Counts::default(), 0, Vec::new());
    // The need behind each entry.
    let mut stored = HashMap::new();
    for number in 0..plan.requests {
        if number % plan.lifetime.max(1) == 0 {
            judge.forget_all().await?;
            stored.clear();
        }
        let Some(asked) = stream.next() else { break };
        let need = needs.need.get(asked).copied();
        let query = judge.query("simulated", needs.prompts.get(asked).map_or("", String::as_str));
        let query = query.ok_or_else(|| JudgeError::unreadable("the dialect does not read the request"))?;
        if stored.contains_key(&query.key) {
            exact += 1;
        } else {
            counts.requests += 1;
            let served = match judge.cache().semantic(&query, SystemTime::now()).await {
                Ok(hit) => {
                    let entry = &hit.entry;
                    let right = stored.get(&entry.key) == Some(&need);
                    counts.candidates += 1;
                    counts.right_candidates += u32::from(right);
                    let store = judge.cache().store();
                    let evidence = store.evidence(&entry.key, entry.created_at).await;
                    let evidence = evidence.map_err(|error| JudgeError::unreadable(&error.to_string()))?;
                    let judged = verified.decide(&evidence, hit.decision.confidence, random.f32());
                    let serve = judged.choice == Choice::Serve;
                    counts.explored += u32::from(judged.choice == Choice::Explore);
                    if serve {
                        counts.served += 1;
                        counts.wrong += u32::from(!right);
                    } else if judged.choice == Choice::Explore {
                        let mistaken = random.f64() < plan.judge_error;
                        let observation = verified.note(&judged, right != mistaken, random.u32(..));
                        store.note_evidence(&entry.key, entry.created_at, observation);
                    }
                    serve
                }
                Err(miss) if miss.reason == MissReason::EmbedderUnavailable => {
                    return Err(JudgeError::unreadable("the embedder failed"));
                }
                Err(_) => false,
            };
            if !served {
                judge.store(&query).await?;
                stored.insert(query.key, need);
            }
        }
        if (number + 1) % (plan.requests / POINTS).max(1) == 0 {
            curve.push(counts);
        }
    }
    Ok(Run {
        seed,
        exact,
        end: counts,
        setbacks: verified.learned().setbacks,
        least_trust: verified.learned().least_trust,
        curve,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(a: &str, b: &str, same: bool) -> Pair {
        Pair { a: a.into(), b: b.into(), same, kind: String::new(), source: String::new(), line: 1 }
    }

    #[test]
    fn pairs_with_one_answer_join_their_prompts_into_a_need() {
        let pairs = [
            pair("a", "b", true),
            pair("c", "d", false),
            pair("d", "e", true),
            pair("b", "e", true),
            pair("x", "y", true),
        ];
        let needs = Needs::of(&pairs);
        let named: Vec<Vec<&str>> = needs
            .wordings
            .iter()
            .map(|wordings| wordings.iter().map(|prompt| needs.prompts[*prompt].as_str()).collect())
            .collect();
        assert_eq!(named, [vec!["a", "b", "d", "e"], vec!["c"], vec!["x", "y"]]);
        assert_eq!(needs.need, [0, 0, 1, 0, 0, 2, 2]);
    }

    #[test]
    fn a_stream_is_that_of_its_seed_and_favours_few() {
        let pairs: Vec<_> = (0..100).map(|number| pair(&format!("{number}"), "z", false)).collect();
        let needs = Needs::of(&pairs);
        let draw = |seed| {
            let mut stream = Stream::new(&needs, seed);
            (0..2000).filter_map(|_| stream.next()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let mut counts = vec![0; needs.prompts.len()];
        for prompt in draw(1) {
            counts[prompt] += 1;
        }
        counts.sort_unstable();
        assert!((300..500).contains(&counts[100]), "{counts:?}");
    }
}
