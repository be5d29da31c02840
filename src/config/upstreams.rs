//! The upstreams: one for every request, or several, chosen by the model that a request asks for.
//!
//! In the file either `upstream = "http://…"`, or `[[upstream]]` tables. A table with `models` takes the requests for
//! these; the one without is the default, which takes all others.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http::uri::InvalidUri;
use http::{HeaderValue, Uri};
use serde::de::{self, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::file::Source;
use super::validation::url_problem;
use super::{ConfigError, Environment, Place, Secret, units};
use crate::model_pattern::ModelPattern;

/// The default place of Ollama.
pub(super) const UPSTREAM: &str = "http://127.0.0.1:11434";

/// The name of an upstream that the configuration gives none.
const DEFAULT_NAME: &str = "default";

/// The most upstreams: each has connections, counters and a probe of its own.
const MOST: usize = 64;

/// Every upstream.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstreams {
    /// Those chosen by model, in the order in which they are asked; the first that matches serves.
    pub by_model: Vec<Upstream>,
    /// The one for every other request.
    pub default: Upstream,
    /// What is no error and hardly meant, each with its place in the file.
    pub warnings: Vec<String>,
}

/// A server in front of which the proxy stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// What logs, metrics and `/readyz` call it.
    pub name: String,
    /// The models whose requests go to it; `None` for the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<ModelPattern>>,
    /// Its base URL. A path is kept as a prefix.
    #[serde(serialize_with = "units::uri", deserialize_with = "uri")]
    pub url: Uri,
    /// The variable of the environment that holds the key it is asked with, in the place of the client's credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_env: Option<String>,
    /// The file that does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_file: Option<PathBuf>,
    /// The header in which the key is sent.
    #[serde(default, skip_serializing_if = "ApiKeyHeader::is_authorization")]
    pub api_key_header: ApiKeyHeader,
    /// Its own limits on waits.
    #[serde(default, skip_serializing_if = "UpstreamTimeouts::are_none")]
    pub timeouts: UpstreamTimeouts,
    /// The key, as it was read.
    #[serde(skip)]
    pub api_key: Option<Secret>,
}

/// The header in which an upstream's key is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ApiKeyHeader {
    /// `Authorization: Bearer …`, as OpenAI, vLLM and most others take it.
    #[default]
    Authorization,
    /// `x-api-key`, as Anthropic takes it.
    XApiKey,
    /// `api-key`, as Azure takes it.
    ApiKey,
    /// `x-goog-api-key`, as Google takes it.
    XGoogApiKey,
}

/// An upstream's own limits on waits; `None` takes that of `[timeouts]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamTimeouts {
    /// Connecting to it.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "shown")]
    #[serde(deserialize_with = "units::duration::option::deserialize")]
    pub connect: Option<Duration>,
    /// From the request's end to the head of its reply.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "shown")]
    #[serde(deserialize_with = "units::duration::option::deserialize")]
    pub first_byte: Option<Duration>,
    /// Between two pieces of its reply, and until it takes the next piece of a request.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "shown")]
    #[serde(deserialize_with = "units::duration::option::deserialize")]
    pub idle: Option<Duration>,
}

/// What stands under `upstream` in a file.
#[derive(Debug)]
pub(super) enum FileUpstreams {
    /// `upstream = "http://…"`
    One(Uri),
    /// `[[upstream]]`
    Tables(Vec<Upstream>),
}

impl Upstreams {
    /// All upstreams, those chosen by model first.
    pub fn all(&self) -> impl Iterator<Item = &Upstream> {
        self.by_model.iter().chain([&self.default])
    }

