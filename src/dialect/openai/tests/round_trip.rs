//! A stream's content survives being gathered and replayed, whatever it is.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{SSE, gather, replay};
use crate::dialect::Endpoint::{self, OpenAiChat, OpenAiCompletions, OpenAiResponses};
use crate::dialect::{Echo, Form};

/// Gathers what a document's replay in this form says, without what each replay renews.
fn again(endpoint: Endpoint, document: &Value, form: Form) -> Value {
    let body = replay(endpoint, &document.to_string(), form, &Echo::default());
    content(&gather(endpoint, form, &body).unwrap().document)
}

fn content(document: &[u8]) -> Value {
    let mut document: Map<String, Value> = serde_json::from_slice(document).unwrap();
    for renewed in ["id", "created", "created_at", "completed_at"] {
        document.remove(renewed);
    }
    // An order is no content.
    serde_json::from_str(&Value::Object(document).to_string()).unwrap()
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,6}",
        "\\PC{1,40}[a-z]",
        "(word |\\PC|\n|\r\n|\u{2028}|\"|\\\\|data: ){1,300}x",
        Just("data: [DONE]\n\n".to_owned())
    ]
}

fn usage() -> impl Strategy<Value = Value> {
    (0..1000u32, 0..1000u32)
        .prop_map(|(i, o)| json!({"prompt_tokens": i, "completion_tokens": o, "total_tokens": i + o}))
}

fn logprobs(name: &'static str) -> impl Strategy<Value = Value> {
    let token = ("\\PC{0,5}", any::<f64>().prop_filter("JSON has but these", |f| f.is_finite())).prop_map(
        |(token, logprob)| json!({"token": token, "logprob": logprob, "bytes": null, "top_logprobs": []}),
    );
    let other = if name == "content" { "refusal" } else { "content" };
    prop::collection::vec(token, 1..4).prop_map(move |tokens| json!({name: tokens, other: null}))
}

/// A choice of a chat, index aside: an answer, a refusal, or calls.
fn choice() -> impl Strategy<Value = Value> {
    let answer = (text(), prop::option::of(text()), prop::option::of(logprobs("content"))).prop_map(
        |(content, thought, logprobs)| {
            let mut message = json!({"role": "assistant", "content": content, "refusal": null});
            if let Some(thought) = thought {
                message["reasoning_content"] = thought.into();
            }
            json!({"message": message, "logprobs": logprobs, "finish_reason": "stop"})
        },
    );
    let refusal = (text(), logprobs("refusal")).prop_map(|(refusal, logprobs)| {
        json!({"message": {"role": "assistant", "content": null, "refusal": refusal}, "logprobs": logprobs, "finish_reason": "stop"})
    });
    let calls = prop::collection::vec(("[a-z]{1,5}", prop_oneof![Just(String::new()), text()]), 1..4).prop_map(|calls| {
        let calls: Vec<_> = calls
            .into_iter()
            .map(|(name, arguments)| json!({"id": format!("call_{name}"), "type": "function", "function": {"name": name, "arguments": arguments}}))
            .collect();
        json!({"message": {"role": "assistant", "content": null, "tool_calls": calls}, "finish_reason": "tool_calls"})
    });
    prop_oneof![answer, refusal, calls]
}

fn numbered(choices: Vec<Value>) -> Value {
    let number = |(index, mut choice): (usize, Value)| {
        choice["index"] = index.into();
        choice
    };
    choices.into_iter().enumerate().map(number).collect()
}

fn chat() -> impl Strategy<Value = Value> {
    (prop::collection::vec(choice(), 1..4), usage()).prop_map(|(choices, usage)| {
        json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": numbered(choices),
            "usage": usage, "service_tier": "default", "citations": ["https://example.com/"]})
    })
}

fn completion() -> impl Strategy<Value = Value> {
    let choice = text().prop_map(|text| json!({"text": text, "logprobs": null, "finish_reason": "stop"}));
    (prop::collection::vec(choice, 1..4), usage()).prop_map(|(choices, usage)| {
        json!({"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": numbered(choices), "usage": usage})
    })
}

fn response() -> impl Strategy<Value = Value> {
    let part = prop_oneof![
        text().prop_map(|text| json!({"type": "output_text", "text": text, "annotations": []})),
        text().prop_map(|text| json!({"type": "refusal", "refusal": text})),
    ];
    let message = prop::collection::vec(part, 1..3)
        .prop_map(|parts| json!({"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": parts}));
    let reasoning = text()
        .prop_map(|text| json!({"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": text}]}));
    let call = text().prop_map(
        |text| json!({"id": "fc_1", "type": "function_call", "call_id": "c", "name": "f", "arguments": text}),
    );
    let items = prop::collection::vec(prop_oneof![message, reasoning], 0..3);
    (items, call).prop_map(|(mut items, call)| {
        items.push(call);
        json!({"id": "resp_1", "object": "response", "created_at": 1.5, "status": "completed", "output": items,
            "store": true, "metadata": {}, "usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}})
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn chats(document in chat()) {
        prop_assert_eq!(&again(OpenAiChat, &document, SSE), &content(document.to_string().as_bytes()));
        prop_assert_eq!(&again(OpenAiChat, &document, Form::Json), &content(document.to_string().as_bytes()));
    }

    #[test]
    fn text_completions(document in completion()) {
        prop_assert_eq!(&again(OpenAiCompletions, &document, SSE), &content(document.to_string().as_bytes()));
        prop_assert_eq!(&again(OpenAiCompletions, &document, Form::Json), &content(document.to_string().as_bytes()));
    }

    #[test]
    fn responses(document in response()) {
        prop_assert_eq!(&again(OpenAiResponses, &document, SSE), &content(document.to_string().as_bytes()));
        // Line ends between the parts of a document must not end an event.
        let pretty = serde_json::to_string_pretty(&document).unwrap();
        let stream = replay(OpenAiResponses, &pretty, SSE, &Echo::default());
        prop_assert_eq!(&content(&gather(OpenAiResponses, SSE, &stream).unwrap().document), &content(pretty.as_bytes()));
    }

    /// A content streamed in any pieces is that content when it is replayed.
    #[test]
    fn a_streams_content_is_its_replays(parts in prop::collection::vec(text(), 1..6), ending in prop_oneof![Just("\n"), Just("\r"), Just("\r\n")]) {
        let event = |data: &str| format!("data: {data}{ending}{ending}");
        let chunk = |delta: Value, reason: Value| {
            event(&json!({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}).to_string())
        };
        let mut events = vec![format!(": a comment{ending}{ending}")];
        events.extend(parts.iter().map(|part| chunk(json!({"content": part}), Value::Null)));
        events.extend([chunk(json!({}), "stop".into()), event("[DONE]")]);
        let body = events.concat();
        let reply = gather(OpenAiChat, SSE, &body).unwrap();
        prop_assert_eq!(&reply.text, &parts.concat());
        let document = serde_json::from_slice(&reply.document).unwrap();
        prop_assert_eq!(again(OpenAiChat, &document, SSE), content(&reply.document));
    }

    #[test]
    fn any_bytes_are_judged(body in any::<Vec<u8>>()) {
        for endpoint in [OpenAiChat, OpenAiCompletions, OpenAiResponses] {
            let _ = endpoint.gather(SSE, &body.clone().into());
            let _ = endpoint.gather(Form::Json, &body.clone().into());
            let _ = endpoint.replay(&body.clone().into(), SSE);
        }
    }
}
