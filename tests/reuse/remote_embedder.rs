//! Embedders on a server: what is sent, what is understood, and what a failing server costs.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rejoinder::breaker::BreakerSettings;
use rejoinder::embed::{ApiKey, EmbedError, Embedder, EmbedderError, EmbedderState, RemoteOptions};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A request as the server saw it.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    path: String,
    key: Option<String>,
    body: Value,
}

enum Answer {
    Json(u16, Value),
    Text(u16, String),
    /// Never.
    None,
}

struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// Answers each request by its path and body.
    async fn start(answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (answer, log) = (Arc::new(answer), Arc::clone(&seen));
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                let service =
                    service_fn(move |request| serve(request, Arc::clone(&answer), Arc::clone(&log)));
                tokio::spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    drop(server.serve_connection(TokioIo::new(socket), service).await);
                });
            }
        });
        Self { address, seen }
    }

    fn options(&self, prefix: &str) -> RemoteOptions {
        RemoteOptions::new(format!("http://{}{prefix}", self.address).parse().unwrap(), "a-model")
    }

    fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

async fn serve<F: Fn(&Seen) -> Answer>(
    request: Request<Incoming>,
    answer: Arc<F>,
    log: Arc<Mutex<Vec<Seen>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let seen = Seen {
        path: head.uri.to_string(),
        key: head.headers.get("authorization").map(|value| value.to_str().unwrap().to_owned()),
        body: serde_json::from_slice(&body).unwrap(),
    };
    let answer = answer(&seen);
    log.lock().unwrap().push(seen);
    let (status, body) = match answer {
        Answer::Json(status, body) => (status, body.to_string()),
        Answer::Text(status, body) => (status, body),
        Answer::None => std::future::pending().await,
    };
    Ok(Response::builder().status(status).body(Full::new(body.into())).unwrap())
}

fn newer(_: &Seen) -> Answer {
    Answer::Json(200, json!({"model": "a-model", "embeddings": [[3.0, 4.0]], "total_duration": 14_143_917}))
}

#[tokio::test]
async fn ollama_is_asked_by_its_api() {
    let server = Server::start(newer).await;
    let embedder = Embedder::ollama(server.options("/behind/")).unwrap();
    assert_eq!(embedder.name(), "ollama/a-model");
    assert_eq!(embedder.embed("Why is the sky blue?").await.unwrap().values(), [0.6, 0.8]);
    let body = json!({"model": "a-model", "input": "Why is the sky blue?", "truncate": false});
    assert_eq!(server.seen(), [Seen { path: "/behind/api/embed".to_owned(), key: None, body }]);
    assert_eq!(embedder.state(), EmbedderState::Ok);
}

#[tokio::test]
async fn openai_is_asked_by_its_api() {
    let server = Server::start(|_| {
        let entry = json!({"object": "embedding", "embedding": [0.0, -2.0], "index": 0});
        Answer::Json(200, json!({"object": "list", "data": [entry], "usage": {"prompt_tokens": 5}}))
    })
    .await;
    for prefix in ["", "/v1", "/v1/", "/openai/v1"] {
        let mut options = server.options(prefix);
        options.api_key = ApiKey::new("sk-secret");
        let embedder = Embedder::openai(options).unwrap();
        assert!(!format!("{embedder:?}").contains("secret"));
        assert_eq!(embedder.name(), "openai/a-model");
        assert_eq!(embedder.embed("Hi").await.unwrap().values(), [0.0, -1.0]);
        let path = if prefix == "/openai/v1" { "/openai/v1/embeddings" } else { "/v1/embeddings" };
        let body = json!({"model": "a-model", "input": "Hi", "encoding_format": "float"});
        let key = Some("Bearer sk-secret".to_owned());
        assert_eq!(server.seen(), [Seen { path: path.to_owned(), key, body }], "{prefix}");
    }
}

#[tokio::test]
async fn an_older_ollama_is_asked_by_its_older_api() {
    let server = Server::start(|seen| match seen.path.as_str() {
        "/api/embeddings" => Answer::Json(200, json!({"embedding": [5.0, 0.0]})),
        _ => Answer::Text(404, "404 page not found".to_owned()),
    })
    .await;
    let embedder = Embedder::ollama(server.options("")).unwrap();
    assert_eq!(embedder.embed("Hi").await.unwrap().values(), [1.0, 0.0]);
    assert_eq!(embedder.embed("Ho").await.unwrap().values(), [1.0, 0.0]);
    let paths: Vec<_> = server.seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(paths, ["/api/embed", "/api/embeddings", "/api/embeddings"]);
}

#[tokio::test]
async fn an_older_ollama_never_cuts_a_text_unnoticed() {
    let server = Server::start(|seen| match seen.path.as_str() {
        "/api/embeddings" => Answer::Json(200, json!({"embedding": [5.0, 0.0]})),
        _ => Answer::Text(404, "404 page not found".to_owned()),
    })
    .await;
    let embedder = Embedder::ollama(server.options("")).unwrap();
    let text = "é".repeat(500);
    // Before the first request nobody knows that the server is old.
    assert_eq!(embedder.window(&text), 1000);
    assert!(matches!(embedder.embed(&text).await, Err(EmbedError::Failed(_))));
    assert_eq!(embedder.window(&text), 250);
    embedder.embed(&text).await.unwrap();
    assert_eq!(server.seen().last().unwrap().body["prompt"], "é".repeat(125));
    assert_eq!(embedder.state(), EmbedderState::Ok);
}

