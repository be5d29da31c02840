//! A stream of questions over real HTTP: 1,000 prompts are stored, 2,000 asked, and every hit is counted as right or
//! wrong by which stored prompt its reply answers.
//!
//! Nearly half of the questions have a right answer in the cache, in other words; the others have none and look like
//! many that do. They come from the suite, whose prompts were read while the guard was written; from the groups that the
//! verifier has not learnt from; and from templates. The floors here keep what was reached.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroUsize;
use std::sync::Arc;

use parking_lot::Mutex;
use rejoinder::config::{EmbedderKind, Embedding};
use rejoinder::embed::{Embedder, Embedding as Vector};
use rejoinder::encoder::threads::{Threads, ThreadsOptions};
use rejoinder::eval::pairs::{Format, read};
use serde::Deserialize;
use serde_json::json;

use crate::support::{Ask, Connection, Proxy, proxy_with, text_of, upstream};

const SUITE: &str = include_str!("pairs.csv");
const TEMPLATES: &str = include_str!("stream.toml");

const STORED: usize = 1_000;
const ASKED: usize = 2_000;

/// How many of the stored prompts come from templates.
const TEMPLATES_STORED: usize = 132;

#[derive(Deserialize)]
struct Templates {
    things: BTreeMap<String, String>,
    family: Vec<Family>,
}

#[derive(Deserialize)]
struct Family {
    things: String,
    stored: String,
    asked: String,
}

/// A question, and the stored prompt whose reply answers it.
struct Question {
    kind: &'static str,
    prompt: String,
    answered_by: Option<String>,
}

/// Prompts of one answer, and of others that look alike.
#[derive(Deserialize)]
struct Group {
    anchor: String,
    same: Vec<String>,
    different: Vec<(String, String)>,
}

/// The groups that `scripts/train-verifier` holds out, each tenth of a file: every second of them first, so that
/// as many as there is room for come from all files.
fn held_out() -> Vec<Group> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/models/verifier/groups");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let files: Vec<_> = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let each = |first| files.iter().flat_map(move |file| file.lines().skip(first).step_by(20));
    each(7).chain(each(17)).map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What is stored and asked of a group.
struct Written {
    anchor: String,
    same: String,
    different: String,
}

impl Written {
    /// Whether two groups may well ask about one thing, by chance: nobody has said which of their replies answers the
    /// other's questions.
    fn is_near(&self, other: &Self) -> bool {
        let asks = |one: &Self, stored: &str| {
            [&one.anchor, &one.same, &one.different].into_iter().any(|prompt| share_words(prompt, stored))
        };
        asks(self, &other.anchor) || asks(other, &self.anchor)
    }
}

/// Whether most of the longer words of two prompts are the same.
fn share_words(one: &str, other: &str) -> bool {
    let words = |text: &str| -> BTreeSet<String> {
        let words = text.split(|letter: char| !letter.is_alphanumeric());
        words.filter(|word| word.len() > 3).map(str::to_lowercase).collect()
    };
    let (one, other) = (words(one), words(other));
    let common = one.intersection(&other).count();
    common > 0 && 3 * common >= 2 * (one.len() + other.len() - common)
}

