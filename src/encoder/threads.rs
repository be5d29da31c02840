//! The threads that compute, behind a bounded queue: first come, first served.
//!
//! One set serves all models of a process, so that they do not take each other's cores. A full queue is an answer, not
//! a wait, and work for a caller that has gone is skipped.

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::layers::{InferenceError, Workspace};

/// How much of the machine the models may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadsOptions {
    /// Texts at the same time, each on one core.
    pub threads: NonZeroUsize,
    /// Texts that may wait; one more is refused.
    pub queue: NonZeroUsize,
    /// How long a caller waits at most, queue included.
    pub timeout: Duration,
}

impl Default for ThreadsOptions {
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

/// Why nothing was computed.
#[derive(Debug, thiserror::Error)]
pub enum ThreadsError {
    /// Too much is waiting.
    #[error("too many texts are waiting for the built-in models")]
    Full,
    /// It took too long, waiting included.
    #[error("the built-in models did not answer within {0:?}")]
    Timeout(Duration),
    /// A fault of the model's.
    #[error(transparent)]
    Inference(#[from] InferenceError),
    /// A fault of the program's.
    #[error("inference panicked, or its threads have ended")]
    Panicked,
}

/// The threads and their queue. Cheap to clone; they end after their current work when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Threads {
    queue: SyncSender<Job>,
    timeout: Duration,
}

/// Work, which knows by itself whether anyone still waits for it.
type Job = Box<dyn FnOnce(&mut Workspace) + Send>;

impl Threads {
    /// Starts them.
    ///
    /// # Errors
    /// The system gave no threads.
    pub fn start(options: &ThreadsOptions) -> std::io::Result<Self> {
        let (queue, jobs) = mpsc::sync_channel(options.queue.get());
        let jobs = Arc::new(Mutex::new(jobs));
        for number in 0..options.threads.get() {
            let jobs = Arc::clone(&jobs);
            thread::Builder::new().name(format!("model-{number}")).spawn(move || serve(&jobs))?;
        }
        Ok(Self { queue, timeout: options.timeout })
    }

    /// Computes on one of the threads.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Workspace) -> Result<T, InferenceError> + Send + 'static,
    ) -> Result<T, ThreadsError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |workspace| {
            if !reply.is_closed() {
                // Nobody waits any more where this fails.
                drop(reply.send(work(workspace)));
            }
        });
        self.queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => ThreadsError::Full,
            TrySendError::Disconnected(_) => ThreadsError::Panicked,
        })?;
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(Ok(computed)) => Ok(computed?),
            Ok(Err(_)) => Err(ThreadsError::Panicked),
            Err(_) => Err(ThreadsError::Timeout(self.timeout)),
        }
    }
}

/// One thread, until the queue's other end is gone.
fn serve(jobs: &Mutex<Receiver<Job>>) {
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
        // Whoever waits for a panicked job hears of it, since the other end of the answer is gone.
        if catch_unwind(AssertUnwindSafe(|| job(&mut work))).is_err() {
            work = Workspace::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::Sender;
    use tokio::task::JoinHandle;

    fn threads(threads: usize, queue: usize) -> Threads {
        let timeout = Duration::from_mins(1);
        let (threads, queue) = (threads.try_into().unwrap(), queue.try_into().unwrap());
        Threads::start(&ThreadsOptions { threads, queue, timeout }).unwrap()
    }

    /// Work that says its number as it begins, and ends when told to.
    struct HeldUp {
        threads: Threads,
        begun: Sender<u32>,
        begins: Receiver<u32>,
        go_on: Sender<()>,
        told: Arc<Mutex<Receiver<()>>>,
    }

    impl HeldUp {
        fn on(threads: Threads) -> Self {
            let (begun, begins) = mpsc::channel();
            let (go_on, told) = mpsc::channel();
            Self { threads, begun, begins, go_on, told: Arc::new(Mutex::new(told)) }
        }

        fn work(&self, number: u32) -> impl FnOnce(&mut Workspace) -> Result<u32, InferenceError> + use<> {
            let (begun, told) = (self.begun.clone(), Arc::clone(&self.told));
            move |_| {
                begun.send(number).unwrap();
                told.lock().recv().map_err(|_| InferenceError::Shape)?;
                Ok(number)
            }
        }

        fn begin(&self, number: u32) -> JoinHandle<Result<u32, ThreadsError>> {
            let (threads, work) = (self.threads.clone(), self.work(number));
            tokio::spawn(async move { threads.run(work).await })
        }
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let held = HeldUp::on(threads(1, 1));
        let first = held.begin(1);
        tokio::task::yield_now().await;
        assert_eq!(held.begins.recv().unwrap(), 1);
        let second = held.begin(2);
        tokio::task::yield_now().await;
        assert!(matches!(held.threads.run(held.work(3)).await, Err(ThreadsError::Full)));
        held.go_on.send(()).unwrap();
        held.go_on.send(()).unwrap();
        assert_eq!(first.await.unwrap().unwrap(), 1);
        assert_eq!(second.await.unwrap().unwrap(), 2);
    }

    #[tokio::test]
    async fn each_thread_has_work_of_its_own() {
        let held = HeldUp::on(threads(2, 1));
        let first = held.begin(1);
        tokio::task::yield_now().await;
        assert_eq!(held.begins.recv().unwrap(), 1);
        let second = held.begin(2);
        tokio::task::yield_now().await;
        assert_eq!(held.begins.recv().unwrap(), 2);
        held.go_on.send(()).unwrap();
        held.go_on.send(()).unwrap();
        assert_eq!(first.await.unwrap().unwrap(), 1);
        assert_eq!(second.await.unwrap().unwrap(), 2);
    }

    #[tokio::test]
    async fn work_is_done_in_turn_and_what_nobody_waits_for_is_skipped() {
        let held = HeldUp::on(threads(1, 4));
        let waiting = [1, 2, 3].map(|number| held.begin(number));
        tokio::task::yield_now().await;
        assert_eq!(held.begins.recv().unwrap(), 1);
        waiting[1].abort();
        let [first, gone, last] = waiting;
        assert!(gone.await.unwrap_err().is_cancelled());
        held.go_on.send(()).unwrap();
        held.go_on.send(()).unwrap();
        first.await.unwrap().unwrap();
        last.await.unwrap().unwrap();
        assert_eq!(held.begins.try_iter().collect::<Vec<_>>(), [3]);
    }

    #[tokio::test]
    async fn a_panic_and_an_error_end_their_own_work_only() {
        let threads = threads(1, 4);
        let panicked = threads.run::<u32>(|_| panic!("as ordered")).await;
        assert!(matches!(panicked, Err(ThreadsError::Panicked)), "{panicked:?}");
        let failed = threads.run::<u32>(|_| Err(InferenceError::Shape)).await;
        assert!(matches!(failed, Err(ThreadsError::Inference(InferenceError::Shape))), "{failed:?}");
        assert_eq!(threads.run(|_| Ok(4)).await.unwrap(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_has_a_limit() {
        let held = HeldUp::on(threads(1, 4));
        assert!(matches!(held.threads.run(held.work(1)).await, Err(ThreadsError::Timeout(_))));
    }
}
