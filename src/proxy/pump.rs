//! A body that passes through a task of its own, which gives up a reader that takes nothing.
//!
//! Called by [`super`] for replies over HTTP/2. There a client may go on reading its connection and give one stream no
//! window; hyper then does not ask for the body any more, so that no limit within it can pass.

use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use super::body::{Body, BodyError};

/// What comes out of the task.
pub type Pumped = mpsc::Receiver<Result<Frame<Bytes>, BodyError>>;

/// Passes `body` on. It is dropped, with all that it holds, when a piece is not taken for longer than `idle`, or the
/// reader goes.
pub fn pump(mut body: Body, idle: Duration) -> Body {
    if matches!(body, Body::Empty) {
        return body;
    }
    // One piece on its way, and room for the last word.
    let (sender, pieces) = mpsc::channel(2);
    tokio::spawn(async move {
        let Ok(last) = sender.clone().reserve_owned().await else { return };
        loop {
            let frame = tokio::select! {
                frame = body.frame() => frame,
                () = sender.closed() => return,
            };
            let frame = match frame {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return drop(last.send(Err(error))),
                None => return,
            };
            match tokio::time::timeout(idle, sender.reserve()).await {
                Ok(Ok(room)) => room.send(Ok(frame)),
                Ok(Err(_)) => return,
                // Whenever it reads on, it must not take this for the end.
                Err(_) => return drop(last.send(Err(BodyError::Idle(idle)))),
            }
        }
    });
    Body::Pumped(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_finds_a_cut_and_not_an_end() {
        let idle = Duration::from_secs(5);
        let (sender, produced) = mpsc::channel(8);
        for _ in 0..4 {
            sender.send(Ok(Bytes::from_static(b"x"))).await.unwrap();
        }
        let mut body = pump(Body::Produced(produced), idle);
        tokio::time::timeout(2 * idle, sender.closed()).await.expect("it is given up");
        let mut pieces = 0;
        let cut = loop {
            match body.frame().await {
                Some(Ok(_)) => pieces += 1,
                end => break end,
            }
        };
        assert!(matches!(cut, Some(Err(BodyError::Idle(_)))) && pieces < 4, "{pieces}");
    }

    #[tokio::test]
    async fn a_body_passes_whole_and_stops_when_nobody_reads() {
        let idle = Duration::from_mins(1);
        let whole = pump(Body::Whole(Bytes::from_static(b"all of it")), idle);
        assert_eq!(whole.collect().await.unwrap().to_bytes(), "all of it");
        let (sender, produced) = mpsc::channel(1);
        drop(pump(Body::Produced(produced), idle));
        sender.closed().await;
    }
}
