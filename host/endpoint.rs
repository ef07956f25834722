//! Remote systems that translators may ask: named, configured, limited. Holds the only HTTP client of the house.

pub mod addresses;
mod answer;
pub mod auth;
pub mod breaker;
mod cache;
mod canonical;
pub mod client;
pub mod config;
pub mod counts;
mod exchange;
pub mod fetch;
pub mod pace;
pub mod template;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use uuid::Uuid;

use crate::plugin::{Call, Response};

/// The collection of the entries that are written when an endpoint answers again, by its name.
pub const RECOVERED: &str = "tolk.endpoints";

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Called {
    /// A response the translator is to see: a status that the endpoint does not retry, or any status of a lenient call.
    Response(Response),
    /// The attempt failed: after the last try a retried status or body (`remote-status`, `remote-body`) or, where the settings say so, nobody
    /// there (`remote-unreachable`); a redirect (`remote-redirect`); a body that is too large or encoded (`remote-too-large`,
    /// `remote-encoding`). Counts as an attempt of the message. `reason` has status and the body's start; `after_ms` is what `Retry-After`
    /// said, `None` leaves the wait to the feed's retries.
    Failed { code: String, reason: String, after_ms: Option<u64> },
    /// The endpoint is away (transport error, time-out, no token, all places busy, breaker open, paused). Messages park without burning attempts and
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

    /// Whether an endpoint has failed last, or is paused. Once it is not, messages that parked for it may go on.
    fn is_away(&self, _endpoint: &str) -> bool {
        false
    }

    /// Pauses these endpoints and no others.
    fn pause_only(&self, _endpoints: &[&str]) {}

    /// How each endpoint stands, by name.
    fn states(&self) -> Vec<State> {
        Vec::new()
    }
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
    /// Whether an operator has paused it.
    pub paused: bool,
    /// `closed`, `open` or `probing`.
    pub breaker: &'static str,
    /// Failures in a row.
    pub failures: u32,
    /// When the next probe may go, in milliseconds from now, while the breaker is open.
    pub probe_after_ms: Option<u64>,
    /// Requests under way.
    pub calls: usize,
    /// What it has done so far.
    pub counts: counts::SoFar,
}

/// What endpoints take from the machine; tests give something else.
#[derive(Clone)]
pub struct Outside {
    /// The time.
    pub pace: pace::Pace,
    /// Who knows names.
    pub names: Arc<dyn addresses::Names>,
}

impl Default for Outside {
    fn default() -> Self {
        Self { pace: pace::Pace::Real, names: Arc::new(addresses::Machine) }
    }
}

/// The configured endpoints.
pub struct Endpoints {
    by_name: BTreeMap<String, Arc<client::Endpoint>>,
}

impl Endpoints {
    /// Checks the settings and makes the endpoints ready; nothing is sent. Secrets in the settings are expanded already.
    pub fn new(configs: &BTreeMap<String, config::Config>) -> Result<Self, Error> {
        Self::with(configs, &Outside::default())
    }

    /// The same, with a time and names of a test's.
    pub fn with(configs: &BTreeMap<String, config::Config>, outside: &Outside) -> Result<Self, Error> {
        // Another part of the process may have installed its own provider: that one serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Endpoints that may reach the same addresses share a client.
        let mut clients: Vec<(Arc<addresses::Rules>, reqwest::Client)> = Vec::new();
        let mut by_name = BTreeMap::new();
        for (name, config) in configs {
            let rules = rules(name, config)?;
            let client = match clients.iter().find(|(known, _)| **known == rules) {
                Some((_, client)) => client.clone(),
                None => {
                    let rules = Arc::new(rules);
                    let client = client(rules.clone(), outside)?;
                    clients.push((rules, client.clone()));
                    client
                }
            };
            by_name.insert(name.clone(), Arc::new(client::Endpoint::new(name, config, client, outside.pace.clone())?));
        }
        Ok(Self { by_name })
    }

    /// Pauses or resumes an endpoint: while it is paused nothing is sent, and messages that need it park. False: there is none of this name.
    pub fn set_paused(&self, name: &str, paused: bool) -> bool {
        let endpoint = self.by_name.get(name);
        endpoint.inspect(|endpoint| endpoint.set_paused(paused)).is_some()
    }

    /// What people see of each endpoint, by name.
    pub fn states(&self) -> Vec<State> {
        self.by_name.values().map(|endpoint| endpoint.state()).collect()
    }

    /// Forgets every cached answer.
    pub fn forget(&self) {
        self.by_name.values().for_each(|endpoint| endpoint.forget());
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

    fn pause_only(&self, endpoints: &[&str]) {
        self.by_name.iter().for_each(|(name, endpoint)| endpoint.set_paused(endpoints.contains(&name.as_str())));
    }

    fn is_away(&self, endpoint: &str) -> bool {
        self.by_name.get(endpoint).is_some_and(|endpoint| endpoint.is_away())
    }

    fn states(&self) -> Vec<State> {
        // The one above, which comes before that of the trait.
        self.states()
    }
}

/// The addresses that an endpoint may reach; its settings must not name others.
fn rules(name: &str, config: &config::Config) -> Result<addresses::Rules, Error> {
    let wrong = |key: &str, reason: String| Error::Config { endpoint: name.to_owned(), key: key.to_owned(), reason };
    let rules = addresses::Rules::new(config).map_err(|(key, reason)| wrong(key, reason))?;
    let mut urls = vec![("base_url", config.base_url.as_str())];
    if let config::Auth::ClientCredentials { token_url, .. } = &config.auth {
        urls.push(("auth.token_url", token_url));
    }
    for (key, text) in urls {
        let url = template::parse_base(text).map_err(|reason| wrong(key, reason))?;
        if let Some(reason) = rules.literal_refusal(&url) {
            return Err(wrong(key, reason));
        }
    }
    Ok(rules)
}

fn client(rules: Arc<addresses::Rules>, outside: &Outside) -> Result<reqwest::Client, Error> {
    // Redirects and proxies of the environment would take calls to hosts that no config names.
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .user_agent(concat!("tolk/", env!("CARGO_PKG_VERSION")))
        .dns_resolver(Arc::new(addresses::Guard { rules, names: outside.names.clone() }))
        .build()
        .map_err(|error| Error::Client(exchange::cause(error)))
}
