//! Remote systems that translators may ask: named, configured, limited. Holds the only HTTP client of the house.

pub mod auth;
pub mod breaker;
mod canonical;
pub mod client;
pub mod config;
pub mod template;

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::Serialize;
use uuid::Uuid;

use crate::plugin::{Call, Response};

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Called {
    /// A response the translator is to see: a status that the endpoint does not retry, or any status of a lenient call.
    Response(Response),
    /// The attempt failed: a retried status or body pointer (`remote-status`, `remote-body`), a redirect (`remote-redirect`), a body that is
    /// too large or encoded (`remote-too-large`, `remote-encoding`). Counts as an attempt of the message. `reason` has status and the body's
    /// start; `after_ms` is what `Retry-After` said, `None` leaves the wait to the feed's retries.
    Failed { code: String, reason: String, after_ms: Option<u64> },
    /// The endpoint is away (transport error, time-out, no token, all places busy, breaker open). Messages park without burning attempts and
    /// try again after `after_ms`. A lenient call gets it too: whoever runs the rounds answers that with `unreachable`.
    Away { reason: String, after_ms: u64 },
    /// The call itself is wrong: no such endpoint, a parameter missing for its template. The message fails.
    Wrong { reason: String },
}

/// Whoever answers calls: the configured endpoints, or a test's stubs.
#[async_trait]
pub trait Caller: Send + Sync {
    /// Makes one call for `origin`: a message's id, or an order's. Equal calls of one origin carry the same idempotency key. Never panics,
    /// always returns within the endpoint's own time-outs.
    async fn call(&self, call: &Call, origin: Uuid) -> Called;
}

/// What is wrong with an endpoint's settings.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting does not make sense.
    #[error("read endpoints.{endpoint}.{key}: {reason}")]
    Config { endpoint: String, key: String, reason: String },
    /// The HTTP client cannot be made on this machine.
    #[error("make the HTTP client: {0}")]
    Client(String),
}

/// What people see of an endpoint, for `doctor` and metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct State {
    /// Its name in the config.
    pub endpoint: String,
    /// `closed`, `open` or `probing`.
    pub breaker: &'static str,
    /// Failures in a row.
    pub failures: u32,
    /// When the next probe may go, in milliseconds from now, while the breaker is open.
    pub probe_after_ms: Option<u64>,
    /// Calls under way.
    pub calls: usize,
}

/// The configured endpoints.
pub struct Endpoints {
    by_name: BTreeMap<String, client::Endpoint>,
}

impl Endpoints {
    /// Checks the settings and makes the endpoints ready; nothing is sent. Secrets in the settings are expanded already.
    pub fn new(configs: &BTreeMap<String, config::Config>) -> Result<Self, Error> {
        // Another part of the process may have installed its own provider: that one serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Redirects and proxies of the environment would take calls to hosts that no config names.
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .user_agent(concat!("tolk/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::Client(client::cause(error)))?;
        let by_name = configs
            .iter()
            .map(|(name, config)| Ok((name.clone(), client::Endpoint::new(name, config, client.clone())?)))
            .collect::<Result<_, Error>>()?;
        Ok(Self { by_name })
    }

    /// What people see of each endpoint, by name.
    pub fn states(&self) -> Vec<State> {
        self.by_name.values().map(client::Endpoint::state).collect()
    }

    /// Whether shadows and dry runs may call an endpoint; false for an unknown one.
    pub fn is_safe(&self, name: &str) -> bool {
        self.by_name.get(name).is_some_and(|endpoint| endpoint.safe)
    }
}

#[async_trait]
impl Caller for Endpoints {
    async fn call(&self, call: &Call, origin: Uuid) -> Called {
        let Some(endpoint) = self.by_name.get(&call.endpoint) else {
            let nearest = self.by_name.keys().max_by(|a, b| {
                let near = |name: &str| strsim::jaro_winkler(name, &call.endpoint);
                near(a).total_cmp(&near(b))
            });
            let advice = nearest.map_or_else(|| "there are none".to_owned(), |name| format!("the nearest is \"{name}\""));
            let reason = format!("no endpoint \"{}\" in the config ({advice}): add [endpoints.{}]", call.endpoint, call.endpoint);
            return Called::Wrong { reason };
        };
        endpoint.call(call, origin).await
    }
}
