//! What became of each request, told to whoever listens as it falls, as server-sent events (WHATWG HTML §9.2).
//!
//! `proxy` asks whether anybody listens before it makes anything; [`super::Metrics`] tells; `admin` listens. Slow listeners
//! lose events, and hold up nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{broadcast, mpsc, watch};

use super::{Exchange, Kind};
use crate::cache::Query;
use crate::cache::outcome::Outcome;
use crate::dialect::template::rfc3339;

/// Events that wait for the slowest listener, each of about a KiB at most.
const WAITING: usize = 256;

/// Who may listen at once.
const LISTENERS: usize = 16;

/// How long nothing is said at most, so that both sides know of each other.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Characters that are shown of a prompt.
const PROMPT: usize = 120;

/// Characters that are shown of what else a client chooses.
const SHOWN: usize = 200;

/// Who listens. One for the process.
#[derive(Debug)]
pub struct Decisions {
    events: broadcast::Sender<Bytes>,
    /// The channel counts its receivers too, but behind a lock.
    listeners: AtomicUsize,
    ended: watch::Sender<bool>,
}

/// What a request asked, for those who listen.
#[derive(Debug)]
pub struct Asked {
    model: String,
    namespace: String,
    /// `None` for what is to leave no trace, and where there is none.
    prompt: Option<String>,
}

/// The data of an event.
#[derive(Debug, Serialize)]
struct Event<'a> {
    at: String,
    path: String,
    model: Option<&'a str>,
    namespace: Option<&'a str>,
    layer: &'static str,
    detail: &'static str,
    rule: Option<&'static str>,
    similarity: Option<f32>,
    confidence: Option<f32>,
    entry: Option<String>,
    status: u16,
    duration_ms: f64,
    prompt: Option<&'a str>,
}

/// There are as many listeners as there may be.
#[derive(Debug, thiserror::Error)]
#[error("{LISTENERS} listen already; try again when one has gone")]
pub struct TooMany;

impl Default for Decisions {
    fn default() -> Self {
        let (events, _) = broadcast::channel(WAITING);
        Self { events, listeners: AtomicUsize::new(0), ended: watch::Sender::new(false) }
    }
}

impl Decisions {
    /// Whether anybody listens.
    pub fn are_wanted(&self) -> bool {
        self.listeners.load(Ordering::Relaxed) > 0
    }

    /// Tells what became of a request. To be called where they are wanted.
    pub(super) fn tell(&self, outcome: &Outcome, exchange: &Exchange<'_>, asked: Option<&Asked>) {
        let event = Event {
            at: rfc3339(SystemTime::now()),
            path: cut(exchange.path, SHOWN),
            model: asked.map(|asked| asked.model.as_str()),
            namespace: asked.map(|asked| asked.namespace.as_str()),
            layer: Kind::of(outcome).as_str(),
            detail: outcome.detail(),
            rule: outcome.rule,
            similarity: outcome.decision.map(|decision| decision.similarity.0),
            confidence: outcome.decision.map(|decision| decision.confidence),
            entry: outcome.entry.map(|entry| entry.id.to_string()),
            status: exchange.status.as_u16(),
            duration_ms: exchange.elapsed.as_secs_f64() * 1000.0,
            prompt: asked.and_then(|asked| asked.prompt.as_deref()),
        };
        // Where the last listener has just gone nobody hears it.
        let _ = self.events.send(framed("decision", &event));
    }

    /// Listens until whoever reads has gone, or the process ends: what is to be read, piece by piece. What happens from
    /// now on is told.
    ///
    /// # Errors
    /// Too many listen already.
    pub fn listen<E: Send + 'static>(self: &Arc<Self>) -> Result<mpsc::Receiver<Result<Bytes, E>>, TooMany> {
        let listener = Listener::new(self)?;
        let (sender, pieces) = mpsc::channel(1);
        // Subscribed before the first piece is there to be read.
        let events = self.events.subscribe();
        tokio::spawn(listener.relay(events, sender));
        Ok(pieces)
    }

    /// Sends all listeners away, now and from now on.
    pub fn end(&self) {
        self.ended.send_replace(true);
    }
}

