//! The embedder inside the program: all-MiniLM-L6-v2 on the CPU, no server, no download.
//!
//! Called through [`super::Embedder`]. Texts are split into word pieces where the caller runs (microseconds);
//! inference (milliseconds) runs on threads of its own behind a bounded queue, first come first served. A full
//! queue is an answer, not a wait, and a caller that has gone is skipped.

mod model;
mod weights;
mod wordpiece;

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{EmbedError, EmbedderError, EmbedderState, Embedding};
use model::{Model, Workspace};
pub use weights::DamagedModel;
use wordpiece::WordPiece;

/// Two models are never compared: this goes into what keeps entries apart. Changes with the weights' file.
const NAME: &str = "builtin/all-MiniLM-L6-v2/1";

static WEIGHTS: &[u8] = include_bytes!("../../../models/all-minilm-l6-v2.bin");
static VOCABULARY: LazyLock<WordPiece> =
    LazyLock::new(|| WordPiece::new(include_str!("../../../models/vocab.txt")));

/// How much of the machine the embedder may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltinOptions {
    /// Texts embedded at the same time, each on one core.
    pub threads: NonZeroUsize,
    /// Texts that may wait; one more is refused.
    pub queue: NonZeroUsize,
    /// How long a caller waits at most, queue included.
    pub timeout: Duration,
}

impl Default for BuiltinOptions {
    /// Half of the cores, since the proxy needs some too; 64 texts in the queue; 2 seconds.
    fn default() -> Self {
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            threads: NonZeroUsize::new(cores / 2).unwrap_or(NonZeroUsize::MIN),
            queue: const { NonZeroUsize::new(64).unwrap() },
            timeout: Duration::from_secs(2),
        }
    }
}

/// The model, its threads and their queue. Threads end after their current text when this is dropped.
#[derive(Debug)]
pub(super) struct Builtin {
    queue: SyncSender<Job>,
    timeout: Duration,
    /// Whether the last text that came was embedded.
    healthy: AtomicBool,
}

/// A text that waits, and who waits for it.
#[derive(Debug)]
struct Job {
    ids: Vec<u32>,
    reply: oneshot::Sender<Result<Embedding, EmbedError>>,
}

impl Builtin {
    /// Loads the model (a fraction of a second) and starts the threads.
    pub(super) fn start(options: &BuiltinOptions) -> Result<Self, EmbedderError> {
        let model = Arc::new(Model::load(WEIGHTS)?);
        LazyLock::force(&VOCABULARY);
        Self::start_with(options, move |ids, work| model.infer(ids, work).map_err(|error| error.to_string()))
    }

    /// The inference is an argument so that tests can hold it up and break it.
    fn start_with<F>(options: &BuiltinOptions, infer: F) -> Result<Self, EmbedderError>
    where
        F: Fn(&[u32], &mut Workspace) -> Result<Vec<f32>, String> + Send + Sync + 'static,
    {
        let (queue, jobs) = mpsc::sync_channel(options.queue.get());
        let jobs = Arc::new(Mutex::new(jobs));
        let infer = Arc::new(infer);
        for number in 0..options.threads.get() {
            let (jobs, infer) = (Arc::clone(&jobs), Arc::clone(&infer));
            thread::Builder::new()
                .name(format!("embed-{number}"))
                .spawn(move || serve(&jobs, infer.as_ref()))
                .map_err(|error| EmbedderError::Threads(Arc::new(error)))?;
        }
        Ok(Self { queue, timeout: options.timeout, healthy: AtomicBool::new(true) })
    }

    #[expect(clippy::unused_self, reason = "the same shape as the other embedders'")]
    pub(super) fn name(&self) -> &str {
        NAME
    }

    #[expect(clippy::unused_self, reason = "the same shape as the other embedders'")]
    pub(super) fn window(&self, text: &str) -> usize {
        if WordPiece::fits_at_sight(text) { text.len() } else { VOCABULARY.split(text).read }
    }

