//! How a connection to Redis is made, in each arrangement. Knows nothing of what is asked over it.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::{AsyncPushSender, ConnectionLike, MultiplexedConnection};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    Pipeline, ProtocolVersion, RedisConnectionInfo, RedisError, TlsCertificates, TlsMode, Value,
};
use tokio::sync::Mutex;

use super::super::OpenError;
use super::url::{Place, RedisUrl, Server};

/// Longest wait between tries that the cluster's client makes by itself, in milliseconds.
const CLUSTER_RETRY_MS: u64 = 20;

/// A connection for commands. A clone shares the same sockets.
#[derive(Clone)]
pub(super) enum Connection {
    /// To one server.
    Single(MultiplexedConnection),
    /// To all masters of a cluster.
    Cluster(ClusterConnection),
}

/// A connection and what listeners beside it need.
pub(super) struct Dialled {
    pub(super) connection: Connection,
    /// Where it leads, to connect there once more; `None` of a cluster, whose nodes are asked for.
    pub(super) server: Option<ConnectionInfo>,
}

/// Makes connections.
pub(super) struct Dialler {
    place: Dial,
    tls: bool,
    login: RedisConnectionInfo,
    certificates: Option<TlsCertificates>,
    connect_timeout: Duration,
    command_timeout: Duration,
    /// The server refused RESP3; RESP2 is tried.
    old_protocol: AtomicBool,
}

enum Dial {
    Server(ConnectionAddr),
    Cluster(Vec<ConnectionAddr>),
    Sentinel(Box<Mutex<SentinelClient>>),
}

/// What a [`Dialler`] is made of.
pub(super) struct DialOptions<'a> {
    pub(super) url: &'a RedisUrl,
    pub(super) ca_file: Option<&'a PathBuf>,
    pub(super) connect_timeout: Duration,
    pub(super) command_timeout: Duration,
}

impl Dialler {
    /// Reads what is needed; connects to nothing.
    pub(super) fn new(options: &DialOptions<'_>) -> Result<Self, OpenError> {
        let url = options.url;
        let certificates = options.ca_file.map(|path| {
            std::fs::read(path)
                .map(|pem| TlsCertificates { client_tls: None, root_cert: Some(pem) })
                .map_err(|source| OpenError::Io { action: "read", path: path.clone(), source })
        });
        let certificates = certificates.transpose()?;
        // A user with no more rights than are needed may not name the library, and each refusal fills the server's log.
        let mut login =
            RedisConnectionInfo::default().set_db(i64::from(url.database)).set_skip_set_lib_name();
        if let Some(username) = &url.username {
            login = login.set_username(username);
        }
        if let Some(password) = &url.password {
            login = login.set_password(password);
        }
        let address = |server: &Server| address(url.tls, &server.host, server.port);
        let place = match &url.place {
            Place::Server(server) => Dial::Server(address(server)),
            Place::Socket(path) => Dial::Server(ConnectionAddr::Unix(path.clone())),
            Place::Cluster(servers) => Dial::Cluster(servers.iter().map(address).collect()),
            Place::Sentinel { sentinels, master } => {
                let client =
                    sentinel(url, sentinels.iter().map(address).collect(), master, certificates.as_ref())
                        .map_err(|error| {
                            OpenError::Redis(format!(
                                "the sentinels' settings cannot be used: {}",
                                error.category()
                            ))
                        })?;
                Dial::Sentinel(Box::new(Mutex::new(client)))
            }
        };
        Ok(Self {
            place,
            tls: url.tls,
            login,
            certificates,
            connect_timeout: options.connect_timeout,
            command_timeout: options.command_timeout,
            old_protocol: AtomicBool::new(false),
        })
    }

    /// Connects for commands.
    pub(super) async fn dial(&self) -> Result<Dialled, RedisError> {
        let dialled = self.dial_once().await;
        match &dialled {
            Err(error) if is_old_protocol(error) && !self.is_old_protocol() => {
                self.old_protocol.store(true, Ordering::Relaxed);
                self.dial_once().await
            }
            _ => dialled,
        }
    }

    /// Whether the server speaks RESP2 alone, which has no word for invalidations.
    pub(super) fn is_old_protocol(&self) -> bool {
        self.old_protocol.load(Ordering::Relaxed)
    }

