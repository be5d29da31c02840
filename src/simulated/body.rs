//! A reply's body as a list of steps that hyper walks: send this, sleep, wait at a gate, cut the connection.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;

use super::Exchange;
use super::fault::{At, Cut, Fault, Gate};

/// Where an exchange leaves word for the task that owns its connection: cut it, like this.
#[derive(Debug, Clone, Default)]
pub(super) struct Cutter(Arc<Mutex<Option<Cut>>>);

impl Cutter {
    pub(super) fn set(&self, cut: Cut) {
        *self.0.lock() = Some(cut);
    }

    pub(super) fn take(&self) -> Option<Cut> {
        self.0.lock().take()
    }
}

enum Step {
    Data(Bytes),
    Sleep(Duration),
    Hold(Gate),
    Trailers(HeaderMap),
    Cut(Cut),
}

/// The body of one reply.
pub(super) struct Script {
    steps: VecDeque<Step>,
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
    length: Option<u64>,
    cutter: Cutter,
    exchange: Exchange,
}

impl Script {
    /// The steps for these pieces of a body. `streamed` leaves its length open and puts `pause` between pieces.
    pub(super) fn new(
        pieces: &[Bytes],
        streamed: bool,
        pause: Duration,
        fault: &Fault,
        (cutter, exchange): (Cutter, Exchange),
    ) -> Self {
        let pieces = fault.pieces_of.map_or_else(|| pieces.to_vec(), |size| resplit(pieces, size));
        let total: usize = pieces.iter().map(Bytes::len).sum();
        let mut steps = VecDeque::with_capacity(pieces.len());
        for (index, piece) in pieces.into_iter().enumerate() {
            if index > 0 && streamed && !pause.is_zero() {
                steps.push_back(Step::Sleep(pause));
            }
            steps.push_back(Step::Data(piece));
        }
        if let Some((at, gate)) = &fault.mid_body {
            let _ = insert(&mut steps, *at, Step::Hold(gate.clone()));
        }
        if let Some((At::Body(at), cut)) = &fault.cut {
            let after = insert(&mut steps, *at, Step::Cut(cut.clone()));
            steps.truncate(after);
        } else if !fault.trailers.is_empty() {
            steps.push_back(Step::Trailers(fault.trailers.clone()));
        }
        let length = if streamed { None } else { u64::try_from(total).ok() };
        if steps.is_empty() {
            exchange.finish();
        }
        Self { steps, waiting: None, length, cutter, exchange }
    }
}

/// Puts a step after the first `bytes` bytes of data (at the end where there are fewer), dividing a piece if need
/// be. Returns the number of steps up to and including it.
fn insert(steps: &mut VecDeque<Step>, bytes: usize, step: Step) -> usize {
    let mut left = bytes;
    let mut at = 0;
    while let Some(current) = steps.get_mut(at) {
        if left == 0 {
            break;
        }
        if let Step::Data(data) = current {
            if data.len() > left {
                let rest = data.split_off(left);
                steps.insert(at + 1, Step::Data(rest));
                left = 0;
            } else {
                left -= data.len();
            }
        }
        at += 1;
    }
    steps.insert(at, step);
    at + 1
}

fn resplit(pieces: &[Bytes], size: usize) -> Vec<Bytes> {
    let whole = pieces.concat();
    whole.chunks(size).map(Bytes::copy_from_slice).collect()
}

impl Body for Script {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        loop {
            if let Some(waiting) = &mut this.waiting {
                ready!(waiting.as_mut().poll(context));
                this.waiting = None;
            }
            match this.steps.pop_front() {
                Some(Step::Data(data)) if data.is_empty() => {}
                Some(Step::Data(data)) => {
                    // hyper need not ask again when it knows that this was the last piece.
                    if this.steps.is_empty() {
                        this.exchange.finish();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Step::Trailers(trailers)) => {
                    this.exchange.finish();
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Some(Step::Sleep(duration)) => this.waiting = Some(Box::pin(tokio::time::sleep(duration))),
                Some(Step::Hold(gate)) => this.waiting = Some(Box::pin(gate.pass())),
                Some(Step::Cut(cut)) => {
                    // hyper flushes what it has while the body is pending; then the connection's task cuts.
                    this.exchange.finish();
                    this.cutter.set(cut);
                    this.waiting = Some(Box::pin(std::future::pending()));
                }
                None => {
                    this.exchange.finish();
                    return Poll::Ready(None);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty() && self.waiting.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