    pub(super) async fn embed(&self, text: &str) -> Result<Embedding, EmbedError> {
        let ids = VOCABULARY.split(text).ids;
        if ids.len() <= 2 {
            return Err(EmbedError::Empty);
        }
        let embedded = self.infer(ids).await;
        self.healthy.store(embedded.is_ok(), Ordering::Relaxed);
        embedded
    }

    async fn infer(&self, ids: Vec<u32>) -> Result<Embedding, EmbedError> {
        let (reply, answer) = oneshot::channel();
        self.queue.try_send(Job { ids, reply }).map_err(|error| match error {
            TrySendError::Full(_) => EmbedError::Unavailable,
            TrySendError::Disconnected(_) => EmbedError::Failed("its threads have ended".to_owned()),
        })?;
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(Ok(embedded)) => embedded,
            Ok(Err(_)) => Err(EmbedError::Failed("its threads have ended".to_owned())),
            Err(_) => Err(EmbedError::Timeout(self.timeout)),
        }
    }

    pub(super) fn state(&self) -> EmbedderState {
        if self.healthy.load(Ordering::Relaxed) { EmbedderState::Ok } else { EmbedderState::Degraded }
    }
}

/// One inference thread, until the queue's other end is gone.
fn serve(
    jobs: &Mutex<Receiver<Job>>,
    infer: &(impl Fn(&[u32], &mut Workspace) -> Result<Vec<f32>, String> + ?Sized),
) {
    // rten-gemm spreads its work over the rayon pool it runs in, and outside of one over a pool it starts for
    // itself. This thread becomes a pool of one: a text costs one core, and texts do not wait for each other.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
    if let Err(error) = &pool {
        tracing::warn!(%error, "an inference thread has no pool of its own and uses the shared one");
    }
    let mut work = Workspace::default();
    loop {
        // The lock is held while waiting: the next thread waits for the lock instead of the queue.
        let Ok(job) = jobs.lock().recv() else { return };
        if job.reply.is_closed() {
            continue;
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| infer(&job.ids, &mut work)));
        let embedded = match outcome {
            Ok(Ok(values)) => Embedding::new(values)
                .ok_or_else(|| EmbedError::Failed("the model's answer has no direction".to_owned())),
            Ok(Err(reason)) => Err(EmbedError::Failed(reason)),
            Err(_) => {
                work = Workspace::default();
                Err(EmbedError::Failed("inference panicked".to_owned()))
            }
        };
        // Nobody waits any more where this fails.
        drop(job.reply.send(embedded));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::Sender;

    fn options(threads: usize, queue: usize) -> BuiltinOptions {
        let timeout = Duration::from_mins(1);
        BuiltinOptions { threads: threads.try_into().unwrap(), queue: queue.try_into().unwrap(), timeout }
    }

    /// Reports each text's length in pieces as its inference begins, and ends it when told to.
    fn held_up(options: &BuiltinOptions) -> (Arc<Builtin>, Receiver<usize>, Sender<()>) {
        let (begun, begins) = mpsc::channel();
        let (go_on, told) = mpsc::channel();
        let told = Mutex::new(told);
        let builtin = Builtin::start_with(options, move |ids, _| {
            begun.send(ids.len()).unwrap();
            told.lock().recv().map_err(|_| "nobody holds it up".to_owned())?;
            Ok(vec![1.0])
        });
        (Arc::new(builtin.unwrap()), begins, go_on)
    }

    fn embed(
        builtin: &Arc<Builtin>,
        text: &'static str,
    ) -> tokio::task::JoinHandle<Result<Embedding, EmbedError>> {
        let builtin = Arc::clone(builtin);
        tokio::spawn(async move { builtin.embed(text).await })
    }

    #[tokio::test]
    async fn paraphrases_are_nearer_than_strangers() {
        let builtin = Builtin::start(&options(1, 4)).unwrap();
        let anchor = builtin.embed("How do I reset my password?").await.unwrap();
        let near = builtin.embed("What are the steps to change a forgotten password?").await.unwrap();
        let far = builtin.embed("Which wine goes with grilled salmon?").await.unwrap();
        assert_eq!(anchor.values().len(), 384);
        assert!(anchor.similarity(&near).unwrap().0 > 0.7);
        assert!(anchor.similarity(&far).unwrap().0 < 0.2);
        assert_eq!(builtin.state(), EmbedderState::Ok);
    }

    #[tokio::test]
    async fn a_text_is_embedded_up_to_its_window() {
        let builtin = Builtin::start(&options(1, 4)).unwrap();
        let text = "All work and no play makes Jack a dull boy. ".repeat(50);
        let window = builtin.window(&text);
        assert!(window < text.len());
        assert_eq!(builtin.embed(&text).await.unwrap(), builtin.embed(&text[..window]).await.unwrap());
        assert_eq!(builtin.window("short"), 5);
    }

    #[tokio::test]
    async fn blank_texts_are_an_error_and_no_fault_of_the_embedder() {
        let builtin = Builtin::start(&options(1, 4)).unwrap();
        for text in ["", "  \n\t", "\0\u{200b}"] {
            assert!(matches!(builtin.embed(text).await, Err(EmbedError::Empty)), "{text:?}");
        }
        assert_eq!(builtin.state(), EmbedderState::Ok);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let (builtin, begins, go_on) = held_up(&options(1, 1));
        let first = embed(&builtin, "one");
        tokio::task::yield_now().await;
        assert_eq!(begins.recv().unwrap(), 3);
        let second = embed(&builtin, "one two");
        tokio::task::yield_now().await;
        assert!(matches!(builtin.embed("one two three").await, Err(EmbedError::Unavailable)));
        assert_eq!(builtin.state(), EmbedderState::Degraded);
        go_on.send(()).unwrap();
        go_on.send(()).unwrap();
        first.await.unwrap().unwrap();
        second.await.unwrap().unwrap();
        assert_eq!(builtin.state(), EmbedderState::Ok);
    }

    #[tokio::test]
    async fn each_thread_has_a_text_of_its_own() {
        let (builtin, begins, go_on) = held_up(&options(2, 1));
        let first = embed(&builtin, "one");
        tokio::task::yield_now().await;
        assert_eq!(begins.recv().unwrap(), 3);
        let second = embed(&builtin, "one two");
        tokio::task::yield_now().await;
        assert_eq!(begins.recv().unwrap(), 4);
        drop(go_on);
        assert!(first.await.unwrap().is_err());
        assert!(second.await.unwrap().is_err());
    }

    #[tokio::test]
    async fn texts_are_served_in_turn_and_those_nobody_waits_for_are_skipped() {
        let (builtin, begins, go_on) = held_up(&options(1, 4));
        let waiting = ["one", "one two", "one two three"].map(|text| embed(&builtin, text));
        tokio::task::yield_now().await;
        assert_eq!(begins.recv().unwrap(), 3);
        waiting[1].abort();
        let [first, gone, last] = waiting;
        assert!(gone.await.unwrap_err().is_cancelled());
        go_on.send(()).unwrap();
        go_on.send(()).unwrap();
        first.await.unwrap().unwrap();
        last.await.unwrap().unwrap();
        assert_eq!(begins.try_iter().collect::<Vec<_>>(), [5]);
    }

    #[tokio::test]
    async fn a_panic_and_an_error_end_their_own_text_only() {
        let builtin = Builtin::start_with(&options(1, 4), |ids, _| match ids.len() {
            3 => panic!("as ordered"),
            4 => Err("a reason".to_owned()),
            5 => Ok(vec![0.0, f32::NAN]),
            _ => Ok(vec![3.0, 4.0]),
        });
        let builtin = builtin.unwrap();
        for text in ["one", "one two", "one two three"] {
            assert!(matches!(builtin.embed(text).await, Err(EmbedError::Failed(_))), "{text}");
            assert_eq!(builtin.state(), EmbedderState::Degraded);
        }
        assert_eq!(builtin.embed("one two three four").await.unwrap().values(), [0.6, 0.8]);
        assert_eq!(builtin.state(), EmbedderState::Ok);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_has_a_limit() {
        let (builtin, _begins, _go_on) = held_up(&options(1, 4));
        assert!(matches!(builtin.embed("one").await, Err(EmbedError::Timeout(_))));
    }
}
