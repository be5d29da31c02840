//! What the service manager is told (systemd's `sd_notify` protocol): a datagram to the socket that it names in
//! `NOTIFY_SOCKET`. Nothing where there is none.
//!
//! Called by `serve` alone, at its start and its end. Some twenty lines of std rather than a crate.

use crate::config::Environment;

/// It serves now: units that come after it may start.
pub(super) fn ready(environment: Environment<'_>) {
    tell("READY=1", environment);
}

/// It is about to end: open requests are served to their end.
pub(super) fn stopping(environment: Environment<'_>) {
    tell("STOPPING=1", environment);
}

/// Sends the message. One that cannot be sent is said in the log: the service manager will give up on us.
fn tell(message: &str, environment: Environment<'_>) {
    let Some(socket) = environment("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()) else { return };
    if let Err(error) = send(message, &socket) {
        tracing::warn!(%error, socket, "the service manager cannot be told");
    }
}

#[cfg(unix)]
fn send(message: &str, socket: &str) -> std::io::Result<()> {
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let address = match socket.strip_prefix('@') {
        #[cfg(target_os = "linux")]
        Some(name) => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let sender = UnixDatagram::unbound()?;
    // A manager that does not read must not hold the start up.
    sender.set_nonblocking(true)?;
    sender.send_to_addr(message.as_bytes(), &address).map(|_| ())
}

#[cfg(not(unix))]
fn send(_message: &str, _socket: &str) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}
