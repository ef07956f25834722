//! The store's verbs for components, their compiled artefacts and activations.

use async_trait::async_trait;
use bytes::Bytes;

use super::{Host, Result};
use crate::plugin::{Description, Digest};

/// A stored component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// Its identity.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: i64,
    /// Its capability sheet.
    pub description: Description,
    /// What it imports.
    pub imports: Vec<String>,
    /// When it was pushed, milliseconds since 1970.
    pub pushed_ms: i64,
    /// By whom.
    pub pushed_by: String,
}

/// The only movable thing: which plugin is active for a feed and table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activation {
    /// Its number; 0 before it is stored.
    pub id: i64,
    /// The feed's name.
    pub feed: String,
    /// The table.
    pub table: String,
    /// The plugin.
    pub digest: Digest,
    /// Its config, as text the plugin understands.
    pub config: String,
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// By whom.
    pub by: String,
    /// Why.
    pub why: String,
}

/// Components, compiled artefacts, activations.
#[async_trait]
pub trait Plugins {
    /// Stores a component; known digests stay as they are.
    async fn put_component(&self, component: &Component, bytes: &[u8]) -> Result<()>;
    /// All components, newest first, without bytes.
    async fn components(&self) -> Result<Vec<Component>>;
    /// The bytes of a component.
    async fn component_bytes(&self, digest: Digest) -> Result<Option<Bytes>>;
    /// Stores a compiled artefact under (digest, engine key).
    async fn put_artefact(&self, digest: Digest, engine: &str, bytes: &[u8]) -> Result<()>;
    /// A compiled artefact.
    async fn artefact(&self, digest: Digest, engine: &str) -> Result<Option<Bytes>>;
    /// Makes a plugin the active one of its feed and table; returns the activation's number.
    async fn activate(&self, activation: &Activation) -> Result<i64>;
    /// What is active now, with a revision that grows at every change.
    async fn active(&self) -> Result<(i64, Vec<Activation>)>;
    /// The revision alone: a cheap poll.
    async fn revision(&self) -> Result<i64>;
    /// Past and present activations of a feed and table (both optional), newest first.
    async fn activations(&self, feed: Option<&str>, table: Option<&str>) -> Result<Vec<Activation>>;
    /// A host reports the revision it runs on, once nothing older is in flight.
    async fn report_revision(&self, host: &Host, revision: i64) -> Result<()>;
    /// The oldest revision that a living host reports; `None` without hosts.
    async fn oldest_revision(&self) -> Result<Option<i64>>;
}
