//! A TCP proxy before PostgreSQL that closes a connection where it carries a COMMIT: half of the times before the server has it, half of the
//! times after, so that the client never learns which.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use crate::script::Dice;

/// A simple query that says COMMIT, as it stands on the wire.
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";

/// The proxy; it runs on a thread of its own until the process ends.
pub struct Proxy {
    /// The database's URL through it.
    pub url: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Of a hundred commits so many are cut.
    percent: AtomicU64,
    cuts: AtomicU64,
    seed: AtomicU64,
}

impl Proxy {
    /// Starts one before the server of a URL `postgres://USER@HOST:PORT/DATABASE`.
    pub async fn start(url: &str, seed: u64) -> Self {
        let server = url.split_once('@').unwrap().1.split('/').next().unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let through = url.replace(&server, &listener.local_addr().unwrap().to_string());
        let state = Arc::new(State::default());
        state.seed.store(seed, Ordering::SeqCst);
        let kept = state.clone();
        serve(listener, move |client| carry(client, server.clone(), kept.clone()));
        Self { url: through, state }
    }

    /// From now on so many of a hundred commits are cut.
    pub fn cut_commits(&self, percent: u64) {
        self.state.percent.store(percent, Ordering::SeqCst);
    }

    /// How many were cut so far.
    pub fn cuts(&self) -> u64 {
        self.state.cuts.load(Ordering::SeqCst)
    }
}

/// Carries each connection, on a thread of its own: the experiment blocks its own runtime now and then.
pub fn serve<C: Future<Output = ()> + Send + 'static>(listener: TcpListener, carry: impl Fn(TcpStream) -> C + Send + 'static) {
    let listener = listener.into_std().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client));
            }
        });
    });
}

async fn carry(client: TcpStream, server: String, state: Arc<State>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    // Whichever ends takes the other one along.
    tokio::select! {
        () = requests(from_client, to_server, &state) => {}
        () = answers(from_server, to_client) => {}
    }
}

async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: &State) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok(read) = from.read(&mut buffer).await else { return };
        if read == 0 {
            return;
        }
        let bytes = &buffer[..read];
        let commits = bytes.windows(COMMIT.len()).any(|window| window == COMMIT);
        let mut dice = Dice(state.seed.fetch_add(u64::from(commits), Ordering::SeqCst));
        let cut = commits && dice.below(100) < state.percent.load(Ordering::SeqCst);
        let after = dice.below(2) == 0;
        if cut {
            state.cuts.fetch_add(1, Ordering::SeqCst);
        }
        if (!cut || after) && to.write_all(bytes).await.is_err() {
            return;
        }
        if cut {
            return;
        }
    }
}

async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let _ = tokio::io::copy(&mut from, &mut to).await;
}
