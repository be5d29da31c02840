//! What hits have spared, as documents show it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::prices::Currency;
use super::{Counts, Ledger, Place, get};

/// Amounts by currency.
type Money = BTreeMap<String, f64>;

/// What all hits have spared since the start: the member `saved` of `GET /internal/metrics` and `GET /overview`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Saved {
    /// Tokens of prompts, those that upstream had cached included.
    pub prompt_tokens: u64,
    /// Tokens of replies, reasoning included.
    pub completion_tokens: u64,
    /// Those of `prompt_tokens` that upstream had cached when it gave the stored replies.
    pub cached_tokens: u64,
    /// Those of `completion_tokens` that were reasoning.
    pub reasoning_tokens: u64,
    /// How long upstream took for the stored replies, in seconds.
    pub seconds: f64,
    /// What they cost, by currency; empty where no price is known.
    pub money: Money,
    /// Hits of which something is not known, and not among the sums.
    pub unknown: Unknown,
    /// By model; the model with the most hits first.
    pub models: Vec<ModelSaved>,
}

/// Hits of which something is not known.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Unknown {
    /// Upstream had not counted the tokens.
    pub usage: u64,
    /// There is no price for the model, or not for all of its tokens.
    pub price: u64,
    /// How long upstream took was not noted.
    pub seconds: u64,
}

/// What the hits of a model have spared.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ModelSaved {
    /// The model, or `other`.
    pub model: String,
    /// Hits of all layers.
    pub hits: u64,
    /// Hits of the exact layer.
    pub exact_hits: u64,
    /// Hits of the semantic layer.
    pub semantic_hits: u64,
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// Tokens of replies.
    pub completion_tokens: u64,
    /// How long upstream took for the stored replies, in seconds.
    pub seconds: f64,
    /// What they cost, by currency; `None` where no price is known.
    pub money: Option<Money>,
}

/// What the hits of one model by one layer have spared, for the metrics.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) model: Arc<str>,
    pub(crate) layer: &'static str,
    pub(crate) counted: Counted,
}

/// Counts as they are at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counted {
    pub(crate) hits: u64,
    pub(crate) input: u64,
    pub(crate) output: u64,
    pub(crate) cached: u64,
    pub(crate) reasoning: u64,
    pub(crate) seconds: f64,
    pub(crate) without_usage: u64,
    pub(crate) without_price: u64,
    pub(crate) without_time: u64,
    /// Only currencies in which there is a price.
    pub(crate) money: Money,
}

impl Ledger {
    /// What all hits have spared.
    pub fn saved(&self) -> Saved {
        let mut saved = Saved::default();
        for (model, [exact, semantic]) in self.counted() {
            let of_model = ModelSaved::new(&model, &exact, &semantic);
            saved.prompt_tokens = saved.prompt_tokens.saturating_add(of_model.prompt_tokens);
            saved.completion_tokens = saved.completion_tokens.saturating_add(of_model.completion_tokens);
            saved.seconds += of_model.seconds;
            saved.models.push(of_model);
            for counted in [exact, semantic] {
                saved.cached_tokens = saved.cached_tokens.saturating_add(counted.cached);
                saved.reasoning_tokens = saved.reasoning_tokens.saturating_add(counted.reasoning);
                saved.unknown.usage = saved.unknown.usage.saturating_add(counted.without_usage);
                saved.unknown.price = saved.unknown.price.saturating_add(counted.without_price);
                saved.unknown.seconds = saved.unknown.seconds.saturating_add(counted.without_time);
                add_money(&mut saved.money, counted.money);
            }
        }
        saved.models.sort_by_key(|model| std::cmp::Reverse(model.hits));
        saved
    }

    /// By model and layer, where there are hits.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let layers = |(model, [exact, semantic]): (Arc<str>, [Counted; 2])| {
            let line = |layer, counted| Line { model: Arc::clone(&model), layer, counted };
            [line("exact", exact), line("semantic", semantic)]
        };
        self.counted().flat_map(layers).filter(|line| line.counted.hits > 0).collect()
    }

    /// The models that had hits.
    fn counted(&self) -> impl Iterator<Item = (Arc<str>, [Counted; 2])> {
        let (labels, currencies) = {
            let names = self.names.lock();
            (names.labels.clone(), names.currencies.clone())
        };
        let counted = labels.into_iter().zip(&self.places).map(move |(label, place)| {
            let Place { exact, semantic } = place;
            (label, [Counted::of(exact, &currencies), Counted::of(semantic, &currencies)])
        });
        counted.filter(|(_, layers)| layers.iter().any(|counted| counted.hits > 0))
    }
}

impl ModelSaved {
    fn new(model: &str, exact: &Counted, semantic: &Counted) -> Self {
        let mut money = exact.money.clone();
        add_money(&mut money, semantic.money.clone());
        Self {
            model: model.to_owned(),
            hits: exact.hits + semantic.hits,
            exact_hits: exact.hits,
            semantic_hits: semantic.hits,
            prompt_tokens: exact.input.saturating_add(semantic.input),
            completion_tokens: exact.output.saturating_add(semantic.output),
            seconds: exact.seconds + semantic.seconds,
            money: (!money.is_empty()).then_some(money),
        }
    }
}

impl Counted {
    fn of(counts: &Counts, currencies: &[Currency]) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a time, shown in seconds")]
        let seconds = get(&counts.time) as f64 / 1e6;
        let money = currencies.iter().zip(&counts.money).zip(&counts.priced);
        let money = money.filter(|(_, priced)| get(priced) > 0);
        Self {
            hits: get(&counts.hits),
            input: get(&counts.input),
            output: get(&counts.output),
            cached: get(&counts.cached),
            reasoning: get(&counts.reasoning),
            seconds,
            without_usage: get(&counts.without_usage),
            without_price: get(&counts.without_price),
            without_time: get(&counts.without_time),
            money: money
                .map(|((currency, money), _)| (currency.as_str().to_owned(), f64::from_bits(get(money))))
                .collect(),
        }
    }
}

fn add_money(sum: &mut Money, more: Money) {
    for (currency, amount) in more {
        *sum.entry(currency).or_default() += amount;
    }
}
