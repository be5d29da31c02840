//! Usage asked for on a client's behalf, and taken out of its stream again.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;

use crate::dialect::Endpoint::{OpenAiChat, OpenAiCompletions, OpenAiResponses};
use crate::dialect::Form;
use crate::dialect::openai::usage::UsageFilter;

#[test]
fn usage_is_asked_for_and_every_other_byte_kept() {
    for (body, asked) in [
        (r#"{ "stream": true }"#, r#"{ "stream": true,"stream_options":{"include_usage":true} }"#),
        (r#"{"stream_options":null,"n":1.0}"#, r#"{"stream_options":{"include_usage":true},"n":1.0}"#),
        (r#"{"stream_options":{ },"é":1}"#, r#"{"stream_options":{"include_usage":true},"é":1}"#),
        (
            r#"{"stream_options": {"include_usage" : false, "x": 1}}"#,
            r#"{"stream_options": {"include_usage" : true, "x": 1}}"#,
        ),
        (
            r#"{"stream_options":{"include_obfuscation":false } }"#,
            r#"{"stream_options":{"include_obfuscation":false,"include_usage":true } }"#,
        ),
    ] {
        let form = Form::Sse { usage: false };
        assert_eq!(OpenAiChat.ask_for_usage(form, body.as_bytes()).unwrap(), asked);
        assert_eq!(OpenAiCompletions.ask_for_usage(form, body.as_bytes()).unwrap(), asked);
        assert_eq!(OpenAiChat.ask_for_usage(Form::Json, body.as_bytes()), None);
        assert_eq!(OpenAiChat.ask_for_usage(Form::Sse { usage: true }, body.as_bytes()), None);
        assert_eq!(OpenAiResponses.ask_for_usage(form, body.as_bytes()), None);
    }
    for body in ["{}", "[]", "", r#"{"stream_options":7}"#, "{\"a\":\"\u{0}\"}"] {
        assert_eq!(OpenAiChat.ask_for_usage(Form::Sse { usage: false }, body.as_bytes()), None, "{body}");
    }
}

/// What a client gets of a stream that arrives in these pieces.
fn filtered(pieces: &[&[u8]]) -> Vec<u8> {
    let mut filter = UsageFilter::default();
    let mut out = Vec::new();
    for piece in pieces {
        out.extend_from_slice(&filter.push(Bytes::copy_from_slice(piece)));
    }
    out.extend_from_slice(&filter.finish());
    out
}

fn filtered_text(stream: &str) -> String {
    String::from_utf8(filtered(&[stream.as_bytes()])).unwrap()
}

#[test]
fn the_chunk_of_usage_alone_and_the_nulls_of_others_are_taken_out() {
    let stream = "data: {\"id\":\"a\",\"choices\":[{\"delta\":{\"content\":\"\\\"usage\\\":null\"}}],\"usage\":null}\n\n\
        data: {\"usage\" : null , \"id\":\"a\", \"choices\":[]}\n\n\
        data: {\"id\":\"a\",\"usage\": null ,\"choices\":[{}]}\n\n\
        data: {\"usage\":null}\n\n\
        data: {\"id\":\"a\",\"choices\":[ ],\"usage\":{\"prompt_tokens\":1}}\n\n\
        data: [DONE]\n\n";
    insta::assert_snapshot!(filtered_text(stream), @r#"
    data: {"id":"a","choices":[{"delta":{"content":"\"usage\":null"}}]}

    data: { "id":"a", "choices":[]}

    data: {"id":"a" ,"choices":[{}]}

    data: {}

    data: [DONE]
    "#);
}

#[test]
fn everything_else_passes_as_it_came() {
    for stream in [
        "data: {\"choices\":[{\"index\":0}],\"usage\":{\"prompt_tokens\":1}}\n\n",
        "data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n",
        "data: {\"choices\":[],\"usage\":7}\n\n",
        "data: {\"error\":{\"message\":\"\\\"usage\\\"\"}}\n\n",
        "data: not JSON \"usage\"\n\n",
        ": ping\n\nretry: 3\r\n\r\n\r\r\n\n",
        "data: cut \"usage\":nu",
        "<html>\"usage\"",
        "",
    ] {
        assert_eq!(filtered_text(stream), stream);
    }
}

#[test]
fn an_event_passes_as_soon_as_it_is_complete() {
    let mut filter = UsageFilter::default();
    assert_eq!(filter.push("data: {}\n".into()), "");
    assert_eq!(filter.push("\ndata".into()), "data: {}\n\n");
    assert_eq!(filter.push(": {\"choices\":[],\"usage\":{}}\r\n\r".into()), "");
    // The rest of a line end that was cut belongs to the event that was dropped.
    assert_eq!(filter.push("\ndata: 1\r\n\r".into()), "data: 1\r\n\r");
    assert_eq!(filter.push("\n".into()), "\n");
    assert_eq!(filter.push("".into()), "");
    assert_eq!(filter.push("data: 2\n\n".into()), "data: 2\n\n");
    assert_eq!(filter.finish(), "");
}

#[test]
fn an_event_over_the_limit_passes_without_being_held() {
    let mut filter = UsageFilter::default();
    let line = Bytes::from("x".repeat(100_000));
    let passed: Vec<_> = (0..4).map(|_| filter.push(line.clone()).len()).collect();
    assert_eq!(passed, [0, 0, 300_000, 100_000]);
    let end = "\n\ndata: {\"usage\":null,\"choices\":[]}\n\n";
    assert_eq!(filter.push(end.into()), "\n\ndata: {\"choices\":[]}\n\n");
}

fn stream() -> impl Strategy<Value = String> {
    let event = prop_oneof![
        Just("data: {\"id\":\"é🦀\",\"choices\":[{\"delta\":{\"content\":\"x\"}}],\"usage\":null}"),
        Just("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}"),
        Just("data: {\"choices\":[{}],\"usage\":{\"prompt_tokens\":1}}"),
        Just("event: x\ndata: {\"usage\":null,\ndata: \"choices\":[]}"),
        Just(": ping"),
        Just("data: [DONE]"),
        Just(""),
    ];
    let ending = prop_oneof![Just("\n"), Just("\r"), Just("\r\n")];
    (any::<bool>(), prop::collection::vec((event, ending), 0..8)).prop_map(|(mark, events)| {
        let events = events.into_iter().map(|(event, ending)| {
            format!("{event}{ending}{ending}").replace("\ndata: \"", &format!("{ending}data: \""))
        });
        std::iter::once(if mark { "\u{feff}" } else { "" }.to_owned()).chain(events).collect()
    })
}

proptest! {
    #[test]
    fn any_cutting_gives_the_same_bytes(stream in stream(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let pieces: Vec<_> = cuts.windows(2).map(|pair| &stream.as_bytes()[pair[0]..pair[1]]).collect();
        let whole = filtered(&[stream.as_bytes()]);
        let cut = filtered(&pieces);
        prop_assert_eq!(String::from_utf8_lossy(&cut), String::from_utf8_lossy(&whole));
        // What is left is what a client that did not ask would have got.
        for event in crate::dialect::sse::events(&whole) {
            let Ok(chunk) = serde_json::from_slice::<Value>(&event.data) else { continue };
            prop_assert!(chunk["choices"] != serde_json::json!([]) || chunk["usage"].is_null());
        }
    }

    #[test]
    fn bytes_without_usage_pass_unchanged(pieces in prop::collection::vec(any::<Vec<u8>>(), 0..8)) {
        let pieces: Vec<_> = pieces.iter().map(Vec::as_slice).collect();
        prop_assert_eq!(filtered(&pieces), pieces.concat());
    }

    #[test]
    fn asking_adds_nothing_else(extra in any::<bool>(), text in "\\PC*") {
        let mut body = serde_json::json!({"model": text, "stream": true});
        if extra {
            body["stream_options"] = serde_json::json!({"include_obfuscation": false});
        }
        let asked = OpenAiChat.ask_for_usage(Form::Sse { usage: false }, body.to_string().as_bytes()).unwrap();
        body["stream_options"]["include_usage"] = true.into();
        prop_assert_eq!(serde_json::from_slice::<Value>(&asked).unwrap(), body);
    }
}
