//! `/entries` and `/purge` on the admin listener: what is stored can be seen, searched, paged and taken out.

use http::Method;
use serde_json::{Value, json};

use crate::support::{Ask, Proxy, fill, proxy, upstream};

const PATH: &str = "/api/generate";

async fn get(proxy: &Proxy, path: &str) -> Value {
    Ask::get(&format!("{}{path}", proxy.admin_url())).send().await.json()
}

async fn purge(proxy: &Proxy, body: &Value) -> (u16, Value) {
    let reply = Ask::post(&format!("{}/purge", proxy.admin_url()), body).send().await;
    (reply.status.as_u16(), reply.json())
}

fn prompts(page: &Value) -> Vec<&str> {
    page["entries"].as_array().unwrap().iter().map(|entry| entry["prompt"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn what_selects_nothing_purges_nothing() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    fill(&proxy, &[("m", "", "Why is the sky blue?")]).await;
    for body in [
        json!({}),
        json!({"namespace": ""}),
        json!({"model": " ", "namespace": "docs"}),
        json!({"all": true, "model": "m"}),
        json!([true, null, null, null, false]),
        json!("all"),
    ] {
        assert_eq!(purge(&proxy, &body).await.0, 400, "{body}");
    }
    assert_eq!(prompts(&get(&proxy, "/entries").await).len(), 1);
}

#[tokio::test]
async fn an_entry_shows_what_it_answers_and_goes_when_told() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    fill(&proxy, &[("m", "docs", "Why is the sky blue?")]).await;
    let hit = proxy.post(PATH, &json!({"model": "m", "prompt": "Why is the sky blue?", "stream": false}));
    let hit = hit.header("x-rejoinder-namespace", "docs").send().await;
    let id = hit.header("x-rejoinder-entry").unwrap().to_owned();

    let shown = get(&proxy, &format!("/entries/{id}")).await;
    let expected = [
        ("id", json!(id)),
        ("path", json!(PATH)),
        ("model", json!("m")),
        ("namespace", json!("docs")),
        ("prompt", json!("Why is the sky blue?")),
        ("reply", hit.json()["response"].clone()),
        ("age_s", json!(0)),
        ("ttl_s", json!(86_400)),
        ("hits", json!(1)),
    ];
    for (name, value) in expected {
        assert_eq!(shown[name], value, "{name}");
    }
    assert!(shown["created_at"].as_str().unwrap().ends_with('Z'));
    // By itself it is shown with more (tests/admin/api.rs), and all that the list has is the same.
    let listed = get(&proxy, "/entries").await["entries"].clone();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    for (name, value) in listed[0].as_object().unwrap() {
        assert_eq!(shown[name], *value, "{name}");
    }

    let delete = || Ask::new(Method::DELETE, &format!("{}/entries/{id}", proxy.admin_url()));
    assert_eq!(delete().send().await.status, 204);
    assert_eq!(delete().send().await.status, 404);
    let gone = Ask::get(&format!("{}/entries/{id}", proxy.admin_url())).send().await;
    assert_eq!(gone.status, 404);
    assert_eq!(Ask::get(&format!("{}/entries/x", proxy.admin_url())).send().await.status, 400);
    let fresh = proxy.post(PATH, &json!({"model": "m", "prompt": "Why is the sky blue?", "stream": false}));
    assert_eq!(fresh.header("x-rejoinder-namespace", "docs").send().await.layer(), None);
}

#[tokio::test]
async fn entries_are_searched_and_paged_newest_first() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    fill(&proxy, &[("m", "", "one apple"), ("m", "", "two pears"), ("m", "", "three Apples")]).await;
    let first = get(&proxy, "/entries?limit=2").await;
    assert_eq!(prompts(&first), ["three Apples", "two pears"]);
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = get(&proxy, &format!("/entries?limit=2&cursor={cursor}")).await;
    assert_eq!(prompts(&second), ["one apple"]);
    assert_eq!(second["next_cursor"], Value::Null);
    assert_eq!(prompts(&get(&proxy, "/entries?q=APPLE").await), ["three Apples", "one apple"]);
    assert_eq!(prompts(&get(&proxy, "/entries?q=two+pears").await), ["two pears"]);
    for wrong in ["limit=many", "cursor=x", "colour=red"] {
        let reply = Ask::get(&format!("{}/entries?{wrong}", proxy.admin_url())).send().await;
        assert_eq!(reply.status, 400, "{wrong}");
    }
}

#[tokio::test]
async fn a_purge_takes_what_it_selects_and_nothing_without_a_selector() {
    let upstream = upstream().await;
    let proxy = proxy(&upstream).await;
    fill(&proxy, &[("a", "", "1"), ("a", "docs", "2"), ("b", "docs", "3"), ("b", "", "4")]).await;
    for empty in [json!({}), json!({"all": false}), json!({"model": null})] {
        assert_eq!(purge(&proxy, &empty).await.0, 400, "{empty}");
    }
    for wrong in [json!({"all": true, "model": "a"}), json!({"modell": "a"}), json!([])] {
        assert_eq!(purge(&proxy, &wrong).await.0, 400, "{wrong}");
    }
    assert_eq!(prompts(&get(&proxy, "/entries").await).len(), 4);
    assert_eq!(purge(&proxy, &json!({"older_than_s": 60})).await, (200, json!({"purged": 0})));
    assert_eq!(purge(&proxy, &json!({"model": "a", "namespace": "docs"})).await, (200, json!({"purged": 1})));
    assert_eq!(prompts(&get(&proxy, "/entries").await), ["4", "3", "1"]);
    assert_eq!(purge(&proxy, &json!({"model": "b"})).await, (200, json!({"purged": 2})));
    assert_eq!(purge(&proxy, &json!({"all": true})).await, (200, json!({"purged": 1})));
    assert_eq!(prompts(&get(&proxy, "/entries").await), [""; 0]);
}
