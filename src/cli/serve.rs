//! `rejoinder serve`: runs the proxy until SIGTERM or SIGINT.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use tracing::info;

use super::reload::{Hangup, Reloading};
use super::{environment, failed, notify, runtime};
use crate::config::{Fingerprint, Flags, Loaded, Loader};
use crate::server::Server;
use crate::telemetry::{LogFilter, init_log};

/// Run the proxy.
///
/// The configuration is read again on SIGHUP and when its files change; what cannot change while it runs is named in the
/// log, and where it is wrong the one before stays.
///
/// Every flag is also `REJOINDER_<FLAG>` in the environment and a key of the file given by --config, where there
/// are more (config/rejoinder.toml lists all). Secrets are no flags: `REJOINDER_ADMIN_TOKEN`, `REJOINDER_SECRET`,
/// `REJOINDER_ENCRYPTION_KEY`, `REJOINDER_EMBEDDER_API_KEY`, or each with `_FILE`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Exit codes: 0 stopped by SIGTERM or SIGINT, open requests served or their time over; 1 it could not start; 2 wrong usage or configuration.")]
pub(super) struct Serve {
    #[command(flatten)]
    flags: Flags,
}

impl Serve {
    /// `typed` are the keys of the flags that stood on the command line.
    pub(super) fn run(self, typed: BTreeSet<String>) -> ExitCode {
        let loader = Loader::new(self.flags, typed);
        // Before they are read, so that no change in between is missed.
        let seen = loader.fingerprint(None, &environment);
        let first = match loader.load(&environment) {
            Ok(first) => first,
            Err(error) => return failed(&error.into(), 2),
        };
        let log = match init_log(&first.config).context("cannot start to log") {
            Ok(log) => log,
            Err(error) => return failed(&error, 1),
        };
        let start = Start { loader, first, seen, log: log.filter() };
        let served =
            runtime().context("cannot start the runtime").and_then(|runtime| runtime.block_on(serve(start)));
        match served {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error, 1),
        }
    }
}

/// What serving begins with.
struct Start {
    loader: Loader,
    first: Loaded,
    /// What stood in the configuration's files.
    seen: Fingerprint,
    log: LogFilter,
}

async fn serve(start: Start) -> anyhow::Result<()> {
    let Start { loader, first, seen, log } = start;
    // Before listening, so that no signal finds the default handler.
    let (stop, hangup) = (Stop::listen()?, Hangup::listen()?);
    let server = Server::start(first).await?;
    let reloading = Reloading { loader: Arc::new(loader), live: Arc::clone(server.live()), log, seen };
    notify::ready(&environment);
    tokio::select! {
        () = stop.wait() => {}
        () = reloading.run(hangup) => {}
    }
    info!("shutting down: open requests may finish");
    notify::stopping(&environment);
    server.shutdown().await;
    info!("stopped");
    Ok(())
}

/// The signals that end the process in good order.
struct Stop {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Stop {
    #[cfg(unix)]
    fn listen() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        Ok(Self { terminate, interrupt })
    }

    #[cfg(unix)]
    async fn wait(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    #[cfg(not(unix))]
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn wait(self) {
        // Where Ctrl-C cannot be heard the process can only be killed, so waiting on is right.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
