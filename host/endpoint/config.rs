//! An endpoint's settings: `[endpoints.NAME]`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One endpoint. Templates hold `{name}` for a parameter of the call (percent-encoded where it stands in a URL).
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Scheme, host and port; parameters never reach it.
    pub base_url: String,
    /// The method.
    #[serde(default = "get")]
    pub method: String,
    /// Path and query, a template.
    pub path: String,
    /// Header templates.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Who we are.
    #[serde(default)]
    pub auth: Auth,
    /// Time for the whole call, body included, in milliseconds.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// Statuses that fail the attempt: numbers or ranges, `"500-599"`.
    #[serde(default = "default_retry_statuses")]
    pub retry_statuses: Vec<String>,
    /// JSON pointers into a 2xx body; where one resolves to something but null, false, "" or [], the attempt fails.
    #[serde(default)]
    pub retry_pointers: Vec<String>,
    /// The wait while the endpoint is away, by failures in a row, in milliseconds; the last one repeats. A failed attempt waits what
    /// `Retry-After` says, or by the feed's `retry.backoff_ms`.
    #[serde(default = "default_backoff_ms")]
    pub backoff_ms: Vec<u64>,
    /// Calls under way at one time.
    #[serde(default = "default_concurrency_max")]
    pub concurrency_max: usize,
    /// Failures in a row (transport errors, retried statuses) that open the breaker; 0: none.
    #[serde(default = "default_breaker_failures")]
    pub breaker_failures: u32,
    /// How long the breaker stays open before a probe, in milliseconds.
    #[serde(default = "default_breaker_open_ms")]
    pub breaker_open_ms: u64,
    /// Bytes of a body, after decompression.
    #[serde(default = "default_body_bytes_max")]
    pub body_bytes_max: usize,
    /// Whether requests carry an `Idempotency-Key`, the same at every try and attempt of one call of a message. Without this, they do where
    /// the method may change something (not GET, HEAD, OPTIONS, TRACE) and `safe` does not say otherwise.
    #[serde(default)]
    pub idempotency_key: Option<bool>,
    /// Whether shadows and dry runs may call it: it changes nothing.
    #[serde(default)]
    pub safe: bool,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let headers: Vec<&String> = self.headers.keys().collect();
        f.debug_struct("Config")
            .field("base_url", &self.base_url)
            .field("method", &self.method)
            .field("path", &self.path)
            .field("headers (values hidden)", &headers)
            .field("auth", &self.auth)
            .finish_non_exhaustive()
    }
}

/// Who we are to an endpoint. Secrets are written `${NAME}` and come from the environment.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "kebab-case")]
pub enum Auth {
    /// Nobody.
    #[default]
    None,
    /// A fixed bearer token.
    Bearer { token: String },
    /// A token by OAuth 2 client credentials, fetched and renewed.
    ClientCredentials {
        token_url: String,
        client_id: String,
        client_secret: String,
        #[serde(default)]
        scope: Option<String>,
    },
    /// A key in a header.
    ApiKey { header: String, key: String },
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Bearer { .. } => "bearer ***",
            Self::ClientCredentials { .. } => "client-credentials ***",
            Self::ApiKey { .. } => "api-key ***",
        })
    }
}

fn get() -> String {
    "GET".to_owned()
}
fn default_timeout_ms() -> u64 {
    10_000
}
fn default_retry_statuses() -> Vec<String> {
    ["408", "425", "429", "500-599"].map(str::to_owned).to_vec()
}
fn default_backoff_ms() -> Vec<u64> {
    vec![1_000, 5_000, 30_000, 120_000]
}
fn default_concurrency_max() -> usize {
    64
}
fn default_breaker_failures() -> u32 {
    10
}
fn default_breaker_open_ms() -> u64 {
    5_000
}
fn default_body_bytes_max() -> usize {
    4 << 20
}