/// The prompts to store, and the questions.
fn stream() -> (Vec<String>, Vec<Question>) {
    let suite = read(SUITE.as_bytes(), Some(Format::Csv)).unwrap().pairs;
    let mut stored: Vec<String> = Vec::new();
    let mut asked = Vec::new();
    for pair in &suite {
        let kind = match pair.kind.split('_').next().unwrap() {
            "para" => "suite: paraphrase",
            "surface" => "suite: surface",
            "hard" => "suite: look-alike",
            _ => continue,
        };
        if !stored.contains(&pair.a) {
            stored.push(pair.a.clone());
        }
        let answered_by = pair.same.then(|| pair.a.clone());
        asked.push(Question { kind, prompt: pair.b.clone(), answered_by });
    }
    let mut groups: Vec<Written> = Vec::new();
    for (number, group) in held_out().into_iter().enumerate() {
        let written = Written {
            same: group.same[number % group.same.len()].clone(),
            different: group.different[number % group.different.len()].0.clone(),
            anchor: group.anchor,
        };
        if stored.len() + groups.len() < STORED - TEMPLATES_STORED
            && !stored.contains(&written.anchor)
            && groups.iter().all(|other| !written.is_near(other))
        {
            groups.push(written);
        }
    }
    for Written { anchor, same, different } in groups {
        stored.push(anchor.clone());
        asked.push(Question { kind: "written: other words", prompt: same, answered_by: Some(anchor) });
        asked.push(Question { kind: "written: look-alike", prompt: different, answered_by: None });
    }
    let mut known = Vec::new();
    let mut unknown = Vec::new();
    let templates: Templates = toml::from_str(TEMPLATES).unwrap();
    for family in &templates.family {
        let fill = |form: &str, thing: &str| form.replace("{}", thing.trim());
        for (at, thing) in templates.things[&family.things].split(',').enumerate() {
            let (plain, other) = (fill(&family.stored, thing), fill(&family.asked, thing));
            if suite
                .iter()
                .any(|pair| [&pair.a, &pair.b].into_iter().any(|said| *said == plain || *said == other))
            {
                continue;
            }
            if at % 2 == 0 {
                known.push((plain, other));
            } else {
                // Both wordings, so that some differ from a stored prompt in nothing but the thing.
                let prompt = if at % 4 == 1 { plain } else { other };
                unknown.push(Question { kind: "template: not stored", prompt, answered_by: None });
            }
        }
    }
    known.truncate(STORED - stored.len());
    unknown.truncate(ASKED - asked.len() - known.len());
    let paraphrases = known.iter().map(|(plain, other)| Question {
        kind: "template: other words",
        prompt: other.clone(),
        answered_by: Some(plain.clone()),
    });
    asked.extend(paraphrases);
    asked.extend(unknown);
    stored.extend(known.into_iter().map(|(plain, _)| plain));
    assert_eq!((stored.len(), asked.len()), (STORED, ASKED));
    (stored, asked)
}

fn request(proxy: &Proxy, prompt: &str) -> Ask {
    proxy.post("/api/generate", &json!({"model": "m", "prompt": prompt, "stream": false}))
}

/// What came of the questions of one kind.
#[derive(Debug, Default, Clone, Copy)]
struct Count {
    asked: u32,
    answerable: u32,
    right: u32,
    wrong: u32,
}

/// The reply of the simulated upstream quotes the prompt that it answers.
fn answers(text: &str, prompt: &str) -> bool {
    let quoted: String = prompt.chars().take(400).collect();
    text.ends_with(&format!(" to “{quoted}”."))
}

/// Sends all of them on a few connections and hands over each reply.
async fn send_all<T: Send + 'static>(
    proxy: &Proxy,
    requests: Vec<(T, Ask)>,
    each: impl Fn(T, crate::support::Reply) + Send + Sync + 'static,
) {
    let queue = Arc::new(Mutex::new(VecDeque::from(requests)));
    let each = Arc::new(each);
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (queue, each) = (Arc::clone(&queue), Arc::clone(&each));
        let mut connection = Connection::open(proxy.address()).await.unwrap();
        senders.spawn(async move {
            loop {
                let Some((of, ask)) = queue.lock().pop_front() else { return };
                each(of, connection.send(ask).await.unwrap());
            }
        });
    }
    while let Some(ended) = senders.join_next().await {
        ended.unwrap();
    }
}

/// Stores the prompts and asks the questions under an operating point; what came of them, kind by kind.
async fn counts_at(max_error: f64) -> BTreeMap<&'static str, Count> {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, |config| {
        config.embedder = EmbedderKind::Builtin;
        config.max_error = max_error;
        let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        config.embedding = Embedding { threads, ..config.embedding.clone() };
    })
    .await;
    let (stored, asked) = stream();
    // Looked up, so that its embedding is there when it is stored, and answered by no other however near.
    let requests =
        stored.iter().map(|prompt| ((), request(&proxy, prompt).header("x-rejoinder-threshold", "1")));
    send_all(&proxy, requests.collect(), |(), reply| assert_eq!(reply.status, 200)).await;
    assert_eq!(upstream.count(), STORED);

    let counts: Arc<Mutex<BTreeMap<&str, Count>>> = Arc::default();
    let requests = asked.into_iter().map(|question| {
        // A miss is no entry, so that the cache stays what it was.
        let ask = request(&proxy, &question.prompt).header("cache-control", "only-if-cached");
        (question, ask)
    });
    let table = Arc::clone(&counts);
    send_all(&proxy, requests.collect(), move |question, reply| {
        let mut counts = table.lock();
        let count = counts.entry(question.kind).or_default();
        count.asked += 1;
        count.answerable += u32::from(question.answered_by.is_some());
        if reply.layer().is_none() {
            assert_eq!(reply.status, 504, "{}", reply.text());
            return;
        }
        let text = text_of(&reply.json());
        let right = question.answered_by.as_deref().is_some_and(|stored| answers(&text, stored));
        if right {
            count.right += 1;
        } else {
            count.wrong += 1;
            println!("wrong: {:?} got {text}", question.prompt);
        }
    })
    .await;
    assert_eq!(upstream.count(), STORED, "nothing went upstream");
    let counts = counts.lock();
    counts.clone()
}

