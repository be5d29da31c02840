//! What holds for every reply, whatever it says and however its stream was cut.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::tests::{CHAT, GENERATE, gather, replay};
use crate::dialect::{Endpoint, Form, Unstorable};

/// What a client would put together from a stream, read with other means than the code under test.
fn as_client(endpoint: Endpoint, stream: &str) -> (String, String, Vec<Value>, Vec<Value>, Value) {
    let (mut text, mut thinking, mut calls, mut logprobs) = (String::new(), String::new(), vec![], vec![]);
    let all: Vec<Value> = stream.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (last, others) = all.split_last().unwrap();
    assert_eq!(last["done"], true);
    assert!(others.iter().all(|line| line["done"] == false));
    for line in &all {
        let (content, name) = match endpoint {
            Endpoint::OllamaChat => (&line["message"], "content"),
            _ => (line, "response"),
        };
        text.push_str(content[name].as_str().unwrap_or_default());
        thinking.push_str(content["thinking"].as_str().unwrap_or_default());
        calls.extend(content["tool_calls"].as_array().cloned().unwrap_or_default());
        logprobs.extend(line["logprobs"].as_array().cloned().unwrap_or_default());
    }
    (text, thinking, calls, logprobs, last.clone())
}

prop_compose! {
    /// A reply and the stream in which it came.
    fn stream()(
        chat: bool,
        thinking in prop::collection::vec("\\PC{1,20}", 0..4),
        text in prop::collection::vec("(\\PC|[ \n\"\\\\\u{301}\u{200d}]){0,40}", 1..30),
        calls in prop::collection::vec("[a-z]{1,8}", 0..3),
        aligned: bool,
        crlf: bool,
        ended: bool,
    ) -> (Endpoint, String) {
        let endpoint = if chat { CHAT } else { GENERATE };
        let line = |text: &str, thinking: Option<&str>, calls: Vec<Value>| {
            let mut content = serde_json::Map::new();
            content.insert(if chat { "content" } else { "response" }.to_owned(), json!(text));
            if let Some(thinking) = thinking {
                content.insert("thinking".to_owned(), json!(thinking));
            }
            if !calls.is_empty() {
                content.insert("tool_calls".to_owned(), json!(calls));
            }
            let mut line = json!({"model": "m", "created_at": "2024-01-01T00:00:00Z", "done": false});
            let object = line.as_object_mut().unwrap();
            if chat {
                content.insert("role".to_owned(), json!("assistant"));
                object.insert("message".to_owned(), Value::Object(content));
            } else {
                object.extend(content);
            }
            line
        };
        let mut lines = Vec::new();
        lines.extend(thinking.iter().map(|piece| line("", Some(piece), vec![])));
        for piece in &text {
            let mut line = line(piece, None, vec![]);
            if aligned {
                line["logprobs"] = json!([{"token": piece, "logprob": -0.5}]);
            }
            lines.push(line);
        }
        lines.extend(calls.iter().map(|name| line("", None, vec![json!({"function": {"name": name}})])));
        let mut last = line("", None, vec![]);
        for (name, value) in [
            ("done", json!(true)), ("done_reason", json!("stop")), ("eval_count", json!(7)),
            ("total_duration", json!(u64::MAX)), ("context", json!([1, 2])), ("_unknown", json!({"a": 1.5})),
        ] {
            last[name] = value;
        }
        lines.push(last);
        let end = if crlf { "\r\n" } else { "\n" };
        let mut stream: String = lines.iter().flat_map(|line| [line.to_string(), end.to_owned()]).collect();
        if !ended {
            stream.truncate(stream.len() - end.len());
        }
        (endpoint, stream)
    }
}

proptest! {
    #[test]
    fn a_replayed_stream_says_what_the_stream_said((endpoint, stream) in stream()) {
        let sent = as_client(endpoint, &stream);
        let reply = match gather(endpoint, Form::Ndjson, &stream) {
            Ok(reply) => reply,
            Err(why) => {
                prop_assert_eq!(why, Unstorable::Empty);
                prop_assert!(sent.0.trim().is_empty() && sent.2.is_empty());
                return Ok(());
            }
        };
        prop_assert_eq!(&reply.text, &sent.0);
        prop_assert_eq!(reply.tool_calls, !sent.2.is_empty());
        let again = replay(endpoint, &reply.document, Form::Ndjson);
        let mut got = as_client(endpoint, &again);
        got.4["created_at"] = sent.4["created_at"].clone();
        prop_assert_eq!(&got, &sent);

        // What was gathered from a replay is what the replay was made of.
        let twice = gather(endpoint, Form::Ndjson, &again).unwrap();
        prop_assert_eq!(replay(endpoint, &twice.document, Form::Ndjson), again);
        let whole = replay(endpoint, &reply.document, Form::Json);
        let unstreamed = gather(endpoint, Form::Json, &whole).unwrap();
        prop_assert_eq!(unstreamed.text, reply.text);
        let values: [Value; 2] = [&twice.document, &unstreamed.document].map(|d| serde_json::from_slice(d).unwrap());
        prop_assert_eq!(&values[0], &values[1]);
    }

    #[test]
    fn a_stream_cut_anywhere_is_never_stored((endpoint, stream) in stream(), at: prop::sample::Index) {
        // A missing last line break alone cuts nothing off.
        let whole = stream.trim_end().len();
        let cut = at.index(whole);
        let body = Bytes::copy_from_slice(&stream.as_bytes()[..cut]);
        prop_assert!(endpoint.gather(Form::Ndjson, &body).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let body = Bytes::from(body);
        for endpoint in [CHAT, GENERATE, Endpoint::OllamaEmbed] {
            for form in [Form::Json, Form::Ndjson] {
                let _ = endpoint.gather(form, &body);
                let _ = endpoint.replay(&body, form);
            }
        }
    }
}