    /// Merges what the file says with the flag, which sets the default's URL, and reads the keys.
    pub(super) fn merge(
        flag: Option<Uri>,
        file: Option<FileUpstreams>,
        source: &Source,
        environment: Environment<'_>,
    ) -> Result<Self, ConfigError> {
        let tables = match file {
            None => Vec::new(),
            Some(FileUpstreams::One(url)) => vec![Upstream::from(url)],
            Some(FileUpstreams::Tables(tables)) => tables,
        };
        let place = |table: usize, key: &str| source.place_in_table("upstream", table, key);
        let tables = with_keys(tables, &place, environment)?;
        let warnings = unreachable(&tables, &place);
        let (mut defaults, by_model): (Vec<_>, Vec<_>) =
            tables.into_iter().partition(|upstream| upstream.models.is_none());
        let named_default = by_model.iter().position(|upstream| upstream.name == DEFAULT_NAME);
        if let Some(table) = named_default.filter(|_| defaults.is_empty()) {
            let reason =
                "without a table that has no models, this is the name of the upstream for all other requests";
            return Err(ConfigError::Setting { place: place(table, "name"), reason: reason.to_owned() });
        }
        let mut default = defaults.pop().unwrap_or_else(|| Upstream::from(Uri::from_static(UPSTREAM)));
        default.url = flag.unwrap_or(default.url);
        if let Some(reason) = url_problem(&default.url) {
            return Err(ConfigError::Setting { place: Place::of("upstream"), reason });
        }
        Ok(Self { by_model, default, warnings })
    }

    /// Whether it is what a single URL says.
    fn is_plain(&self) -> bool {
        self.by_model.is_empty() && self.default == Upstream::from(self.default.url.clone())
    }
}

/// The tables of a file with their keys, if all of them can be used.
fn with_keys(
    tables: Vec<Upstream>,
    place: &dyn Fn(usize, &str) -> Place,
    environment: Environment<'_>,
) -> Result<Vec<Upstream>, ConfigError> {
    let mut names = HashSet::new();
    let mut has_default = false;
    let many = tables.len() > MOST;
    let mut complete = Vec::with_capacity(tables.len());
    for (table, mut upstream) in tables.into_iter().enumerate() {
        let wrong =
            |(key, reason): (&'static str, String)| ConfigError::Setting { place: place(table, key), reason };
        if many {
            return Err(wrong(("name", format!("there may be {MOST} upstreams at most"))));
        }
        upstream.problem().map_or(Ok(()), |problem| Err(wrong(problem)))?;
        if !names.insert(upstream.name.clone()) {
            return Err(wrong(("name", format!("another upstream is named {:?} too", upstream.name))));
        }
        if upstream.models.is_none() && std::mem::replace(&mut has_default, true) {
            let reason = "there is an upstream without models before, which takes all other requests; give this \
                          one the models that it serves";
            return Err(wrong(("name", reason.to_owned())));
        }
        upstream.api_key = upstream.read_key(environment).map_err(wrong)?;
        complete.push(upstream);
    }
    Ok(complete)
}

/// Says of each pattern that no request reaches, since an earlier one takes them all.
fn unreachable(tables: &[Upstream], place: &dyn Fn(usize, &str) -> Place) -> Vec<String> {
    let mut earlier: Vec<(&str, &ModelPattern)> = Vec::new();
    let mut warnings = Vec::new();
    for (table, upstream) in tables.iter().enumerate() {
        for pattern in upstream.models.iter().flatten() {
            if let Some((name, wider)) = earlier.iter().find(|(_, wider)| wider.covers(pattern)) {
                warnings.push(format!(
                    "{}: no request reaches {pattern:?}, since {wider:?} of {name:?} comes before",
                    place(table, "models"),
                    pattern = pattern.to_string(),
                    wider = wider.to_string(),
                ));
            }
            earlier.push((&upstream.name, pattern));
        }
    }
    warnings
}

impl Upstream {
    /// What cannot be used: the key and why.
    fn problem(&self) -> Option<(&'static str, String)> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if self.name.is_empty() || self.name.len() > 64 || !self.name.bytes().all(plain) {
            return Some(("name", "a name is 1 to 64 letters, digits and -_.".to_owned()));
        }
        if self.models.as_ref().is_some_and(Vec::is_empty) {
            let reason = "with no pattern nothing would go to it; leave the key out for the default";
            return Some(("models", reason.to_owned()));
        }
        if let Some(reason) = url_problem(&self.url) {
            return Some(("url", reason));
        }
        let waits = &self.timeouts;
        let waits = [("connect", waits.connect), ("first_byte", waits.first_byte), ("idle", waits.idle)];
        if let Some((key, _)) = waits.into_iter().find(|(_, wait)| wait.is_some_and(|wait| wait.is_zero())) {
            let reason = "with 0 every request would fail; leave the key out for that of [timeouts]";
            return Some((key, reason.to_owned()));
        }
        if self.api_key_env.is_some() && self.api_key_file.is_some() {
            let reason = "the key comes either from the environment or from a file; leave out one of both";
            return Some(("api_key_file", reason.to_owned()));
        }
        if self.api_key_header != ApiKeyHeader::default()
            && self.api_key_env.is_none()
            && self.api_key_file.is_none()
        {
            let reason = "there is no key to be sent in it; set api_key_env or api_key_file";
            return Some(("api_key_header", reason.to_owned()));
        }
        None
    }

    /// The key of the environment or the file. Neither is named in an error: whoever mistook it may have written the
    /// key itself.
    fn read_key(&self, environment: Environment<'_>) -> Result<Option<Secret>, (&'static str, String)> {
        let (from, text) = if let Some(variable) = &self.api_key_env {
            let missing = || ("api_key_env", "the environment has no variable of this name".to_owned());
            ("api_key_env", environment(variable).ok_or_else(missing)?)
        } else if let Some(file) = &self.api_key_file {
            let unreadable = |error| ("api_key_file", format!("the file cannot be read: {error}"));
            ("api_key_file", std::fs::read_to_string(file).map_err(unreadable)?)
        } else {
            return Ok(None);
        };
        let key = text.trim();
        if key.is_empty() {
            return Err((from, "the key is empty".to_owned()));
        }
        if HeaderValue::from_str(key).is_err() {
            return Err((from, "the key has characters that no header can hold".to_owned()));
        }
        Ok(Some(Secret::new(key.to_owned())))
    }
}

