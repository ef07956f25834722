//! The least time between two ends of a key: who ended when, as far as it still matters. After a takeover nobody knows, so every key waits
//! one interval. Pure bookkeeping.

use std::collections::HashMap;

use crate::message::FeedId;
use crate::store::BlockedKey;

/// Keys that are remembered before those that no longer matter are forgotten.
const KEYS_MAX: usize = 100_000;

/// When keys ended last, in milliseconds of the store's clock.
#[derive(Default)]
pub struct Pace {
    ended: HashMap<BlockedKey, i64>,
    lanes: HashMap<(FeedId, i32), i64>,
}

impl Pace {
    /// A lane was taken over.
    pub fn took(&mut self, feed: FeedId, lane: i32, now_ms: i64) {
        self.lanes.insert((feed, lane), now_ms);
    }

    /// A lane was lost.
    pub fn forget(&mut self, feed: FeedId, lane: i32) {
        self.lanes.remove(&(feed, lane));
        self.ended.retain(|key, _| (key.feed, key.lane) != (feed, lane));
    }

    /// How long the next message of a key must still wait.
    pub fn wait_ms(&self, key: &BlockedKey, interval_ms: u64, now_ms: i64) -> Option<u64> {
        let last = self.ended.get(key).or_else(|| self.lanes.get(&(key.feed, key.lane)))?;
        let until = last.saturating_add_unsigned(interval_ms);
        (until > now_ms).then(|| until.abs_diff(now_ms))
    }

    /// A message of a key has ended.
    pub fn ended(&mut self, key: BlockedKey, interval_ms: u64, now_ms: i64) {
        if self.ended.len() >= KEYS_MAX {
            self.ended.retain(|_, last| last.saturating_add_unsigned(interval_ms) > now_ms);
        }
        self.ended.insert(key, now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::KeyHash;

    #[test]
    fn a_key_waits_one_interval_after_its_last_end_or_a_takeover() {
        let (feed, lane) = (FeedId(1), 2);
        let key = |name: &str| BlockedKey { feed, lane, key_hash: KeyHash::of("t", name.as_bytes()) };
        let mut pace = Pace::default();
        pace.took(feed, lane, 1_000);
        assert_eq!(pace.wait_ms(&key("a"), 500, 1_100), Some(400));
        assert_eq!(pace.wait_ms(&key("a"), 500, 1_500), None);
        pace.ended(key("a"), 500, 1_600);
        assert_eq!(pace.wait_ms(&key("a"), 500, 1_700), Some(400));
        assert_eq!(pace.wait_ms(&key("b"), 500, 1_700), None);
        pace.forget(feed, lane);
        assert_eq!(pace.wait_ms(&key("a"), 500, 1_700), None);
    }
}
