//! Traces: each request and its steps arrive at a collector as spans, in the client's trace, with nothing of what was
//! asked or answered; and no collector is ever a client's problem.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind::{Client, Internal, Server};
use rejoinder::config::{EmbedderKind, Secret};
use rejoinder::trace::{TRACEPARENT, TRACESTATE};
use serde_json::json;

use crate::support::collector::{Told, attribute, hexadecimal, only};
use crate::support::wire::listener;
use crate::support::{
    Ask, Collector, Fault, Gate, PARAPHRASE, Proxy, QUESTION, Simulated, generating, proxy, proxy_with,
    saying, soon, streamed, upstream,
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

async fn traced() -> (Simulated, Collector, Proxy) {
    let (upstream, collector) = (upstream().await, Collector::start().await);
    let proxy = proxy_with(&upstream, |config| collector.configure(config)).await;
    (upstream, collector, proxy)
}

fn chat(prompt: &str) -> serde_json::Value {
    json!({"model": "llama3.2", "messages": [{"role": "user", "content": prompt}]})
}

/// A stream that comes as upstream sends it, since there is nothing to be taken out of it.
fn stream(prompt: &str) -> serde_json::Value {
    let mut body = streamed(&chat(prompt));
    body["stream_options"] = json!({"include_usage": true});
    body
}

fn steps(spans: &[Span]) -> Vec<&str> {
    let mut steps: Vec<_> =
        spans.iter().filter(|span| span.kind() == Internal).map(|span| span.name.as_str()).collect();
    steps.sort_unstable();
    steps.dedup();
    steps
}

#[tokio::test]
async fn a_miss_is_a_span_with_its_steps_and_its_call_of_upstream() {
    let (upstream, collector, proxy) = traced().await;
    let reply = proxy.post("/v1/chat/completions", &chat(QUESTION)).send().await;
    let spans = collector.until_requests(1).await;
    let (server, client) = (only(&spans, Server), only(&spans, Client));

    assert_eq!(server.name, "POST /v1/chat/completions");
    let told = |key| server.told(key).unwrap_or_default();
    assert_eq!(told("http.request.method"), "POST");
    assert_eq!(told("http.route"), "/v1/chat/completions");
    assert_eq!(told("url.path"), "/v1/chat/completions");
    assert_eq!(told("url.scheme"), "http");
    assert_eq!(told("http.response.status_code"), "200");
    assert_eq!(told("server.address"), "127.0.0.1");
    assert_eq!(told("server.port"), proxy.address().port().to_string());
    assert_eq!(told("rejoinder.layer"), "upstream");
    assert_eq!(told("rejoinder.detail"), "no-candidate");
    assert_eq!(told("rejoinder.stored"), "true");
    assert!(server.parent_span_id.is_empty() && server.error().is_none());

    assert_eq!(client.name, "chat llama3.2");
    let told = |key| client.told(key).unwrap_or_default();
    assert_eq!(told("gen_ai.operation.name"), "chat");
    assert_eq!(told("gen_ai.provider.name"), "openai");
    assert_eq!(told("gen_ai.request.model"), "llama3.2");
    let document = reply.json();
    assert_eq!(told("gen_ai.response.model"), document["model"].as_str().unwrap());
    assert_eq!(told("gen_ai.response.finish_reasons"), "stop");
    assert_eq!(told("gen_ai.usage.input_tokens"), document["usage"]["prompt_tokens"].to_string());
    assert_eq!(told("gen_ai.usage.output_tokens"), document["usage"]["completion_tokens"].to_string());
    assert_eq!(told("server.port"), upstream.address().port().to_string());
    assert!(client.error().is_none() && client.told("rejoinder.abandoned").is_none());

    assert_eq!(steps(&spans), ["exact lookup", "store"]);
    for span in spans.iter().filter(|span| span.kind() != Server) {
        assert_eq!(span.parent_span_id, server.span_id, "{span:?}");
        assert_eq!(span.trace_id, server.trace_id);
        assert!(span.start_time_unix_nano >= server.start_time_unix_nano);
    }
    // What upstream is told is that the call is its parent.
    let expected = format!("00-{}-{}-01", hexadecimal(&client.trace_id), hexadecimal(&client.span_id));
    assert_eq!(upstream.requests()[0].header("traceparent"), Some(expected.as_str()));
}

#[tokio::test]
async fn an_exact_hit_says_which_entry_served_and_calls_nobody() {
    let (_upstream, collector, proxy) = traced().await;
    proxy.post("/api/chat", &chat(QUESTION)).send().await;
    collector.until_requests(1).await;
    let hit = proxy.post("/api/chat", &chat(QUESTION)).send().await;
    assert_eq!(hit.layer(), Some("exact"));
    let spans = collector.until_requests(2).await;
    let server = spans.iter().rfind(|span| span.kind() == Server).unwrap();
    assert_eq!(server.told("rejoinder.layer").unwrap(), "exact");
    assert_eq!(server.told("rejoinder.detail").unwrap(), "hit");
    assert_eq!(server.told("rejoinder.entry").as_deref(), hit.header("x-rejoinder-entry"));
    let of_hit: Vec<_> = spans.iter().filter(|span| span.trace_id == server.trace_id).cloned().collect();
    assert_eq!((steps(&of_hit), of_hit.len()), (vec!["exact lookup"], 2));
}

#[tokio::test]
async fn a_semantic_hit_shows_each_step_of_the_evidence() {
    let (upstream, collector) = (upstream().await, Collector::start().await);
    let proxy = proxy_with(&upstream, |config| {
        collector.configure(config);
        config.embedder = EmbedderKind::Builtin;
    })
    .await;
    proxy.post("/v1/chat/completions", &chat(QUESTION)).send().await;
    let hit = proxy.post("/v1/chat/completions", &chat(PARAPHRASE)).send().await;
    assert_eq!(hit.layer(), Some("semantic"));
    let spans = collector.until_requests(2).await;
    let server = spans
        .iter()
        .find(|span| span.told("rejoinder.layer").as_deref() == Some("semantic"))
        .unwrap_or_else(|| panic!("{spans:#?}"));
    assert_eq!(server.told("rejoinder.similarity").as_deref(), hit.header("x-rejoinder-similarity"));
    assert_eq!(server.told("rejoinder.confidence").as_deref(), hit.header("x-rejoinder-confidence"));
    let of_hit: Vec<_> = spans.iter().filter(|span| span.trace_id == server.trace_id).cloned().collect();
    assert_eq!(steps(&of_hit), ["embed", "exact lookup", "semantic search", "verify"]);
    assert!(of_hit.iter().all(|span| span.kind() != Client), "upstream was not called");
}

#[tokio::test]
async fn the_spans_of_a_stream_end_when_it_ends() {
    let (upstream, collector, proxy) = traced().await;
    let gate = Gate::new();
    upstream.set_fault(Fault::none().gate_after(100, &gate));
    let mut stream = proxy.post("/v1/chat/completions", &stream(QUESTION)).open().await;
    stream.until("data: ").await;
    let before_its_end = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
    gate.open();
    stream.finish().await.unwrap();
    let spans = collector.until_requests(1).await;
    for span in [only(&spans, Server), only(&spans, Client)] {
        assert!(u128::from(span.end_time_unix_nano) >= before_its_end, "{span:?}");
        assert!(u128::from(span.start_time_unix_nano) <= before_its_end, "{span:?}");
        assert!(span.error().is_none());
    }
    let client = only(&spans, Client);
    assert_eq!(client.told("gen_ai.request.stream").as_deref(), Some("true"));
    assert_eq!(client.told("gen_ai.response.finish_reasons").as_deref(), Some("stop"));
    assert!(client.told("gen_ai.usage.output_tokens").is_some());
}

#[tokio::test]
async fn every_dialect_says_what_it_asked_and_was_told() {
    let (_upstream, collector, proxy) = traced().await;
    for (path, body) in generating("A question") {
        let sent = collector.spans().iter().filter(|span| span.kind() == Client).count();
        assert_eq!(proxy.post(path, &body).send().await.status, StatusCode::OK);
        let calls = |spans: &[Span]| spans.iter().filter(|span| span.kind() == Client).count();
        let spans = collector.until(|spans| calls(spans) > sent).await;
        let client = spans.iter().rfind(|span| span.kind() == Client).unwrap();
        assert!(client.name.ends_with(" llama3.2"), "{client:?}");
        for key in ["gen_ai.response.model", "gen_ai.response.finish_reasons", "gen_ai.usage.output_tokens"] {
            assert!(client.told(key).is_some(), "{path}: {key}: {client:?}");
        }
    }
}

#[tokio::test]
async fn what_fails_says_how() {
    let (upstream, collector, proxy) = traced().await;
    upstream.fault_next(Fault::status(StatusCode::INTERNAL_SERVER_ERROR));
    proxy.post("/v1/chat/completions", &chat("one")).send().await;
    let spans = collector.until_requests(1).await;
    assert_eq!(only(&spans, Server).error().as_deref(), Some("500"));
    assert_eq!(only(&spans, Client).error().as_deref(), Some("500"));

    upstream.stop_listening().await.unwrap();
    for (count, request) in [
        (2, proxy.post("/v1/chat/completions", &chat("two"))),
        (3, Ask::get(&format!("{}/v1/models", proxy.url()))),
    ] {
        assert_eq!(request.send().await.status, StatusCode::BAD_GATEWAY);
        let spans = collector.until_requests(count).await;
        let last = |kind| spans.iter().rfind(|span: &&Span| span.kind() == kind).unwrap();
        assert_eq!(last(Server).error().as_deref(), Some("502"));
        assert_eq!(last(Client).error().as_deref(), Some("upstream_unreachable"));
    }
    assert_eq!(collector.spans().iter().rfind(|span| span.kind() == Client).unwrap().name, "GET");
    upstream.listen_again().await.unwrap();

    // An error that breaks off is the error that it was.
    upstream.fault_next(Fault::status(StatusCode::BAD_REQUEST).reset_after(10));
    assert!(proxy.post("/api/chat", &chat("five")).try_send().await.is_err());
    let spans = collector.until_requests(4).await;
    assert_eq!(spans.iter().rfind(|span| span.kind() == Client).unwrap().error().as_deref(), Some("400"));

    upstream.fault_next(Fault::none().reset_after(100));
    let mut stream = proxy.post("/v1/chat/completions", &stream("three")).open().await;
    assert!(stream.finish().await.is_err());
    let spans = collector.until_requests(5).await;
    let last = |kind| spans.iter().rfind(|span: &&Span| span.kind() == kind).unwrap();
    assert_eq!(last(Server).error().as_deref(), Some("upstream_disconnected"));
    assert_eq!(last(Client).error().as_deref(), Some("upstream_disconnected"));
}

#[tokio::test]
async fn a_client_that_gives_up_ends_its_span_and_the_call() {
    let (upstream, collector, proxy) = traced().await;
    let gate = Gate::new();
    upstream.set_fault(Fault::none().gate_after(100, &gate));
    let mut stream = proxy.post("/v1/chat/completions", &stream(QUESTION)).open().await;
    stream.until("data: ").await;
    drop(stream);
    let ended =
        |spans: &[Span]| [Server, Client].iter().all(|kind| spans.iter().any(|span| span.kind() == *kind));
    let spans = collector.until(ended).await;
    assert_eq!(only(&spans, Server).error().as_deref(), Some("client_disconnected"));
    assert_eq!(only(&spans, Client).told("rejoinder.abandoned").as_deref(), Some("true"));
    assert_eq!(only(&spans, Client).error(), None, "to be abandoned is no error of the call");

    // Before there is a head.
    upstream.set_fault(Fault::none().gate(&gate));
    let waiting = tokio::spawn(Ask::get(&format!("{}/v1/models", proxy.url())).try_send());
    soon(gate.until_waiting(1)).await;
    waiting.abort();
    let spans = collector.until(|spans| spans.iter().filter(|span| span.kind() == Server).count() == 2).await;
    let server = spans.iter().rfind(|span| span.kind() == Server).unwrap();
    assert_eq!(server.error().as_deref(), Some("client_disconnected"));
    assert_eq!(server.told("http.response.status_code"), None);
}

#[tokio::test]
async fn a_clients_trace_is_continued_and_passed_on() {
    let (upstream, collector, proxy) = traced().await;
    let state = "vendor=opaque,other=1";
    let asks = [
        proxy.post("/v1/chat/completions", &chat(QUESTION)),
        Ask::get(&format!("{}/v1/models", proxy.url())),
    ];
    for (index, ask) in asks.into_iter().enumerate() {
        ask.header("traceparent", PARENT).header("tracestate", state).send().await;
        let spans = collector.until_requests(index + 1).await;
        let last = |kind| spans.iter().rfind(|span: &&Span| span.kind() == kind).unwrap();
        let (server, client) = (last(Server), last(Client));
        assert_eq!(hexadecimal(&server.trace_id), TRACE);
        assert_eq!(hexadecimal(&server.parent_span_id), "b7ad6b7169203331");
        assert_eq!(server.trace_state, state);
        assert_eq!(client.parent_span_id, server.span_id);
        let upstreams = &upstream.requests()[index];
        let expected = format!("00-{TRACE}-{}-01", hexadecimal(&client.span_id));
        assert_eq!(upstreams.header_values("traceparent").collect::<Vec<_>>(), [expected.as_str()]);
        assert_eq!(upstreams.header("tracestate"), Some(state));
    }

    // What is no parent begins a trace, to which another's state does not belong.
    let wrong = proxy.post("/v1/chat/completions", &chat("Another question"));
    wrong.header("traceparent", "00-nonsense").header("tracestate", state).send().await;
    let spans = collector.until_requests(3).await;
    let server = spans.iter().rfind(|span| span.kind() == Server).unwrap();
    assert!(server.parent_span_id.is_empty());
    let upstreams = &upstream.requests()[2];
    assert!(upstreams.header("traceparent").unwrap().contains(&hexadecimal(&server.trace_id)));
    assert_eq!(upstreams.header("tracestate"), None);
}

#[tokio::test]
async fn what_is_not_sampled_is_not_exported_and_upstream_is_told() {
    let (upstream, collector, proxy) = traced().await;
    let unsampled = proxy.post("/v1/chat/completions", &chat("one")).header("traceparent", UNSAMPLED);
    unsampled.header("tracestate", "vendor=1").send().await;
    proxy.post("/v1/chat/completions", &chat("two")).header("traceparent", PARENT).send().await;
    let spans = collector.until_requests(1).await;
    assert!(spans.iter().all(|span| hexadecimal(&span.trace_id) == TRACE), "{spans:#?}");
    let first = &upstream.requests()[0];
    assert_eq!(
        (first.header("traceparent"), first.header("tracestate")),
        (Some(UNSAMPLED), Some("vendor=1"))
    );

    // A trace that begins here and is not drawn.
    let proxy = proxy_with(&upstream, |config| {
        collector.configure(config);
        config.telemetry.otlp.sampling_ratio = 0.0;
    })
    .await;
    proxy.post("/v1/chat/completions", &chat("three")).send().await;
    let parent = upstream.requests()[2].header("traceparent").unwrap().to_owned();
    assert!(parent.starts_with("00-") && parent.ends_with("-00"), "{parent}");
    // The client's own decision counts for more.
    proxy.post("/v1/chat/completions", &chat("four")).header("traceparent", PARENT).send().await;
    let spans = collector.until_requests(2).await;
    assert!(spans.iter().all(|span| hexadecimal(&span.trace_id) == TRACE), "{spans:#?}");
}

#[tokio::test]
async fn without_a_collector_what_a_client_sends_travels_as_it_came() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    for (index, parent) in [PARENT, UNSAMPLED, "nonsense"].into_iter().enumerate() {
        let ask = proxy.post("/v1/chat/completions", &chat(&format!("question {index}")));
        ask.header("traceparent", parent).header("tracestate", "vendor=1").send().await;
        let request = &upstream.requests()[index];
        assert_eq!(request.header_values(TRACEPARENT.as_str()).collect::<Vec<_>>(), [parent]);
        assert_eq!(request.header_values(TRACESTATE.as_str()).collect::<Vec<_>>(), ["vendor=1"]);
    }
    proxy.post("/v1/chat/completions", &chat("nothing")).send().await;
    assert_eq!(upstream.requests()[3].header("traceparent"), None);
}

