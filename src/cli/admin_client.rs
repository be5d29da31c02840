//! The commands' way to a running proxy's admin listener: one request, one JSON document back.
//!
//! Called by the commands that ask a running proxy. Every error names its cause and what would help.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;

use crate::causes::causes;
use crate::config::{ConfigError, Environment, Secret};
use crate::proxy::collect::next_data;

/// How long the proxy may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long it may take to answer: a list looks at every entry.
const TIMEOUT: Duration = Duration::from_mins(1);

/// The largest answer that is read, in bytes.
const LARGEST: usize = 256 << 20;

/// The media type of lines of JSON.
const NDJSON: &str = "application/x-ndjson";

/// Where the running proxy is.
#[derive(Debug, Clone, Args)]
#[expect(clippy::doc_markdown, reason = "these are the help texts of the command line, which is no Markdown")]
pub(super) struct AdminFlags {
    /// The running proxy's admin listener. Its token, where it has one: REJOINDER_ADMIN_TOKEN or
    /// REJOINDER_ADMIN_TOKEN_FILE
    #[arg(
        long,
        env = "REJOINDER_ADMIN",
        value_name = "URL",
        default_value = "http://127.0.0.1:11436",
        value_parser = admin_url
    )]
    pub(super) admin: Uri,
}

/// The URL of an admin listener. One with a user name or password is refused later, where it is not shown.
fn admin_url(text: &str) -> Result<Uri, String> {
    let url = text.parse::<Uri>().ok().filter(|url| {
        matches!(url.scheme_str(), Some("http" | "https"))
            && url.host().is_some_and(|host| !host.is_empty())
            && url.query().is_none()
    });
    url.ok_or_else(|| "no URL of an admin listener; give it as http://127.0.0.1:11436".to_owned())
}

/// Why the running proxy did not say what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum AdminError {
    /// The URL cannot be asked.
    #[error("{0} is no URL of an admin listener; give it as http://127.0.0.1:11436")]
    Url(String),
    /// The token's file cannot be read, or the token cannot be sent.
    #[error("{0}; set REJOINDER_ADMIN_TOKEN, or REJOINDER_ADMIN_TOKEN_FILE to a file that can be read")]
    Token(String),
    /// Nobody answers there.
    #[error(
        "no rejoinder answers at {url}: {reason}; start one by `rejoinder serve`, or say by --admin where its admin \
         listener is"
    )]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        reason: String,
    },
    /// It began to answer and did not end.
    #[error("the answer of {url} did not come whole: {reason}; try again, or look at the proxy's log")]
    Broken {
        /// Where.
        url: String,
        /// Why.
        reason: String,
    },
    /// The token is missing or wrong.
    #[error(
        "{0} refuses the admin token; set REJOINDER_ADMIN_TOKEN (or _FILE) to the one that the proxy was given"
    )]
    Unauthorized(String),
    /// Something else answers there.
    #[error(
        "what answers at {0} is not rejoinder's admin listener; is it the client listener, or another program? The \
         admin listener is at http://127.0.0.1:11436 unless --admin-listen says otherwise"
    )]
    NotRejoinder(String),
    /// There is no entry of this id.
    #[error("{0}; `rejoinder entries list` shows those there are")]
    Missing(String),
    /// It answered with an error of its own.
    #[error("{url} answered {status}: {message}")]
    Refused {
        /// Where.
        url: String,
        /// The status.
        status: StatusCode,
        /// What it said.
        message: String,
    },
}

/// A way to one admin listener.
pub(super) struct AdminClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// The base URL without a slash at its end.
    base: String,
    token: Option<HeaderValue>,
}

