//! A cluster of three masters with a replica each.

use super::{Redis, RedisOptions, until};

/// Masters; as many replicas come on top.
const MASTERS: usize = 3;

/// How many hash slots a cluster has.
const SLOTS: usize = 16_384;

/// How long a node is silent before the others take it for dead, in milliseconds.
const NODE_TIMEOUT: &str = "1000";

/// The nodes; the first three are masters at the start, the replica of each comes three places after it.
#[derive(Debug)]
pub struct Cluster {
    /// All nodes.
    pub nodes: Vec<Redis>,
}

impl Cluster {
    /// Starts the nodes, makes a cluster of them, and returns when it serves and the replicas have their copies.
    pub async fn start() -> Self {
        let mut nodes = Vec::new();
        for _ in 0..2 * MASTERS {
            let options = RedisOptions::default()
                .set("cluster-enabled", "yes")
                .set("cluster-node-timeout", NODE_TIMEOUT)
                // A replica takes over however long ago it heard of its master.
                .set("cluster-replica-validity-factor", "0");
            nodes.push(options.start().await);
        }
        let cluster = Self { nodes };
        for (number, node) in cluster.nodes.iter().enumerate() {
            // Without different ones at the start, two nodes that meet must first settle whose comes first.
            node.command::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
        }
        for (number, master) in cluster.nodes.iter().take(MASTERS).enumerate() {
            let slots: Vec<_> =
                (number * SLOTS / MASTERS..(number + 1) * SLOTS / MASTERS).map(|s| s.to_string()).collect();
            let words = ["CLUSTER", "ADDSLOTS"].into_iter().chain(slots.iter().map(String::as_str));
            master.command::<()>(&words.collect::<Vec<_>>());
        }
        for node in &cluster.nodes[1..] {
            let port = node.port().to_string();
            cluster.nodes[0].command::<()>(&["CLUSTER", "MEET", "127.0.0.1", &port]);
        }
        until("all nodes know each other", async || {
            cluster.nodes.iter().all(|node| known(node) == 2 * MASTERS)
        })
        .await;
        for (master, replica) in cluster.nodes.iter().zip(&cluster.nodes[MASTERS..]) {
            let id: String = master.command(&["CLUSTER", "MYID"]);
            replica.command::<()>(&["CLUSTER", "REPLICATE", &id]);
        }
        cluster.until_it_serves().await;
        cluster
    }

    /// `redis+cluster://…` of all nodes.
    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.nodes.iter().map(|node| node.address().to_string()).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// Kills a master, and returns when its replica has taken its place.
    pub async fn fail_over(&mut self, master: usize) {
        self.nodes[master].kill();
        let replica = &self.nodes[master + MASTERS];
        until("the replica takes over", async || {
            replica.info("role") == "master" && self.living().all(|node| state(node) == "ok")
        })
        .await;
    }

    /// Waits until every living node says that the cluster serves, and every replica has its copy.
    pub async fn until_it_serves(&self) {
        until("the cluster serves", async || {
            self.living().all(|node| {
                let linked = node.info("role") == "master" || node.info("master_link_status") == "up";
                state(node) == "ok" && linked
            })
        })
        .await;
        // What a node says of itself the others learn a little later.
        until("every node knows who is whose replica", async || {
            self.living().all(|node| {
                let nodes: String = node.try_command(&["CLUSTER", "NODES"]).unwrap_or_default();
                nodes.lines().filter(|line| line.contains("slave")).count() == MASTERS
                    || nodes.contains("fail")
            })
        })
        .await;
    }

    /// The keys of all masters.
    pub fn keys(&self) -> Vec<String> {
        self.living().filter(|node| node.info("role") == "master").flat_map(Redis::keys).collect()
    }

    fn living(&self) -> impl Iterator<Item = &Redis> {
        self.nodes.iter().filter(|node| node.is_running())
    }
}

fn known(node: &Redis) -> usize {
    let nodes: String = node.try_command(&["CLUSTER", "NODES"]).unwrap_or_default();
    nodes.lines().filter(|line| !line.contains("handshake")).count()
}

fn state(node: &Redis) -> String {
    let text: String = node.try_command(&["CLUSTER", "INFO"]).unwrap_or_default();
    let state = text.lines().find_map(|line| line.strip_prefix("cluster_state:"));
    state.unwrap_or_default().trim().to_owned()
}
