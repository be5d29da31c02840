//! The connection to an upstream: one pooled client, one base URL, limits on every wait, and its key.
//!
//! Called by the rest of `proxy`. Whatever a request's target, `Host` or path says, it goes to the configured
//! upstream and nowhere else; the configured key goes there and nowhere else either.

use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version, request};
use hyper::body::{Body as _, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::body::{Body, BodyError};
use super::error::ProxyError;
use super::headers::{CREDENTIALS, is_framing_known};
use super::permits::Permits;
use crate::causes::causes;
use crate::config::{self, ApiKeyHeader, Config, Secret};

/// The one way to an upstream.
#[derive(Debug, Clone)]
pub struct Upstream {
    name: Arc<str>,
    key: Option<ApiKey>,
    client: Client<HttpsConnector<HttpConnector>, Body>,
    scheme: Scheme,
    authority: Authority,
    host: HeaderValue,
    /// The base URL's path without a slash at its end.
    prefix: Arc<str>,
    /// The base URL, as scopes hold it.
    url: Arc<str>,
    first_byte: Duration,
    idle: Duration,
    permits: Permits,
}

/// What an upstream is asked with in the place of the clients' credentials.
#[derive(Debug, Clone)]
struct ApiKey {
    header: HeaderName,
    /// Marked as sensitive, so that nothing shows it.
    value: HeaderValue,
    /// Its name in scopes, which no header has.
    scoped: &'static str,
}

/// The configuration's upstream is no URL that requests can go to.
#[derive(Debug, thiserror::Error)]
#[error("{0} is no URL that requests can go to")]
pub struct UpstreamUrlError(String);

impl Upstream {
    /// An upstream of a configuration.
    ///
    /// # Errors
    /// Its URL has no scheme or host, or no header can hold its key, which [`Config::load`] does not let pass.
    pub fn new(upstream: &config::Upstream, config: &Config) -> Result<Self, UpstreamUrlError> {
        let url = &upstream.url;
        let timeouts = &upstream.timeouts;
        let error = || UpstreamUrlError(url.to_string());
        let authority = url.authority().cloned().ok_or_else(error)?;
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| error())?;
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(timeouts.connect.unwrap_or(config.timeouts.connect)));
        let connector = HttpsConnectorBuilder::new()
            .with_webpki_roots()
            .https_or_http()
            .enable_http1()
            .enable_http2()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(config.timeouts.keep_alive)
            .build(connector);
        let key =
            upstream.api_key.as_ref().map(|key| ApiKey::new(key, upstream.api_key_header).ok_or_else(error));
        Ok(Self {
            name: upstream.name.as_str().into(),
            key: key.transpose()?,
            client,
            scheme: url.scheme().cloned().ok_or_else(error)?,
            authority,
            host,
            prefix: url.path().trim_end_matches('/').into(),
            url: url.to_string().into(),
            first_byte: timeouts.first_byte.unwrap_or(config.timeouts.first_byte),
            idle: timeouts.idle.unwrap_or(config.timeouts.idle),
            permits: Permits::new(config),
        })
    }

    /// The base URL, as scopes hold it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The server's name or address, and its port.
    pub fn server(&self) -> (String, u16) {
        let port = if self.scheme == Scheme::HTTPS { 443 } else { 80 };
        (self.authority.host().to_owned(), self.authority.port_u16().unwrap_or(port))
    }

    /// What the configuration calls it.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The key that it is asked with, for the scope, in the place of the clients' credentials.
    pub fn key(&self) -> Option<(&'static str, &[u8])> {
        self.key.as_ref().map(|key| (key.scoped, key.value.as_bytes()))
    }

    /// How long it may pause within a reply.
    pub fn idle(&self) -> Duration {
        self.idle
    }

    /// How many requests may be there at once, and who waits to be.
    pub fn permits(&self) -> &Permits {
        &self.permits
    }

    /// Where a request to `uri` goes: the same path and query, as sent, behind the prefix.
    ///
    /// # Errors
    /// A target without a path, or one whose dots could climb out of the prefix.
    pub fn target(&self, method: &Method, uri: &Uri) -> Result<Uri, ProxyError> {
        if *method == Method::CONNECT {
            return Err(ProxyError::BadRequest(
                "CONNECT is not supported: this proxy serves one upstream's API",
            ));
        }
        if uri.scheme().is_none() && uri.authority().is_some() {
            return Err(ProxyError::BadRequest("the request's target has no path"));
        }
        let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        if !path.starts_with('/') {
            return Err(ProxyError::BadRequest("the request's target has no path"));
        }
        if !self.prefix.is_empty() && climbs(uri.path()) {
            return Err(ProxyError::BadRequest("dot segments in the path could leave the upstream's prefix"));
        }
        let path = if self.prefix.is_empty() {
            uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))
        } else {
            PathAndQuery::try_from(format!("{}{path}", self.prefix))
                .map_err(|_| ProxyError::BadRequest("the request's target is no valid path"))?
        };
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()
            .map_err(|_| ProxyError::BadRequest("the request's target is no valid path"))
    }

    /// Sends a request whose headers were stripped, and waits for the head of its reply.
    ///
    /// # Errors
    /// Upstream cannot be reached, breaks off, or does not begin to answer in time.
    pub async fn send(
        &self,
        mut parts: request::Parts,
        mut body: Body,
    ) -> Result<Response<Incoming>, ProxyError> {
        parts.uri = self.target(&parts.method, &parts.uri)?;
        parts.version = Version::HTTP_11;
        parts.headers.insert(HOST, self.host.clone());
        if let Some(key) = &self.key {
            key.replace_credentials(&mut parts.headers);
        }
        frame(&mut parts.headers, &body);
        // A long upload is not upstream's delay: its time begins when the request is out. Unless it takes nothing
        // of it any more.
        let upload = body.upload();
        let limit = async {
            if upload.passed(self.idle).await.is_err() {
                return self.idle;
            }
            tokio::time::sleep(self.first_byte).await;
            self.first_byte
        };
        let mut response = tokio::select! {
            sent = self.client.request(Request::from_parts(parts, body)) => {
                sent.map_err(|error| blame(&error))?
            }
            elapsed = limit => return Err(ProxyError::UpstreamTimeout(elapsed)),
        };
        if !is_framing_known(response.headers()) {
            let problem = "its reply has a transfer coding that is not known here";
            return Err(ProxyError::Upstream(problem.to_owned()));
        }
        // Each hop speaks its own version (RFC 9110 §2.5): a reply of an old upstream ends for the client by its
        // framing, not by the end of the connection.
        *response.version_mut() = Version::HTTP_11;
        Ok(response)
    }
}

