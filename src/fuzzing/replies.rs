//! Bodies of replies: what is gathered is a document that reads the same, and every replay of it is well-formed and
//! gathers to the same content.

use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;

use crate::dialect::json::Json;
use crate::dialect::{Echo, Endpoint, Form, Reply, Unstorable, ndjson, sse};

const FORMS: [Form; 4] = [Form::Json, Form::Sse { usage: true }, Form::Sse { usage: false }, Form::Ndjson];

/// What a caller sent whose fields a reply echoes.
static ECHO: LazyLock<Echo> = LazyLock::new(|| {
    let body =
        br#"{"model":"m","input":"x","user":"\"\n\ndata: {}\n\n","metadata":{"a":"\r\n"},"store":false}"#;
    Endpoint::OpenAiResponses.read(Json::parse(body).unwrap()).unwrap().echo
});

/// A body as upstream sent it.
pub(super) fn gather(endpoints: &[Endpoint], body: &[u8]) {
    let body = Bytes::copy_from_slice(body);
    for endpoint in endpoints {
        for form in FORMS {
            let Ok(reply) = endpoint.gather(form, &body) else { continue };
            let again = endpoint.gather(Form::Json, &reply.document).unwrap();
            assert_eq!(again, reply, "{endpoint:?} {form:?}");
            replays(*endpoint, &reply);
        }
    }
}

/// A document as the store has it, which need not be one that was gathered.
pub(super) fn replay(endpoints: &[Endpoint], document: &[u8]) {
    let document = Bytes::copy_from_slice(document);
    for endpoint in endpoints {
        match endpoint.gather(Form::Json, &document) {
            Ok(reply) => replays(*endpoint, &reply),
            // A store gives what was put in: a document that is no JSON is not asked for.
            Err(_) if serde_json::from_slice::<serde::de::IgnoredAny>(&document).is_err() => {
                for form in FORMS {
                    drop(endpoint.replay(&document, form));
                }
            }
            Err(_) => FORMS.into_iter().for_each(|form| drop(rendered(*endpoint, &document, form))),
        }
    }
}

fn replays(endpoint: Endpoint, reply: &Reply) {
    for form in FORMS {
        let Some(body) = rendered(endpoint, &reply.document, form) else { continue };
        let again = match endpoint.gather(form, &body) {
            Ok(again) => again,
            // A bound on what is folded, which a document that came whole need not keep to.
            Err(Unstorable::Malformed(what)) if what.contains("too many members") => continue,
            Err(error) => panic!("{endpoint:?} {form:?}: {error}\n{}", String::from_utf8_lossy(&body)),
        };
        assert_eq!(again.text, reply.text, "{endpoint:?} {form:?}");
        assert_eq!(again.tool_calls, reply.tool_calls, "{endpoint:?} {form:?}");
        if form != (Form::Sse { usage: false }) {
            assert_eq!(again.usage, reply.usage, "{endpoint:?} {form:?}");
        }
    }
}

/// A replay, found well-formed; `None` where there is none in this form.
fn rendered(endpoint: Endpoint, document: &Bytes, form: Form) -> Option<Bytes> {
    let template = endpoint.replay(document, form).ok()?;
    let body = template.render(&ECHO, UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    let parses = |json: &[u8]| {
        let read = serde_json::from_slice::<serde::de::IgnoredAny>(json);
        assert!(read.is_ok(), "{endpoint:?} {form:?}: {}", String::from_utf8_lossy(json));
    };
    match form {
        Form::Json => parses(&body),
        Form::Ndjson => {
            for line in ndjson::lines(&body) {
                assert!(line.ended);
                parses(line.bytes);
            }
        }
        Form::Sse { .. } => {
            assert!(body.ends_with(b"\n\n"));
            for line in body.split(|byte| *byte == b'\n') {
                let known = line.is_empty() || line.starts_with(b"data: ") || line.starts_with(b"event: ");
                assert!(known && !line.contains(&b'\r'), "{}", String::from_utf8_lossy(line));
            }
            sse::events(&body)
                .filter(|event| *event.data != *b"[DONE]")
                .for_each(|event| parses(&event.data));
        }
    }
    Some(body)
}
