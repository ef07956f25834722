//! The store's verb that shows how everything stands: hosts, feeds, lanes, targets, and what is not done. For people and metrics.

use async_trait::async_trait;
use serde::Serialize;
use uuid::Uuid;

use super::Result;

/// How everything stands, as of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Overview {
    /// The store's time, milliseconds since 1970.
    pub now_ms: i64,
    /// The newest settlement; 0: none yet.
    pub settlement: i64,
    /// Registered hosts.
    pub hosts: Vec<HostState>,
    /// Feeds in the order of their names.
    pub feeds: Vec<FeedState>,
    /// Lanes in the order of feed and number.
    pub lanes: Vec<LaneState>,
    /// Targets in the order of their names.
    pub targets: Vec<TargetState>,
    /// Messages in `work`, counted per feed and status.
    pub work: Vec<WorkState>,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostState {
    /// Its id.
    pub id: Uuid,
    /// Its name for people.
    pub name: String,
    /// When its lease ends, milliseconds since 1970.
    pub lease_until_ms: i64,
    /// Whether its lease still holds.
    pub lives: bool,
    /// The registry's revision that it runs on.
    pub revision: Option<i64>,
}

/// A feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FeedState {
    /// Its number.
    pub id: i32,
    /// Its name.
    pub feed: String,
    /// How many lanes it has.
    pub lanes: i32,
    /// The host that ingests it.
    pub owner: Option<Uuid>,
    /// Raised by every change of owner.
    pub epoch: i64,
    /// Partitions and the offsets that are read next.
    pub positions: Vec<(i32, i64)>,
}

/// A lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LaneState {
    /// The feed's name.
    pub feed: String,
    /// Its number.
    pub lane: i32,
    /// The host that translates it.
    pub owner: Option<Uuid>,
    /// Raised by every change of owner.
    pub epoch: i64,
    /// Every row up to this number is done or in `work`.
    pub cursor: i64,
    /// The number of its last row.
    pub tail: i64,
}

/// A target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetState {
    /// Its name.
    pub target: String,
    /// The host that publishes it.
    pub owner: Option<Uuid>,
    /// Raised by every change of owner.
    pub epoch: i64,
    /// The settlement of the last output that is done.
    pub settlement: i64,
    /// That output's index in the settlement.
    pub index: i32,
    /// Outputs that a sink refused for good.
    pub parked: i64,
}

/// A count of messages in `work`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkState {
    /// The feed's name.
    pub feed: String,
    /// The status's word.
    pub status: String,
    /// How many.
    pub count: i64,
}

/// How everything stands.
#[async_trait]
pub trait Overviews {
    /// Reads it; cheap beside `Messages::counts`, for it looks at no inbox row.
    async fn overview(&self) -> Result<Overview>;
}
