//! What holds for every message, whatever it says and however its stream was cut.

use std::fmt::Write as _;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::tests::{MESSAGES, SSE, gather, replay};
use crate::dialect::{Form, Unstorable, Usage};

/// What a client would put together from a stream: the rules of the official ones, on plain values.
fn as_client(stream: &str) -> Value {
    let mut message = Value::Null;
    let mut inputs: Vec<String> = Vec::new();
    let mut stopped = false;
    for event in stream.split("\n\n").filter(|event| !event.is_empty()) {
        let (name, data) = event.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name.strip_prefix("event: ").unwrap(), data["type"]);
        assert!(!stopped);
        let index = usize::try_from(data["index"].as_u64().unwrap_or_default()).unwrap();
        match data["type"].as_str().unwrap() {
            "message_start" => message = data["message"].clone(),
            "content_block_start" => {
                let blocks = message["content"].as_array_mut().unwrap();
                assert_eq!(blocks.len(), index);
                blocks.push(data["content_block"].clone());
                inputs.push(String::new());
            }
            "content_block_delta" => {
                let (block, delta) = (&mut message["content"][index], &data["delta"]);
                let append = |block: &mut Value, name: &str| {
                    let text = block[name].as_str().unwrap().to_owned() + delta[name].as_str().unwrap();
                    block[name] = json!(text);
                };
                match delta["type"].as_str().unwrap() {
                    "text_delta" => append(block, "text"),
                    "thinking_delta" => append(block, "thinking"),
                    "signature_delta" => block["signature"] = delta["signature"].clone(),
                    "citations_delta" => {
                        block["citations"].as_array_mut().unwrap().push(delta["citation"].clone());
                    }
                    "input_json_delta" => inputs[index].push_str(delta["partial_json"].as_str().unwrap()),
                    other => panic!("{other}"),
                }
            }
            "content_block_stop" => {
                if !inputs[index].is_empty() {
                    message["content"][index]["input"] = serde_json::from_str(&inputs[index]).unwrap();
                }
            }
            "message_delta" => {
                for (name, value) in data["delta"].as_object().unwrap() {
                    message[name] = value.clone();
                }
                for (name, value) in data["usage"].as_object().unwrap() {
                    message["usage"][name] = value.clone();
                }
                if let Some(management) = data.get("context_management") {
                    message["context_management"] = management.clone();
                }
            }
            "message_stop" => stopped = true,
            other => panic!("{other}"),
        }
    }
    assert!(stopped);
    message
}

/// A content block: any of the kinds, with any text.
fn block() -> impl Strategy<Value = Value> {
    let text = "(\\PC|[ \n\r\"\\\\\u{2028}\u{301}\u{200d}]){0,300}";
    prop_oneof![
        (text, any::<bool>()).prop_map(|(text, cited)| {
            if cited {
                json!({"type": "text", "text": text, "citations": [{"cited_text": text}, {"n": 2.5}]})
            } else {
                json!({"type": "text", "text": text})
            }
        }),
        (text, text).prop_map(|(t, s)| json!({"type": "thinking", "thinking": t, "signature": s})),
        text.prop_map(|data| json!({"type": "redacted_thinking", "data": data})),
        (text, "[a-z]{0,5}").prop_map(|(value, name)| {
            json!({"type": "tool_use", "id": "toolu_1", "name": name, "input": {name.clone(): [value, null, {}]}})
        }),
        Just(json!({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}})),
        Just(json!({"type": "web_search_tool_result", "tool_use_id": "s", "content": []})),
    ]
}

prop_compose! {
    fn message()(
        blocks in prop::collection::vec(block(), 1..6),
        sequence in prop::option::of("\\PC{0,10}"),
        output in 0..u64::MAX,
    ) -> Value {
        json!({
            "id": "msg_0123456789abcdef", "type": "message", "role": "assistant", "model": "m",
            "content": blocks,
            "stop_reason": if sequence.is_some() { "stop_sequence" } else { "end_turn" },
            "stop_sequence": sequence,
            "usage": {"input_tokens": 3, "cache_creation": null, "output_tokens": output,
                "server_tool_use": {"web_search_requests": 2}},
        })
    }
}

