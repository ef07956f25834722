//! A world to hurt: a rig with several hosts, a load that never ends, and the way to its rest and its books.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::check;
use crate::kafka::Kafka;
use crate::ledger::Books;
use crate::rig::{Rig, Running};
use crate::script::{Dice, Message, Saw, Scripts};

/// How long a world may take to come to rest without any progress on the way.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// What worlds say of retention, unless an experiment says something else.
pub const RETENTION: &str = "[retention]\nevery_ms = 200\n";

/// Which duplicates the topic may hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Resends {
    /// A suffix that a publisher sent again.
    Suffix,
    /// Anything that came before, too: a stopped publisher came back.
    Any,
}

/// A world.
pub struct World {
    pub rig: Rig,
    pub books: Books,
    pub scripts: Scripts,
    pub sent: Vec<Message>,
    pub hosts: Vec<Running>,
    pub dice: Dice,
    /// What hosts are started with.
    pub environment: Vec<(String, String)>,
}

impl World {
    /// Between the Kafka and the PostgreSQL that all experiments share.
    pub async fn shared(seed: u64) -> Self {
        Self::between(crate::services::postgres_url(), Kafka::shared(), seed).await
    }

    /// Between a PostgreSQL and a Kafka.
    pub async fn between(postgres: &str, kafka: Kafka, seed: u64) -> Self {
        let rig = Rig::kafka(postgres, kafka).await;
        let config = rig.tolk.read("tolk.toml");
        let schema = config.split("schema = \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        let books = Books::Postgres { url: postgres.to_owned(), schema };
        let world = Self::of(rig, books, seed);
        world.configure("lease_ms = 2000", "lease_ms = 1000");
        world
    }

    /// On SQLite, from a growing file into a file.
    pub async fn files(seed: u64) -> Self {
        let rig = Rig::files().await;
        let books = Books::Sqlite { path: rig.tolk.path("tolk.db") };
        Self::of(rig, books, seed)
    }

    fn of(rig: Rig, books: Books, seed: u64) -> Self {
        let scripts = Scripts::new(seed, rig.partitions);
        let world = Self { rig, books, scripts, sent: Vec::new(), hosts: Vec::new(), dice: Dice(seed), environment: Vec::new() };
        // So often that hosts are hurt at it too.
        world.configure("[store]", &format!("{RETENTION}[store]"));
        world
    }

    /// Replaces a piece of the hosts' config.
    pub fn configure(&self, from: &str, to: &str) {
        let config = self.rig.tolk.read("tolk.toml");
        assert!(config.contains(from), "the config has no {from}");
        self.rig.tolk.write("tolk.toml", &config.replace(from, to));
    }

    /// Starts a host with what the world's environment says and something more.
    pub fn host(&self, more: &[(&str, &str)]) -> Running {
        let known = self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let environment: Vec<(&str, &str)> = known.chain(more.iter().copied()).collect();
        self.rig.start_with(&environment)
    }

    /// Starts so many hosts.
    pub fn start(&mut self, count: usize) {
        for _ in 0..count {
            let host = self.host(&[]);
            self.hosts.push(host);
        }
    }

    /// Produces so many messages of all kinds.
    pub fn load(&mut self, count: usize) {
        let messages = self.scripts.some(count);
        self.send(messages);
    }

    /// A message that is itself what must come out, for plugins that hand messages on.
    pub fn echoed(&mut self, table: &str, key: &str) -> Message {
        self.scripts.script(table, key, json!({ "i": 0, "attempt": 0, "saw": [] }), 0, Saw::Values(vec![]))
    }

    /// Sends messages of an experiment's own.
    pub fn send(&mut self, messages: Vec<Message>) {
        self.rig.produce(&messages);
        self.sent.extend(messages);
    }

    /// A random time from a range of milliseconds. Not waited for anything: the moment itself is what is tried.
    pub async fn moment(&mut self, from: u64, to: u64) {
        let ms = from + self.dice.below(to - from);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    /// Sends so many messages that nothing holds up, of many keys, and waits until all that was sent is behind its lane's cursor; how long
    /// that took. To count ends takes longer the more messages there are, which is not what is measured.
    pub async fn plain(&mut self, count: usize) -> Duration {
        let began = Instant::now();
        let messages: Vec<Message> = (0..count).map(|number| self.scripts.put("c", &format!("plain-{}", number % 50))).collect();
        self.send(messages);
        let sent = i64::try_from(self.sent.len()).unwrap();
        self.until(&format!("{sent} messages behind the cursors"), async |world| {
            let passed = world.books.count("SELECT CAST(coalesce(sum(cursor), 0) AS bigint) FROM lane").await;
            (passed >= sent, passed.to_string())
        })
        .await;
        began.elapsed()
    }

    /// Waits until so many messages in all have come to an end.
    pub async fn until_ended(&mut self, count: usize) {
        self.until(&format!("{count} ends"), async |world| {
            let ended = world.rig.ended().await;
            (ended >= count, ended.to_string())
        })
        .await;
    }

    /// Waits for a condition that tells how things stand. Gives up once nothing changes for long; hosts that ended are started again.
    pub async fn until(&mut self, what: &str, mut condition: impl AsyncFnMut(&Self) -> (bool, String)) {
        let (mut stood, mut since) = (String::new(), Instant::now());
        loop {
            let (holds, stands) = condition(self).await;
            if holds {
                return;
            }
            if stands != stood {
                (stood, since) = (stands, Instant::now());
            }
            let said = || self.hosts.iter().map(|host| tail(&host.said())).collect::<Vec<_>>().join("\n---\n");
            assert!(since.elapsed() < self.patience(), "it does not come: {what}; it stays at {stood}; a host says:\n{}", said());
            self.revive();
            tokio::time::sleep(POLL).await;
        }
    }

    fn patience(&self) -> Duration {
        // A world with a mutant may stand still for ever.
        if self.environment.iter().any(|(name, _)| name == "TOLK_MUTANT") { PATIENCE / 6 } else { PATIENCE }
    }

    fn revive(&mut self) {
        for index in 0..self.hosts.len() {
            if !self.hosts[index].lives() {
                self.hosts[index] = self.host(&[]);
            }
        }
    }

    /// Produces what the messages still need, and waits until all have come to their ends and are published.
    pub async fn come_to_rest(&mut self) {
        let rest = self.scripts.rest();
        self.send(rest);
        let mut expected: BTreeMap<String, usize> = BTreeMap::new();
        for message in &self.sent {
            *expected.entry(message.status.to_owned()).or_default() += 1;
        }
        self.until(&format!("rest with {expected:?}"), async |world| {
            let (counts, unpublished) = (world.rig.counts().await, world.rig.store.unpublished().await.unwrap());
            let done = counts == expected && unpublished.iter().all(|(_, count)| *count == 0);
            (done, format!("{counts:?}, unpublished {unpublished:?}"))
        })
        .await;
    }

    /// The same; then stops the hosts and balances the books. Returns the figures.
    pub async fn rest(&mut self, resends: Resends) -> String {
        self.come_to_rest().await;
        for host in self.hosts.drain(..) {
            host.terminate().await;
        }
        self.books.balance().await;
        match resends {
            Resends::Suffix => check::everything(&self.rig, &self.sent, &self.scripts.entries).await,
            Resends::Any => check::all_but_resends(&self.rig, &self.sent, &self.scripts.entries).await,
        }
        let outputs: usize = self.sent.iter().map(|message| message.outputs.len()).sum();
        format!("{} messages, {outputs} outputs, {} sent again", self.sent.len(), self.rig.published() - outputs)
    }
}

impl World {
    /// The messages that no retention takes, by status: failed ones, and those behind them.
    pub fn stays(&self) -> BTreeMap<String, usize> {
        let mut stays = BTreeMap::new();
        for message in self.sent.iter().filter(|message| matches!(message.status, "failed" | "behind")) {
            *stays.entry(message.status.to_owned()).or_default() += 1;
        }
        stays
    }

    /// How many messages were taken in.
    pub async fn taken(&self) -> usize {
        let taken = self.books.count("SELECT CAST(coalesce(sum(next_offset), 0) AS bigint) FROM source_position").await;
        usize::try_from(taken).unwrap()
    }

    /// As [`World::rest`], for a world whose messages go with their time: some went, what stays is there, everything came out, the
    /// books balance.
    pub async fn rest_of_what_stays(&mut self) -> String {
        let rest = self.scripts.rest();
        self.rig.produce(&rest);
        self.sent.extend(rest);
        let stays = self.stays();
        self.until(&format!("rest with {stays:?}"), async |world| {
            let (counts, unpublished) = (world.rig.counts().await, world.rig.store.unpublished().await.unwrap());
            let done = ["pending", "retry", "waiting"].iter().all(|status| !counts.contains_key(*status));
            let stay = stays.iter().all(|(status, count)| counts.get(status) == Some(count));
            let (all, some) = (world.taken().await == world.sent.len(), world.dropped().await > 0);
            (
                done && stay && all && some && unpublished.iter().all(|(_, count)| *count == 0),
                format!("{counts:?}, unpublished {unpublished:?}"),
            )
        })
        .await;
        for host in self.hosts.drain(..) {
            host.terminate().await;
        }
        self.books.balance().await;
        let broken: Vec<_> = self.rig.store.ledger().await.unwrap().into_iter().filter(|equation| !equation.holds()).collect();
        assert!(broken.is_empty(), "the host's own ledger does not balance: {broken:?}");
        check::what_came_out(&self.rig, &self.sent, &self.scripts.entries).await;
        let dropped = self.dropped().await;
        format!("{} messages, {dropped} dropped, {} stay", self.sent.len(), stays.values().sum::<usize>())
    }

    /// How many messages were dropped.
    async fn dropped(&self) -> i64 {
        self.books.count("SELECT rows FROM dropped WHERE what = 'message'").await
    }
}

/// The end of what a host said.
pub fn tail(said: &str) -> String {
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
