//! What is a whole reply, and what must never be stored.

use serde_json::{Value, json};

use super::{CHAT, CHAT_LOGPROBS, CHAT_TOOLS, COMPLETION, RESPONSE, SSE, gather};
use crate::dialect::Endpoint::{self, OpenAiChat, OpenAiCompletions, OpenAiEmbeddings, OpenAiResponses};
use crate::dialect::{Form, Unstorable, Usage};

/// A stream of data without names.
fn stream(chunks: &[Value]) -> String {
    let mut events: Vec<_> = chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect();
    events.push("data: [DONE]\n\n".to_owned());
    events.concat()
}

/// A chunk with one choice.
fn delta(delta: &Value, finish_reason: &Value) -> Value {
    json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]})
}

fn document(endpoint: Endpoint, body: &str) -> Value {
    serde_json::from_slice(&gather(endpoint, SSE, body).unwrap().document).unwrap()
}

fn chunks_of(deltas: &[Value]) -> String {
    let mut chunks: Vec<_> = deltas.iter().map(|part| delta(part, &Value::Null)).collect();
    chunks.push(delta(&json!({}), &json!("stop")));
    stream(&chunks)
}

#[test]
fn a_document_is_kept_as_it_came() {
    let reply = gather(OpenAiChat, Form::Json, CHAT).unwrap();
    assert_eq!(reply.document, CHAT);
    assert_eq!(reply.text, "Grüße aus \"Köln\" 🦀");
    assert_eq!(reply.usage, Some(Usage { input: 12, output: 9, ..Usage::default() }));
    assert!(!reply.tool_calls);
    assert!(gather(OpenAiChat, Form::Json, CHAT_TOOLS).unwrap().tool_calls);
    assert_eq!(gather(OpenAiChat, Form::Json, CHAT_LOGPROBS).unwrap().usage, None);
    assert_eq!(gather(OpenAiCompletions, Form::Json, COMPLETION).unwrap().text, "\n\nOnce upon");
    let reply = gather(OpenAiResponses, Form::Json, RESPONSE).unwrap();
    assert_eq!((reply.text.as_str(), reply.tool_calls), ("Hi there", true));
    assert_eq!(reply.usage, Some(Usage { input: 37, output: 11, reasoning: 3, ..Usage::default() }));
    let numbers = r#"{"object":"list","data":[{"embedding":[0.1],"index":0}],"usage":{"prompt_tokens":8,"total_tokens":8}}"#;
    let reply = gather(OpenAiEmbeddings, Form::Json, numbers).unwrap();
    assert_eq!(
        (reply.document.as_ref(), reply.usage),
        (numbers.as_bytes(), Some(Usage { input: 8, output: 0, ..Usage::default() }))
    );
    assert!(gather(OpenAiEmbeddings, Form::Json, r#"{"data":[{"embedding":"AAAA"}]}"#).is_ok());
}

#[test]
fn chunks_fold_into_the_unstreamed_document() {
    let body = stream(&[
        json!({"id": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]}),
        delta(&json!({"role": "assistant", "content": "", "refusal": null}), &Value::Null),
        delta(&json!({"reasoning_content": "Hm"}), &Value::Null),
        delta(&json!({"reasoning_content": "m.", "content": null}), &Value::Null),
        delta(&json!({"content": "Grü"}), &Value::Null),
        delta(&json!({"content": "ße"}), &Value::Null),
        delta(&json!({}), &json!("stop")),
        json!({"id": "chatcmpl-1", "created": 7, "model": "m", "choices": [], "system_fingerprint": "fp",
            "obfuscation": "xyz", "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}),
    ]);
    let folded = gather(OpenAiChat, SSE, &body).unwrap();
    assert_eq!(folded.usage, Some(Usage { input: 1, output: 2, ..Usage::default() }));
    insta::assert_snapshot!(String::from_utf8_lossy(&folded.document), @r#"{"id":"chatcmpl-1","object":"chat.completion","created":7,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Grüße","refusal":null,"reasoning_content":"Hmm."},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3},"prompt_filter_results":[{"prompt_index":0}],"system_fingerprint":"fp"}"#);
}

#[test]
fn choices_tool_calls_and_log_probabilities_are_put_together_by_index() {
    let body = stream(&[
        delta(
            &json!({"role": "assistant", "content": null, "tool_calls": [
            {"index": 0, "id": "call_a", "type": "function", "function": {"name": "f", "arguments": ""}}]}),
            &Value::Null,
        ),
        delta(
            &json!({"tool_calls": [{"index": 1, "id": "call_b", "type": "function", "function": {"name": "g", "arguments": "{"}}]}),
            &Value::Null,
        ),
        delta(&json!({"tool_calls": [{"index": 0, "function": {"arguments": "{\"a\":"}}]}), &Value::Null),
        delta(
            &json!({"tool_calls": [{"index": 1, "id": "call_b", "function": {"name": null, "arguments": "}"}},
            {"index": 0, "id": "", "function": {"arguments": "1}"}}]}),
            &Value::Null,
        ),
        json!({"choices": [{"index": 1, "delta": {"content": "Hi"}, "logprobs": {"content": [{"token": "Hi", "logprob": -0.1}], "refusal": null}}]}),
        json!({"choices": [{"index": 1, "delta": {"content": "!"}, "logprobs": {"content": [{"token": "!", "logprob": -5.466e-5}], "refusal": null}, "finish_reason": "stop"}]}),
        delta(&json!({}), &json!("tool_calls")),
    ]);
    let reply = gather(OpenAiChat, SSE, &body).unwrap();
    assert!(reply.tool_calls);
    let document: Value = serde_json::from_slice(&reply.document).unwrap();
    assert_eq!(
        document["choices"][0]["message"]["tool_calls"],
        json!([{"id": "call_a", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}},
               {"id": "call_b", "type": "function", "function": {"name": "g", "arguments": "{}"}}])
    );
    assert_eq!(document["choices"][1]["message"]["content"], "Hi!");
    assert_eq!(
        document["choices"][1]["logprobs"],
        json!({"content": [{"token": "Hi", "logprob": -0.1}, {"token": "!", "logprob": -5.466e-5}], "refusal": null})
    );
    let old = chunks_of(&[
        json!({"role": "assistant", "content": null, "function_call": {"name": "f", "arguments": ""}}),
        json!({"function_call": {"arguments": "{}"}}),
    ]);
    assert_eq!(document_message(&old)["function_call"], json!({"name": "f", "arguments": "{}"}));
}

fn document_message(body: &str) -> Value {
    document(OpenAiChat, body)["choices"][0]["message"].clone()
}

#[test]
fn chunks_that_no_rule_joins_are_not_stored() {
    let twice =
        |name: &str| chunks_of(&[json!({"content": "x", name: [{"a": 1}]}), json!({name: [{"b": 2}]})]);
    for body in [
        chunks_of(&[json!({"audio": {"id": "audio_1", "data": "AAAA"}})]),
        chunks_of(&[json!({"tool_calls": [{"id": "no index", "function": {"name": "f"}}]})]),
        chunks_of(&[
            json!({"tool_calls": [{"index": 0, "id": "call_a", "function": {"name": "f"}}]}),
            json!({"tool_calls": [{"index": 0, "id": "call_b", "function": {"name": "f"}}]}),
        ]),
        twice("images"),
        chunks_of(&[json!({"content": ["x"]})]),
        chunks_of(&[json!("x")]),
        stream(&[json!(["no object"])]),
        stream(&[json!({"choices": {}})]),
        stream(&[json!({"choices": [7]})]),
        stream(&[json!({"choices": [{"index": -1}]})]),
        "data: {\n\n".to_owned(),
        "data: \u{1}\n\n".to_owned(),
    ] {
        assert!(matches!(gather(OpenAiChat, SSE, &body), Err(Unstorable::Malformed(_))), "{body}");
    }
    assert!(gather(OpenAiChat, SSE, &chunks_of(&[json!({"content": "x", "images": [{"a": 1}]})])).is_ok());
}

#[test]
fn a_reply_that_is_cut_failed_empty_or_incomplete_is_not_stored() {
    let whole = chunks_of(&[json!({"content": "x"})]);
    let events: Vec<_> = whole.split_inclusive("\n\n").collect();
    for kept in 0..events.len() {
        let cut = events[..kept].concat();
        assert_eq!(gather(OpenAiChat, SSE, &cut), Err(Unstorable::Truncated), "{cut}");
    }
    assert_eq!(gather(OpenAiChat, SSE, whole.trim_end()), Err(Unstorable::Truncated));
    let no_finish = stream(&[delta(&json!({"content": "x"}), &Value::Null)]);
    assert_eq!(gather(OpenAiChat, SSE, &no_finish), Err(Unstorable::Truncated));
    for failed in [
        whole.replacen("data: ", "data: {\"error\":{\"message\":\"overloaded\"}}\n\ndata: ", 1),
        whole.replacen("data: ", "event: error\ndata: {}\n\ndata: ", 1),
    ] {
        assert_eq!(gather(OpenAiChat, SSE, &failed), Err(Unstorable::Error));
    }
    assert_eq!(gather(OpenAiChat, Form::Json, r#"{"error":{"message":"no"}}"#), Err(Unstorable::Error));
    for reason in ["length", "content_filter", "error"] {
        let stopped = CHAT.replace("\"stop\"", &format!("\"{reason}\""));
        assert_eq!(gather(OpenAiChat, Form::Json, &stopped), Err(Unstorable::Incomplete(reason.to_owned())));
        let stopped = COMPLETION.replacen("\"stop\"", &format!("\"{reason}\""), 1);
        let refused = gather(OpenAiCompletions, Form::Json, &stopped);
        assert_eq!(refused, Err(Unstorable::Incomplete(reason.to_owned())));
    }
    assert_eq!(gather(OpenAiChat, SSE, &chunks_of(&[json!({"content": " \n"})])), Err(Unstorable::Empty));
    let thought = chunks_of(&[json!({"reasoning": "and then nothing", "content": ""})]);
    assert_eq!(gather(OpenAiChat, SSE, &thought), Err(Unstorable::Empty));
    assert_eq!(gather(OpenAiChat, SSE, "data: [DONE]\n\n"), Err(Unstorable::Empty));
    assert_eq!(gather(OpenAiEmbeddings, Form::Json, r#"{"data":[]}"#), Err(Unstorable::Empty));
    assert_eq!(
        gather(OpenAiEmbeddings, Form::Json, r#"{"data":[{"embedding":[]}]}"#),
        Err(Unstorable::Empty)
    );
    for endpoint in [OpenAiChat, OpenAiCompletions, OpenAiResponses, OpenAiEmbeddings] {
        for body in
            ["", "null", "[]", "{}", "{", "<html>", "{\"choices\":7}", "{\"data\":[{}]}", "{\"status\":7}"]
        {
            let refused = gather(endpoint, Form::Json, body);
            assert!(matches!(refused, Err(Unstorable::Malformed(_))), "{endpoint:?} {body}");
        }
        assert!(matches!(gather(endpoint, Form::Ndjson, "{}\n"), Err(Unstorable::Malformed(_))));
        assert!(gather(endpoint, SSE, "").is_err());
    }
}

#[test]
fn a_stream_of_response_events_ends_with_the_document() {
    let completed = json!({"type": "response.completed", "sequence_number": 9,
        "response": serde_json::from_str::<Value>(RESPONSE).unwrap()});
    let begun =
        "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"error\":null}}\n\n";
    let whole = format!("{begun}event: response.completed\ndata: {completed}\n\n");
    let reply = gather(OpenAiResponses, SSE, &whole).unwrap();
    assert_eq!(reply.document, serde_json::from_str::<Value>(RESPONSE).unwrap().to_string());
    assert_eq!(gather(OpenAiResponses, SSE, begun), Err(Unstorable::Truncated));
    let cases = [
        ("response.failed", Unstorable::Error),
        ("error", Unstorable::Error),
        ("response.incomplete", Unstorable::Incomplete("response.incomplete".to_owned())),
    ];
    for (kind, why) in cases {
        let body = format!("{begun}event: {kind}\ndata: {{\"type\":\"{kind}\"}}\n\n");
        assert_eq!(gather(OpenAiResponses, SSE, &body), Err(why));
        assert!(gather(OpenAiResponses, SSE, &format!("{body}{whole}")).is_err());
    }
    for (status, why) in [
        ("failed", Unstorable::Error),
        ("cancelled", Unstorable::Incomplete("cancelled".to_owned())),
        ("in_progress", Unstorable::Incomplete("in_progress".to_owned())),
    ] {
        let body = RESPONSE.replacen("\"completed\"", &format!("\"{status}\""), 1);
        assert_eq!(gather(OpenAiResponses, Form::Json, &body), Err(why));
    }
    let body = RESPONSE
        .replacen("\"completed\"", "\"incomplete\"", 1)
        .replace("\"incomplete_details\": null", r#""incomplete_details": {"reason":"max_output_tokens"}"#);
    let why = Unstorable::Incomplete("max_output_tokens".to_owned());
    assert_eq!(gather(OpenAiResponses, Form::Json, &body), Err(why));
    let empty = r#"{"status":"completed","output":[{"type":"reasoning","summary":[]}]}"#;
    assert_eq!(gather(OpenAiResponses, Form::Json, empty), Err(Unstorable::Empty));
}

/// Some servers leave it out there, having sent it before.
#[test]
fn output_missing_from_the_last_event_is_taken_from_those_before() {
    let item = json!({"type": "message", "id": "msg_1", "content": [{"type": "output_text", "text": "Hi"}]});
    let body = format!(
        "data: {}\n\ndata: {}\n\n",
        json!({"type": "response.output_item.done", "output_index": 0, "item": item}),
        json!({"type": "response.completed", "response": {"id": "resp_1", "status": "completed", "output": []}})
    );
    assert_eq!(document(OpenAiResponses, &body)["output"], json!([item]));
}

/// As gateways report that their own upstream failed.
#[test]
fn an_error_in_the_place_of_a_choice_is_not_stored() {
    let error = json!({"code": 502, "message": "no reply"});
    let choice = |error: &Value| json!({"index": 0, "message": {"content": "partial"}, "finish_reason": "stop", "error": error});
    let document = |error: &Value| json!({"choices": [choice(error)]}).to_string();
    assert_eq!(gather(OpenAiChat, Form::Json, &document(&error)).unwrap_err(), Unstorable::Error);
    assert!(gather(OpenAiChat, Form::Json, &document(&Value::Null)).is_ok());
    let streamed = json!({"choices": [{"index": 0, "delta": {"content": "partial"}, "finish_reason": "stop", "error": error}]});
    let stream = format!("data: {streamed}\n\ndata: [DONE]\n\n");
    assert_eq!(gather(OpenAiChat, SSE, &stream).unwrap_err(), Unstorable::Error);
}
