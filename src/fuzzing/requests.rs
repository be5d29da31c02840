//! Bodies of requests: what is read of them does not depend on how they are spelled, and asking for usage changes
//! nothing else.

use crate::dialect::json::Json;
use crate::dialect::model::model_of;
use crate::dialect::{Endpoint, Form, Request};

pub(super) fn check(endpoints: &[Endpoint], body: &[u8]) {
    let model = model_of(body);
    let Ok(json) = Json::parse(body) else { return };
    let respelled = json.to_value().to_string();
    let other = Json::parse(respelled.as_bytes()).unwrap();
    assert_eq!(encoded(&json), encoded(&other), "the encoding depends on the spelling");
    for endpoint in endpoints {
        let Some(request) = endpoint.read(json.clone()) else {
            assert!(endpoint.read(other.clone()).is_none(), "{endpoint:?} is read in one spelling alone");
            continue;
        };
        same(&request, &endpoint.read(other.clone()).unwrap());
        assert_eq!(prompts(&request.scope), usize::from(request.prompt.is_some()));
        if let Some(model) = &model {
            assert_eq!(*model, request.model, "routed by another model than is cached");
        }
        assert!(
            model.is_some() || request.model.is_empty(),
            "cached under a model that routing does not see"
        );
        request.earlier().for_each(drop);
        if let Some(asked) = endpoint.ask_for_usage(request.form, body) {
            let again = endpoint.read(Json::parse(&asked).unwrap()).unwrap();
            assert_eq!(again.form, Form::Sse { usage: true });
            same(&Request { form: again.form, ..request }, &again);
        }
    }
}

fn same(one: &Request<'_>, other: &Request<'_>) {
    assert_eq!(one.prompt, other.prompt);
    assert_eq!(one.model, other.model);
    assert_eq!(one.form, other.form);
    assert_eq!(one.echo, other.echo);
    assert_eq!(encoded(&one.scope), encoded(&other.scope));
}

fn encoded(json: &Json<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    json.encode(&mut out);
    out
}

/// How many places a prompt was taken from.
fn prompts(json: &Json<'_>) -> usize {
    match json {
        Json::Prompt => 1,
        Json::Array(items) => items.iter().map(prompts).sum(),
        Json::Object(object) => object.iter().map(|(_, value)| prompts(value)).sum(),
        _ => 0,
    }
}
