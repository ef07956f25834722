//! Remote systems that translators may ask: named, configured, limited. Holds the only HTTP client of the house.

pub mod auth;
pub mod breaker;
pub mod client;
pub mod config;
pub mod template;

use async_trait::async_trait;

use crate::plugin::{Call, Response};

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Called {
    /// A response the translator is to see: a status that the endpoint does not retry, or any status of a lenient call.
    Response(Response),
    /// The attempt failed: a retried status or body pointer. Counts as an attempt of the message. `reason` has status and the body's start.
    Failed { code: String, reason: String, after_ms: Option<u64> },
    /// The endpoint is away (transport error, time-out, breaker open). Messages park without burning attempts and try again after `after_ms`.
    Away { reason: String, after_ms: u64 },
    /// The call itself is wrong: no such endpoint, a parameter missing for its template. The message fails.
    Wrong { reason: String },
}

/// Whoever answers calls: the configured endpoints, or a test's stubs.
#[async_trait]
pub trait Caller: Send + Sync {
    /// Makes one call. Never panics, always returns within the endpoint's own time-outs.
    async fn call(&self, call: &Call) -> Called;
}
