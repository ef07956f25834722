//! Answers kept for a while, and calls under way that others share. Knows keys, not what they stand for; is told the time.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::answer::Ended;
use super::{canonical, config};
use crate::plugin::{Call, Response};

/// What tells calls apart.
pub type Key = [u8; 32];

/// How a shared call ended; `None` until then.
pub type Shared = watch::Receiver<Option<Ended>>;

/// The cache of one endpoint.
pub struct Cache {
    ttl: Duration,
    entries_max: usize,
    bytes_max: usize,
    only: Option<Vec<String>>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    kept: HashMap<Key, Kept>,
    /// Keys by when they were last used.
    used: BTreeMap<u64, Key>,
    under_way: HashMap<Key, Shared>,
    bytes: usize,
    uses: u64,
    /// Raised when everything is forgotten: calls that began earlier are not kept.
    age: u64,
}

struct Kept {
    response: Response,
    until: Instant,
    used: u64,
}

/// What is there for a call.
pub enum Found {
    /// An answer.
    Kept(Response),
    /// An equal call under way.
    UnderWay(Shared),
    /// Nothing: whoever asked makes the call, for all who come meanwhile.
    Nothing(Leader, Shared),
}

/// The duty to make a call. Dropped without `end`, those who share it learn that it broke off.
pub struct Leader {
    cache: Arc<Cache>,
    key: Key,
    age: u64,
    shared: watch::Sender<Option<Ended>>,
}

impl Cache {
    /// An empty cache.
    pub fn new(config: &config::Cache) -> Self {
        let config::Cache { ttl_ms, entries_max, bytes_max, key, .. } = config.clone();
        Self { ttl: Duration::from_millis(ttl_ms), entries_max, bytes_max, only: key, inner: Mutex::default() }
    }

    /// What tells a call apart from others.
    pub fn key(&self, call: &Call) -> Key {
        Sha256::digest(canonical::bytes(call, self.only.as_deref())).into()
    }

    /// Looks for an answer, or a call under way.
    pub fn find(self: &Arc<Self>, key: Key, now: Instant) -> Found {
        let mut inner = self.lock();
        if let Some(response) = inner.fresh(&key, now) {
            return Found::Kept(response);
        }
        if let Some(shared) = inner.under_way.get(&key) {
            return Found::UnderWay(shared.clone());
        }
        let (sender, shared) = watch::channel(None);
        inner.under_way.insert(key, shared.clone());
        Found::Nothing(Leader { cache: self.clone(), key, age: inner.age, shared: sender }, shared)
    }

    /// Forgets every answer, those of calls under way included.
    pub fn forget(&self) {
        let mut inner = self.lock();
        inner.age += 1;
        inner.kept.clear();
        inner.used.clear();
        inner.bytes = 0;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn fresh(&mut self, key: &Key, now: Instant) -> Option<Response> {
        if self.kept.get(key)?.until <= now {
            self.remove(key);
            return None;
        }
        self.uses += 1;
        let kept = self.kept.get_mut(key)?;
        self.used.remove(&kept.used);
        kept.used = self.uses;
        self.used.insert(kept.used, *key);
        Some(kept.response.clone())
    }

    fn remove(&mut self, key: &Key) {
        if let Some(kept) = self.kept.remove(key) {
            self.used.remove(&kept.used);
            self.bytes -= kept.response.body.len();
        }
    }

    fn keep(&mut self, key: Key, response: Response, until: Instant) {
        self.remove(&key);
        self.uses += 1;
        self.bytes += response.body.len();
        self.used.insert(self.uses, key);
        self.kept.insert(key, Kept { response, until, used: self.uses });
    }
}

impl Leader {
    /// Tells everybody how the call ended, and keeps a good answer.
    pub fn end(self, ended: Ended, now: Instant) {
        if let Ended::Answer { response, keep: true, .. } = &ended
            && !self.cache.ttl.is_zero()
            && response.body.len() <= self.cache.bytes_max
        {
            let mut inner = self.cache.lock();
            if inner.age == self.age {
                inner.keep(self.key, response.clone(), now + self.cache.ttl);
                while inner.kept.len() > self.cache.entries_max || inner.bytes > self.cache.bytes_max {
                    let Some((_, oldest)) = inner.used.first_key_value().map(|(used, key)| (*used, *key)) else { break };
                    inner.remove(&oldest);
                }
            }
        }
        self.shared.send_replace(Some(ended));
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.cache.lock().under_way.remove(&self.key);
    }
}

/// How a shared call ended; `None`: it broke off.
pub async fn ended(mut shared: Shared) -> Option<Ended> {
    let ended = shared.wait_for(Option::is_some).await.ok()?;
    ended.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(entries_max: usize, bytes_max: usize) -> Arc<Cache> {
        Arc::new(Cache::new(&config::Cache { ttl_ms: 1_000, entries_max, bytes_max, key: None, except: Vec::new() }))
    }

    fn answer(body: &'static str, keep: bool) -> Ended {
        let response = Response { status: 200, headers: Vec::new(), body: body.into() };
        Ended::Answer { response, failure: None, keep }
    }

    fn put(cache: &Arc<Cache>, key: u8, body: &'static str, now: Instant) {
        let Found::Nothing(leader, _) = cache.find([key; 32], now) else { panic!("{key} is there") };
        leader.end(answer(body, true), now);
    }

    fn has(cache: &Arc<Cache>, key: u8, now: Instant) -> bool {
        matches!(cache.find([key; 32], now), Found::Kept(_))
    }

    #[test]
    fn the_least_used_goes_first_and_old_ones_go() {
        let (cache, now) = (cache(2, 100), Instant::now());
        put(&cache, 1, "one", now);
        put(&cache, 2, "two", now);
        assert!(has(&cache, 1, now));
        put(&cache, 3, "three", now);
        assert!(has(&cache, 1, now) && !has(&cache, 2, now) && has(&cache, 3, now));
        assert!(has(&cache, 1, now + Duration::from_millis(999)));
        assert!(!has(&cache, 1, now + Duration::from_millis(1_000)));
    }

    #[test]
    fn bytes_are_bounded() {
        let (cache, now) = (cache(100, 7), Instant::now());
        put(&cache, 1, "1234", now);
        put(&cache, 2, "567", now);
        assert!(has(&cache, 1, now) && has(&cache, 2, now));
        put(&cache, 3, "8", now);
        assert!(!has(&cache, 1, now) && has(&cache, 2, now) && has(&cache, 3, now));
        put(&cache, 4, "12345678", now);
        assert!(!has(&cache, 4, now) && has(&cache, 2, now), "what is too large alone throws nothing out");
    }

    #[tokio::test]
    async fn a_leader_that_is_gone_wakes_who_shares() {
        let (cache, now) = (cache(2, 100), Instant::now());
        let Found::Nothing(leader, _) = cache.find([1; 32], now) else { panic!("it is there") };
        let Found::UnderWay(shared) = cache.find([1; 32], now) else { panic!("it is not shared") };
        drop(leader);
        assert!(ended(shared).await.is_none());
        assert!(matches!(cache.find([1; 32], now), Found::Nothing(..)));
    }

    #[test]
    fn what_began_before_everything_was_forgotten_is_not_kept() {
        let (cache, now) = (cache(2, 100), Instant::now());
        put(&cache, 1, "one", now);
        let Found::Nothing(leader, shared) = cache.find([2; 32], now) else { panic!("it is there") };
        cache.forget();
        leader.end(answer("two", true), now);
        assert!(shared.borrow().is_some());
        assert!(!has(&cache, 1, now) && !has(&cache, 2, now));
    }
}
