//! The dialect as a whole, through [`Endpoint`]: examples from Anthropic's documentation of streaming and from
//! the official client's fixtures.

use std::time::SystemTime;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::dialect::json::Json;
use crate::dialect::{Echo, Endpoint, Form, Reply, Request, Unstorable, Usage};

pub(super) const MESSAGES: Endpoint = Endpoint::AnthropicMessages;
pub(super) const SSE: Form = Form::Sse { usage: true };

fn read(body: &str) -> Option<Request<'_>> {
    MESSAGES.read(Json::parse(body.as_bytes()).unwrap())
}

fn scope(body: &str) -> Vec<u8> {
    let mut out = Vec::new();
    read(body).unwrap().scope.encode(&mut out);
    out
}

/// A body whose only message is the user's, with this content.
fn asking(content: &str) -> String {
    format!(
        r#"{{"model":"claude-opus-4-7","max_tokens":1024,"messages":[{{"role":"user","content":{content}}}]}}"#
    )
}

pub(super) fn gather(form: Form, body: &str) -> Result<Reply, Unstorable> {
    MESSAGES.gather(form, &Bytes::copy_from_slice(body.as_bytes()))
}

pub(super) fn replay(document: &Bytes, form: Form) -> String {
    let bytes = MESSAGES.replay(document, form).unwrap().render(&Echo::default(), SystemTime::now());
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A replay with its fresh ids masked, after a check that they are fresh and all the same.
fn masked(document: &Bytes, form: Form) -> String {
    let stored: Value = serde_json::from_slice(document).unwrap();
    let stored = stored["id"].as_str().unwrap();
    let text = replay(document, form);
    let at = text.find("\"msg_").unwrap() + 1;
    let fresh = text[at..].split('"').next().unwrap();
    assert_ne!(fresh, stored);
    assert_eq!(fresh.len(), stored.len());
    text.replace(fresh, "msg_FRESH")
}

#[test]
fn the_last_text_of_the_user_is_the_prompt() {
    let body = asking(r#""Hello, world""#);
    let request = read(&body).unwrap();
    assert_eq!(request.model, "claude-opus-4-7");
    assert_eq!(request.prompt.as_deref(), Some("Hello, world"));
    assert_eq!(request.form, Form::Json);
    let streamed =
        body.replacen('{', r#"{"stream":true,"metadata":{"user_id":"u"},"service_tier":"auto","#, 1);
    let request = read(&streamed).unwrap();
    assert_eq!(request.form, SSE);
    assert_eq!(request.echo.get("metadata"), Some(&json!({"user_id": "u"})));

    let plain = scope(&body);
    assert_eq!(scope(&streamed), plain);
    assert_eq!(scope(&asking(r#"[{"type":"text","text":"x"}]"#)), plain);
    for other in [
        body.replace("1024", "1025"),
        body.replacen('{', r#"{"system":"s","#, 1),
        body.replacen('{', r#"{"tools":[],"#, 1),
        body.replacen('{', r#"{"thinking":{"type":"enabled","budget_tokens":1024},"#, 1),
        asking(r#"[{"type":"text","text":"x","cache_control":{"type":"ephemeral"}}]"#),
        asking(r#"[{"type":"text","text":"x","citations":null}]"#),
        asking(r#"[{"type":"image","source":{}},{"type":"text","text":"x"}]"#),
        asking(r#"[{"type":"text","text":"x"},{"type":"image","source":{}}]"#),
        asking(r#"[{"type":"text","text":"y"},{"type":"text","text":"x"}]"#),
        asking(r#"[{"type":"text","text":"z"},{"type":"text","text":"x"}]"#),
    ] {
        assert!(read(&other).unwrap().prompt.is_some(), "{other}");
        assert_ne!(scope(&other), plain, "{other}");
    }
    let two = asking(r#"[{"type":"text","text":"y"},{"type":"text","text":"x"}]"#);
    assert_eq!(read(&two).unwrap().prompt.as_deref(), Some("x"));
    assert_ne!(scope(&two), scope(&two.replace("\"y\"", "\"z\"")));
}

#[test]
fn a_conversation_that_does_not_end_with_the_users_text_is_left_to_the_exact_layer() {
    for body in [
        asking(r#"[{"type":"tool_result","tool_use_id":"t","content":"15"},{"type":"text","text":"x"}]"#),
        asking(r#"[{"type":"web_search_tool_result","tool_use_id":"t","content":[]}]"#),
        asking(r#"[{"type":"image","source":{}}]"#),
        asking(r#"" ""#),
        asking("[]"),
        r#"{"messages":[{"role":"user","content":"x"},{"role":"assistant","content":"The answer is ("}]}"#
            .to_owned(),
        r#"{"messages":[{"role":"user","content":"x"},{"role":"system","content":"y"}]}"#.to_owned(),
    ] {
        assert_eq!(read(&body).unwrap().prompt, None, "{body}");
    }
}

#[test]
fn unknown_shapes_and_containers_pass_through() {
    for body in [
        "1".to_owned(),
        r#"{"model":"m"}"#.to_owned(),
        r#"{"messages":[]}"#.to_owned(),
        r#"{"messages":[{"role":"user"}]}"#.to_owned(),
        r#"{"messages":[{"role":"user","content":null}]}"#.to_owned(),
        r#"{"messages":[{"Role":"user","content":"x"}]}"#.to_owned(),
        asking("1"),
        asking(r#"["x"]"#),
        asking(r#"[{"text":"x"}]"#),
        asking(r#"[{"type":"text"}]"#),
        asking(r#"[{"type":"text","text":1}]"#),
        asking(r#"[{"type":"image","Type":"text","text":"x"}]"#).replace("\"type\":\"image\",", ""),
        asking(r#"[{"type":"text","text":"x","Citations":[]}]"#),
        asking(r#""x""#).replacen('{', r#"{"container":"container_1","#, 1),
        asking(r#""x""#).replacen('{', r#"{"Stream":true,"#, 1),
    ] {
        assert!(read(&body).is_none(), "{body}");
    }
}

const BASIC: &str = r#"event: message_start
data: {"type":"message_start","message":{"id":"msg_4QpJur2dWWDjF6C758FbBw5vm12BaVipnK","type":"message","role":"assistant","content":[],"model":"claude-3-opus-latest","stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":11,"output_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

event: ping
data: {"type": "ping"}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" there!"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":6}}

event: message_stop
data: {"type":"message_stop"}

"#;

#[test]
fn a_stream_is_folded_into_the_message() {
    let reply = gather(SSE, BASIC).unwrap();
    insta::assert_snapshot!(String::from_utf8_lossy(&reply.document), @r#"{"id":"msg_4QpJur2dWWDjF6C758FbBw5vm12BaVipnK","type":"message","role":"assistant","content":[{"type":"text","text":"Hello there!"}],"model":"claude-3-opus-latest","stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":11,"output_tokens":6}}"#);
    assert_eq!(reply.text, "Hello there!");
    assert_eq!(reply.usage, Some(Usage { input: 11, output: 6, ..Usage::default() }));
    assert!(!reply.tool_calls);
    assert_eq!(gather(SSE, &BASIC.replace('\n', "\r\n")).unwrap(), reply);
    assert_eq!(gather(SSE, &format!("{BASIC}data: [DONE]\n\n")).unwrap(), reply);
}

#[test]
fn a_message_is_replayed_in_both_forms() {
    let document = gather(SSE, BASIC).unwrap().document;
    insta::assert_snapshot!(masked(&document, Form::Json), @r#"{"id":"msg_FRESH","type":"message","role":"assistant","content":[{"type":"text","text":"Hello there!"}],"model":"claude-3-opus-latest","stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":11,"output_tokens":6}}"#);
    insta::assert_snapshot!(masked(&document, SSE), @r#"
    event: message_start
    data: {"type":"message_start","message":{"id":"msg_FRESH","type":"message","role":"assistant","content":[],"model":"claude-3-opus-latest","stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":11,"output_tokens":1}}}

    event: content_block_start
    data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

    event: content_block_delta
    data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello there!"}}

    event: content_block_stop
    data: {"type":"content_block_stop","index":0}

    event: message_delta
    data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"input_tokens":11,"output_tokens":6}}

    event: message_stop
    data: {"type":"message_stop"}
    "#);
}

/// A message with every kind of block.
fn rich() -> String {
    json!({
        "model": "claude-sonnet-4-5",
        "id": "msg_01RichRichRichRichRich",
        "type": "message",
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "Let me solve this.", "signature": "EqQBCgIYAhIM"},
            {"type": "redacted_thinking", "data": "EmwKAhgB"},
            {"type": "text", "text": "The grass is green", "citations": [
                {"type": "char_location", "cited_text": "The grass is green.", "document_index": 0}]},
            {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "sky"}},
            {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [
                {"type": "web_search_result", "title": "Sky", "url": "https://example.org/"}]},
            {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "caller": {"type": "direct"},
                "input": {"location": "Paris", "n": 1}},
            {"type": "tool_use", "id": "toolu_2", "name": "get_time", "input": {}},
        ],
        "container": {"id": "container_1", "expires_at": "2026-01-01T00:00:00Z"},
        "stop_reason": "tool_use",
        "stop_sequence": null,
        "stop_details": null,
        "usage": {"input_tokens": 377, "cache_read_input_tokens": 5, "output_tokens": 65,
            "server_tool_use": {"web_search_requests": 1}, "service_tier": "standard"},
        "context_management": {"applied_edits": []},
    })
    .to_string()
}

#[test]
fn every_kind_of_block_is_streamed_as_anthropic_does() {
    let reply = gather(Form::Json, &rich()).unwrap();
    assert_eq!(reply.document, rich());
    assert!(reply.tool_calls);
    assert_eq!(reply.text, "The grass is green");
    insta::assert_snapshot!(masked(&reply.document, SSE));
}

#[test]
fn what_is_not_whole_is_not_stored() {
    let why = |body: &str| gather(SSE, body).unwrap_err();
    let malformed = |body: &str| assert!(matches!(why(body), Unstorable::Malformed(_)), "{body}");
    let events: Vec<&str> = BASIC.split_inclusive("\n\n").collect();
    for upto in 0..events.len() {
        assert_eq!(why(&events[..upto].concat()), Unstorable::Truncated);
    }
    assert_eq!(why(BASIC.trim_end()), Unstorable::Truncated);
    let without = |at: usize| [&events[..at], &events[at + 1..]].concat().concat();
    malformed(&without(0));
    malformed(&without(1));
    assert!(gather(SSE, &without(2)).is_ok());
    assert_eq!(why(&without(5)), Unstorable::Truncated);
    assert_eq!(why(&without(6)), Unstorable::Truncated);
    let error = "event: error\ndata: {\"type\": \"error\", \"error\": {\"type\": \"overloaded_error\"}}\n\n";
    assert_eq!(why(&format!("{}{error}", events[..4].concat())), Unstorable::Error);
    assert_eq!(why(&format!("{BASIC}{error}")), Unstorable::Error);
    assert_eq!(why(&format!("{BASIC}{}", error.replace("event: error\n", ""))), Unstorable::Error);
    malformed(&format!("{BASIC}{}", events[4]));
    malformed(&BASIC.replace("text_delta", "new_delta"));
    malformed(&BASIC.replace("\"index\":0", "\"index\":1"));
    malformed(
        &BASIC.replace("event: ping\ndata: {\"type\": \"ping\"}", "event: new\ndata: {\"type\":\"new\"}"),
    );
    malformed(&BASIC.replace("\"text\":\"Hello\"", "\"text\":1"));
    assert_eq!(why(&BASIC.replace("Hello", "").replace(" there!", " ")), Unstorable::Empty);

    let whole = rich();
    let why = |body: &str| gather(Form::Json, body).unwrap_err();
    for reason in ["max_tokens", "refusal", "pause_turn", "model_context_window_exceeded"] {
        let stopped = whole.replace("\"stop_reason\":\"tool_use\"", &format!("\"stop_reason\":\"{reason}\""));
        assert_eq!(why(&stopped), Unstorable::Incomplete(reason.to_owned()));
    }
    let new = whole.replace("\"stop_reason\":\"tool_use\"", "\"stop_reason\":\"new\"");
    assert!(matches!(why(&new), Unstorable::Incomplete(_)));
    let none = whole.replace("\"stop_reason\":\"tool_use\"", "\"stop_reason\":null");
    assert_eq!(why(&none), Unstorable::Truncated);
    assert_eq!(why(r#"{"type":"error","error":{"type":"x","message":"y"}}"#), Unstorable::Error);
    assert!(matches!(why(&whole.replace("redacted_thinking", "fallback")), Unstorable::Malformed(_)));
    let thinking =
        r#"{"type":"message","content":[{"type":"thinking","thinking":"a"}],"stop_reason":"end_turn"}"#;
    assert_eq!(why(thinking), Unstorable::Empty);
    assert!(matches!(gather(Form::Ndjson, "{}\n").unwrap_err(), Unstorable::Malformed(_)));
}