impl AdminClient {
    /// A client of the flags' admin listener, with the environment's token.
    pub(super) fn new(flags: &AdminFlags, environment: Environment<'_>) -> Result<Self, AdminError> {
        let url = &flags.admin;
        if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            // Not shown, since it may hold a password.
            return Err(AdminError::Url("what has a user name or password".to_owned()));
        }
        let token = Secret::of_environment("REJOINDER_ADMIN_TOKEN", environment)
            .map_err(|error: ConfigError| AdminError::Token(error.to_string()))?;
        let token = token.map(|token| bearer(&token)).transpose()?;
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_webpki_roots()
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let base = url.to_string().trim_end_matches('/').to_owned();
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(connector), base, token })
    }

    /// `GET` of a path, as a document.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, AdminError> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// A request of any method and body (JSON, or nothing), and the document that answers it.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, AdminError> {
        let response = self.send(method, path, "application/json", body).await?;
        self.document(path, response).await
    }

    /// `POST` of lines of JSON, and the document that answers them.
    pub(super) async fn post_lines<T: DeserializeOwned>(
        &self,
        path: &str,
        lines: Bytes,
    ) -> Result<T, AdminError> {
        let response = self.send(Method::POST, path, NDJSON, lines).await?;
        self.document(path, response).await
    }

    /// `GET` of a path that answers with lines of JSON, piece by piece.
    pub(super) async fn stream(&self, path: &str) -> Result<Pieces, AdminError> {
        let response = self.send(Method::GET, path, NDJSON, Bytes::new()).await?;
        let kind =
            response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes() == NDJSON.as_bytes());
        if response.status() == StatusCode::OK && kind {
            return Ok(Pieces { url: format!("{}{path}", self.base), body: response.into_body() });
        }
        let said: serde_json::Value = self.document(path, response).await?;
        drop(said);
        Err(AdminError::NotRejoinder(self.base.clone()))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        kind: &'static str,
        body: Bytes,
    ) -> Result<Response<Incoming>, AdminError> {
        let url = format!("{}{path}", self.base);
        let mut request = Request::builder().method(method).uri(&url);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token.clone());
        }
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, kind);
        }
        let request = request.body(Full::new(body)).map_err(|_| AdminError::Url(url.clone()))?;
        let unreachable = |reason: String| AdminError::Unreachable { url: self.base.clone(), reason };
        tokio::time::timeout(TIMEOUT, self.client.request(request))
            .await
            .map_err(|_| unreachable(format!("it took longer than {TIMEOUT:?}")))?
            .map_err(|error| unreachable(harmless(&causes(&error))))
    }

    async fn document<T: DeserializeOwned>(
        &self,
        path: &str,
        response: Response<Incoming>,
    ) -> Result<T, AdminError> {
        let url = format!("{}{path}", self.base);
        let (head, body) = response.into_parts();
        let broken = |reason: String| AdminError::Broken { url: url.clone(), reason };
        let body = tokio::time::timeout(TIMEOUT, Limited::new(body, LARGEST).collect())
            .await
            .map_err(|_| broken(format!("it took longer than {TIMEOUT:?}")))?
            .map_err(|error| broken(harmless(&error.to_string())))?
            .to_bytes();
        if head.status.is_success() {
            let document: &[u8] = if head.status == StatusCode::NO_CONTENT { b"null" } else { &body };
            return serde_json::from_slice(document).map_err(|_| AdminError::NotRejoinder(self.base.clone()));
        }
        // Ours are documents with an error that is a text; no other program's is known to be told apart.
        let message = serde_json::from_slice::<Said>(&body).ok();
        match (head.status, message) {
            (StatusCode::UNAUTHORIZED, Some(_)) => Err(AdminError::Unauthorized(self.base.clone())),
            (StatusCode::NOT_FOUND, Some(Said { error })) if error.starts_with("there is no entry ") => {
                Err(AdminError::Missing(error))
            }
            (StatusCode::NOT_FOUND, _) | (_, None) => Err(AdminError::NotRejoinder(self.base.clone())),
            (status, Some(Said { error })) => {
                Err(AdminError::Refused { url, status, message: harmless(&error) })
            }
        }
    }
}

/// An answer that comes piece by piece.
pub(super) struct Pieces {
    url: String,
    body: Incoming,
}

impl Pieces {
    /// The next piece; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, AdminError> {
        let broken = |reason: String| AdminError::Broken { url: self.url.clone(), reason };
        match tokio::time::timeout(TIMEOUT, next_data(&mut self.body, TIMEOUT)).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(data))) => Ok(Some(data)),
            Ok(Some(Err(error))) => Err(broken(harmless(&causes(&error)))),
            Err(_) => Err(broken(format!("nothing came for {TIMEOUT:?}"))),
        }
    }
}

/// Waits for what is asked of a running proxy.
pub(super) fn wait<T>(asking: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(asking)
}

/// Text of a proxy's for a terminal: what would steer one is shown as `\u{FFFD}`, line ends and tabs aside.
pub(super) fn harmless(text: &str) -> String {
    let steers = |character: char| match character {
        '\n' | '\t' => false,
        // What turns the direction of writing round (UAX #9), or is not seen, could make one prompt look like another.
        '\u{200B}'..='\u{200F}'
        | '\u{202A}'..='\u{202E}'
        | '\u{2060}'..='\u{206F}'
        | '\u{061C}'
        | '\u{FEFF}' => true,
        _ => character.is_control(),
    };
    text.chars().map(|character| if steers(character) { '\u{FFFD}' } else { character }).collect()
}

/// Writes a result to standard output.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write the result")
}

/// An error of the admin listener's.
#[derive(serde::Deserialize)]
struct Said {
    error: String,
}

fn bearer(token: &Secret) -> Result<HeaderValue, AdminError> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose())).map_err(|_| {
        AdminError::Token("the admin token has characters that no header can hold".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_other_side_says_cannot_command_a_terminal() {
        assert_eq!(harmless("\u{1b}[2Jx\u{9b}\n\u{fc}"), "\u{FFFD}[2Jx\u{FFFD}\n\u{fc}");
    }
}