#[tokio::test]
async fn the_exporter_says_who_it_is_and_shows_its_key() {
    let (upstream, collector) = (upstream().await, Collector::start().await);
    let proxy = proxy_with(&upstream, |config| {
        collector.configure(config);
        let otlp = &mut config.telemetry.otlp;
        otlp.service_name = "cache".to_owned();
        otlp.resource_attributes.insert("deployment.environment.name".to_owned(), "test".to_owned());
        otlp.headers.insert("authorization".to_owned(), Secret::new("Bearer key".to_owned()));
    })
    .await;
    proxy.post("/api/chat", &chat(QUESTION)).send().await;
    collector.until_requests(1).await;
    let export = &collector.exports()[0];
    assert_eq!(export.path, "/v1/traces");
    assert_eq!(export.headers["authorization"], "Bearer key");
    let told = |key| attribute(&export.resource.attributes, key).unwrap_or_default();
    assert_eq!(told("service.name"), "cache");
    assert_eq!(told("service.version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(told("deployment.environment.name"), "test");
    assert_eq!(told("telemetry.sdk.language"), "rust");
    assert_eq!(export.scope.scope.as_ref().unwrap().name, "rejoinder");
}

#[tokio::test]
async fn a_shutdown_sends_what_is_left() {
    let (_upstream, collector, proxy) = traced().await;
    proxy.post("/api/chat", &chat(QUESTION)).send().await;
    proxy.shutdown().await;
    only(&collector.spans(), Server);
}

#[tokio::test]
async fn a_collector_that_is_down_or_refuses_costs_clients_nothing_and_is_counted() {
    let upstream = upstream().await;
    let refusing = Collector::answering(StatusCode::BAD_REQUEST).await;
    let proxy = proxy_with(&upstream, |config| refusing.configure(config)).await;
    let body = chat(QUESTION);
    assert_eq!(proxy.post("/v1/chat/completions", &body).send().await.status, StatusCode::OK);
    assert_eq!(proxy.post("/v1/chat/completions", &body).send().await.layer(), Some("exact"));
    let dropped = async {
        loop {
            let metrics = Ask::get(&format!("{}/metrics", proxy.admin_url())).send().await;
            let line = metrics.text().lines().find(|line| {
                line.starts_with("rejoinder_spans_dropped_total{reason=\"export-failed\"}")
                    && !line.ends_with(" 0")
            });
            if line.is_some() {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), dropped).await.unwrap();

    // Nobody listens; somebody listens and never answers.
    let (_silent, silent) = listener().await;
    for collector in ["http://127.0.0.1:9", &silent] {
        let down = proxy_with(&upstream, |config| {
            config.telemetry.otlp.endpoint = Some(collector.parse().unwrap());
        })
        .await;
        assert_eq!(down.post("/v1/chat/completions", &body).send().await.status, StatusCode::OK);
        assert_eq!(down.post("/v1/chat/completions", &body).send().await.layer(), Some("exact"));
        soon(down.shutdown()).await;
    }
}

#[tokio::test]
async fn nothing_of_what_is_asked_or_answered_or_who_asks_is_exported() {
    const CANARIES: [&str; 7] = [
        "prompt-canary",
        "reply-canary",
        "key-canary",
        "query-canary",
        "agent-canary",
        "cookie-canary",
        "name-canary",
    ];
    let (upstream, collector) = (upstream().await, Collector::start().await);
    let proxy = proxy_with(&upstream, |config| {
        collector.configure(config);
        config.embedder = EmbedderKind::Builtin;
    })
    .await;
    let with = |ask: Ask| {
        ask.header("authorization", "Bearer key-canary")
            .header("x-api-key", "key-canary")
            .header("cookie", "session=cookie-canary")
            .header("user-agent", "agent-canary")
            .header("x-rejoinder-namespace", "name-canary")
    };
    let path = "/v1/chat/completions?key=query-canary";
    let body = chat("What is the prompt-canary?");
    upstream.set_fault(saying("The reply-canary."));
    for body in [&body, &body, &chat("What is the prompt-canary, then?"), &streamed(&body)] {
        with(proxy.post(path, body)).send().await;
    }
    with(proxy.post(path, &body)).header("cache-control", "no-store").send().await;
    with(proxy.post("/ask?key=query-canary", &json!({"query": "prompt-canary"}))).send().await;
    with(Ask::get(&format!("{}/v1/models?key=query-canary", proxy.url()))).send().await;
    upstream.set_fault(Fault::status(StatusCode::INTERNAL_SERVER_ERROR));
    with(proxy.post(path, &chat("Another prompt-canary?"))).send().await;
    collector.until_requests(8).await;
    for export in collector.exports() {
        for canary in CANARIES {
            let found = memchr::memmem::find(&export.bytes, canary.as_bytes());
            assert_eq!(found, None, "{canary} in {:?}", export.scope);
        }
    }
}
