//! How durations, sizes, URLs and header names are written in the file.

use std::fmt;
use std::time::Duration;

use http::{HeaderName, Uri};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::store::redis::RedisUrl;

/// A size in bytes, written as a number or as `512MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

const SIZES: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

impl Bytes {
    /// The size where memory is counted; saturates on machines with smaller pointers.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (number, unit) = SIZES
            .into_iter()
            .find_map(|(suffix, size)| text.strip_suffix(suffix).map(|number| (number, size)))
            .unwrap_or((text, 1));
        number.trim().parse::<u64>().ok()?.checked_mul(unit).map(Self)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (suffix, size) = SIZES[..3]
            .iter()
            .find(|(_, size)| self.0 >= *size && self.0.is_multiple_of(*size))
            .copied()
            .unwrap_or(("B", 1));
        serializer.serialize_str(&format!("{}{suffix}", self.0 / size))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BytesVisitor;
        impl Visitor<'_> for BytesVisitor {
            type Value = Bytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes, or a size such as \"512MiB\"")
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Bytes, E> {
                u64::try_from(value).map(Bytes).map_err(|_| E::custom("a size is not negative"))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Bytes, E> {
                Ok(Bytes(value))
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<Bytes, E> {
                Bytes::parse(value)
                    .ok_or_else(|| E::custom(format!("{value:?} is no size such as \"512MiB\"")))
            }
        }
        deserializer.deserialize_any(BytesVisitor)
    }
}

/// Reads a duration of the command line: `90s`, `15m`, `24h`, `7d`, or a whole number of seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text)
        .map_err(|_| format!("{text:?} is no duration such as 90s, 15m, 24h or 7d"))
}

/// Durations in the file: as on the command line, or a number of seconds.
pub(super) mod duration {
    use super::{Deserializer, Duration, Serializer, Visitor, de, fmt, parse_duration};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&humantime::format_duration(*duration).to_string())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        struct DurationVisitor;
        impl Visitor<'_> for DurationVisitor {
            type Value = Duration;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"90s\" or \"24h\", or a number of seconds")
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Duration, E> {
                u64::try_from(value)
                    .map(Duration::from_secs)
                    .map_err(|_| E::custom("a duration is not negative"))
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<Duration, E> {
                parse_duration(value).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(DurationVisitor)
    }

    pub(crate) mod option {
        use serde::Deserialize;

        use super::super::{Deserializer, Duration};

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<Duration>, D::Error> {
            #[derive(Deserialize)]
            struct Wrapped(#[serde(with = "super")] Duration);
            Ok(Some(Wrapped::deserialize(deserializer)?.0))
        }
    }
}

/// Writes a URL.
pub(super) fn uri<S: Serializer>(uri: &Uri, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(uri)
}

/// Reads a URL.
pub(super) fn optional_uri<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Uri>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(|error| de::Error::custom(format!("{text:?} is no URL: {error}")))
}

/// Writes what knows how to show itself.
#[expect(clippy::ref_option, reason = "the shape that serde calls")]
pub(super) fn optional_shown<S: Serializer>(
    shown: &Option<impl fmt::Display>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match shown {
        Some(shown) => serializer.collect_str(shown),
        None => serializer.serialize_none(),
    }
}

/// Reads the URL of a Redis. It may hold a password, so no error shows it.
pub(super) fn optional_redis_url<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<RedisUrl>, D::Error> {
    String::deserialize(deserializer)?.parse().map(Some).map_err(de::Error::custom)
}

/// Header names, as strings.
pub(super) mod header_names {
    use super::{Deserialize, Deserializer, HeaderName, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(names: &[HeaderName], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(names.iter().map(HeaderName::as_str))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<HeaderName>, D::Error> {
        Vec::<String>::deserialize(deserializer)?
            .iter()
            .map(|name| name.parse().map_err(|_| de::Error::custom(format!("{name:?} is no header name"))))
            .collect()
    }
}

/// The rules of prompts never matched by meaning, by their names.
pub(super) mod rules {
    use super::{Deserialize, Deserializer, Serializer, de};
    use crate::cache::guard::{Leaning, Leanings};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
    pub(crate) fn serialize<S: Serializer>(rules: &Leanings, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(rules.iter().map(Leaning::name))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Leanings, D::Error> {
        let known = || Leaning::ALL.iter().map(|rule| rule.name()).collect::<Vec<_>>().join(", ");
        Vec::<String>::deserialize(deserializer)?
            .iter()
            .map(|name| {
                Leaning::from_name(name)
                    .ok_or_else(|| de::Error::custom(format!("{name:?} is none of the rules {}", known())))
            })
            .collect()
    }
}