impl ApiKey {
    /// `None` where no header can hold it.
    fn new(key: &Secret, header: ApiKeyHeader) -> Option<Self> {
        let plain = key.expose();
        let (header, text, scoped) = match header {
            ApiKeyHeader::Authorization => {
                (AUTHORIZATION, &*format!("Bearer {plain}"), "configured authorization")
            }
            ApiKeyHeader::XApiKey => (HeaderName::from_static("x-api-key"), plain, "configured x-api-key"),
            ApiKeyHeader::ApiKey => (HeaderName::from_static("api-key"), plain, "configured api-key"),
            ApiKeyHeader::XGoogApiKey => {
                (HeaderName::from_static("x-goog-api-key"), plain, "configured x-goog-api-key")
            }
        };
        let mut value = HeaderValue::from_str(text).ok()?;
        value.set_sensitive(true);
        Some(Self { header, value, scoped })
    }

    /// Nothing of who asks here goes there.
    fn replace_credentials(&self, headers: &mut HeaderMap) {
        for name in &CREDENTIALS {
            headers.remove(name);
        }
        headers.insert(self.header.clone(), self.value.clone());
    }
}

/// The one header that frames a body: its own length, whatever was claimed, or chunks. hyper would leave the body
/// of an unusual method out rather than send it in chunks unasked.
fn frame(headers: &mut HeaderMap, body: &Body) {
    let claimed = headers.remove(CONTENT_LENGTH).is_some();
    match body.size_hint().exact() {
        Some(0) if !claimed => {}
        Some(length) => drop(headers.insert(CONTENT_LENGTH, HeaderValue::from(length))),
        None => drop(headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))),
    }
}