impl Asked {
    /// What a query asks.
    pub fn new(query: &Query) -> Box<Self> {
        let directives = &query.directives;
        let prompt = query.prompt.as_deref().filter(|_| !directives.is_fleeting());
        Box::new(Self {
            model: cut(&query.model, SHOWN),
            namespace: cut(&directives.namespace, SHOWN),
            prompt: prompt.map(|prompt| cut(prompt, PROMPT)),
        })
    }
}

fn cut(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}

/// An event on its way. JSON has no line ends of its own.
fn framed(name: &str, data: &impl Serialize) -> Bytes {
    let data = serde_json::to_string(data).unwrap_or_default();
    format!("event: {name}\ndata: {data}\n\n").into()
}

/// Counts as a listener until it is dropped.
struct Listener(Arc<Decisions>);

impl Listener {
    fn new(decisions: &Arc<Decisions>) -> Result<Self, TooMany> {
        let more = |listeners| (listeners < LISTENERS).then_some(listeners + 1);
        let counted = decisions.listeners.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        counted.map(|_| Self(Arc::clone(decisions))).map_err(|_| TooMany)
    }

    async fn relay<E>(self, mut events: broadcast::Receiver<Bytes>, to: mpsc::Sender<Result<Bytes, E>>) {
        let mut ended = self.0.ended.subscribe();
        let mut piece = Bytes::from_static(b": listening\n\n");
        loop {
            let taken = tokio::select! {
                taken = to.send(Ok(piece)) => taken.is_ok(),
                _ = ended.wait_for(|ended| *ended) => false,
            };
            if !taken {
                return;
            }
            piece = tokio::select! {
                event = events.recv() => match event {
                    Ok(event) => event,
                    Err(broadcast::error::RecvError::Lagged(count)) => {
                        framed("skipped", &serde_json::json!({"count": count}))
                    }
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                () = tokio::time::sleep(HEARTBEAT) => Bytes::from_static(b":\n\n"),
                () = to.closed() => return,
                _ = ended.wait_for(|ended| *ended) => return,
            };
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Method, StatusCode};

    use super::*;
    use crate::cache::outcome::Forward;
    use crate::telemetry::request_id::RequestName;

    #[tokio::test]
    async fn whoever_reads_slowly_loses_events_and_is_told_how_many() {
        let decisions = Arc::new(Decisions::default());
        assert!(!decisions.are_wanted());
        let mut pieces = decisions.listen::<Infallible>().unwrap();
        assert!(decisions.are_wanted());
        let exchange = Exchange {
            endpoint: Some(crate::dialect::Endpoint::OpenAiChat),
            method: &Method::POST,
            path: "/v1/chat/completions",
            request_id: RequestName::Sent(""),
            status: StatusCode::OK,
            elapsed: Duration::ZERO,
        };
        let told = WAITING + 50;
        for _ in 0..told {
            decisions.tell(&Outcome::forwarded(Forward::Bypass), &exchange, None);
        }
        let mut next = async || String::from_utf8(pieces.recv().await.unwrap().unwrap().to_vec()).unwrap();
        assert_eq!(next().await, ": listening\n\n");
        assert_eq!(next().await, "event: skipped\ndata: {\"count\":50}\n\n");
        for _ in 0..WAITING {
            assert!(next().await.starts_with("event: decision\ndata: {"));
        }
        decisions.end();
        assert!(pieces.recv().await.is_none());
    }

    #[tokio::test]
    async fn nothing_is_wanted_once_the_last_listener_has_gone() {
        let decisions = Arc::new(Decisions::default());
        let pieces: Vec<_> = (0..LISTENERS).map(|_| decisions.listen::<Infallible>().unwrap()).collect();
        assert!(decisions.listen::<Infallible>().is_err());
        drop(pieces);
        while decisions.are_wanted() {
            tokio::task::yield_now().await;
        }
    }
}
