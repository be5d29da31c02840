//! Coalescing: concurrent requests for one thing share one flight (RFC 9211 §2.6, "collapsed").
//!
//! Whoever asks first leads: it publishes a head, then chunks, then an end. Everyone, the leader's own client
//! included, reads from the start, at their own pace. Called by `proxy`; the head and the result are its own
//! types, so that this file knows nothing of HTTP.
//!
//! - While a flight's chunks stay under the limit they are all kept, so that a late reader starts at the first.
//!   Beyond it nobody joins any more, what all have read is dropped, and the leader waits for the slowest.
//! - Of a flight that nobody can join, from the first or since its end, what all have read is dropped too.
//! - When the last reader goes, the leader is told to stop: nobody wants the reply.
//! - A leader that goes without a head abandons its flight; its followers are told and ask anew.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::poll_fn;
use std::hash::Hash;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

/// How far the leader may run ahead of the slowest reader of a flight that outgrew its limit, in bytes.
const WINDOW: usize = 64 * 1024;

/// The flights in the air, by what they fetch.
#[derive(Debug)]
pub struct Flights<K, H, R> {
    flights: Flying<K, H, R>,
    limit: usize,
}

/// The flights that can be joined.
type Flying<K, H, R> = Arc<Mutex<HashMap<K, Arc<Flight<H, R>>>>>;

#[derive(Debug)]
struct Flight<H, R> {
    state: Mutex<State<H, R>>,
}

#[derive(Debug)]
struct State<H, R> {
    head: Option<Arc<H>>,
    chunks: std::collections::VecDeque<Bytes>,
    /// How many chunks were dropped from the front.
    dropped: usize,
    /// Bytes published so far.
    published: usize,
    /// Bytes in `chunks`.
    kept: usize,
    end: Option<End<R>>,
    open: bool,
    outgrown: bool,
    readers: HashMap<u64, ReaderState>,
    next_reader: u64,
    leader: Option<Waker>,
}

#[derive(Debug, Default)]
struct ReaderState {
    /// The number of the chunk to read next.
    position: usize,
    waker: Option<Waker>,
}

/// How a flight ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End<R> {
    /// All was published; what came of it.
    Whole(R),
    /// Cut off after the head: readers must see a cut too, never a clean end.
    Broken,
    /// Given up before the head. Followers ask anew.
    Abandoned,
}

/// What a request is in its flight.
#[derive(Debug)]
pub enum Joined<K: Eq + Hash, H, R> {
    /// The first: it fetches, and reads what it publishes through the reader.
    Leader(Leader<K, H, R>, Reader<H, R>),
    /// One that waits for another's reply.
    Follower(Reader<H, R>),
}

/// The publishing side of a flight.
#[derive(Debug)]
pub struct Leader<K: Eq + Hash, H, R> {
    flight: Arc<Flight<H, R>>,
    registered: Option<(K, Flying<K, H, R>)>,
    limit: usize,
}

/// The reading side of a flight.
#[derive(Debug)]
pub struct Reader<H, R> {
    flight: Arc<Flight<H, R>>,
    id: u64,
}

impl<K: Clone + Eq + Hash, H, R: Clone> Flights<K, H, R> {
    /// Flights that keep up to `limit` bytes each for late readers.
    pub fn new(limit: usize) -> Self {
        Self { flights: Arc::default(), limit }
    }

    /// Joins the flight for `key`, or starts it.
    pub fn join(&self, key: &K) -> Joined<K, H, R> {
        let mut flights = self.flights.lock();
        match flights.entry(key.clone()) {
            Entry::Occupied(mut occupied) => {
                if let Some(reader) = Flight::join(occupied.get()) {
                    return Joined::Follower(reader);
                }
                let (leader, reader) = self.start(Some(key.clone()));
                occupied.insert(Arc::clone(&leader.flight));
                Joined::Leader(leader, reader)
            }
            Entry::Vacant(vacant) => {
                let (leader, reader) = self.start(Some(key.clone()));
                vacant.insert(Arc::clone(&leader.flight));
                Joined::Leader(leader, reader)
            }
        }
    }

    /// A flight that nobody else can join.
    pub fn alone(&self) -> (Leader<K, H, R>, Reader<H, R>) {
        self.start(None)
    }

