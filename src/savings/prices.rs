//! What upstream charges, as the operator says: `[prices]` of the configuration.
//!
//! Read by `config`, applied by [`super::Ledger`]. There is no price that nobody gave: prices change, and differ by
//! contract.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::dialect::Usage;
use crate::model_pattern::ModelPattern;

/// Tokens that a price is for.
const TOKENS: f64 = 1_000_000.0;

/// Patterns that there may be.
const MOST_PATTERNS: usize = 1000;

/// The most that a million tokens may cost; beyond, it is a slip.
const MOST: f64 = 1_000_000_000.0;

/// An ISO 4217 code, as `USD`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

/// What tokens of a model cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// A million tokens of prompts.
    #[serde(deserialize_with = "amount")]
    pub input: f64,
    /// A million tokens of prompts that upstream had cached. `None`: they have no price, and what they cost is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_amount")]
    pub cached_input: Option<f64>,
    /// A million tokens of replies, reasoning included.
    #[serde(deserialize_with = "amount")]
    pub output: f64,
    /// In which currency.
    #[serde(default)]
    pub currency: Currency,
}

/// The prices of models by patterns of their names. An exact name comes before a pattern, then the pattern with the most
/// characters besides `*` and `?`, then the first by alphabet.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Prices(BTreeMap<ModelPattern, Price>);

impl Currency {
    /// The code; `None` where the text is not three capital letters.
    pub fn new(code: &str) -> Option<Self> {
        let letters = <[u8; 3]>::try_from(code.as_bytes()).ok()?;
        letters.iter().all(u8::is_ascii_uppercase).then_some(Self(letters))
    }

    /// The code.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Default for Currency {
    /// The one in which most price lists are.
    fn default() -> Self {
        Self(*b"USD")
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = String::deserialize(deserializer)?;
        Self::new(&code).ok_or_else(|| {
            D::Error::custom(format!("{code:?} is no currency of three capital letters, as USD"))
        })
    }
}

fn amount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let amount = f64::deserialize(deserializer)?;
    if (0.0..=MOST).contains(&amount) {
        return Ok(amount);
    }
    Err(D::Error::custom(format!("{amount} is no price of a million tokens")))
}

fn some_amount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    amount(deserializer).map(Some)
}

impl Price {
    /// What these tokens cost; `None` where some of them have no price.
    #[expect(clippy::cast_precision_loss, reason = "no reply has 2⁵³ tokens, and money is shown rounded")]
    pub fn of(&self, usage: Usage) -> Option<f64> {
        let cached = usage.cached.min(usage.input);
        let cached_input = match (cached, self.cached_input) {
            (0, _) => 0.0,
            (cached, Some(price)) => cached as f64 * price,
            (_, None) => return None,
        };
        let input = (usage.input - cached) as f64 * self.input;
        Some((input + cached_input + usage.output as f64 * self.output) / TOKENS)
    }
}

impl Prices {
    /// The price of a model.
    pub fn of(&self, model: &str) -> Option<Price> {
        if let Some(price) = self.0.get(model) {
            return Some(*price);
        }
        let mut best: Option<(usize, Price)> = None;
        for (pattern, price) in &self.0 {
            let literals = pattern.literals();
            if best.is_none_or(|(most, _)| literals > most) && pattern.matches(model) {
                best = Some((literals, *price));
            }
        }
        best.map(|(_, price)| price)
    }

    /// The names among the patterns, which stand for one model each.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().filter(|pattern| pattern.is_name()).map(ModelPattern::as_str)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(ModelPattern, Price)> for Prices {
    fn from_iter<T: IntoIterator<Item = (ModelPattern, Price)>>(prices: T) -> Self {
        Self(prices.into_iter().collect())
    }
}

impl<'de> Deserialize<'de> for Prices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let prices = BTreeMap::<ModelPattern, Price>::deserialize(deserializer)?;
        if prices.len() > MOST_PATTERNS {
            return Err(D::Error::custom(format!("there may be {MOST_PATTERNS} prices at most")));
        }
        let mut currencies: Vec<_> = prices.values().map(|price| price.currency).collect();
        currencies.sort_unstable();
        currencies.dedup();
        if currencies.len() > super::CURRENCIES {
            return Err(D::Error::custom(format!("there may be {} currencies at most", super::CURRENCIES)));
        }
        Ok(Self(prices))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prices(text: &str) -> Result<Prices, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn the_closest_pattern_prices_a_model() {
        let prices = prices(
            "'*' = {input = 1, output = 1}\n\
             'gpt-4o*' = {input = 2, output = 2}\n\
             'gpt-4o-mini*' = {input = 3, output = 3}\n\
             'gpt-4o-mini' = {input = 4, output = 4}\n\
             'o?' = {input = 5, output = 5}",
        )
        .unwrap();
        for (model, input) in [
            ("llama3.2", 1.0),
            ("gpt-4o", 2.0),
            ("gpt-4o-mini-2024-07-18", 3.0),
            ("gpt-4o-mini", 4.0),
            ("o1", 5.0),
        ] {
            assert_eq!(prices.of(model).map(|price| price.input), Some(input), "{model}");
        }
        assert_eq!(Prices::default().of("gpt-4o"), None);
    }

    #[test]
    fn tokens_cost_what_their_kind_does() {
        let price = Price { input: 2.0, cached_input: Some(0.5), output: 8.0, currency: Currency::default() };
        let usage = Usage { input: 1_500_000, output: 250_000, cached: 1_000_000, reasoning: 100_000 };
        assert_eq!(price.of(usage), Some(1.0 + 0.5 + 2.0));
        assert_eq!(Price { cached_input: None, ..price }.of(usage), None, "no price is made up");
        let uncached = Usage { cached: 0, ..usage };
        assert_eq!(Price { cached_input: None, ..price }.of(uncached), Some(3.0 + 2.0));
    }

    #[test]
    fn what_is_no_price_is_refused() {
        for (text, reason) in [
            ("m = {input = -1, output = 1}", "no price"),
            ("m = {input = 1, output = inf}", "no price"),
            ("m = {input = 1, output = nan}", "no price"),
            ("m = {input = 1}", "output"),
            ("m = {input = 1, output = 1, currency = 'usd'}", "three capital letters"),
            ("m = {input = 1, output = 1, cached = 1}", "cached"),
            ("'' = {input = 1, output = 1}", "empty pattern"),
        ] {
            let error = prices(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
        let line = |n| format!("m{n} = {{input = 1, output = 1, currency = 'AA{}'}}\n", char::from(b'A' + n));
        let many = (0..9).map(line).collect::<Vec<_>>().concat();
        assert!(prices(&many).unwrap_err().to_string().contains("8 currencies"));
    }
}
