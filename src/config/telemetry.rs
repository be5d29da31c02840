//! `[telemetry]`: where traces go. Read from the file, and from the standard variables of OpenTelemetry, which win
//! over it (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>).

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::validation::url_problem;
use super::{ConfigError, Environment, Place, Secret, secret, units};

/// The path of traces on a collector (OTLP 1.0, "OTLP/HTTP Request").
const TRACES_PATH: &str = "/v1/traces";

/// `[telemetry]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// Traces.
    pub otlp: Otlp,
}

/// `[telemetry.otlp]`: traces to an OpenTelemetry collector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Otlp {
    /// The collector's URL; one without a path is given `/v1/traces`. `None`: no traces.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "units::optional_shown",
        deserialize_with = "units::optional_uri"
    )]
    pub endpoint: Option<Uri>,
    /// How spans travel.
    pub protocol: OtlpProtocol,
    /// The share of traces begun here that are exported, 0 to 1. A trace that a client began is exported as the client
    /// decided (`traceparent`).
    pub sampling_ratio: f64,
    /// The name of this service in traces.
    pub service_name: String,
    /// How long one request to the collector may take.
    #[serde(with = "units::duration")]
    pub export_timeout: Duration,
    /// What else describes this process, by attribute.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub resource_attributes: BTreeMap<String, String>,
    /// Headers of each request to the collector. Secrets, since they hold its key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "secrets")]
    pub headers: BTreeMap<String, Secret>,
}

/// How spans travel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OtlpProtocol {
    /// Protobuf by HTTP
    #[default]
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
}

impl Default for Otlp {
    fn default() -> Self {
        Self {
            endpoint: None,
            protocol: OtlpProtocol::HttpProtobuf,
            sampling_ratio: 1.0,
            service_name: "rejoinder".to_owned(),
            export_timeout: Duration::from_secs(10),
            resource_attributes: BTreeMap::new(),
            headers: BTreeMap::new(),
        }
    }
}

/// Header values of the file. What stands there is never shown, not even in an error.
fn secrets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Secret>, D::Error> {
    BTreeMap::<String, toml::Value>::deserialize(deserializer)?
        .into_iter()
        .map(|(name, value)| match value {
            toml::Value::String(text) => Ok((name, Secret::new(text))),
            _ => Err(de::Error::custom("a header's value is a string in quotation marks")),
        })
        .collect()
}

impl Otlp {
    /// Where traces go; `None` where there are none.
    pub fn url(&self) -> Option<Uri> {
        let url = self.endpoint.clone()?;
        if matches!(url.path(), "" | "/") { with_traces_path(&url) } else { Some(url) }
    }

    /// The same with what the environment says.
    pub(super) fn with_environment(mut self, environment: Environment<'_>) -> Result<Self, ConfigError> {
        // Empty counts as absent, as OpenTelemetry has it.
        let of = |name: &str| environment(name).filter(|text| !text.trim().is_empty());
        let is = |name: &str, value: &str| of(name).is_some_and(|text| text.eq_ignore_ascii_case(value));
        if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
            self.endpoint = None;
            return Ok(self);
        }
        let url = |name: &str| match of(name) {
            Some(text) => {
                text.parse::<Uri>().map(Some).map_err(|error| wrong(name, &format!("no URL: {error}")))
            }
            None => Ok(None),
        };
        if let Some(endpoint) = url("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")? {
            self.endpoint = Some(endpoint);
        } else if let Some(base) = url("OTEL_EXPORTER_OTLP_ENDPOINT")? {
            self.endpoint = with_traces_path(&base);
        }
        if self.endpoint.is_none() {
            return Ok(self);
        }
        let of_traces = |name: &str| {
            let names = [format!("OTEL_EXPORTER_OTLP_TRACES_{name}"), format!("OTEL_EXPORTER_OTLP_{name}")];
            names.into_iter().find_map(|name| of(&name).map(|text| (name, text)))
        };
        if let Some((name, protocol)) = of_traces("PROTOCOL")
            && protocol != "http/protobuf"
        {
            let reason = format!(
                "{protocol:?} is not spoken here; set http/protobuf and the collector's port for it (4318 as a rule), or \
                 OTEL_SDK_DISABLED=true for no traces"
            );
            return Err(wrong(&name, &reason));
        }
        for name in ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"] {
            if let Some(text) = secret::read(name, environment)? {
                self.headers
                    .extend(pairs(name, text.expose())?.map(|(key, value)| (key, Secret::new(value))));
            }
        }
        if let Some(text) = of("OTEL_RESOURCE_ATTRIBUTES") {
            self.resource_attributes.extend(pairs("OTEL_RESOURCE_ATTRIBUTES", &text)?);
            if let Some(name) = self.resource_attributes.remove("service.name") {
                self.service_name = name;
            }
        }
        if let Some(name) = of("OTEL_SERVICE_NAME") {
            self.service_name = name;
        }
        if let Some(text) = of("OTEL_TRACES_SAMPLER_ARG") {
            let name = "OTEL_TRACES_SAMPLER_ARG";
            self.sampling_ratio = text
                .trim()
                .parse()
                .map_err(|_| wrong(name, &format!("{text:?} is no number between 0 and 1")))?;
        }
        Ok(self)
    }

    /// The first setting that cannot be used, and why.
    pub(super) fn problem(&self) -> Option<(&'static str, String)> {
        if let Some(endpoint) = &self.endpoint
            && let Some(reason) = url_problem(endpoint)
        {
            return Some(("telemetry.otlp.endpoint", reason));
        }
        if !(0.0..=1.0).contains(&self.sampling_ratio) {
            return Some((
                "telemetry.otlp.sampling_ratio",
                format!("{} is not between 0 and 1", self.sampling_ratio),
            ));
        }
        if self.export_timeout.is_zero() {
            let reason = "with 0 no span would arrive; leave the key out for the default".to_owned();
            return Some(("telemetry.otlp.export_timeout", reason));
        }
        for (name, value) in &self.headers {
            if name.parse::<HeaderName>().is_err() {
                return Some(("telemetry.otlp.headers", format!("{name:?} is no header name")));
            }
            if HeaderValue::from_str(value.expose()).is_err() {
                return Some((
                    "telemetry.otlp.headers",
                    format!("{name} has characters that no header can hold"),
                ));
            }
        }
        None
    }
}

