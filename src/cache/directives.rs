//! What a client asks of the cache for one request: `Cache-Control` (RFC 9111 §5.2.1) and the `X-Rejoinder-…`
//! headers (INTERFACE.md, "Directives in a request").
//!
//! Called by `proxy`, which hands over the values as text; knows no header map.

use std::time::Duration;

/// What a client asks of the cache for one request. The default asks for nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Directives {
    /// `no-cache`: do not look up; store the fresh reply.
    pub no_cache: bool,
    /// `no-store`: neither look up nor store.
    pub no_store: bool,
    /// `only-if-cached`: answer 504 rather than call upstream.
    pub only_if_cached: bool,
    /// `max-age`: entries older than this do not count.
    pub max_age: Option<Duration>,
    /// `X-Rejoinder-Threshold`: the least similarity for this request.
    pub threshold: Option<f32>,
    /// `X-Rejoinder-TTL`: how long the entry stored is to live.
    pub ttl: Option<Duration>,
    /// `X-Rejoinder-Namespace`: part of the scope; empty without one.
    pub namespace: String,
}

/// A directive whose value cannot be read; answered 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {value:?} is not {expected}")]
pub struct DirectiveError {
    /// The header or directive.
    pub name: &'static str,
    /// What the client sent.
    pub value: String,
    /// What would be right.
    pub expected: &'static str,
}

/// The header values that directives are read from.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fields<'a> {
    /// `X-Rejoinder-Threshold`
    pub threshold: Option<&'a str>,
    /// `X-Rejoinder-TTL`
    pub ttl: Option<&'a str>,
    /// `X-Rejoinder-Namespace`
    pub namespace: Option<&'a str>,
}

const SECONDS: &str = "a whole number of seconds";

impl Directives {
    /// Whether nothing of the request is to stay behind, be it its reply or a trace of its prompt.
    pub fn is_fleeting(&self) -> bool {
        self.no_store || self.ttl.is_some_and(|ttl| ttl.is_zero())
    }

    /// Reads every `Cache-Control` value and the fields. Unknown cache directives are ignored (RFC 9111 §5.2.3).
    ///
    /// # Errors
    /// A known directive or a field with a value that cannot be parsed.
    pub fn parse<'a>(
        cache_control: impl Iterator<Item = &'a str>,
        fields: Fields<'a>,
    ) -> Result<Self, DirectiveError> {
        let mut directives = Self::default();
        for value in cache_control {
            for directive in split_list(value) {
                directives.cache_directive(directive)?;
            }
        }
        if let Some(value) = fields.threshold {
            let expected = "a similarity between 0 and 1";
            let threshold = value.trim().parse::<f32>().ok().filter(|t| (0.0..=1.0).contains(t));
            let error =
                || DirectiveError { name: "X-Rejoinder-Threshold", value: value.to_owned(), expected };
            directives.threshold = Some(threshold.ok_or_else(error)?);
        }
        if let Some(value) = fields.ttl {
            directives.ttl = Some(seconds("X-Rejoinder-TTL", value)?);
        }
        if let Some(value) = fields.namespace {
            value.trim().clone_into(&mut directives.namespace);
        }
        Ok(directives)
    }

    fn cache_directive(&mut self, directive: &str) -> Result<(), DirectiveError> {
        let (name, value) = match directive.split_once('=') {
            Some((name, value)) => (name.trim(), Some(unquote(value.trim()))),
            None => (directive.trim(), None),
        };
        // RFC 9111 defines no value for the first three; one that is there is ignored, as caches do.
        if name.eq_ignore_ascii_case("no-cache") {
            self.no_cache = true;
        } else if name.eq_ignore_ascii_case("no-store") {
            self.no_store = true;
        } else if name.eq_ignore_ascii_case("only-if-cached") {
            self.only_if_cached = true;
        } else if name.eq_ignore_ascii_case("max-age") {
            let age = seconds("Cache-Control: max-age", value.unwrap_or_default())?;
            // Repeated: the strictest counts.
            self.max_age = Some(self.max_age.map_or(age, |other| other.min(age)));
        }
        Ok(())
    }
}

fn seconds(name: &'static str, value: &str) -> Result<Duration, DirectiveError> {
    let digits = value.trim();
    let error = || DirectiveError { name, value: value.to_owned(), expected: SECONDS };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(error());
    }
    // RFC 9111 §1.2.2: a number too large to hold means "very long", 2^31 at least.
    Ok(Duration::from_secs(digits.parse::<u32>().map_or(u64::from(u32::MAX), u64::from)))
}

/// The elements of a list (RFC 9110 §5.6.1): commas inside a quoted string do not separate.
fn split_list(value: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let mut escaped = false;
    value.split(move |c| {
        let separates = c == ',' && !quoted;
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        separates
    })
}

fn unquote(value: &str) -> &str {
    value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cache_control(value: &str) -> Result<Directives, DirectiveError> {
        Directives::parse(std::iter::once(value), Fields::default())
    }

    #[test]
    fn known_directives_are_read_in_any_case_and_unknown_ones_ignored() {
        let all =
            cache_control("No-Cache, x=\"no-store, max-age=1\", ONLY-IF-CACHED ,max-age=\"60\",max-age=90")
                .unwrap();
        let expected = Directives {
            no_cache: true,
            only_if_cached: true,
            max_age: Some(Duration::from_mins(1)),
            ..Directives::default()
        };
        assert_eq!(all, expected);
        assert!(cache_control("no-store").unwrap().no_store);
        assert_eq!(
            cache_control("max-age=99999999999999999999").unwrap().max_age,
            Some(Duration::from_secs(u64::from(u32::MAX)))
        );
    }

    #[test]
    fn a_value_that_cannot_be_read_is_an_error_that_names_it() {
        for value in ["max-age", "max-age=", "max-age=-1", "max-age=1.5", "max-age=soon"] {
            let error = cache_control(value).unwrap_err();
            assert_eq!(error.name, "Cache-Control: max-age");
        }
        for value in ["", "1.1", "-0.1", "NaN", "high"] {
            let fields = Fields { threshold: Some(value), ..Fields::default() };
            assert!(Directives::parse(std::iter::empty(), fields).is_err(), "{value}");
        }
        let fields = Fields { ttl: Some("5 minutes"), ..Fields::default() };
        let message = Directives::parse(std::iter::empty(), fields).unwrap_err().to_string();
        assert_eq!(message, "X-Rejoinder-TTL: \"5 minutes\" is not a whole number of seconds");
    }

    proptest! {
        #[test]
        fn no_value_panics(value in "\\PC*|[a-z=,\"\\\\ -]{0,30}") {
            let fields = Fields { threshold: Some(&value), ttl: Some(&value), namespace: Some(&value) };
            let _ = Directives::parse(std::iter::once(value.as_str()), fields);
        }
    }
}
