//! `rejoinder healthcheck`: one request to `/healthz`, for containers that have no other program.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;

use super::{environment, failed};
use crate::config::{Config, Flags};

/// Ask a running proxy whether it is alive.
///
/// One request to /healthz of its admin listener, which is where flags, environment and file say.
#[derive(Debug, Args)]
#[command(after_long_help = "Exit codes: 0 alive; 1 not, or nobody answers; 2 wrong usage or configuration.")]
pub(super) struct Healthcheck {
    #[command(flatten)]
    flags: Flags,
}

/// How long the proxy may take.
const TIMEOUT: Duration = Duration::from_secs(3);

impl Healthcheck {
    pub(super) fn run(self) -> ExitCode {
        let address = match Config::load(self.flags, &environment) {
            Ok(config) => reachable(config.admin_listen),
            Err(error) => return failed(&error.into(), 2),
        };
        match ask(address).with_context(|| format!("no healthy rejoinder at {address}")) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error, 1),
        }
    }
}

/// An address that listens on all interfaces is reached by the loopback one.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) if address.ip().is_unspecified() => {
            SocketAddr::from(([127, 0, 0, 1], address.port()))
        }
        SocketAddr::V6(_) if address.ip().is_unspecified() => {
            SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, address.port()))
        }
        other => other,
    }
}

fn ask(address: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    ensure!(head.ends_with(b" 200"), "it answered {}", String::from_utf8_lossy(&head));
    Ok(())
}
