//! Work behind requests that must not outlive the store: audits, and comparisons of replies.
//!
//! Called by [`super::trial`] and by `proxy`, which begin it, and by `server`, which ends it.

use std::fmt;

use parking_lot::Mutex;
use tokio::task::JoinSet;

/// What goes on; nothing any more once it was ended.
pub struct Behind(Mutex<Option<JoinSet<()>>>);

impl fmt::Debug for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Behind").finish_non_exhaustive()
    }
}

impl Default for Behind {
    fn default() -> Self {
        Self(Mutex::new(Some(JoinSet::new())))
    }
}

impl Behind {
    /// Begins some work, unless all was ended.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock();
        let Some(tasks) = tasks.as_mut() else { return };
        // What is done already makes room; a panic was reported where it came about.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(work);
    }

    /// Gives up all that goes on, and returns when it has ended.
    pub async fn end(&self) {
        let tasks = self.0.lock().take();
        if let Some(mut tasks) = tasks {
            tasks.shutdown().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn nothing_goes_on_or_begins_once_it_was_ended() {
        let behind = Behind::default();
        let held = Arc::new(());
        let pending = |held: Arc<()>| async move {
            std::future::pending::<()>().await;
            drop(held);
        };
        behind.spawn(pending(Arc::clone(&held)));
        assert_eq!(Arc::strong_count(&held), 2);
        behind.end().await;
        behind.spawn(pending(Arc::clone(&held)));
        behind.end().await;
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
