//! What hits spare: tokens, money and upstream's time, by model and layer.
//!
//! Counted by `telemetry` as requests end, shown by it and by `admin`. Nothing is made up: a hit whose tokens, price or
//! time nobody knows is counted as such. The number of models that are told apart is bounded, whatever clients send.

pub mod prices;
mod report;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::dialect::Usage;
use prices::{Currency, Price, Prices};
pub(crate) use report::Counted;
pub use report::{ModelSaved, Saved, Unknown};

/// Models that are told apart; the rest are counted as [`OTHER`].
pub const MODELS: usize = 64;

/// The label of all models that are not told apart.
pub const OTHER: &str = "other";

/// The longest label of a model, in characters.
const LABEL: usize = 64;

/// Currencies that are told apart.
pub const CURRENCIES: usize = 8;

/// The most tokens that are believed: whoever counts more counts wrong, and would spoil the sums.
const TOKENS: u64 = u32::MAX as u64;

/// The layers that serve hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// By the key.
    Exact,
    /// By meaning.
    Semantic,
}

/// Where the hits of a model are counted, and at which price: found once for a request that comes again, so that a
/// hit asks for nothing by name.
#[derive(Debug, Clone, Copy)]
pub struct Meter {
    place: u16,
    price: Option<(Price, u8)>,
    era: u32,
}

/// What a hit spared, as far as it is known.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spared {
    /// Tokens of the stored reply.
    pub usage: Option<Usage>,
    /// How long upstream took for it.
    pub time: Option<Duration>,
}

/// All counts. Adding takes no lock; names are looked up under one.
#[derive(Debug)]
pub struct Ledger {
    /// The counts of [`OTHER`] first.
    places: Box<[Place]>,
    names: Mutex<Names>,
    /// Counts the changes of prices: a meter of before one is looked up anew.
    era: AtomicU32,
}

#[derive(Debug)]
struct Names {
    prices: Prices,
    /// By the whole name: where it is counted. At most [`MODELS`].
    places: HashMap<String, u16>,
    /// The labels by place.
    labels: Vec<Arc<str>>,
    currencies: Vec<Currency>,
}

/// The counts of a model.
#[derive(Debug, Default)]
struct Place {
    exact: Counts,
    semantic: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    hits: AtomicU64,
    input: AtomicU64,
    output: AtomicU64,
    cached: AtomicU64,
    reasoning: AtomicU64,
    /// Microseconds.
    time: AtomicU64,
    without_usage: AtomicU64,
    without_price: AtomicU64,
    without_time: AtomicU64,
    /// Hits with a price, by its currency.
    priced: [AtomicU64; CURRENCIES],
    /// Bits of what they cost.
    money: [AtomicU64; CURRENCIES],
}

impl Ledger {
    /// Nothing counted yet. The models that have prices by name, and these, are told apart before all others.
    pub fn new<'a>(prices: Prices, configured: impl IntoIterator<Item = &'a str>) -> Self {
        let mut names = Names {
            prices: Prices::default(),
            places: HashMap::new(),
            labels: vec![Arc::from(OTHER)],
            currencies: Vec::new(),
        };
        names.change(prices);
        for name in configured {
            names.place(name);
        }
        let places = std::iter::repeat_with(Place::default).take(MODELS + 1).collect();
        Self { places, names: Mutex::new(names), era: AtomicU32::new(0) }
    }

    /// Takes other prices from now on. What was counted stays.
    pub fn set_prices(&self, prices: Prices) {
        let mut names = self.names.lock();
        names.change(prices);
        self.era.fetch_add(1, Ordering::Release);
    }

    /// Where a model's hits are counted.
    pub fn meter(&self, model: &str) -> Meter {
        let mut names = self.names.lock();
        // Read under the lock, so that it is that of these prices.
        let era = self.era.load(Ordering::Acquire);
        let price = names.prices.of(model);
        let price = price.and_then(|price| Some((price, names.currency(price.currency)?)));
        Meter { place: names.place(model), price, era }
    }

    /// Whether a meter is of the prices in force.
    pub fn is_current(&self, meter: &Meter) -> bool {
        meter.era == self.era.load(Ordering::Acquire)
    }

    /// Counts a hit.
    pub fn add(&self, meter: &Meter, served: Served, spared: Spared) {
        let Some(place) = self.places.get(usize::from(meter.place)) else { return };
        let counts = match served {
            Served::Exact => &place.exact,
            Served::Semantic => &place.semantic,
        };
        add(&counts.hits, 1);
        match spared.usage.filter(|usage| usage.input <= TOKENS && usage.output <= TOKENS) {
            Some(usage) => counts.add(usage, meter.price),
            None => add(&counts.without_usage, 1),
        }
        match spared.time {
            Some(time) => add(&counts.time, u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
            None => add(&counts.without_time, 1),
        }
    }

    /// Tokens spared by all hits.
    pub fn tokens(&self) -> u64 {
        let all = self.places.iter().flat_map(|place| [&place.exact, &place.semantic]);
        all.map(|counts| get(&counts.input).saturating_add(get(&counts.output))).fold(0, u64::saturating_add)
    }
}

impl Names {
    fn change(&mut self, prices: Prices) {
        for name in prices.names() {
            place(&mut self.places, &mut self.labels, name);
        }
        self.prices = prices;
    }

    fn place(&mut self, name: &str) -> u16 {
        place(&mut self.places, &mut self.labels, name)
    }

    /// The number of a currency; `None` where there are too many, and an amount is as good as not known.
    fn currency(&mut self, currency: Currency) -> Option<u8> {
        let known = self.currencies.iter().position(|other| *other == currency);
        let at = known.or_else(|| {
            (self.currencies.len() < CURRENCIES).then(|| {
                self.currencies.push(currency);
                self.currencies.len() - 1
            })
        })?;
        u8::try_from(at).ok()
    }
}

