//! The clients that ask throughout the tests of faults: they find nothing wrong where nothing is, every question
//! hits in its other wordings, and they notice each kind of wrong.

use std::time::Duration;

use crate::support::traffic::{ASKERS, Question, WORDINGS, embed_cheaply};
use crate::support::{Fault, Traffic, TrafficOptions, proxy_with, upstream};

#[tokio::test(flavor = "multi_thread")]
async fn all_is_right_over_the_embedded_store() {
    let upstream = upstream().await;
    let first = proxy_with(&upstream, embed_cheaply).await;
    let second = proxy_with(&upstream, embed_cheaply).await;
    let traffic = Traffic::start(&[&first, &second]).await;
    traffic.until("both layers serve", |report| report.exact() > 200 && report.semantic() > 50).await;
    traffic.without(&second).await;
    second.shutdown().await;
    traffic.until_hits(50).await;
    let report = traffic.stop().await;
    println!("{report}");
    report.assert_all_right("embedded store");
    assert_eq!(report.without_store(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_question_hits_in_its_other_wordings_and_no_other_does() {
    let upstream = upstream().await;
    let proxy = proxy_with(&upstream, embed_cheaply).await;
    let mut wrong = Vec::new();
    for number in 0..Question::COUNT {
        let (asker, question) = (&ASKERS[3], Question::numbered(number));
        for wording in 0..WORDINGS {
            let prompt = asker.prompt(question, wording);
            let reply = asker.ask(&proxy.url(), &prompt, false).send().await;
            let expected = if wording == 0 { None } else { Some("semantic") };
            if reply.layer() != expected {
                wrong.push(format!("{prompt} {}", reply.cache_status()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}: {wrong:#?}", wrong.len(), Question::COUNT);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_and_others_replies_are_noticed() {
    for (fault, fails) in
        [(Fault::status(http::StatusCode::INTERNAL_SERVER_ERROR), true), (Fault::refused(), false)]
    {
        let upstream = upstream().await;
        upstream.set_fault(fault);
        let traffic = Traffic::start_with(
            &[upstream.address()],
            TrafficOptions { pause: Duration::ZERO, ..TrafficOptions::default() },
        )
        .await;
        traffic.until("requests", |report| report.sent() > 20).await;
        let report = traffic.stop().await;
        let counts = (report.failed().len(), report.wrong().len());
        assert_eq!(counts, if fails { (report.sent(), 0) } else { (0, report.sent()) });
    }
}