/// Whether a path has dot segments (RFC 3986 §5.2.4), also where slash or dot are percent-encoded, be it several times,
/// the slash is a backslash, or parameters or a NUL follow the dots: upstream may read them so.
fn climbs(path: &str) -> bool {
    if !path.contains(['.', '%']) {
        return false;
    }
    let mut plain = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        // `%25` is a percent sign, and `%2525` one that is encoded twice.
        let code = after.trim_start_matches("25");
        let decoded = match code.get(..2).map(str::to_ascii_lowercase).as_deref() {
            Some("2e") => Some('.'),
            Some("2f" | "5c") => Some('/'),
            Some("3b" | "00") => Some(';'),
            _ => None,
        };
        plain.push_str(before);
        plain.push(decoded.unwrap_or('%'));
        rest = if decoded.is_some() { code.get(2..).unwrap_or_default() } else { code };
    }
    plain.push_str(rest);
    plain.split(['/', '\\']).any(|segment| matches!(segment.split(';').next(), Some("." | "..")))
}

/// Whose fault it is: upstream's, or the client's, whose body broke off on its way.
fn blame(error: &(dyn std::error::Error + 'static)) -> ProxyError {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(body) = cause.downcast_ref::<BodyError>() {
            return ProxyError::RequestBody(causes(body));
        }
        source = cause.source();
    }
    ProxyError::Upstream(causes(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(url: &'static str) -> Upstream {
        Upstream::new(&Uri::from_static(url).into(), &Config::default()).unwrap()
    }

    fn target(url: &'static str, asked: &'static str) -> Result<String, ProxyError> {
        upstream(url).target(&Method::GET, &Uri::from_static(asked)).map(|uri| uri.to_string())
    }

    #[test]
    fn requests_go_to_the_configured_upstream_with_their_path_as_sent() {
        assert_eq!(target("http://u:1", "/a//b/../c?x=%2e&y").unwrap(), "http://u:1/a//b/../c?x=%2e&y");
        assert_eq!(target("http://u:1", "http://evil/secret").unwrap(), "http://u:1/secret");
        assert_eq!(
            target("https://u/openai/", "/v1/models?a=..").unwrap(),
            "https://u/openai/v1/models?a=.."
        );
        assert!(upstream("http://u").target(&Method::CONNECT, &Uri::from_static("evil:443")).is_err());
        assert!(target("http://u", "*").is_err());
    }

    #[test]
    fn the_prefix_cannot_be_left() {
        let spellings = [
            "/../x",
            "/a/%2E%2e/x",
            "/..%2fx",
            "/a/.%2E",
            "/..%5cx",
            "/a/./b",
            "/..;/x",
            "/..;a=b",
            "/..%3Bx",
            "/..%00",
            "/%252e%252E/x",
            "/%25252e./x",
            "/a%252f..%252fx",
        ];
        for path in spellings {
            assert!(target("http://u/prefix", path).is_err(), "{path}");
        }
        for path in ["/v1/files/a..b/c.txt", "/100%25/x", "/%2525/.a", "/;/x", "/...", "/%25%", "/a%2"] {
            assert_eq!(target("http://u/prefix", path).unwrap(), format!("http://u/prefix{path}"));
        }
        assert!(target("http://u", "h:80").is_err(), "the form of CONNECT");
    }
}