proptest! {
    #[test]
    fn a_replayed_stream_says_what_the_message_says(message in message(), pretty: bool) {
        let document = if pretty { serde_json::to_string_pretty(&message).unwrap() } else { message.to_string() };
        let reply = match gather(Form::Json, &document) {
            Ok(reply) => reply,
            Err(why) => {
                prop_assert_eq!(why, Unstorable::Empty);
                return Ok(());
            }
        };
        let stream = replay(&reply.document, SSE);
        let mut got = as_client(&stream);
        got["id"] = message["id"].clone();
        prop_assert_eq!(&got, &message);

        // What is gathered from a replay says the same, and so does its own replay.
        let again = gather(SSE, &stream).unwrap();
        prop_assert_eq!((&again.text, again.tool_calls, again.usage), (&reply.text, reply.tool_calls, reply.usage));
        let mut value: Value = serde_json::from_slice(&again.document).unwrap();
        value["id"] = message["id"].clone();
        prop_assert_eq!(&value, &message);
        let twice = gather(SSE, &replay(&again.document, SSE)).unwrap();
        let mut value: Value = serde_json::from_slice(&twice.document).unwrap();
        value["id"] = message["id"].clone();
        prop_assert_eq!(&value, &message);
    }

    #[test]
    fn a_stream_in_any_pieces_is_folded_whole(
        parts in prop::collection::vec("(\\PC|[\n\"\\\\]){0,20}", 1..10),
        input in "(\\PC|[\n\"]){0,60}",
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let input = json!({"q": input}).to_string();
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        at.retain(|at| input.is_char_boundary(*at));
        at.extend([0, input.len()]);
        at.sort_unstable();
        let mut stream = String::new();
        let mut event = |value: Value| {
            write!(stream, "event: {}\ndata: {value}\n\n", value["type"].as_str().unwrap()).unwrap();
        };
        event(json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "content": [],
            "stop_reason": null, "usage": {"input_tokens": 1, "output_tokens": 1}}}));
        event(json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}));
        for part in &parts {
            event(json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": part}}));
        }
        event(json!({"type": "content_block_stop", "index": 0}));
        event(json!({"type": "content_block_start", "index": 1,
            "content_block": {"type": "tool_use", "id": "t", "name": "n", "input": {}}}));
        for pair in at.windows(2) {
            event(json!({"type": "content_block_delta", "index": 1,
                "delta": {"type": "input_json_delta", "partial_json": input[pair[0]..pair[1]]}}));
        }
        event(json!({"type": "content_block_stop", "index": 1}));
        event(json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}}));
        event(json!({"type": "message_stop"}));
        let reply = gather(SSE, &stream).unwrap();
        prop_assert_eq!(&reply.text, &parts.concat());
        prop_assert_eq!(reply.usage, Some(Usage { input: 1, output: 9, ..Usage::default() }));
        let document: Value = serde_json::from_slice(&reply.document).unwrap();
        prop_assert_eq!(&document["content"][1]["input"], &serde_json::from_str::<Value>(&input).unwrap());
        let mut replayed = as_client(&replay(&reply.document, SSE));
        replayed["id"] = document["id"].clone();
        prop_assert_eq!(replayed, document);

        // Cut anywhere before its end, it is not stored.
        let cut = cuts.first().map_or(0, |cut| cut.index(stream.len()));
        prop_assert!(MESSAGES.gather(SSE, &Bytes::copy_from_slice(&stream.as_bytes()[..cut])).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let body = Bytes::from(body);
        for form in [Form::Json, SSE] {
            let _ = MESSAGES.gather(form, &body);
            let _ = MESSAGES.replay(&body, form);
        }
    }
}
