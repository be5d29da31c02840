//! The masters of a cluster, and what goes to each of them: scans over all keys.

use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::{Cmd, FromRedisValue, Pipeline, RedisError, Value};

use super::dial::{Connection, timed_out};
use super::link::{Link, LinkError};

/// One of the servers that hold keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    /// The only one.
    Only,
    /// A cluster's master.
    Master(String, u16),
}

/// All servers that hold keys.
pub(super) async fn all(link: &Link) -> Result<Vec<Node>, LinkError> {
    if !link.dialler().is_cluster() {
        return Ok(vec![Node::Only]);
    }
    Ok(masters(link).await?.into_iter().map(|(host, port)| Node::Master(host, port)).collect())
}

/// Host and port of each master of a cluster, each once, in order.
pub(super) async fn masters(link: &Link) -> Result<Vec<(String, u16)>, LinkError> {
    let mut slots = redis::cmd("CLUSTER");
    slots.arg("SLOTS");
    let slots: Vec<Value> = link.ask(&slots).await?;
    // One that cannot be read is one that would be passed over in silence.
    let masters: Option<Vec<_>> = slots.iter().map(master).collect();
    let mut masters = masters
        .filter(|masters| !masters.is_empty())
        .ok_or_else(|| LinkError::Unavailable("CLUSTER SLOTS names masters without an address".to_owned()))?;
    masters.sort_unstable();
    masters.dedup();
    Ok(masters)
}

/// The master of a range of slots: the third element, host first and port second (Redis manual, CLUSTER SLOTS).
fn master(range: &Value) -> Option<(String, u16)> {
    let Value::Array(range) = range else { return None };
    let Some(Value::Array(node)) = range.get(2) else { return None };
    let [Value::BulkString(host), Value::Int(port), ..] = node.as_slice() else { return None };
    let host = String::from_utf8(host.clone()).ok().filter(|host| !host.is_empty())?;
    Some((host, u16::try_from(*port).ok()?))
}

impl Node {
    /// Asks this node one thing.
    pub(super) async fn ask<T: FromRedisValue>(&self, link: &Link, cmd: Cmd) -> Result<T, LinkError> {
        let Self::Master(host, port) = self else { return link.ask(&cmd).await };
        let (mut connection, epoch) = link.connection()?;
        let Connection::Cluster(cluster) = &mut connection else { return link.ask(&cmd).await };
        let route = SingleNodeRoutingInfo::ByAddress { host: host.clone(), port: *port };
        let asked = cluster.route_command(cmd, RoutingInfo::SingleNode(route));
        let answer = tokio::time::timeout(link.patience(), asked).await.unwrap_or_else(|_| Err(timed_out()));
        link.judge_node(answer.and_then(|value| T::from_redis_value(value).map_err(RedisError::from)), epoch)
    }

    /// Asks this node several things whose keys it holds, whatever their slots.
    pub(super) async fn ask_all(&self, link: &Link, pipeline: Pipeline) -> Result<Vec<Value>, LinkError> {
        let count = pipeline.len();
        let Self::Master(host, port) = self else { return link.ask_all_patiently(&pipeline).await };
        let (mut connection, epoch) = link.connection()?;
        let Connection::Cluster(cluster) = &mut connection else {
            return link.ask_all_patiently(&pipeline).await;
        };
        let route = SingleNodeRoutingInfo::ByAddress { host: host.clone(), port: *port };
        let asked = cluster.route_pipeline(pipeline, 0, count, route);
        let answer = tokio::time::timeout(link.patience(), asked).await.unwrap_or_else(|_| Err(timed_out()));
        link.judge_node(answer, epoch)
    }
}