    /// How many flights can be joined.
    pub fn len(&self) -> usize {
        self.flights.lock().len()
    }

    /// Whether no flight can be joined.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn start(&self, key: Option<K>) -> (Leader<K, H, R>, Reader<H, R>) {
        let readers = HashMap::from([(0, ReaderState::default())]);
        let state = State {
            head: None,
            chunks: std::collections::VecDeque::new(),
            dropped: 0,
            published: 0,
            kept: 0,
            end: None,
            open: key.is_some(),
            outgrown: false,
            readers,
            next_reader: 1,
            leader: None,
        };
        let flight = Arc::new(Flight { state: Mutex::new(state) });
        let registered = key.map(|key| (key, Arc::clone(&self.flights)));
        let reader = Reader { flight: Arc::clone(&flight), id: 0 };
        (Leader { flight, registered, limit: self.limit }, reader)
    }
}

impl<H, R> Flight<H, R> {
    fn join(self: &Arc<Self>) -> Option<Reader<H, R>> {
        let mut state = self.state.lock();
        if !state.open {
            return None;
        }
        let id = state.next_reader;
        state.next_reader += 1;
        state.readers.insert(id, ReaderState::default());
        Some(Reader { flight: Arc::clone(self), id })
    }
}

impl<H, R> State<H, R> {
    fn wake_readers(&mut self) {
        self.readers.values_mut().filter_map(|reader| reader.waker.take()).for_each(Waker::wake);
    }

    fn wake_leader(&mut self) {
        if let Some(waker) = self.leader.take() {
            waker.wake();
        }
    }

    /// Drops what all readers have read, in a flight that nobody can join any more.
    fn drop_read(&mut self) {
        let slowest = self.readers.values().map(|reader| reader.position).min().unwrap_or(usize::MAX);
        while self.dropped < slowest
            && let Some(chunk) = self.chunks.pop_front()
        {
            self.dropped += 1;
            self.kept -= chunk.len();
        }
    }

    /// Takes the slowest readers out; they see a cut.
    fn cut_slowest(&mut self) {
        let slowest = self.readers.values().map(|reader| reader.position).min();
        self.readers.retain(|_, reader| {
            let stays = Some(reader.position) != slowest;
            if !stays && let Some(waker) = reader.waker.take() {
                waker.wake();
            }
            stays
        });
    }
}

impl<K: Eq + Hash, H, R> Leader<K, H, R> {
    /// Publishes the head.
    pub fn begin(&self, head: H) {
        let mut state = self.flight.state.lock();
        state.head = Some(Arc::new(head));
        state.wake_readers();
    }

    /// Publishes a chunk; in a flight that outgrew its limit, waits until the slowest reader is near. One that
    /// keeps all others waiting for longer than `patience` is cut off.
    pub async fn publish(&self, chunk: Bytes, patience: Duration) {
        let outgrew = {
            let mut state = self.flight.state.lock();
            state.published += chunk.len();
            state.kept += chunk.len();
            state.chunks.push_back(chunk);
            let outgrew = state.published > self.limit && !state.outgrown;
            if outgrew {
                state.outgrown = true;
                state.open = false;
            }
            state.wake_readers();
            outgrew
        };
        if outgrew {
            self.unregister();
        }
        if self.poll_room(None).is_ready() {
            return;
        }
        while tokio::time::timeout(patience, poll_fn(|cx| self.poll_room(Some(cx)))).await.is_err() {
            self.flight.state.lock().cut_slowest();
        }
    }

    /// Ready when the slowest reader is near, or nobody need be waited for.
    fn poll_room(&self, cx: Option<&mut Context<'_>>) -> Poll<()> {
        let mut state = self.flight.state.lock();
        if !state.outgrown {
            return Poll::Ready(());
        }
        state.drop_read();
        if state.readers.is_empty() || state.kept <= WINDOW {
            return Poll::Ready(());
        }
        state.leader = cx.map(|cx| cx.waker().clone());
        Poll::Pending
    }

    /// Ends the flight; nobody joins it from here on.
    pub fn finish(self, end: End<R>) {
        self.end(end);
    }

