//! `rejoinder serve`: runs the proxy until SIGTERM or SIGINT.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use tracing::info;

use super::{environment, failed, notify, runtime};
use crate::config::{Config, Flags};
use crate::server::Server;
use crate::telemetry::init_log;

/// Run the proxy.
///
/// Every flag is also `REJOINDER_<FLAG>` in the environment and a key of the file given by --config, where there
/// are more (config/rejoinder.toml lists all). Secrets are no flags: `REJOINDER_ADMIN_TOKEN`, `REJOINDER_SECRET`,
/// `REJOINDER_EMBEDDER_API_KEY`, or each with `_FILE`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Exit codes: 0 stopped by SIGTERM or SIGINT, open requests served; 1 it could not start; 2 wrong usage or configuration.")]
pub(super) struct Serve {
    #[command(flatten)]
    flags: Flags,
}

impl Serve {
    pub(super) fn run(self) -> ExitCode {
        let config = match Config::load(self.flags, &environment) {
            Ok(config) => config,
            Err(error) => return failed(&error.into(), 2),
        };
        let _log = match init_log(&config).context("cannot start to log") {
            Ok(log) => log,
            Err(error) => return failed(&error, 1),
        };
        let served =
            runtime().context("cannot start the runtime").and_then(|runtime| runtime.block_on(serve(config)));
        match served {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error, 1),
        }
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    // Before listening, so that no signal finds the default handler.
    let stop = Stop::listen()?;
    let server = Server::start(config).await?;
    notify::ready(&environment);
    stop.wait().await;
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
