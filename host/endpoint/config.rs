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
    /// Time for each try, body included, in milliseconds.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// Requests that one call may cost where answers are retried or the transport fails; all belong to one attempt of the message.
    #[serde(default = "default_tries")]
    pub tries: u32,
    /// The waits between these tries, in milliseconds, each up to a fifth longer; the last one repeats. A longer `Retry-After` wins.
    #[serde(default = "default_backoff_ms")]
    pub backoff_ms: Vec<u64>,
    /// Statuses that are tried again, and in the end fail the attempt: numbers or ranges, `"500-599"`.
    #[serde(default = "default_retry_statuses")]
    pub retry_statuses: Vec<String>,
    /// Places in a 2xx body that are tried again, and in the end fail the attempt.
    #[serde(default)]
    pub retry_bodies: Vec<Pointed>,
    /// Places in a body that make it an answer for the translator, whatever `retry_statuses` and `retry_bodies` say. Never cached.
    #[serde(default)]
    pub final_bodies: Vec<Pointed>,
    /// What a transport failure of the last try means.
    #[serde(default)]
    pub unreachable: Unreachable,
    /// How long messages park while the endpoint is away and its breaker closed, by failures in a row, in milliseconds; the last one repeats. A
    /// failed attempt waits what `Retry-After` says, or by the feed's `retry.backoff_ms`.
    #[serde(default = "default_away_ms")]
    pub away_ms: Vec<u64>,
    /// Calls under way at one time.
    #[serde(default = "default_concurrency_max")]
    pub concurrency_max: usize,
    /// Failures in a row (transport errors, retried statuses) that open the breaker; 0: none.
    #[serde(default = "default_breaker_failures")]
    pub breaker_failures: u32,
    /// How long the breaker stays open before a probe, in milliseconds.
    #[serde(default = "default_breaker_open_ms")]
    pub breaker_open_ms: u64,
    /// Bytes of a body.
    #[serde(default = "default_body_bytes_max")]
    pub body_bytes_max: usize,
    /// Headers of an answer that translators see, in lower case.
    #[serde(default = "default_response_headers")]
    pub response_headers: Vec<String>,
    /// Answers kept for later calls, and equal calls sharing one; without it every call is a request of its own.
    #[serde(default)]
    pub cache: Option<Cache>,
    /// Whether requests carry an `Idempotency-Key`, the same at every try and attempt of one call of a message. Without this, they do where
    /// the method may change something (not GET, HEAD, OPTIONS, TRACE) and neither `safe` nor `cache` says otherwise.
    #[serde(default)]
    pub idempotency_key: Option<bool>,
    /// Whether `base_url` may be, or resolve to, an address of a private network or of this machine.
    #[serde(default = "yes")]
    pub allow_private: bool,
    /// Networks that may be reached whatever else is refused: `"169.254.10.0/24"`.
    #[serde(default)]
    pub allow_addresses: Vec<String>,
    /// Networks that may not be reached, beside link-local ones, those of cloud metadata, and others that no remote system has.
    #[serde(default)]
    pub refuse_addresses: Vec<String>,
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

/// A place in a JSON body: a pointer, matched by anything but null, false, "" and [], or a pointer and the values that match.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Pointed {
    /// `"/errors"`.
    Set(String),
    /// `{ pointer = "/errors/0/code", equals = ["server_error"] }`.
    Equals(PointedValues),
}

/// A pointer and the values that match.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PointedValues {
    /// The JSON pointer.
    pub pointer: String,
    /// What stands there.
    pub equals: Vec<serde_json::Value>,
}

impl Pointed {
    /// The JSON pointer.
    pub fn pointer(&self) -> &str {
        match self {
            Self::Set(pointer) | Self::Equals(PointedValues { pointer, .. }) => pointer,
        }
    }
}

/// What becomes of a message whose call could not be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unreachable {
    /// It parks, and no attempt is counted.
    #[default]
    Park,
    /// Its attempt has failed. While the breaker is open it parks all the same.
    Attempt,
}

/// Answers with a 2xx status that are kept, in this host's memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// How long an answer is kept, in milliseconds; 0: equal calls share one under way, and no answer is kept.
    pub ttl_ms: u64,
    /// Answers at most; the one that was not used for longest goes first.
    #[serde(default = "default_cache_entries_max")]
    pub entries_max: usize,
    /// Bytes of all kept bodies at most.
    #[serde(default = "default_cache_bytes_max")]
    pub bytes_max: usize,
    /// Parameters that tell answers apart (a trace id does not); without it all of them. The body always does.
    #[serde(default)]
    pub key: Option<Vec<String>>,
    /// Places in a body that say it is not worth keeping: an error inside a 200.
    #[serde(default)]
    pub except: Vec<Pointed>,
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
fn yes() -> bool {
    true
}
fn default_timeout_ms() -> u64 {
    10_000
}
fn default_tries() -> u32 {
    1
}
fn default_backoff_ms() -> Vec<u64> {
    vec![500, 1_500, 4_500]
}
fn default_retry_statuses() -> Vec<String> {
    ["408", "425", "429", "500-599"].map(str::to_owned).to_vec()
}
fn default_away_ms() -> Vec<u64> {
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
fn default_response_headers() -> Vec<String> {
    ["content-language", "content-type", "etag", "last-modified", "link", "location"].map(str::to_owned).to_vec()
}
fn default_cache_entries_max() -> usize {
    1_000
}
fn default_cache_bytes_max() -> usize {
    16 << 20
}