    /// Resolves when the last reader has gone.
    pub async fn deserted(&self) {
        poll_fn(|cx| {
            let mut state = self.flight.state.lock();
            if state.readers.is_empty() {
                return Poll::Ready(());
            }
            state.leader = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn end(&self, end: End<R>) {
        self.unregister();
        let mut state = self.flight.state.lock();
        state.open = false;
        if state.end.is_none() {
            state.end = Some(end);
        }
        state.wake_readers();
    }

    fn unregister(&self) {
        if let Some((key, flights)) = &self.registered {
            let mut flights = flights.lock();
            if flights.get(key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
                flights.remove(key);
            }
        }
    }
}

impl<K: Eq + Hash, H, R> Drop for Leader<K, H, R> {
    fn drop(&mut self) {
        let begun = self.flight.state.lock().head.is_some();
        self.end(if begun { End::Broken } else { End::Abandoned });
    }
}

impl<H, R: Clone> Reader<H, R> {
    /// Waits for the head; `None` where the flight was abandoned.
    pub async fn head(&self) -> Option<Arc<H>> {
        self.wait(|state| match (&state.head, &state.end) {
            (Some(head), _) => Some(Some(Arc::clone(head))),
            (None, Some(_)) => Some(None),
            (None, None) => None,
        })
        .await
    }

    /// Waits for the end without reading. `None` where the flight outgrows what is kept for late readers: whoever
    /// does not read then holds all others up, and must read or go.
    pub async fn end(&self) -> Option<End<R>> {
        self.wait(|state| state.end.clone().map(Some).or(state.outgrown.then_some(None))).await
    }

    /// The next chunk; `None` after the last, `Some(Err(()))` where the flight was cut off.
    pub fn poll_chunk(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        let mut guard = self.flight.state.lock();
        let state = &mut *guard;
        let Some(reader) = state.readers.get_mut(&self.id) else { return Poll::Ready(Some(Err(Cut))) };
        let next = reader.position.checked_sub(state.dropped).and_then(|at| state.chunks.get(at)).cloned();
        match (next, &state.end) {
            (Some(chunk), _) => {
                reader.position += 1;
                if !state.open {
                    state.drop_read();
                }
                if state.outgrown {
                    state.wake_leader();
                }
                Poll::Ready(Some(Ok(chunk)))
            }
            (None, Some(End::Whole(_))) => Poll::Ready(None),
            (None, Some(_)) => Poll::Ready(Some(Err(Cut))),
            (None, None) => {
                reader.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    async fn wait<T>(&self, ready: impl Fn(&State<H, R>) -> Option<T>) -> T {
        poll_fn(|cx| {
            let mut state = self.flight.state.lock();
            if let Some(value) = ready(&state) {
                return Poll::Ready(value);
            }
            if let Some(reader) = state.readers.get_mut(&self.id) {
                reader.waker = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}

impl<H, R> Drop for Reader<H, R> {
    fn drop(&mut self) {
        let mut state = self.flight.state.lock();
        state.readers.remove(&self.id);
        if state.readers.is_empty() {
            state.open = false;
        }
        if state.readers.is_empty() || state.outgrown {
            state.drop_read();
            state.wake_leader();
        }
    }
}

/// The flight was cut off before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("upstream's reply was cut off")]
pub struct Cut;

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    type TestFlights = Flights<u8, &'static str, u32>;

    async fn read_all(reader: &Reader<&'static str, u32>) -> (Vec<u8>, Option<Cut>) {
        let mut all = Vec::new();
        loop {
            match poll_fn(|cx| reader.poll_chunk(cx)).await {
                Some(Ok(chunk)) => all.extend_from_slice(&chunk),
                Some(Err(cut)) => return (all, Some(cut)),
                None => return (all, None),
            }
        }
    }

    fn lead(flights: &TestFlights, key: u8) -> (Leader<u8, &'static str, u32>, Reader<&'static str, u32>) {
        match flights.join(&key) {
            Joined::Leader(leader, reader) => (leader, reader),
            Joined::Follower(_) => panic!("a follower"),
        }
    }

    fn follow(flights: &TestFlights, key: u8) -> Reader<&'static str, u32> {
        match flights.join(&key) {
            Joined::Follower(reader) => reader,
            Joined::Leader(..) => panic!("a leader"),
        }
    }

    #[tokio::test]
    async fn nothing_is_kept_that_nobody_else_can_read() {
        let flights = TestFlights::new(1000);
        let (leader, own) = flights.alone();
        leader.begin("head");
        for _ in 0..5 {
            leader.publish(Bytes::from_static(b"abc"), PATIENCE).await;
            assert!(poll_fn(|cx| own.poll_chunk(cx)).await.is_some());
            assert_eq!(own.flight.state.lock().kept, 0);
        }
        leader.finish(End::Whole(7));
        assert_eq!(read_all(&own).await, (Vec::new(), None));
    }

    #[tokio::test]
    async fn a_late_follower_reads_from_the_start() {
        let flights = TestFlights::new(1000);
        let (leader, own) = lead(&flights, 1);
        leader.begin("head");
        leader.publish(Bytes::from_static(b"a"), PATIENCE).await;
        let follower = follow(&flights, 1);
        assert_eq!(follower.head().await.as_deref(), Some(&"head"));
        leader.publish(Bytes::from_static(b"b"), PATIENCE).await;
        leader.finish(End::Whole(7));
        for reader in [own, follower] {
            assert_eq!(read_all(&reader).await, (b"ab".to_vec(), None));
            assert_eq!(reader.end().await, Some(End::Whole(7)));
        }
        assert!(flights.is_empty());
    }

    #[tokio::test]
    async fn a_leader_that_goes_leaves_a_cut_or_an_abandoned_flight() {
        let flights = TestFlights::new(1000);
        let (leader, _own) = lead(&flights, 1);
        let follower = follow(&flights, 1);
        drop(leader);
        assert_eq!(follower.head().await, None);
        let (leader, own) = lead(&flights, 1);
        leader.begin("head");
        leader.publish(Bytes::from_static(b"a"), PATIENCE).await;
        drop(leader);
        assert_eq!(read_all(&own).await, (b"a".to_vec(), Some(Cut)));
    }

    #[tokio::test]
    async fn the_leader_hears_when_the_last_reader_goes_and_nobody_joins_after() {
        let flights = TestFlights::new(1000);
        let (leader, own) = lead(&flights, 1);
        let follower = follow(&flights, 1);
        drop(own);
        assert!(futures_pending(leader.deserted()).await);
        drop(follower);
        leader.deserted().await;
        let (second, _reader) = lead(&flights, 1);
        drop(leader);
        // The flight that ended must not take the one that replaced it out of the register.
        let _ = follow(&flights, 1);
        drop(second);
    }

    #[tokio::test]
    async fn beyond_the_limit_nobody_joins_and_the_leader_waits_for_the_slowest() {
        let flights = TestFlights::new(10);
        let (leader, own) = lead(&flights, 1);
        leader.begin("head");
        let chunk = Bytes::from(vec![b'x'; WINDOW]);
        leader.publish(chunk.clone(), PATIENCE).await;
        assert!(matches!(flights.join(&1), Joined::Leader(..)));
        assert!(futures_pending(leader.publish(chunk.clone(), PATIENCE)).await);
        assert_eq!(own.end().await, None);
        assert!(matches!(poll_fn(|cx| own.poll_chunk(cx)).await, Some(Ok(_))));
        leader.publish(Bytes::new(), PATIENCE).await;
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_read_is_cut_off_and_the_others_go_on() {
        let flights = TestFlights::new(10);
        let (leader, reads) = lead(&flights, 1);
        let stalls = follow(&flights, 1);
        leader.begin("head");
        let chunk = Bytes::from(vec![b'x'; WINDOW]);
        for _ in 0..3 {
            leader.publish(chunk.clone(), PATIENCE).await;
            assert!(matches!(poll_fn(|cx| reads.poll_chunk(cx)).await, Some(Ok(_))));
        }
        leader.finish(End::Whole(1));
        assert_eq!(read_all(&reads).await, (Vec::new(), None));
        assert_eq!(read_all(&stalls).await, (Vec::new(), Some(Cut)));
    }

    async fn futures_pending(future: impl Future<Output = ()>) -> bool {
        let mut future = std::pin::pin!(future);
        poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
    }
}