/// The place of a name: its own, one whose label is the same, a free one, or that of all others.
fn place(places: &mut HashMap<String, u16>, labels: &mut Vec<Arc<str>>, name: &str) -> u16 {
    if let Some(place) = places.get(name) {
        return *place;
    }
    if places.len() >= MODELS {
        return 0;
    }
    let label = label(name);
    let same = labels.iter().position(|other| **other == *label);
    let at = same.unwrap_or_else(|| {
        labels.push(Arc::from(label));
        labels.len() - 1
    });
    let at = u16::try_from(at).unwrap_or_default();
    places.insert(name.to_owned(), at);
    at
}

/// A model's name as a label: of few kinds of characters, and not long.
fn label(name: &str) -> String {
    if name.is_empty() {
        return OTHER.to_owned();
    }
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.:/@+".contains(letter);
    name.chars().take(LABEL).map(|letter| if plain(letter) { letter } else { '_' }).collect()
}

impl Counts {
    fn add(&self, usage: Usage, price: Option<(Price, u8)>) {
        add(&self.input, usage.input);
        add(&self.output, usage.output);
        add(&self.cached, usage.cached.min(usage.input));
        add(&self.reasoning, usage.reasoning.min(usage.output));
        let cost = price.and_then(|(price, currency)| Some((price.of(usage)?, currency)));
        let Some((cost, currency)) = cost else { return add(&self.without_price, 1) };
        let currency = usize::from(currency);
        if let (Some(priced), Some(money)) = (self.priced.get(currency), self.money.get(currency)) {
            add_amount(money, cost);
            add(priced, 1);
        }
    }
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn add_amount(bits: &AtomicU64, amount: f64) {
    let mut before = get(bits);
    loop {
        let after = (f64::from_bits(before) + amount).to_bits();
        match bits.compare_exchange_weak(before, after, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => before = now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model_pattern::ModelPattern;

    const USAGE: Usage = Usage { input: 1_000_000, output: 500_000, cached: 0, reasoning: 0 };

    fn pattern(text: &str) -> ModelPattern {
        ModelPattern::new(text.to_owned()).unwrap()
    }

    fn price(input: f64, currency: &str) -> Price {
        Price { input, cached_input: None, output: 2.0, currency: Currency::new(currency).unwrap() }
    }

    fn hit(ledger: &Ledger, model: &str, usage: Option<Usage>) {
        ledger.add(&ledger.meter(model), Served::Exact, Spared { usage, time: None });
    }

    #[test]
    fn however_many_names_there_are_few_are_told_apart_and_configured_ones_first() {
        let prices: Prices = [(pattern("priced"), price(1.0, "USD"))].into_iter().collect();
        let ledger = Ledger::new(prices, ["configured"]);
        for number in 0..10_000 {
            hit(&ledger, &format!("name {number}\"}}\n"), Some(USAGE));
        }
        hit(&ledger, "priced", Some(USAGE));
        hit(&ledger, "configured", Some(USAGE));
        let saved = ledger.saved();
        assert_eq!(saved.models.len(), MODELS + 1);
        let of = |name: &str| saved.models.iter().find(|model| model.model == name).unwrap().hits;
        assert_eq!((of("priced"), of("configured")), (1, 1));
        assert_eq!(of(OTHER), 10_000 - (MODELS as u64 - 2));
        assert_eq!(saved.models.iter().map(|model| model.hits).sum::<u64>(), 10_002);
        assert!(saved.models.iter().all(|model| !model.model.contains(['"', ' ', '\n'])));
        assert_eq!(ledger.names.lock().places.len(), MODELS);
    }

    #[test]
    fn what_is_not_told_apart_is_priced_all_the_same() {
        let prices: Prices = [(pattern("dear*"), price(3.0, "EUR"))].into_iter().collect();
        let ledger = Ledger::new(prices, []);
        for number in 0..MODELS {
            hit(&ledger, &format!("m{number}"), None);
        }
        hit(&ledger, "dear-1", Some(USAGE));
        let saved = ledger.saved();
        assert_eq!(saved.money.get("EUR"), Some(&4.0));
        assert_eq!(saved.unknown.usage, MODELS as u64);
        assert_eq!(saved.unknown.price, 0, "of unknown usage there is nothing to price");
    }

    #[test]
    fn a_name_is_cut_and_names_that_look_alike_are_counted_together() {
        let ledger = Ledger::new(Prices::default(), []);
        for name in ["ä".repeat(9_999), "ö".repeat(70), String::new(), OTHER.to_owned()] {
            hit(&ledger, &name, None);
        }
        let saved = ledger.saved();
        let counted: Vec<_> = saved.models.iter().map(|model| (model.model.clone(), model.hits)).collect();
        assert_eq!(counted, [(OTHER.to_owned(), 2), ("_".repeat(LABEL), 2)]);
    }

    #[test]
    fn other_prices_count_from_then_on() {
        let ledger = Ledger::new([(pattern("m"), price(1.0, "USD"))].into_iter().collect(), []);
        let before = ledger.meter("m");
        ledger.add(&before, Served::Semantic, Spared { usage: Some(USAGE), time: None });
        ledger.set_prices([(pattern("m"), price(7.0, "CHF"))].into_iter().collect());
        assert!(!ledger.is_current(&before));
        let after = ledger.meter("m");
        assert!(ledger.is_current(&after));
        ledger.add(&after, Served::Semantic, Spared { usage: Some(USAGE), time: None });
        let saved = ledger.saved();
        assert_eq!((saved.money.get("USD"), saved.money.get("CHF")), (Some(&2.0), Some(&8.0)));
    }
}