#[tokio::test]
async fn a_missing_model_is_a_failure() {
    let server = Server::start(|_| Answer::Json(404, json!({"error": "model \"a-model\" not found"}))).await;
    let embedder = Embedder::ollama(server.options("")).unwrap();
    assert!(matches!(embedder.embed("Hi").await, Err(EmbedError::Failed(_))));
    assert_eq!(embedder.state(), EmbedderState::Degraded);
    assert_eq!(embedder.window(&"x".repeat(1000)), 1000);
}

#[tokio::test]
async fn only_the_window_is_sent() {
    let server = Server::start(newer).await;
    let mut options = server.options("");
    options.window = 3;
    let embedder = Embedder::ollama(options).unwrap();
    assert_eq!(embedder.window("äöü?"), 6);
    assert_eq!(embedder.window("äöü"), 6);
    embedder.embed("äöü?").await.unwrap();
    assert_eq!(server.seen()[0].body["input"], "äöü");
}

#[tokio::test]
async fn a_blank_text_is_not_sent() {
    let server = Server::start(newer).await;
    let embedder = Embedder::ollama(server.options("")).unwrap();
    assert!(matches!(embedder.embed(" \n").await, Err(EmbedError::Empty)));
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn an_answer_that_is_no_embedding_is_a_failure() {
    let long = format!("[{}1]", "1,".repeat(1 << 20));
    for body in [
        "garbage",
        "{}",
        r#"{"embeddings": []}"#,
        r#"{"embeddings": [[1.0], [2.0]]}"#,
        r#"{"embeddings": [[]]}"#,
        r#"{"embeddings": [[0.0, 0.0]]}"#,
        r#"{"embeddings": [["NaN"]]}"#,
        r#"{"embeddings": [[1e39]]}"#,
        long.as_str(),
    ] {
        let body = body.to_owned();
        let server = Server::start(move |_| Answer::Text(200, body.clone())).await;
        let embedder = Embedder::ollama(server.options("")).unwrap();
        let error = embedder.embed("Hi").await.unwrap_err();
        assert!(matches!(&error, EmbedError::Failed(_)), "{error}");
        assert_eq!(embedder.state(), EmbedderState::Degraded);
    }
}

#[tokio::test]
async fn a_refused_text_says_nothing_about_the_server() {
    for status in [400, 413, 422] {
        let server = Server::start(move |_| Answer::Json(status, json!({"error": "too long: Hi"}))).await;
        let embedder = Embedder::ollama(server.options("")).unwrap();
        let error = embedder.embed("Hi").await.unwrap_err();
        assert!(!error.to_string().contains("Hi"), "{error}");
        assert_eq!(embedder.state(), EmbedderState::Ok);
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let server = Server::start(|_| Answer::Text(307, String::new())).await;
    let embedder = Embedder::ollama(server.options("")).unwrap();
    assert!(matches!(embedder.embed("Hi").await, Err(EmbedError::Failed(_))));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_in_time() {
    let server = Server::start(|_| Answer::None).await;
    let mut options = server.options("");
    options.timeout = Duration::from_millis(50);
    let embedder = Embedder::ollama(options).unwrap();
    assert!(matches!(embedder.embed("Hi").await, Err(EmbedError::Timeout(_))));
}

#[tokio::test]
async fn a_server_that_keeps_failing_is_left_alone() {
    let server = Server::start(|_| Answer::Json(500, json!({"error": "out of memory"}))).await;
    let mut options = server.options("");
    options.breaker = BreakerSettings {
        failures: NonZeroU32::new(2).unwrap(),
        backoff: Duration::from_hours(1),
        longest_backoff: Duration::from_hours(1),
    };
    let embedder = Embedder::ollama(options).unwrap();
    assert!(matches!(embedder.embed("Hi").await, Err(EmbedError::Failed(_))));
    assert_eq!(embedder.state(), EmbedderState::Degraded);
    assert!(matches!(embedder.embed("Hi").await, Err(EmbedError::Failed(_))));
    assert_eq!(embedder.state(), EmbedderState::Down);
    assert!(matches!(embedder.embed("Hi").await, Err(EmbedError::Unavailable)));
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn an_unreachable_server_is_a_failure_with_its_cause() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let options = RemoteOptions::new(format!("http://{free}").parse().unwrap(), "a-model");
    let error = Embedder::ollama(options).unwrap().embed("Hi").await.unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
}

#[test]
fn urls_that_cannot_be_used_are_refused_without_telling_their_password() {
    for url in
        ["example.com", "/path", "ftp://example.com", "http://example.com/?a=b", "http://user:pw@example.com"]
    {
        let options = RemoteOptions::new(url.parse().unwrap(), "a-model");
        let error = Embedder::openai(options).unwrap_err();
        assert!(matches!(error, EmbedderError::Url { .. }), "{url}");
        assert!(!error.to_string().contains("pw"), "{error}");
    }
}
