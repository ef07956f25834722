//! Connections of the door: how many, how long a request's head may take, and a graceful end. Knows no resource.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Connections at one time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 256;
/// How long a client may take to send a request's head, and how long a connection may idle between requests.
const HEAD_MAX: Duration = Duration::from_secs(15);
/// How long requests under way may take once the host stops.
const STOP_MAX: Duration = Duration::from_secs(5);

/// Serves until told to stop.
pub(super) async fn run(listener: TcpListener, router: Router, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        // What ended is let go of.
        while connections.try_join_next().is_some() {}
        let permit = permits.clone().acquire_owned().await;
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match stream {
            Ok((stream, _)) => {
                let (router, stop) = (router.clone(), stop.clone());
                connections.spawn(async move {
                    converse(stream, router, stop).await;
                    drop(permit);
                });
            }
            // Out of file descriptors, most likely: it passes.
            Err(error) => {
                tracing::warn!(%error, "a connection to the admin door could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    let _ = tokio::time::timeout(STOP_MAX, async { while connections.join_next().await.is_some() {} }).await;
}

async fn converse(stream: TcpStream, router: Router, stop: CancellationToken) {
    let _ = stream.set_nodelay(true);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the admin door broke off");
    }
}