    /// Whether the connection leads to a cluster.
    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.place, Dial::Cluster(_))
    }

    /// Whether another server may become the master, so that one that refuses to write must be left.
    pub(super) fn can_fail_over(&self) -> bool {
        !matches!(self.place, Dial::Server(_))
    }

    /// A node of the cluster, to listen to.
    pub(super) fn node(&self, host: &str, port: u16) -> Result<ConnectionInfo, RedisError> {
        self.info(address(self.tls, host, port))
    }

    /// Connects to a server to listen to what it pushes.
    pub(super) async fn listen(
        &self,
        server: &ConnectionInfo,
        pushes: impl AsyncPushSender,
    ) -> Result<MultiplexedConnection, RedisError> {
        let settings = server.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = self.client(server.clone().set_redis_settings(settings))?;
        client.get_multiplexed_async_connection_with_config(&self.config().set_push_sender(pushes)).await
    }

    async fn dial_once(&self) -> Result<Dialled, RedisError> {
        match &self.place {
            Dial::Server(address) => self.single(self.info(address.clone())?).await,
            Dial::Sentinel(sentinels) => {
                let master = sentinels.lock().await.async_get_client().await?;
                let info = master.get_connection_info().clone();
                let info = info.set_redis_settings(self.login.clone().set_protocol(self.protocol()));
                self.single(info).await
            }
            Dial::Cluster(nodes) => {
                let client = self.cluster(nodes)?;
                let connection =
                    tokio::time::timeout(self.connect_timeout * 4, client.get_async_connection()).await;
                let connection = connection.map_err(|_| timed_out())??;
                Ok(Dialled { connection: Connection::Cluster(connection), server: None })
            }
        }
    }

    async fn single(&self, info: ConnectionInfo) -> Result<Dialled, RedisError> {
        let client = self.client(info.clone())?;
        let connection = client.get_multiplexed_async_connection_with_config(&self.config()).await?;
        Ok(Dialled { connection: Connection::Single(connection), server: Some(info) })
    }

    fn cluster(&self, nodes: &[ConnectionAddr]) -> Result<ClusterClient, RedisError> {
        let infos = nodes.iter().map(|node| self.info(node.clone())).collect::<Result<Vec<_>, _>>()?;
        let mut builder = ClusterClientBuilder::new(infos)
            .connection_timeout(self.connect_timeout)
            // Half of what a command has in all, so that there is time for another node.
            .response_timeout(self.command_timeout / 2)
            .use_protocol(self.protocol())
            .retries(3)
            .min_retry_wait(1)
            .max_retry_wait(CLUSTER_RETRY_MS);
        if self.tls {
            builder = builder.tls(TlsMode::Secure);
        }
        if let Some(certificates) = &self.certificates {
            builder = builder.certs(certificates.clone());
        }
        builder.build()
    }

    fn client(&self, info: ConnectionInfo) -> Result<Client, RedisError> {
        match &self.certificates {
            Some(certificates) if self.tls => Client::build_with_tls(info, certificates.clone()),
            _ => Client::open(info),
        }
    }

    /// Commands are given their time by [`super::link::Link`], which sees to what a late one means.
    fn config(&self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(None)
    }

    fn info(&self, address: ConnectionAddr) -> Result<ConnectionInfo, RedisError> {
        let info = address.into_connection_info()?;
        Ok(info.set_redis_settings(self.login.clone().set_protocol(self.protocol())))
    }

    fn protocol(&self) -> ProtocolVersion {
        if self.is_old_protocol() { ProtocolVersion::RESP2 } else { ProtocolVersion::RESP3 }
    }
}

/// Whether the server knows no `HELLO`, in any of the words that servers have for that.
fn is_old_protocol(error: &RedisError) -> bool {
    let unknown = |detail: &str| detail.contains("unknown command") && detail.contains("HELLO");
    error.kind() == ErrorKind::RESP3NotSupported || error.detail().is_some_and(unknown)
}

/// What stands for a try that took too long.
pub(super) fn timed_out() -> RedisError {
    RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut))
}

fn address(tls: bool, host: &str, port: u16) -> ConnectionAddr {
    let host = host.to_owned();
    if tls {
        ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(host, port)
    }
}

/// Sentinels are reached without the master's password: they have their own, if any, which few set.
fn sentinel(
    url: &RedisUrl,
    sentinels: Vec<ConnectionAddr>,
    master: &str,
    certificates: Option<&TlsCertificates>,
) -> Result<SentinelClient, RedisError> {
    let mut builder = SentinelClientBuilder::new(sentinels, master, SentinelServerType::Master)?
        .set_client_to_redis_db(i64::from(url.database));
    if let Some(username) = &url.username {
        builder = builder.set_client_to_redis_username(username);
    }
    if let Some(password) = &url.password {
        builder = builder.set_client_to_redis_password(password);
    }
    if url.tls {
        builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
        if let Some(certificates) = certificates {
            builder = builder
                .set_client_to_redis_certificates(certificates.clone())
                .set_client_to_sentinel_certificates(certificates.clone());
        }
    }
    builder.build()
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, RedisError>> + Send + 'a>>;

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> Answer<'a, Value> {
        match self {
            Self::Single(connection) => connection.req_packed_command(cmd),
            Self::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        cmd: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> Answer<'a, Vec<Value>> {
        match self {
            Self::Single(connection) => connection.req_packed_commands(cmd, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(cmd, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}
