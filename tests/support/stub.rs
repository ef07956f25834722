//! A loopback HTTP/1.1 server for tests: a closure decides what each request gets, misbehaviour included. Records what it was sent.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A request as it came over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: String,
    /// Path and query, percent-encoded.
    pub path: String,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What a request gets.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A status, headers and a body.
    Answer { status: u16, headers: Vec<(String, String)>, body: Vec<u8> },
    /// Another reply, later.
    After(Duration, Box<Reply>),
    /// Another reply, once the gate is open.
    When(watch::Receiver<bool>, Box<Reply>),
    /// Nothing, until the client goes away.
    Hang,
    /// The connection is closed without an answer.
    Reset,
    /// 200, and the start of a body; then the connection is closed.
    Torn(String),
    /// These bytes, whatever they are; then the connection is closed.
    Raw(Vec<u8>),
    /// 200, then a body byte each so often, for ever.
    Drip(Duration),
    /// 200, then a body of so many bytes; `declared` says so in Content-Length, else it is chunked.
    Huge { bytes: usize, declared: bool },
}

impl Reply {
    /// A status and a body, as JSON.
    pub fn json(status: u16, body: &str) -> Self {
        Self::Answer { status, headers: vec![("content-type".into(), "application/json".into())], body: body.into() }
    }

    /// The same with one more header.
    pub fn with_header(self, name: &str, value: &str) -> Self {
        match self {
            Self::Answer { status, mut headers, body } => {
                headers.push((name.into(), value.into()));
                Self::Answer { status, headers, body }
            }
            other => other,
        }
    }
}

type Decide = dyn Fn(usize, &Request) -> Reply + Send + Sync;

/// A running server; stops when dropped.
pub struct Stub {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    count: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

impl Stub {
    /// Starts a server on a free port; `decide` is given the number of the request, from 0, and the request.
    pub async fn start(decide: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (counted, count) = watch::channel(0);
        let (decide, record): (Arc<Decide>, _) = (Arc::new(decide), seen.clone());
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(converse(stream, decide.clone(), record.clone(), counted.clone()));
            }
        });
        Self { address, seen, count, task }
    }

    /// The base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it was sent so far.
    pub fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// How many requests it was sent so far.
    pub fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// Waits until it was sent so many requests.
    pub async fn reached(&self, count: usize) {
        self.count.clone().wait_for(|seen| *seen >= count).await.unwrap();
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn converse(stream: TcpStream, decide: Arc<Decide>, seen: Arc<Mutex<Vec<Request>>>, count: watch::Sender<usize>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream).await {
        let number = {
            let mut seen = seen.lock().unwrap();
            seen.push(request.clone());
            seen.len() - 1
        };
        count.send_modify(|count| *count += 1);
        let mut reply = decide(number, &request);
        loop {
            reply = match reply {
                Reply::After(wait, next) => {
                    tokio::time::sleep(wait).await;
                    *next
                }
                Reply::When(mut gate, next) => {
                    if gate.wait_for(|open| *open).await.is_err() {
                        return;
                    }
                    *next
                }
                _ => break,
            };
        }
        if !write_reply(&mut stream, reply).await {
            return;
        }
    }
}

async fn read_request(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut request = Request { method, path, headers, body: Vec::new() };
    let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    request.body = vec![0; length];
    stream.read_exact(&mut request.body).await.ok()?;
    Some(request)
}

/// Whether the connection lives on.
async fn write_reply(stream: &mut BufReader<TcpStream>, reply: Reply) -> bool {
    match reply {
        Reply::Answer { status, headers, body } => {
            let mut head = format!("HTTP/1.1 {status} Stubbed\r\ncontent-length: {}\r\n", body.len());
            headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
            head.push_str("\r\n");
            stream.write_all(head.as_bytes()).await.is_ok() && stream.write_all(&body).await.is_ok() && stream.flush().await.is_ok()
        }
        Reply::Hang => {
            // Ends when the client closes its side.
            let _ = stream.read_u8().await;
            false
        }
        Reply::Reset | Reply::After(..) | Reply::When(..) => false,
        Reply::Torn(start) => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{start}", start.len() + 100);
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.flush().await;
            false
        }
        Reply::Raw(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.flush().await;
            false
        }
        Reply::Drip(every) => {
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n";
            let mut alive = stream.write_all(head).await.is_ok();
            while alive {
                alive = stream.write_all(b"x").await.is_ok() && stream.flush().await.is_ok();
                tokio::time::sleep(every).await;
            }
            false
        }
        Reply::Huge { bytes, declared } => write_huge(stream, bytes, declared).await,
    }
}

async fn write_huge(stream: &mut BufReader<TcpStream>, bytes: usize, declared: bool) -> bool {
    let piece = vec![b'x'; 64 << 10];
    let head = if declared { format!("content-length: {bytes}") } else { "transfer-encoding: chunked".to_owned() };
    let mut alive = stream.write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n").as_bytes()).await.is_ok();
    let mut left = bytes;
    while alive && left > 0 {
        let size = left.min(piece.len());
        if !declared {
            alive = stream.write_all(format!("{size:x}\r\n").as_bytes()).await.is_ok();
        }
        alive = alive && stream.write_all(&piece[..size]).await.is_ok();
        if !declared {
            alive = alive && stream.write_all(b"\r\n").await.is_ok();
        }
        left -= size;
    }
    if !declared {
        alive = alive && stream.write_all(b"0\r\n\r\n").await.is_ok();
    }
    alive && stream.flush().await.is_ok()
}
