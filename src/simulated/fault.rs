//! What goes wrong on purpose: one [`Fault`] per exchange, composed from small parts, and the [`Gate`] that holds
//! an exchange until a test lets it go.
//!
//! Set in code by tests (`Simulated::set_fault`), or by hand through the request header `x-simulated-fault`.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tokio::sync::watch;

/// How one exchange departs from a plain, whole answer. The default departs in nothing; the methods add to it,
/// so that `Fault::status(StatusCode::BAD_GATEWAY).gate(&gate)` is an error that waits for its gate.
#[derive(Debug, Clone, Default)]
pub struct Fault {
    pub(super) before_body: Option<Gate>,
    pub(super) before_head: Option<Gate>,
    pub(super) mid_body: Option<(usize, Gate)>,
    pub(super) status: Option<StatusCode>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) trailers: HeaderMap,
    pub(super) content: Content,
    pub(super) body: Option<(HeaderValue, Bytes)>,
    pub(super) encoding: Option<Encoding>,
    pub(super) pieces_of: Option<usize>,
    pub(super) cut: Option<(At, Cut)>,
}

/// What the reply says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Content {
    #[default]
    Whole,
    Empty,
    StoppedByLength,
    Filtered,
    Refused,
    Huge(usize),
    ErrorInside,
}

/// Where an exchange is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    Head,
    Body(usize),
}

/// How an exchange is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cut {
    /// The socket is closed (FIN) although the message is not whole.
    Close,
    /// The socket is reset (RST).
    Reset,
    /// These bytes are written in place of all that hyper would have written, then the socket is closed.
    Raw(Bytes),
}

/// A content coding, applied to the reply piece by piece.
#[derive(Clone, Copy)]
pub struct Encoding {
    /// The value of `Content-Encoding`.
    pub name: &'static str,
    /// Starts an encoder. It is called with each piece of the reply and returns bytes from which a decoder can
    /// make that piece whole (it flushes), then once with `None` for the end of the coding.
    pub start: fn() -> Encoder,
}

/// A running encoder; see [`Encoding::start`].
pub type Encoder = Box<dyn FnMut(Option<&[u8]>) -> Vec<u8> + Send>;

impl fmt::Debug for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Encoding").field(&self.name).finish()
    }
}

impl Fault {
    /// Nothing goes wrong; a start for the methods.
    pub fn none() -> Self {
        Self::default()
    }

    /// Answers with this status and an error of the path's dialect (for statuses from 400), or with the usual
    /// body (below 400).
    pub fn status(status: StatusCode) -> Self {
        Self { status: Some(status), ..Self::default() }
    }

    /// Resets the connection when the request has arrived, before anything of the reply is sent.
    pub fn reset_before_head() -> Self {
        Self { cut: Some((At::Head, Cut::Reset)), ..Self::default() }
    }

    /// Closes the connection when the request has arrived, before anything of the reply is sent.
    pub fn close_before_head() -> Self {
        Self { cut: Some((At::Head, Cut::Close)), ..Self::default() }
    }

    /// Writes these bytes to the socket in place of a reply, then closes it: garbage, wrong framing, anything.
    pub fn raw(bytes: impl Into<Bytes>) -> Self {
        Self { cut: Some((At::Head, Cut::Raw(bytes.into()))), ..Self::default() }
    }

    /// A reply without content, otherwise whole.
    pub fn empty() -> Self {
        Self { content: Content::Empty, ..Self::default() }
    }

    /// A reply that ran into the token limit (`finish_reason: length` and its like).
    pub fn stopped_by_length() -> Self {
        Self { content: Content::StoppedByLength, ..Self::default() }
    }

    /// A reply that a content filter stopped.
    pub fn filtered() -> Self {
        Self { content: Content::Filtered, ..Self::default() }
    }

    /// A refusal, where the dialect has a form for it.
    pub fn refused() -> Self {
        Self { content: Content::Refused, ..Self::default() }
    }

    /// A reply whose text is this many bytes long.
    pub fn huge(bytes: usize) -> Self {
        Self { content: Content::Huge(bytes), ..Self::default() }
    }

    /// Status 200, but an error of the dialect half-way through the stream, or in place of the JSON document.
    pub fn error_inside() -> Self {
        Self { content: Content::ErrorInside, ..Self::default() }
    }

    /// This body in place of the reply.
    pub fn body(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { body: Some((HeaderValue::from_static(content_type), body.into())), ..Self::default() }
    }

    /// Resets the connection after this many bytes of the body. Keep it below the socket's buffers (64 KiB): a
    /// reset overtakes what is still unsent.
    #[must_use]
    pub fn reset_after(mut self, bytes: usize) -> Self {
        self.cut = Some((At::Body(bytes), Cut::Reset));
        self
    }

    /// Closes the connection after this many bytes of the body, without an end of the message.
    #[must_use]
    pub fn close_after(mut self, bytes: usize) -> Self {
        self.cut = Some((At::Body(bytes), Cut::Close));
        self
    }

    /// Holds the exchange when the request's head has arrived: its body is not read until the gate opens.
    #[must_use]
    pub fn gate_before_body(mut self, gate: &Gate) -> Self {
        self.before_body = Some(gate.clone());
        self
    }

    /// Holds the exchange when the whole request has arrived, before the reply's head.
    #[must_use]
    pub fn gate(mut self, gate: &Gate) -> Self {
        self.before_head = Some(gate.clone());
        self
    }