impl ApiKeyHeader {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
    fn is_authorization(&self) -> bool {
        *self == Self::Authorization
    }
}

impl UpstreamTimeouts {
    fn are_none(&self) -> bool {
        *self == Self::default()
    }
}

impl From<Uri> for Upstream {
    /// A server for every request, asked with the clients' own credentials.
    fn from(url: Uri) -> Self {
        Self {
            name: DEFAULT_NAME.to_owned(),
            models: None,
            url,
            api_key_env: None,
            api_key_file: None,
            api_key_header: ApiKeyHeader::default(),
            timeouts: UpstreamTimeouts::default(),
            api_key: None,
        }
    }
}

impl From<Uri> for Upstreams {
    /// This server alone.
    fn from(url: Uri) -> Self {
        Self { by_model: Vec::new(), default: Upstream::from(url), warnings: Vec::new() }
    }
}

impl FromStr for Upstreams {
    type Err = InvalidUri;

    /// The server of this URL alone.
    fn from_str(url: &str) -> Result<Self, InvalidUri> {
        url.parse::<Uri>().map(Self::from)
    }
}

impl Default for Upstreams {
    /// Ollama, where it listens by default.
    fn default() -> Self {
        Self::from(Uri::from_static(UPSTREAM))
    }
}

impl Serialize for Upstreams {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.is_plain() {
            return units::uri(&self.default.url, serializer);
        }
        let mut tables = serializer.serialize_seq(Some(self.by_model.len() + 1))?;
        self.all().try_for_each(|upstream| tables.serialize_element(upstream))?;
        tables.end()
    }
}

/// Reads what stands under `upstream`.
pub(super) fn of_file<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<FileUpstreams>, D::Error> {
    struct Either;
    impl<'de> Visitor<'de> for Either {
        type Value = FileUpstreams;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a URL, or tables [[upstream]]")
        }
        fn visit_str<E: de::Error>(self, url: &str) -> Result<FileUpstreams, E> {
            parse_uri(url).map(FileUpstreams::One)
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut tables: A) -> Result<FileUpstreams, A::Error> {
            let mut all = Vec::new();
            while let Some(table) = tables.next_element()? {
                all.push(table);
            }
            Ok(FileUpstreams::Tables(all))
        }
    }
    deserializer.deserialize_any(Either).map(Some)
}

fn uri<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uri, D::Error> {
    parse_uri(&String::deserialize(deserializer)?)
}

fn parse_uri<E: de::Error>(text: &str) -> Result<Uri, E> {
    text.parse().map_err(|error| E::custom(format!("{text:?} is no URL: {error}")))
}

#[expect(clippy::ref_option, reason = "the shape that serde calls")]
fn shown<S: Serializer>(wait: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match wait {
        Some(wait) => units::duration::serialize(wait, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests;
