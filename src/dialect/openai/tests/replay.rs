//! The bytes of a replay, in each form.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{CHAT, CHAT_LOGPROBS, CHAT_TOOLS, COMPLETION, RESPONSE, SSE, read, replay};
use crate::dialect::Endpoint::{self, OpenAiChat, OpenAiCompletions, OpenAiEmbeddings, OpenAiResponses};
use crate::dialect::{Echo, Form};

fn plain(endpoint: Endpoint, document: &str, form: Form) -> String {
    replay(endpoint, document, form, &Echo::default())
}

/// A replay with its fresh id written as `prefix…`, as it differs each time.
fn with_id_hidden(replay: &str, prefix: &str) -> String {
    let start = replay.find(prefix).unwrap();
    let id = replay[start..].split('"').next().unwrap();
    replay.replace(id, &format!("{prefix}…"))
}

#[test]
fn a_document_is_replayed_byte_for_byte_but_for_id_and_created() {
    let first = plain(OpenAiChat, CHAT, Form::Json);
    let expected = CHAT.replace("1741569952", "2000000000").replace("chatcmpl-Bq7mZ2kTn4", "chatcmpl-…");
    assert_eq!(with_id_hidden(&first, "chatcmpl-"), expected);
    assert_ne!(first, plain(OpenAiChat, CHAT, Form::Json), "each replay has its own id");
    let text = plain(OpenAiCompletions, COMPLETION, Form::Json);
    let expected = COMPLETION.replace("1700000000", "2000000000").replace("cmpl-c1", "cmpl-…");
    assert_eq!(with_id_hidden(&text, "cmpl-"), expected);
    let embeddings = " {\"data\": [], \"id\": \"kept\", \"created\": 1}\n";
    assert_eq!(plain(OpenAiEmbeddings, embeddings, Form::Json), embeddings);
    // A server that gives no id, or none that is a text, is not corrected.
    let odd = r#"{"created":"then","id":7,"choices":[]}"#;
    assert_eq!(plain(OpenAiChat, odd, Form::Json), odd);
}

#[test]
fn a_response_keeps_its_id_and_echoes_its_own_caller() {
    let expected = RESPONSE.replace("1741290958", "2000000000").replace("1741290960", "2000000000");
    let default = expected
        .replace("\"store\": false", "\"store\": true")
        .replace("\"somebody else\"", "null")
        .replace("{ \"theirs\": \"1\" }", "{}");
    assert_eq!(plain(OpenAiResponses, RESPONSE, Form::Json), default);
    let body = r#"{"input":"q","store":false,"user":"me","metadata":{"mine":"2"},"prompt_cache_key":"not in the document"}"#;
    let echo = read(OpenAiResponses, body).unwrap().echo;
    let own =
        expected.replace("\"somebody else\"", "\"me\"").replace("{ \"theirs\": \"1\" }", r#"{"mine":"2"}"#);
    assert_eq!(replay(OpenAiResponses, RESPONSE, Form::Json, &echo), own);
    let stream = replay(OpenAiResponses, RESPONSE, SSE, &echo);
    assert!(!stream.contains("theirs") && !stream.contains("somebody"), "{stream}");
}

#[test]
fn a_chat_is_streamed() {
    insta::assert_snapshot!(with_id_hidden(&plain(OpenAiChat, CHAT, SSE), "chatcmpl-"));
    let without = plain(OpenAiChat, CHAT, Form::Sse { usage: false });
    assert!(!without.contains("usage"), "{without}");
    // Where usage is unknown it is left out.
    let unknown = plain(OpenAiChat, CHAT_LOGPROBS, SSE);
    assert!(!unknown.contains("usage"), "{unknown}");
}

#[test]
fn tool_calls_and_reasoning_are_streamed() {
    insta::assert_snapshot!(with_id_hidden(&plain(OpenAiChat, CHAT_TOOLS, SSE), "chatcmpl-"));
}

#[test]
fn log_probabilities_refusals_and_several_choices_are_streamed() {
    insta::assert_snapshot!(with_id_hidden(&plain(OpenAiChat, CHAT_LOGPROBS, SSE), "chatcmpl-"));
}

#[test]
fn a_text_completion_is_streamed() {
    insta::assert_snapshot!(with_id_hidden(&plain(OpenAiCompletions, COMPLETION, SSE), "cmpl-"));
}

#[test]
fn a_response_is_streamed() {
    insta::assert_snapshot!(plain(OpenAiResponses, RESPONSE, SSE));
}

/// Whatever the output, the events are numbered, named and placed so that a client can put it together again.
#[test]
fn response_events_rise_and_agree_with_the_document() {
    let stream = plain(OpenAiResponses, RESPONSE, SSE);
    let mut texts: BTreeMap<(u64, u64), String> = BTreeMap::new();
    for (number, event) in stream.split_terminator("\n\n").enumerate() {
        let (name, data) = event.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!((data["type"].as_str(), &data["sequence_number"]), (Some(name), &json!(number)));
        if name == "response.output_text.delta" {
            let place = (data["output_index"].as_u64().unwrap(), data["content_index"].as_u64().unwrap());
            texts.entry(place).or_default().push_str(data["delta"].as_str().unwrap());
        }
    }
    assert_eq!(texts, BTreeMap::from([((1, 0), "Hi there".to_owned())]));
    assert!(stream.ends_with("}\n\n") && !stream.contains("[DONE]"));
}

#[test]
fn a_long_text_is_streamed_in_short_lines() {
    let text = "word ".repeat(4000);
    let document = CHAT.replace("Grüße aus", &text);
    assert!(plain(OpenAiChat, &document, SSE).lines().all(|line| line.len() < 1000));
}

#[test]
fn a_form_that_an_endpoint_does_not_have_is_refused() {
    for endpoint in [OpenAiChat, OpenAiCompletions, OpenAiResponses, OpenAiEmbeddings] {
        assert!(endpoint.replay(&CHAT.into(), Form::Ndjson).is_err());
        for broken in ["", "[]", "{", "{\"choices\":7,\"output\":7}", "{\"choices\":[7],\"output\":[7]}"] {
            assert!(endpoint.replay(&broken.into(), SSE).is_err(), "{endpoint:?} {broken}");
        }
    }
    assert!(OpenAiEmbeddings.replay(&"{}".into(), SSE).is_err());
}

#[test]
fn a_stream_is_not_many_times_as_long_as_its_document() {
    let (name, text) = ("m".repeat(10_000), "word ".repeat(10_000));
    for (endpoint, document) in [
        (
            OpenAiChat,
            json!({"model": name, "choices": [{"message": {"content": text}, "finish_reason": "stop"}]}),
        ),
        (
            OpenAiChat,
            json!({"id": name, "choices": [{"message": {"content": text}, "finish_reason": "stop"}]}),
        ),
        (OpenAiCompletions, json!({"model": name, "choices": [{"text": text, "finish_reason": "stop"}]})),
        (
            OpenAiResponses,
            json!({"output": [{"id": name, "type": "message", "content": [{"type": "output_text", "text": text}]}]}),
        ),
    ] {
        let document = Bytes::from(document.to_string());
        assert!(endpoint.replay(&document, SSE).is_err(), "{endpoint:?}");
        assert!(endpoint.replay(&document, Form::Json).is_ok(), "{endpoint:?}");
    }
}
