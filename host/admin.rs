//! The admin door: what people and programs ask a running host over HTTP, and what they order. Bound to loopback unless told otherwise.
//! The only module that knows axum. Knows no SQL and decides nothing about messages.

mod access;
mod actions;
mod asked;
mod deliveries;
mod endpoints;
mod entries;
mod health;
mod ids;
mod issuer;
mod messages;
mod metrics;
mod openapi;
mod overview;
mod pauses;
mod plugins;
mod problem;
pub mod routes;
mod serve;
mod signatures;
mod tokens;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::app::{App, Progress};
use crate::config::Config;
use crate::endpoint::Caller;
use crate::registry::Registry;
use crate::store::Store;
use access::Access;
use problem::{Answer, Problem};

/// The door, open for connections; it answers `/livez` and says that it is not ready until it is told of a host.
pub struct Door {
    listener: TcpListener,
    address: SocketAddr,
    state: Arc<State>,
}

/// What every resource is given.
struct State {
    access: Access,
    inside: OnceLock<Inside>,
    sampled: metrics::Sampled,
}

/// The parts of a host that are shown.
struct Inside {
    config: Config,
    store: Arc<dyn Store>,
    registry: Arc<Registry>,
    caller: Arc<dyn Caller>,
    progress: Progress,
}

impl State {
    fn inside(&self) -> Answer<&Inside> {
        self.inside.get().ok_or_else(|| Problem::away("host", "the host is still starting: it waits for its store").next("try again soon"))
    }

    fn store(&self) -> Answer<&dyn Store> {
        Ok(&*self.inside()?.store)
    }
}

impl Door {
    /// Binds the address of `[admin]`; `None`: the config has no door. Reads the tokens, asks nobody.
    pub async fn bind(config: &Config) -> anyhow::Result<Option<Self>> {
        let Some(listen) = &config.admin.listen else { return Ok(None) };
        let access = Access::new(&config.admin).map_err(anyhow::Error::msg)?;
        let listener = TcpListener::bind(listen).await.with_context(|| format!("listen on admin.listen = \"{listen}\""))?;
        let address = listener.local_addr().context("read the address of the admin door")?;
        tracing::info!(%address, asks = config.admin.asks(), "the admin door is open");
        let state = State { access, inside: OnceLock::new(), sampled: metrics::Sampled::default() };
        Ok(Some(Self { listener, address, state: Arc::new(state) }))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until told to stop. What it says of the host comes from whatever `opened` was given meanwhile.
    pub fn serve(self, stop: CancellationToken) -> (Inner, impl Future<Output = ()> + Send + 'static) {
        let inner = Inner(self.state.clone());
        (inner, serve::run(self.listener, routes::router(self.state), stop))
    }
}

/// The way to tell a door of the host behind it.
pub struct Inner(Arc<State>);

impl Inner {
    /// The host is open: show it.
    pub fn opened(&self, app: &App) {
        let _ = self.0.inside.set(Inside {
            config: app.config.clone(),
            store: app.store.clone(),
            registry: app.registry.clone(),
            caller: app.caller.clone(),
            progress: app.progress.clone(),
        });
    }
}
