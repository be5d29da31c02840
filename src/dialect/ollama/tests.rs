//! The dialect as a whole, through [`Endpoint`]: examples from Ollama's `docs/api.md`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::json;

use crate::dialect::json::Json;
use crate::dialect::{Echo, Endpoint, Form, Request, Unstorable, Usage};

/// 2026-01-02T03:04:05.000000006Z
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::new(1_767_323_045, 6)
}

fn read(endpoint: Endpoint, body: &str) -> Option<Request<'_>> {
    endpoint.read(Json::parse(body.as_bytes()).unwrap())
}

fn scope(endpoint: Endpoint, body: &str) -> Vec<u8> {
    let mut out = Vec::new();
    read(endpoint, body).unwrap().scope.encode(&mut out);
    out
}

fn prompt(endpoint: Endpoint, body: &str) -> Option<String> {
    read(endpoint, body).unwrap().prompt
}

pub(super) fn replay(endpoint: Endpoint, document: &Bytes, form: Form) -> String {
    let bytes = endpoint.replay(document, form).unwrap().render(&Echo::default(), now());
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(super) fn gather(
    endpoint: Endpoint,
    form: Form,
    body: &str,
) -> Result<crate::dialect::Reply, Unstorable> {
    endpoint.gather(form, &Bytes::copy_from_slice(body.as_bytes()))
}

pub(super) const GENERATE: Endpoint = Endpoint::OllamaGenerate;
pub(super) const CHAT: Endpoint = Endpoint::OllamaChat;

#[test]
fn generate_takes_the_prompt_out_and_keeps_all_else_in_the_scope() {
    let request = read(GENERATE, r#"{"model":"llama3.2","prompt":"Why is the sky blue?"}"#).unwrap();
    assert_eq!(request.model, "llama3.2");
    assert_eq!(request.prompt.as_deref(), Some("Why is the sky blue?"));
    assert_eq!(request.form, Form::Ndjson);
    let plain = scope(GENERATE, r#"{"model":"m","prompt":"x"}"#);
    for same in [
        r#"{"prompt":"y","stream":false,"keep_alive":0,"model":"m"}"#,
        r#"{"prompt":"y","model":"m","system":null,"stream":true}"#,
    ] {
        assert_eq!(scope(GENERATE, same), plain, "{same}");
    }
    for other in [
        r#"{"prompt":"x","model":"n"}"#,
        r#"{"prompt":"x","model":"m","system":""}"#,
        r#"{"prompt":"x","model":"m","suffix":"s"}"#,
        r#"{"prompt":"x","model":"m","images":["aa"]}"#,
        r#"{"prompt":"x","model":"m","context":[1]}"#,
        r#"{"prompt":"x","model":"m","options":{"seed":1}}"#,
        r#"{"prompt":"x","model":"m","options":{"seed":null}}"#,
        r#"{"prompt":"x","model":"m","think":"high"}"#,
        r#"{"prompt":"x","model":"m","new_field":1}"#,
        r#"{"prompt":" ","model":"m"}"#,
    ] {
        assert_ne!(scope(GENERATE, other), plain, "{other}");
    }
    assert_eq!(read(GENERATE, r#"{"prompt":"x","stream":false}"#).unwrap().form, Form::Json);
    assert_eq!(prompt(GENERATE, r#"{"prompt":" \n"}"#), None);
}

#[test]
fn loading_unloading_and_unknown_shapes_pass_through() {
    for body in [
        "[]",
        r#"{"model":"m"}"#,
        r#"{"model":"m","prompt":""}"#,
        r#"{"model":"m","prompt":null,"keep_alive":0}"#,
        r#"{"model":"m","prompt":["x"]}"#,
        r#"{"model":1,"prompt":"x"}"#,
        r#"{"model":"m","prompt":"x","stream":"no"}"#,
        r#"{"model":"m","Prompt":"x"}"#,
        r#"{"model":"m","prompt":"x","System":"y"}"#,
    ] {
        assert!(read(GENERATE, body).is_none(), "{body}");
    }
    for body in [
        r#"{"model":"m"}"#,
        r#"{"model":"m","messages":[]}"#,
        r#"{"model":"m","messages":null}"#,
        r#"{"model":"m","messages":"x"}"#,
        r#"{"model":"m","messages":["x"]}"#,
        r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"x"}]}]}"#,
        r#"{"model":"m","messages":[{"role":1,"content":"x"}]}"#,
        r#"{"model":"m","messages":[{"content":"x"}]}"#,
        r#"{"model":"m","messages":[{"Role":"user","content":"x"}]}"#,
        r#"{"model":"m","messages":[{"Role":"user","content":"x"},{"role":"user","content":"x"}]}"#,
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"x\",\"image\u{17f}\":[]}]}",
    ] {
        assert!(read(CHAT, body).is_none(), "{body}");
    }
    for body in [r#"{"input":""}"#, r#"{"input":[]}"#, r#"{"input":[1]}"#, r#"{"prompt":""}"#, "{}"] {
        assert!(read(Endpoint::OllamaEmbed, body).is_none(), "{body}");
    }
}

#[test]
fn chat_takes_the_last_text_of_the_user_alone() {
    let body = r#"{"model":"m","messages":[{"role":"system","content":"s"},{"role":"user","content":"x"}]}"#;
    assert_eq!(prompt(CHAT, body).as_deref(), Some("x"));
    let plain = scope(CHAT, body);
    for same in [
        r#"{"model":"m","messages":[{"content":"s","role":"system"},{"role":"user","content":"other"}]}"#,
        r#"{"model":"m","messages":[{"role":"system","content":"s","images":null},
            {"role":"user","tool_calls":null,"content":"x"}],"stream":false}"#,
    ] {
        assert_eq!(scope(CHAT, same), plain, "{same}");
    }
    for other in [
        r#"{"model":"m","messages":[{"role":"system","content":"t"},{"role":"user","content":"x"}]}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#,
        r#"{"model":"m","messages":[{"role":"system","content":"s"},{"role":"user","content":"x","images":["a"]}]}"#,
    ] {
        assert_eq!(prompt(CHAT, other).as_deref(), Some("x"));
        assert_ne!(scope(CHAT, other), plain, "{other}");
    }
}

