//! A small HTTP client over real sockets: one request on a connection of its own, several on one, a stream read
//! piece by piece, or bytes that no HTTP library would send.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail the test")]

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// A request to be sent.
#[derive(Debug, Clone)]
pub struct Ask {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Ask {
    /// A request of any method; `url` is `http://ADDRESS/PATH`.
    pub fn new(method: Method, url: &str) -> Self {
        let uri = url.parse().unwrap_or_else(|error| panic!("{url}: {error}"));
        Self { method, uri, headers: HeaderMap::new(), body: Bytes::new() }
    }

    pub fn get(url: &str) -> Self {
        Self::new(Method::GET, url)
    }

    /// `POST` with a JSON body.
    pub fn post(url: &str, body: &Value) -> Self {
        Self::post_bytes(url, body.to_string()).header("content-type", "application/json")
    }

    pub fn post_bytes(url: &str, body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..Self::new(Method::POST, url) }
    }

    /// The same with another method.
    #[must_use]
    pub fn method(self, method: Method) -> Self {
        Self { method, ..self }
    }

    /// Adds a header; the same name again adds another line.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        self
    }

    fn address(&self) -> SocketAddr {
        let authority = self.uri.authority().expect("a URL with an authority").as_str();
        authority.parse().unwrap_or_else(|error| panic!("{authority}: {error}"))
    }

    fn request(self) -> Request<Full<Bytes>> {
        let host = self.uri.authority().unwrap().to_string();
        let target = self.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        let mut request = Request::new(Full::new(self.body));
        *request.method_mut() = self.method;
        *request.uri_mut() = target.parse().unwrap();
        *request.headers_mut() = self.headers;
        if !request.headers().contains_key("host") {
            request.headers_mut().insert("host", HeaderValue::from_str(&host).unwrap());
        }
        request
    }

    /// Sends it on a connection of its own and reads the whole reply.
    pub async fn send(self) -> Reply {
        self.try_send().await.expect("a whole reply")
    }

    /// As [`Self::send`], where the exchange may fail.
    pub async fn try_send(self) -> Result<Reply, Box<dyn std::error::Error + Send + Sync>> {
        let mut connection = Connection::open(self.address()).await?;
        Ok(connection.send(self).await?)
    }

    /// Sends it on a connection of its own and returns when the reply's head has arrived.
    pub async fn open(self) -> Stream {
        self.try_open().await.expect("a reply's head")
    }

    /// As [`Self::open`], where the exchange may fail.
    pub async fn try_open(self) -> Result<Stream, Box<dyn std::error::Error + Send + Sync>> {
        let mut connection = Connection::open(self.address()).await?;
        let response = connection.sender.send_request(self.request()).await?;
        Ok(Stream::new(response, connection))
    }
}

/// A whole reply.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Reply {
    async fn read(response: Response<Incoming>) -> hyper::Result<Self> {
        let (head, body) = response.into_parts();
        let body = body.collect().await?;
        let trailers = body.trailers().cloned();
        Ok(Self { status: head.status, headers: head.headers, body: body.to_bytes(), trailers })
    }

    /// A header's first value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }
}

/// A connection for several requests, one after the other.
#[derive(Debug)]
pub struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    task: JoinHandle<()>,
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // Its errors reach the exchange that they concern.
        let task = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender, task })
    }

    /// Sends a request and reads the whole reply.
    pub async fn send(&mut self, ask: Ask) -> hyper::Result<Reply> {
        self.sender.ready().await?;
        Reply::read(self.sender.send_request(ask.request()).await?).await
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A reply whose body is still arriving. Dropping it closes the connection.
#[derive(Debug)]
pub struct Stream {
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: Incoming,
    received: Vec<u8>,
    connection: Connection,
}

impl Stream {
    fn new(response: Response<Incoming>, connection: Connection) -> Self {
        let (head, body) = response.into_parts();
        Self { status: head.status, headers: head.headers, body, received: Vec::new(), connection }
    }

    /// The next bytes, whatever piece they come in; `None` at the end.
    pub async fn next(&mut self) -> Option<hyper::Result<Bytes>> {
        loop {
            match self.body.frame().await? {
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        self.received.extend_from_slice(&data);
                        return Some(Ok(data));
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Reads until this text has arrived; fails the test if the stream ends first.
    pub async fn until(&mut self, text: &str) {
        while memchr::memmem::find(&self.received, text.as_bytes()).is_none() {
            self.next().await.unwrap_or_else(|| panic!("no {text:?} in {}", self.text())).unwrap();
        }
    }

    /// Reads until this many bytes have arrived; fails the test if the stream ends first.
    pub async fn until_bytes(&mut self, count: usize) {
        while self.received.len() < count {
            self.next().await.expect("more bytes").unwrap();
        }
    }

    /// Reads to the end. `Err` where the body was cut; what came before is in [`Self::received`].
    pub async fn finish(&mut self) -> hyper::Result<()> {
        while let Some(data) = self.next().await {
            data?;
        }
        Ok(())
    }

    /// All bytes so far.
    pub fn received(&self) -> &[u8] {
        &self.received
    }

    /// All bytes so far, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.received).into_owned()
    }
}

/// Sends these bytes and returns all that comes back until the other side closes, and how it closed.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> (Vec<u8>, io::Result<()>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut received = Vec::new();
    let end = stream.read_to_end(&mut received).await.map(drop);
    (received, end)
}