fn wrong(place: &str, reason: &str) -> ConfigError {
    ConfigError::Setting { place: Place::of(place), reason: reason.to_owned() }
}

/// A base URL with the path of traces behind its own. `None` for what is no URL with a scheme and a host.
fn with_traces_path(base: &Uri) -> Option<Uri> {
    let path = format!("{}{TRACES_PATH}", base.path().trim_end_matches('/'));
    let mut parts = base.clone().into_parts();
    parts.path_and_query = Some(path.parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// Pairs as the environment has them: `name=value,name=value`, values percent-encoded. No error shows a value.
fn pairs<'a>(
    variable: &str,
    text: &'a str,
) -> Result<impl Iterator<Item = (String, String)> + use<'a>, ConfigError> {
    let pair = |pair: &'a str| {
        let (name, value) = pair.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        Some((name.trim().to_owned(), value.into_owned()))
    };
    let pairs: Option<Vec<_>> = text.split(',').filter(|pair| !pair.trim().is_empty()).map(pair).collect();
    let pairs = pairs.ok_or_else(|| wrong(variable, "it is not of the form name=value,name=value"))?;
    Ok(pairs.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<Otlp, ConfigError> {
        let environment =
            |name: &str| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Otlp::default().with_environment(&environment)
    }

    fn url(pairs: &[(&str, &str)]) -> Option<String> {
        of(pairs).unwrap().url().map(|url| url.to_string())
    }

    #[test]
    fn the_standard_variables_say_where_traces_go() {
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/base/");
        let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://t/own");
        assert_eq!(url(&[]), None);
        assert_eq!(url(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), None);
        assert_eq!(url(&[base]).as_deref(), Some("http://c:4318/base/v1/traces"));
        assert_eq!(url(&[base, traces]).as_deref(), Some("https://t/own"));
        assert_eq!(url(&[base, ("OTEL_SDK_DISABLED", "True")]), None);
        assert_eq!(url(&[base, ("OTEL_TRACES_EXPORTER", "none")]), None);
    }

    #[test]
    fn the_standard_variables_describe_the_process_and_hold_the_key() {
        let otlp = of(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20general, x-tenant = blue"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "authorization=Bearer%20traces"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,deployment.environment.name=test"),
            ("OTEL_SERVICE_NAME", "cache"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ])
        .unwrap();
        assert_eq!(otlp.headers["authorization"].expose(), "Bearer traces");
        assert_eq!(otlp.headers["x-tenant"].expose(), "blue");
        assert_eq!(otlp.service_name, "cache");
        assert_eq!(otlp.resource_attributes.len(), 1);
        assert!((otlp.sampling_ratio - 0.25).abs() < f64::EPSILON);
        let shown = toml::to_string(&otlp).unwrap() + &format!("{otlp:?}");
        assert!(shown.contains("***") && !shown.contains("Bearer"), "{shown}");
        assert_eq!(otlp.problem(), None);
    }

    #[test]
    fn what_cannot_be_used_names_the_variable_and_shows_no_secret() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c");
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "canary"),
            ("OTEL_TRACES_SAMPLER_ARG", "some"),
        ] {
            let error = of(&[endpoint, (name, value)]).unwrap_err().to_string();
            assert!(error.starts_with(name) && !error.contains("canary"), "{error}");
            assert!(of(&[(name, value)]).is_ok(), "nobody asked for traces");
        }
    }
}