    /// Holds the exchange after this many bytes of the reply's body.
    #[must_use]
    pub fn gate_after(mut self, bytes: usize, gate: &Gate) -> Self {
        self.mid_body = Some((bytes, gate.clone()));
        self
    }

    /// Adds a header; the names `content-type`, `content-length` and `server` replace the usual value. A
    /// `content-length` other than the true one makes a broken reply: too long a one is followed by a close, too
    /// short a one is obeyed.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Adds a trailer to a reply and the `Trailer` header that announces it. hyper sends trailers only where the
    /// request says `TE: trailers`.
    #[must_use]
    pub fn trailer(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((header::TRAILER, HeaderValue::from_name(name.clone())));
        self.trailers.append(name, value);
        self
    }

    /// Sends the body in pieces of this many bytes, wherever that cuts a line or a character.
    #[must_use]
    pub fn in_pieces_of(mut self, bytes: usize) -> Self {
        self.pieces_of = Some(bytes.max(1));
        self
    }

    /// Sends the reply in a content coding.
    #[must_use]
    pub fn encoded(mut self, encoding: Encoding) -> Self {
        self.encoding = Some(encoding);
        self
    }

    /// Reads the value of `x-simulated-fault`: words separated by commas, each one of those in the error text.
    pub(super) fn from_header(text: &str) -> Result<Self, String> {
        let mut fault = Self::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let (name, value) = word.split_once('=').map_or((word, None), |(n, v)| (n, Some(v)));
            let number = value.map(|value| value.parse::<usize>().map_err(|_| unknown(word))).transpose()?;
            match (name, number) {
                ("status", Some(code)) => {
                    fault.status = u16::try_from(code).ok().and_then(|c| StatusCode::from_u16(c).ok());
                    if fault.status.is_none_or(|status| status.is_informational()) {
                        return Err(unknown(word));
                    }
                }
                ("reset", None) => fault.cut = Some((At::Head, Cut::Reset)),
                ("reset", Some(bytes)) => fault.cut = Some((At::Body(bytes), Cut::Reset)),
                ("close", None) => fault.cut = Some((At::Head, Cut::Close)),
                ("close", Some(bytes)) => fault.cut = Some((At::Body(bytes), Cut::Close)),
                ("garbage", None) => fault.cut = Some((At::Head, Cut::Raw(Bytes::from_static(GARBAGE)))),
                ("stall", None) => fault.before_head = Some(Gate::new()),
                ("stall", Some(bytes)) => fault.mid_body = Some((bytes, Gate::new())),
                ("empty", None) => fault.content = Content::Empty,
                ("length", None) => fault.content = Content::StoppedByLength,
                ("filter", None) => fault.content = Content::Filtered,
                ("refuse", None) => fault.content = Content::Refused,
                ("error", None) => fault.content = Content::ErrorInside,
                ("huge", Some(bytes)) => fault.content = Content::Huge(bytes.min(HUGE_BY_HAND)),
                ("pieces", Some(bytes)) => fault.pieces_of = Some(bytes.max(1)),
                ("no-store", None) => {
                    fault.headers.push((header::CACHE_CONTROL, HeaderValue::from_static("no-store")));
                }
                _ => return Err(unknown(word)),
            }
        }
        Ok(fault)
    }
}

/// Bytes that are no HTTP.
const GARBAGE: &[u8] = b"\x00\xff\xfe this is not HTTP \x80\x81\r\n\r\n";

/// The longest reply that a request's header may ask for.
const HUGE_BY_HAND: usize = 64 * 1024 * 1024;

fn unknown(word: &str) -> String {
    format!(
        "unknown x-simulated-fault `{word}`; known are status=N, reset, reset=BYTES, close, close=BYTES, garbage, \
         stall, stall=BYTES, empty, length, filter, refuse, error, huge=BYTES, pieces=BYTES, no-store"
    )
}

/// A barrier that tests open by hand, and at which they can count who waits.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<GateState>>);

#[derive(Debug, Clone, Copy, Default)]
struct GateState {
    open: bool,
    arrived: usize,
    waiting: usize,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(GateState::default())))
    }

    /// Opens it for all who wait and all who come.
    pub fn open(&self) {
        self.0.send_modify(|state| state.open = true);
    }

    /// How many exchanges have ever arrived here.
    pub fn arrived(&self) -> usize {
        self.0.borrow().arrived
    }

    /// How many exchanges wait here now; one whose client has left no longer does.
    pub fn waiting(&self) -> usize {
        self.0.borrow().waiting
    }

    /// Waits until this many exchanges have arrived.
    pub async fn until_arrived(&self, count: usize) {
        // The sender lives as long as this gate, so waiting cannot fail.
        let _ = self.0.subscribe().wait_for(|state| state.arrived >= count).await;
    }

    /// Waits until exactly this many exchanges wait here.
    pub async fn until_waiting(&self, count: usize) {
        let _ = self.0.subscribe().wait_for(|state| state.waiting == count).await;
    }

    /// Waits until the gate is open.
    pub(super) async fn pass(self) {
        struct Waiting<'a>(&'a Gate);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.0.send_modify(|state| state.waiting = state.waiting.saturating_sub(1));
            }
        }
        self.0.send_modify(|state| {
            state.arrived = state.arrived.saturating_add(1);
            state.waiting = state.waiting.saturating_add(1);
        });
        let waiting = Waiting(&self);
        let _ = self.0.subscribe().wait_for(|state| state.open).await;
        drop(waiting);
    }
}