/// Operating points, the least share of the answerable questions that each must answer rightly, and the largest share of all
/// questions that it may answer wrongly.
const POINTS: [(f64, f64, f64); 3] = [(0.02, 0.62, 0.01), (0.05, 0.72, 0.015), (0.15, 0.82, 0.03)];

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_questions_is_answered_rightly_or_not_from_the_cache() {
    for (max_error, least_right, most_wrong) in POINTS {
        let counts = counts_at(max_error).await;
        for (kind, Count { asked, right, wrong, .. }) in &counts {
            println!("{max_error} {kind:<24} asked {asked:>5}  right {right:>5}  wrong {wrong:>4}");
        }
        let sum = |of: fn(&Count) -> u32| counts.values().map(of).sum::<u32>();
        let (right, answerable, wrong) = (sum(|c| c.right), sum(|c| c.answerable), sum(|c| c.wrong));
        println!(
            "--max-error {max_error}: right {right} of {answerable} answerable, wrong {wrong} of {ASKED}"
        );
        let share = |part: u32, of: u32| f64::from(part) / f64::from(of);
        assert!(share(right, answerable) >= least_right, "at {max_error}: {right} of {answerable} right");
        let asked = sum(|count| count.asked);
        assert!(share(wrong, asked) <= most_wrong, "at {max_error}: {wrong} of {asked} wrong");
        // No kind may be a hole behind a good average.
        let recall = |kind: &str| share(counts[kind].right, counts[kind].asked);
        for (kind, floor) in [
            ("suite: paraphrase", 0.55),
            ("suite: surface", 0.6),
            ("written: other words", 0.45),
            ("template: other words", 0.85),
        ] {
            assert!(recall(kind) >= floor, "{kind} at {max_error}: {}", recall(kind));
        }
    }
}

/// What the nearest stored prompt alone would tell: the guard, the verifier and the calibration are what answers the rest.
#[tokio::test(flavor = "multi_thread")]
async fn bare_similarity_answers_far_less_of_it_at_the_same_error() {
    let embedder = Embedder::builtin(Threads::start(&ThreadsOptions::default()).unwrap()).unwrap();
    let (stored, asked) = stream();
    let mut embeddings = Vec::new();
    for prompt in &stored {
        embeddings.push(embedder.embed(prompt).await.unwrap());
    }
    let mut nearest = Vec::new();
    for question in &asked {
        let embedding = embedder.embed(&question.prompt).await.unwrap();
        let similarity = |of: &Vector| embedding.similarity(of).unwrap().0;
        let similarities = embeddings.iter().map(similarity).zip(&stored);
        let (similarity, prompt) = similarities.max_by(|(one, _), (other, _)| one.total_cmp(other)).unwrap();
        nearest.push((similarity, question.answered_by.as_ref() == Some(prompt)));
    }
    nearest.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    let count = |number: usize| f64::from(u32::try_from(number).unwrap());
    let answerable = count(asked.iter().filter(|question| question.answered_by.is_some()).count());
    for (_, least_right, most_wrong) in POINTS {
        // The threshold that answers most and keeps to the same share of wrong ones.
        let right = (0..nearest.len())
            .map(|answered| {
                let right = nearest.iter().take(answered).filter(|(_, is_right)| *is_right).count();
                (right, answered - right)
            })
            .take_while(|(_, wrong)| count(*wrong) <= most_wrong * count(ASKED))
            .last();
        let share = right.map_or(0.0, |(right, _)| count(right) / answerable);
        println!("bare similarity: {share:.3} of the answerable at {most_wrong} wrong");
        assert!(3.0 * share < least_right, "{share} at {most_wrong}");
    }
}
