//! A TCP proxy before a Kafka broker that changes a byte of some records on their way to the reader, as a bad cable or a bad disk may. Clients
//! are led back to it: where the broker names its own address, it names the proxy's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use crate::proxy::serve;

/// The proxy; it runs on a thread of its own until the process ends.
pub struct Spoiler {
    /// The broker's address through it.
    pub brokers: String,
    state: Arc<State>,
}

struct State {
    /// The broker's address and the proxy's, as answers hold them.
    addresses: [Vec<u8>; 2],
    /// What is spoilt: the first byte of these.
    marker: &'static [u8],
    left: AtomicU64,
}

impl Spoiler {
    /// Starts one before a broker `HOST:PORT`. The next `count` answers that hold the marker are spoilt.
    pub async fn start(broker: &'static str, marker: &'static [u8], count: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let brokers = listener.local_addr().unwrap().to_string();
        let addresses = [broker, &brokers].map(on_the_wire);
        let state = Arc::new(State { addresses, marker, left: AtomicU64::new(count) });
        let kept = state.clone();
        serve(listener, move |client| carry(client, broker, kept.clone()));
        Self { brokers, state }
    }

    /// How many answers are yet to be spoilt.
    pub fn left(&self) -> u64 {
        self.state.left.load(Ordering::SeqCst)
    }
}

/// An address as Kafka's answers hold it: the host's name, then the port in four bytes.
fn on_the_wire(address: &str) -> Vec<u8> {
    let (host, port) = address.split_once(':').unwrap();
    [host.as_bytes(), &port.parse::<u32>().unwrap().to_be_bytes()].concat()
}

async fn carry(client: TcpStream, broker: &str, state: Arc<State>) {
    let Ok(server) = TcpStream::connect(broker).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((mut from_client, to_client), (from_server, mut to_server)) = (client.into_split(), server.into_split());
    // Whichever ends takes the other one along.
    tokio::select! {
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
        _ = answers(from_server, to_client, &state) => {}
    }
}

async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: &State) -> std::io::Result<()> {
    loop {
        let size = from.read_u32().await?;
        let mut answer = vec![0; usize::try_from(size).unwrap()];
        from.read_exact(&mut answer).await?;
        let [known, ours] = &state.addresses;
        while let Some(at) = find(&answer, known) {
            answer[at..at + ours.len()].copy_from_slice(ours);
        }
        if let Some(at) = find(&answer, state.marker)
            && state.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
        {
            answer[at] ^= 1;
        }
        to.write_u32(size).await?;
        to.write_all(&answer).await?;
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
