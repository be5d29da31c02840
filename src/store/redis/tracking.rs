//! Listens to what Redis tells of changes (client-side caching, RESP3, broadcasting mode: the server names every
//! changed key that begins with the prefix of entries), so that the hot tier never serves what others replaced or
//! removed. Source: Redis manual, "Client-side caching reference".
//!
//! One connection to each master. While all of them are alive the hot tier is trusted; when one is lost it is
//! not, and when it is back everything in the tier is forgotten, since changes may have been missed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{ConnectionInfo, PushInfo, PushKind, RedisError, Value};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::dial::timed_out;
use super::hot::Hot;
use super::link::{Link, jittered, shown};
use super::names::Names;

/// How often a listening connection is tried out, and the cluster asked for its masters: bounds how long a
/// change can go unheard where a connection died without a word.
const EVERY: Duration = Duration::from_millis(250);

/// The longest wait between tries to listen.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How long an answer to that may take.
const LIMIT: Duration = Duration::from_millis(250);

/// A listening connection; closed when dropped.
struct Listener {
    connection: MultiplexedConnection,
    alive: Arc<AtomicBool>,
}

/// Listens for as long as the store lives.
pub(super) async fn listen(link: Link, hot: Arc<Hot>, names: Names) {
    let mut epochs = link.epoch();
    let mut told = false;
    let mut wait = EVERY;
    loop {
        if epochs.wait_for(Option::is_some).await.is_err() {
            return;
        }
        let epoch = *epochs.borrow_and_update();
        let mut listeners = BTreeMap::new();
        let ended = loop {
            if *epochs.borrow() != epoch {
                break Ok(());
            }
            if let Err(error) = refresh(&link, &hot, &names, &mut listeners).await {
                break Err(error);
            }
            (told, wait) = (false, EVERY);
            tokio::select! {
                _ = epochs.changed() => break Ok(()),
                () = tokio::time::sleep(EVERY) => {}
            }
        };
        hot.trust(false);
        if let Err(error) = ended {
            let error = shown(&error);
            if told {
                debug!(error, "still not listening to changes in Redis");
            } else {
                warn!(
                    error,
                    "not listening to changes in Redis; it is asked about each entry of the hot tier until that works"
                );
                told = true;
            }
            tokio::time::sleep(jittered(wait)).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }
}

/// Sees to it that every master is listened to, and trusts the tier then.
async fn refresh(
    link: &Link,
    hot: &Arc<Hot>,
    names: &Names,
    listeners: &mut BTreeMap<String, Listener>,
) -> Result<(), RedisError> {
    let masters =
        tokio::time::timeout(LIMIT * 2, masters(link)).await.unwrap_or_else(|_| Err(timed_out()))?;
    let alive = |name: &String| masters.iter().any(|(master, _)| master == name);
    let before = listeners.len();
    listeners.retain(|name, listener| alive(name) && listener.alive.load(Ordering::Acquire));
    let mut probes = JoinSet::new();
    for (name, listener) in &*listeners {
        let (name, mut connection) = (name.clone(), listener.connection.clone());
        probes.spawn(async move {
            let ping = redis::cmd("PING");
            let answer = tokio::time::timeout(LIMIT, ping.query_async::<Value>(&mut connection)).await;
            (name, matches!(answer, Ok(Ok(_))))
        });
    }
    while let Some(probed) = probes.join_next().await {
        if let Ok((name, false)) = probed {
            listeners.remove(&name);
        }
    }
    if listeners.len() < before {
        hot.trust(false);
    }
    let missing: Vec<_> = masters.into_iter().filter(|(name, _)| !listeners.contains_key(name)).collect();
    if missing.is_empty() && hot.is_trusted() {
        return Ok(());
    }
    hot.trust(false);
    for (name, master) in missing {
        let listener = begin(link, hot, names, &master).await?;
        listeners.insert(name, listener);
    }
    // What changed while nobody listened is not known.
    hot.forget_all();
    hot.trust(
        !listeners.is_empty() && listeners.values().all(|listener| listener.alive.load(Ordering::Acquire)),
    );
    Ok(())
}

/// The masters by address.
async fn masters(link: &Link) -> Result<Vec<(String, ConnectionInfo)>, RedisError> {
    if let Some(server) = link.server() {
        return Ok(vec![(server.addr().to_string(), server)]);
    }
    let nodes = super::nodes::masters(link).await.map_err(|_| timed_out())?;
    nodes
        .into_iter()
        .map(|(host, port)| Ok((format!("{host}:{port}"), link.dialler().node(&host, port)?)))
        .collect()
}

async fn begin(
    link: &Link,
    hot: &Arc<Hot>,
    names: &Names,
    master: &ConnectionInfo,
) -> Result<Listener, RedisError> {
    let alive = Arc::new(AtomicBool::new(true));
    let hear = {
        let (hot, names, alive) = (Arc::clone(hot), names.clone(), Arc::clone(&alive));
        move |push: PushInfo| {
            heard(&hot, &names, &alive, &push);
            Ok::<_, std::convert::Infallible>(())
        }
    };
    let mut connection = link.dialler().listen(master, hear).await?;
    let mut tracking = redis::cmd("CLIENT");
    tracking.arg("TRACKING").arg("ON").arg("BCAST").arg("PREFIX").arg(names.entries());
    let answer = tokio::time::timeout(LIMIT, tracking.query_async::<()>(&mut connection)).await;
    answer.unwrap_or_else(|_| Err(timed_out()))?;
    Ok(Listener { connection, alive })
}

fn heard(hot: &Hot, names: &Names, alive: &AtomicBool, push: &PushInfo) {
    match push.kind {
        PushKind::Invalidate => match push.data.first() {
            Some(Value::Array(keys)) => {
                for key in keys {
                    match key {
                        Value::BulkString(name) => {
                            if let Some(id) = names.id_of(name) {
                                hot.forget(&id);
                            }
                        }
                        // Not as the manual has it: better to forget too much.
                        _ => hot.forget_all(),
                    }
                }
            }
            // The whole database was emptied.
            _ => hot.forget_all(),
        },
        PushKind::Disconnection => {
            alive.store(false, Ordering::Release);
            hot.trust(false);
        }
        _ => {}
    }
}