#[test]
fn a_chat_that_does_not_end_with_text_of_the_user_is_left_to_the_exact_layer() {
    for body in [
        r#"{"messages":[{"role":"user","content":"x"},{"role":"assistant","content":"y"}]}"#,
        r#"{"messages":[{"role":"user","content":"x"},{"role":"tool","content":"11","tool_name":"t"}]}"#,
        r#"{"messages":[{"role":"User","content":"x"}]}"#,
        r#"{"messages":[{"role":"user","content":"","images":["a"]}]}"#,
        r#"{"messages":[{"role":"user","images":["a"]}]}"#,
    ] {
        assert_eq!(prompt(CHAT, body), None, "{body}");
    }
    let answer = |city| format!(r#"{{"messages":[{{"role":"tool","content":"{city}"}}]}}"#);
    assert_ne!(scope(CHAT, &answer("11")), scope(CHAT, &answer("12")));
}

#[test]
fn embeddings_are_left_to_the_exact_layer() {
    for body in [
        r#"{"model":"all-minilm","input":"Why?"}"#,
        r#"{"model":"all-minilm","input":["a","b"],"truncate":false}"#,
        r#"{"model":"all-minilm","prompt":"Here is an article"}"#,
    ] {
        let request = read(Endpoint::OllamaEmbed, body).unwrap();
        assert_eq!((request.prompt, request.form), (None, Form::Json), "{body}");
    }
    let input = |text| scope(Endpoint::OllamaEmbed, text);
    assert_ne!(input(r#"{"input":"a"}"#), input(r#"{"input":["a"]}"#));
}

const CHAT_STREAM: &str = concat!(
    r#"{"model":"llama3.2","created_at":"2023-08-04T08:52:19.385406455-07:00","message":{"role":"assistant","content":"The","images":null},"done":false}"#,
    "\n",
    r#"{"model":"llama3.2","created_at":"2023-08-04T08:52:19.4Z","message":{"role":"assistant","content":" sky\n\u003c3"},"done":false}"#,
    "\r\n\n",
    r#"{"model":"llama3.2","created_at":"2023-08-04T19:22:45.499127Z","message":{"role":"assistant","content":""},"done_reason":"stop","done":true,"total_duration":4883583458,"load_duration":1334875,"prompt_eval_count":26,"prompt_eval_duration":342546000,"eval_count":282,"eval_duration":4535599000}"#,
    "\n"
);

#[test]
fn a_chat_stream_is_folded_into_the_unstreamed_document() {
    let reply = gather(CHAT, Form::Ndjson, CHAT_STREAM).unwrap();
    insta::assert_snapshot!(String::from_utf8_lossy(&reply.document), @r#"{"model":"llama3.2","created_at":"2023-08-04T19:22:45.499127Z","message":{"role":"assistant","content":"The sky\n<3","images":null},"done":true,"done_reason":"stop","total_duration":4883583458,"load_duration":1334875,"prompt_eval_count":26,"prompt_eval_duration":342546000,"eval_count":282,"eval_duration":4535599000}"#);
    assert_eq!(reply.text, "The sky\n<3");
    assert_eq!(reply.usage, Some(Usage { input: 26, output: 282, ..Usage::default() }));
    assert!(!reply.tool_calls);
}

#[test]
fn a_chat_is_replayed_in_both_forms() {
    let document = gather(CHAT, Form::Ndjson, CHAT_STREAM).unwrap().document;
    insta::assert_snapshot!(replay(CHAT, &document, Form::Json), @r#"{"model":"llama3.2","created_at":"2026-01-02T03:04:05.000000006Z","message":{"role":"assistant","content":"The sky\n<3","images":null},"done":true,"done_reason":"stop","total_duration":4883583458,"load_duration":1334875,"prompt_eval_count":26,"prompt_eval_duration":342546000,"eval_count":282,"eval_duration":4535599000}"#);
    insta::assert_snapshot!(replay(CHAT, &document, Form::Ndjson), @r#"
    {"model":"llama3.2","created_at":"2026-01-02T03:04:05.000000006Z","message":{"role":"assistant","content":"The sky\n<3"},"done":false}
    {"model":"llama3.2","created_at":"2026-01-02T03:04:05.000000006Z","message":{"role":"assistant","content":"","images":null},"done":true,"done_reason":"stop","total_duration":4883583458,"load_duration":1334875,"prompt_eval_count":26,"prompt_eval_duration":342546000,"eval_count":282,"eval_duration":4535599000}
    "#);
}

#[test]
fn thinking_comes_first_and_tool_calls_have_a_line_of_their_own() {
    let stream = concat!(
        r#"{"model":"m","created_at":"t","message":{"role":"assistant","content":"","thinking":"Hm."},"done":false}"#,
        "\n",
        r#"{"model":"m","created_at":"t","message":{"role":"assistant","content":"Let me look."},"done":false}"#,
        "\n",
        r#"{"model":"m","created_at":"t","message":{"role":"assistant","content":"","tool_calls":[{"id":"call_1","function":{"index":0,"name":"get_weather","arguments":{"city":"Tokyo","n":12345678901234567890123}}}]},"done":false}"#,
        "\n",
        r#"{"model":"m","created_at":"t","message":{"role":"assistant","content":"","tool_calls":[{"id":"call_2","function":{"index":1,"name":"get_time","arguments":{}}}]},"done":false}"#,
        "\n",
        r#"{"model":"m","created_at":"t","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","eval_count":15}"#,
        "\n"
    );
    let reply = gather(CHAT, Form::Ndjson, stream).unwrap();
    assert!(reply.tool_calls);
    assert_eq!(reply.usage, Some(Usage { input: 0, output: 15, ..Usage::default() }));
    insta::assert_snapshot!(replay(CHAT, &reply.document, Form::Ndjson), @r#"
    {"model":"m","created_at":"2026-01-02T03:04:05.000000006Z","message":{"role":"assistant","content":"","thinking":"Hm."},"done":false}
    {"model":"m","created_at":"2026-01-02T03:04:05.000000006Z","message":{"role":"assistant","content":"Let me look."},"done":false}
    {"model":"m","created_at":"2026-01-02T03:04:05.000000006Z","message":{"role":"assistant","content":"","tool_calls":[{"id":"call_1","function":{"index":0,"name":"get_weather","arguments":{"city":"Tokyo","n":12345678901234567890123}}},{"id":"call_2","function":{"index":1,"name":"get_time","arguments":{}}}]},"done":false}
    {"model":"m","created_at":"2026-01-02T03:04:05.000000006Z","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","eval_count":15}
    "#);
}

#[test]
fn a_pretty_printed_document_is_streamed_line_by_line() {
    let document = "{\n  \"model\": \"llama3.2\",\r\n  \"created_at\": \"2023-08-04T19:22:45.499127Z\",\n  \
        \"response\": \"The sky\\nis blue.\",\n  \"done\": true,\n  \"context\": [\n1,\n2\n],\n  \
        \"total_duration\": 5043500667\n}\n";
    let reply = gather(GENERATE, Form::Json, document).unwrap();
    assert_eq!(reply.document, document);
    assert_eq!(reply.usage, None);
    insta::assert_snapshot!(replay(GENERATE, &reply.document, Form::Json), @r#"
    {
      "model": "llama3.2",
      "created_at": "2026-01-02T03:04:05.000000006Z",
      "response": "The sky\nis blue.",
      "done": true,
      "context": [
    1,
    2
    ],
      "total_duration": 5043500667
    }
    "#);
    insta::assert_snapshot!(replay(GENERATE, &reply.document, Form::Ndjson), @r#"
    {"model":"llama3.2","created_at":"2026-01-02T03:04:05.000000006Z","response":"The sky\nis blue.","done":false}
    {"model":"llama3.2","created_at":"2026-01-02T03:04:05.000000006Z","response":"","done":true,"context":[ 1, 2 ],"total_duration":5043500667}
    "#);
}

#[test]
fn log_probabilities_come_with_their_tokens() {
    let stream = concat!(
        r#"{"model":"m","created_at":"t","response":"Hel","done":false,"logprobs":[{"token":"Hel","logprob":-0.10000000000000001}]}"#,
        "\n",
        r#"{"model":"m","created_at":"t","response":"lo","done":false,"logprobs":[{"token":"lo","logprob":-1}]}"#,
        "\n",
        r#"{"model":"m","created_at":"t","response":"","done":true,"done_reason":"stop"}"#
    );
    let document = gather(GENERATE, Form::Ndjson, stream).unwrap().document;
    insta::assert_snapshot!(replay(GENERATE, &document, Form::Ndjson), @r#"
    {"model":"m","created_at":"2026-01-02T03:04:05.000000006Z","response":"Hel","done":false,"logprobs":[{"token":"Hel","logprob":-0.10000000000000001}]}
    {"model":"m","created_at":"2026-01-02T03:04:05.000000006Z","response":"lo","done":false,"logprobs":[{"token":"lo","logprob":-1}]}
    {"model":"m","created_at":"2026-01-02T03:04:05.000000006Z","response":"","done":true,"done_reason":"stop"}
    "#);
    // Tokens that are not the text, as with thinking between tags, come with the last line.
    let document = gather(
        GENERATE,
        Form::Json,
        r#"{"model":"m","response":"Hi","thinking":"a","done":true,"logprobs":[{"token":"<think>","logprob":0}]}"#,
    )
    .unwrap()
    .document;
    insta::assert_snapshot!(replay(GENERATE, &document, Form::Ndjson), @r#"
    {"model":"m","response":"","thinking":"a","done":false}
    {"model":"m","response":"Hi","done":false}
    {"model":"m","response":"","done":true,"logprobs":[{"token":"<think>","logprob":0}]}
    "#);
}

#[test]
fn what_is_not_whole_is_not_stored() {
    let line = r#"{"model":"m","response":"Hi","done":false}"#;
    let last = r#"{"model":"m","response":"","done":true,"done_reason":"stop"}"#;
    let why = |body: &str| gather(GENERATE, Form::Ndjson, body).unwrap_err();
    assert!(gather(GENERATE, Form::Ndjson, &format!("{line}\n{last}")).is_ok());
    assert_eq!(why(""), Unstorable::Truncated);
    assert_eq!(why(line), Unstorable::Truncated);
    assert_eq!(why(&format!("{line}\n")), Unstorable::Truncated);
    assert_eq!(why(&format!("{line}\n{{\"mod")), Unstorable::Truncated);
    assert_eq!(why(&format!("{line}\n{{\"error\":\"no\"}}\n")), Unstorable::Error);
    assert_eq!(why(&format!("{line}\n{last}\n{{\"error\":\"no\"}}\n")), Unstorable::Error);
    assert!(matches!(why(&format!("{line}\n{last}\n{last}\n")), Unstorable::Malformed(_)));
    assert!(matches!(why(&format!("{line}\n<html>\n{last}\n")), Unstorable::Malformed(_)));
    assert!(matches!(why(&last.replace("\"\"", "1")), Unstorable::Malformed(_)));
    assert_eq!(why(last), Unstorable::Empty);

    let why = |body: &str| gather(GENERATE, Form::Json, body).unwrap_err();
    assert_eq!(why(r#"{"error":"model not found"}"#), Unstorable::Error);
    assert_eq!(why(r#"{"response":"Hi","done":false}"#), Unstorable::Truncated);
    assert_eq!(why(r#"{"response":"Hi"}"#), Unstorable::Truncated);
    assert_eq!(why(r#"{"response":"","done":true,"done_reason":"load"}"#), Unstorable::Empty);
    assert_eq!(why(r#"{"response":"Hi","done":true,"done_reason":"unload"}"#), Unstorable::Empty);
    assert_eq!(why(r#"{"response":" ","thinking":"Hm","done":true}"#), Unstorable::Empty);
    assert_eq!(
        why(r#"{"response":"Hi","done":true,"done_reason":"length"}"#),
        Unstorable::Incomplete("length".to_owned())
    );
    assert!(matches!(why(r#"{"response":"Hi","done":true,"done_reason":"new"}"#), Unstorable::Incomplete(_)));
    assert!(matches!(why(r#"{"response":"Hi","done":true"#), Unstorable::Malformed(_)));
    assert!(matches!(why("[1]"), Unstorable::Malformed(_)));
    assert!(matches!(
        gather(GENERATE, Form::Sse { usage: true }, "data: {}\n\n").unwrap_err(),
        Unstorable::Malformed(_)
    ));
}

#[test]
fn embeddings_are_kept_as_they_came() {
    let whole = r#"{"model":"all-minilm","embeddings":[[0.010071029,-0.0017594862]],"total_duration":14143917,"prompt_eval_count":8}"#;
    let reply = gather(Endpoint::OllamaEmbed, Form::Json, whole).unwrap();
    assert_eq!(reply.usage, Some(Usage { input: 8, output: 0, ..Usage::default() }));
    assert_eq!(replay(Endpoint::OllamaEmbed, &reply.document, Form::Json), whole);
    assert!(gather(Endpoint::OllamaEmbeddings, Form::Json, r#"{"embedding":[0.5]}"#).is_ok());
    for empty in [r#"{"embeddings":[]}"#, r#"{"embeddings":[[]]}"#, r#"{"embedding":[]}"#, "{}"] {
        assert_eq!(gather(Endpoint::OllamaEmbed, Form::Json, empty).unwrap_err(), Unstorable::Empty);
    }
    assert!(Endpoint::OllamaEmbed.replay(&reply.document, Form::Ndjson).is_err());
}

#[test]
fn what_a_line_repeats_is_bounded() {
    let response = "word ".repeat(10_000);
    let document = json!({"model": "m".repeat(10_000), "response": response, "done": true}).to_string();
    assert!(GENERATE.replay(&Bytes::from(document.clone()), Form::Ndjson).is_err());
    assert!(GENERATE.replay(&Bytes::from(document), Form::Json).is_ok());
}
