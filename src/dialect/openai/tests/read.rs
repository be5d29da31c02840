//! What of a request is the prompt, what is the scope, and what passes through.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::read;
use crate::dialect::Endpoint::{self, OpenAiChat, OpenAiCompletions, OpenAiEmbeddings, OpenAiResponses};
use crate::dialect::Form;

/// The scope's encoding and the prompt.
fn split(endpoint: Endpoint, body: &str) -> (Vec<u8>, Option<String>) {
    let request = read(endpoint, body).unwrap_or_else(|| panic!("passed through: {body}"));
    let mut scope = Vec::new();
    request.scope.encode(&mut scope);
    (scope, request.prompt)
}

fn prompt(endpoint: Endpoint, body: &str) -> Option<String> {
    split(endpoint, body).1
}

fn same(endpoint: Endpoint, a: &str, b: &str) {
    assert_eq!(split(endpoint, a), split(endpoint, b), "{a} and {b}");
}

fn passes(endpoint: Endpoint, body: &str) {
    assert!(read(endpoint, body).is_none(), "{body}");
}

#[test]
fn the_prompt_of_a_chat_is_the_last_users_text() {
    let body =
        r#"{"model":"m","messages":[{"role":"system","content":"s"},{"role":"user","content":" Why? "}]}"#;
    assert_eq!(prompt(OpenAiChat, body).as_deref(), Some(" Why? "));
    assert_eq!(read(OpenAiChat, body).unwrap().model, "m");
    let (scope, _) = split(OpenAiChat, body);
    assert!(!scope.windows(4).any(|part| part == b"Why?"));
    for exact_alone in [
        r#"[{"role":"user","content":"q"},{"role":"assistant","content":"prefill"}]"#,
        r#"[{"role":"user","content":"q"},{"role":"assistant","tool_calls":[{}]},{"role":"tool","content":"r"}]"#,
        r#"[{"role":"system","content":"s"}]"#,
        r#"[{"role":"user","content":""}]"#,
        r#"[{"role":"user","content":" \n"}]"#,
        r#"[{"role":"user","content":[]}]"#,
        r#"[{"role":"user"}]"#,
        r#"[{"role":"user","content":[{"type":"image_url","image_url":{"url":"u"}}]}]"#,
        r#"[{"role":"user","Content":"read by a server that folds case"}]"#,
    ] {
        let body = format!(r#"{{"model":"m","messages":{exact_alone}}}"#);
        assert_eq!(prompt(OpenAiChat, &body), None, "{body}");
    }
}

#[test]
fn of_several_parts_the_last_text_is_the_prompt_and_the_others_are_scope() {
    let chat = |parts: &str| format!(r#"{{"model":"m","messages":[{{"role":"user","content":{parts}}}]}}"#);
    let image = r#"{"type":"image_url","image_url":{"url":"u"}}"#;
    let first = chat(&format!(r#"[{{"type":"text","text":"a"}},{{"type":"text","text":"b"}},{image}]"#));
    assert_eq!(prompt(OpenAiChat, &first).as_deref(), Some("b"));
    let other = chat(&format!(r#"[{{"type":"text","text":"x"}},{{"type":"text","text":"b"}},{image}]"#));
    assert_ne!(split(OpenAiChat, &first).0, split(OpenAiChat, &other).0);
    let other = chat(
        r#"[{"type":"text","text":"a"},{"type":"text","text":"b"},{"type":"image_url","image_url":{"url":"v"}}]"#,
    );
    assert_ne!(split(OpenAiChat, &first).0, split(OpenAiChat, &other).0);
    // The place of the prompt among the parts is scope too.
    let other = chat(&format!(r#"[{{"type":"text","text":"a"}},{image},{{"type":"text","text":"b"}}]"#));
    assert_ne!(split(OpenAiChat, &first).0, split(OpenAiChat, &other).0);

    same(OpenAiChat, &chat(r#""q""#), &chat(r#"[{"type":"text","text":"q"}]"#));
    // A part that says more than its text is not the plain text.
    let marked = chat(r#"[{"type":"text","text":"q","cache_control":{"type":"ephemeral"}}]"#);
    assert_eq!(prompt(OpenAiChat, &marked).as_deref(), Some("q"));
    assert_ne!(split(OpenAiChat, &marked).0, split(OpenAiChat, &chat(r#""q""#)).0);
}

#[test]
fn null_counts_as_absent_in_a_body_and_its_messages_and_nowhere_else() {
    same(
        OpenAiChat,
        r#"{"model":"m","seed":null,"messages":[{"role":"user","name":null,"content":"q"}]}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"q"}]}"#,
    );
    let tools = |schema: &str| {
        format!(
            r#"{{"model":"m","tools":[{{"enum":{schema}}}],"messages":[{{"role":"user","content":"q"}}]}}"#
        )
    };
    assert_ne!(split(OpenAiChat, &tools("[{}]")).0, split(OpenAiChat, &tools(r#"[{"a":null}]"#)).0);
}

#[test]
fn what_cannot_change_the_reply_is_no_scope_and_is_echoed() {
    let plain = r#"{"model":"m","messages":[{"role":"user","content":"q"}]}"#;
    let body = r#"{"model":"m","messages":[{"role":"user","content":"q"}],"user":"u","metadata":{"a":"b"},"store":true,
        "stream":true,"stream_options":{"include_usage":true},"service_tier":"flex","safety_identifier":"s",
        "prompt_cache_key":"k","keep_alive":5}"#;
    same(OpenAiChat, plain, body);
    let request = read(OpenAiChat, body).unwrap();
    assert_eq!(request.form, Form::Sse { usage: true });
    assert_eq!(request.echo.get("user"), Some(&json!("u")));
    assert_eq!(request.echo.get("metadata"), Some(&json!({"a": "b"})));
    let form = |options: &str| {
        let body = plain.replacen('{', &format!(r#"{{"stream":true,"stream_options":{options},"#), 1);
        read(OpenAiChat, &body).map(|request| request.form)
    };
    assert_eq!(form("null"), Some(Form::Sse { usage: false }));
    assert_eq!(form("{}"), Some(Form::Sse { usage: false }));
    assert_eq!(form(r#"{"include_usage":false}"#), Some(Form::Sse { usage: false }));
    assert_eq!(form(r#"{"include_usage":"yes"}"#), None);
    assert_eq!(form("[]"), None);
    assert_eq!(read(OpenAiChat, plain).unwrap().form, Form::Json);
}

#[test]
fn a_text_completion_of_one_prompt_is_that_prompt() {
    let body = |prompt: &str| format!(r#"{{"model":"m","prompt":{prompt}}}"#);
    assert_eq!(prompt(OpenAiCompletions, &body(r#""x""#)).as_deref(), Some("x"));
    same(OpenAiCompletions, &body(r#""x""#), &body(r#"["x"]"#));
    for exact_alone in [r#"["x","y"]"#, "[1,2]", "[[1,2]]", "[]", r#""""#, "null"] {
        assert_eq!(prompt(OpenAiCompletions, &body(exact_alone)), None, "{exact_alone}");
    }
    assert_ne!(
        split(OpenAiCompletions, &body(r#"["x","y"]"#)).0,
        split(OpenAiCompletions, &body(r#"["xy"]"#)).0
    );
    for unknown in ["7", "{}", "true", "[null]", "[{}]"] {
        passes(OpenAiCompletions, &body(unknown));
    }
}

#[test]
fn a_reply_that_repeats_its_prompt_is_for_that_prompt_alone() {
    for field in [r#""echo":true"#, r#""prompt_logprobs":0"#, r#""return_token_ids":true"#] {
        let body = format!(r#"{{"model":"m","prompt":"x",{field}}}"#);
        let (scope, prompt) = split(OpenAiCompletions, &body);
        assert_eq!(prompt, None, "{body}");
        assert_ne!(scope, split(OpenAiCompletions, &body.replace("\"x\"", "\"y\"")).0);
    }
    assert_eq!(prompt(OpenAiCompletions, r#"{"prompt":"x","echo":false}"#).as_deref(), Some("x"));
}

#[test]
fn the_prompt_of_a_response_is_its_input_or_the_last_users_text_in_it() {
    let body = |input: &str| format!(r#"{{"model":"m","input":{input}}}"#);
    assert_eq!(prompt(OpenAiResponses, &body(r#""q""#)).as_deref(), Some("q"));
    let message = r#"[{"role":"user","content":"q"}]"#;
    assert_eq!(prompt(OpenAiResponses, &body(message)).as_deref(), Some("q"));
    same(
        OpenAiResponses,
        &body(message),
        &body(r#"[{"role":"user","content":[{"type":"input_text","text":"q"}],"id":null}]"#),
    );
    let parts = r#"[{"type":"message","role":"user","content":[{"type":"input_text","text":"q"},{"type":"input_image","image_url":"u"}]}]"#;
    assert_eq!(prompt(OpenAiResponses, &body(parts)).as_deref(), Some("q"));
    for exact_alone in [
        r#"[{"role":"user","content":"q"},{"type":"function_call_output","call_id":"c","output":"r"}]"#,
        r#"[{"type":"item_reference","id":"i"}]"#,
        r#"[{"role":"developer","content":"d"}]"#,
        r#""""#,
    ] {
        assert_eq!(prompt(OpenAiResponses, &body(exact_alone)), None, "{exact_alone}");
    }
    let stream = read(OpenAiResponses, r#"{"model":"m","input":"q","stream":true}"#).unwrap();
    assert_eq!(stream.form, Form::Sse { usage: true });
    // An earlier response is part of what is asked.
    let after = |id: &str| format!(r#"{{"model":"m","input":"q","previous_response_id":"{id}"}}"#);
    assert_ne!(split(OpenAiResponses, &after("resp_1")).0, split(OpenAiResponses, &after("resp_2")).0);
    assert_eq!(prompt(OpenAiResponses, r#"{"prompt":{"id":"pmpt_1"}}"#), None);
}

#[test]
fn what_changes_state_or_has_no_known_shape_passes_through() {
    for extra in [
        r#""conversation":"conv_1""#,
        r#""conversation":{"id":"c"}"#,
        r#""background":true"#,
        r#""background":1"#,
    ] {
        passes(OpenAiResponses, &format!(r#"{{"model":"m","input":"q",{extra}}}"#));
    }
    assert!(read(OpenAiResponses, r#"{"input":"q","conversation":null,"background":false}"#).is_some());
    for body in [
        "[]",
        "{}",
        r#"{"input":7}"#,
        r#"{"input":["q"]}"#,
        r#"{"input":[{"content":"no role"}]}"#,
        r#"{"input":[{"type":7}]}"#,
        r#"{"input":"q","model":7}"#,
        r#"{"input":"q","stream":"yes"}"#,
        r#"{"input":"q","Conversation":"c"}"#,
    ] {
        passes(OpenAiResponses, body);
    }
    for body in [
        "{}",
        r#"{"messages":[]}"#,
        r#"{"messages":"q"}"#,
        r#"{"messages":["q"]}"#,
        r#"{"messages":[{"content":"q"}]}"#,
        r#"{"messages":[{"role":"user","content":7}]}"#,
        r#"{"messages":[{"role":"user","content":["q"]}]}"#,
        r#"{"messages":[{"role":"user","content":"q"}],"stream":1}"#,
        r#"{"messages":[{"role":"user","content":"q"}],"model":["m"]}"#,
    ] {
        passes(OpenAiChat, body);
    }
    for body in [r#"{"model":"m"}"#, r#"{"input":{}}"#, r#"{"input":"q","stream":true}"#] {
        passes(OpenAiEmbeddings, body);
    }
    let embeddings = r#"{"input":["a","b"],"encoding_format":"base64","user":"u"}"#;
    assert_eq!(prompt(OpenAiEmbeddings, embeddings), None);
    same(OpenAiEmbeddings, embeddings, r#"{"encoding_format":"base64","input":["a","b"]}"#);
}

proptest! {
    /// The prompt comes out as it was put in, and nothing else about the request depends on it.
    #[test]
    fn any_text_is_a_prompt_and_no_scope(text in "\\PC*[^\\s]\\PC*", other in "[a-z]{1,8}") {
        let bodies = |text: &str| {
            [
                (OpenAiChat, json!({"model": "m", "messages": [{"role": "user", "content": text}]})),
                (OpenAiCompletions, json!({"model": "m", "prompt": text})),
                (OpenAiResponses, json!({"model": "m", "input": text})),
            ]
        };
        for ((endpoint, body), (_, other)) in bodies(&text).into_iter().zip(bodies(&other)) {
            let (scope, prompt) = split(endpoint, &body.to_string());
            prop_assert_eq!(prompt.as_ref(), Some(&text));
            prop_assert_eq!(scope, split(endpoint, &other.to_string()).0);
        }
    }
}

/// By what it takes in memory, and not by how it was written.
#[test]
fn what_a_reply_echoes_is_weighed() {
    let zeros = vec![0; 10_000];
    let body =
        json!({"model": "m", "messages": [{"role": "user", "content": "q"}], "metadata": {"a": zeros}})
            .to_string();
    let request = read(OpenAiChat, &body).unwrap();
    assert!(request.echo.weight() >= 10_000 * size_of::<Value>());
}
