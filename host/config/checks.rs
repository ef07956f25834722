//! What a config's types cannot say: names that must exist, pointers, ranges, time zones. Looks at nothing outside the config.

use crate::config::load::Problem;
use crate::config::{Config, KafkaConfig, nearest};
use crate::plugin::Limits;
use crate::source::kafka::settings;
use crate::{delivery, endpoint, feed, sink};

/// Lanes a feed may have at most.
const LANES_MAX: u16 = 4096;

/// Everything that is wrong with a parsed config.
pub(super) fn check(config: &Config) -> Vec<Problem> {
    let mut found = Findings::default();
    host(config, &mut found);
    for (name, kafka) in &config.kafka {
        cluster(name, kafka, &mut found);
    }
    for (name, feed) in &config.feeds {
        self::feed(config, name, feed, &mut found);
    }
    for (name, target) in &config.targets {
        let sink::Config::Kafka { cluster, topic, .. } = target else { continue };
        known_cluster(config, &format!("targets.{name}.cluster"), cluster, &mut found);
        found.filled(format!("targets.{name}.topic"), topic);
    }
    for (name, endpoint) in &config.endpoints {
        self::endpoint(name, endpoint, &mut found);
    }
    for (name, limits) in &config.limits {
        self::limits(config, name, limits, &mut found);
    }
    for (key, text) in config.retention.problems() {
        found.add(format!("retention.{key}"), text);
    }
    for (key, text) in config.admin.problems() {
        found.add(format!("admin.{key}"), text);
    }
    found.0
}

#[derive(Default)]
struct Findings(Vec<Problem>);

impl Findings {
    fn add(&mut self, key: impl Into<String>, text: impl Into<String>) {
        self.0.push(Problem { key: key.into(), line: None, text: text.into() });
    }

    fn positive(&mut self, key: impl Into<String>, value: u64) {
        if value == 0 {
            self.add(key, "must be greater than 0");
        }
    }

    fn filled(&mut self, key: impl Into<String>, value: &str) {
        if value.trim().is_empty() {
            self.add(key, "must not be empty");
        }
    }

    fn pointers<'p>(&mut self, key: &str, pointers: impl IntoIterator<Item = &'p String>) {
        for (i, pointer) in pointers.into_iter().enumerate() {
            if !pointer.starts_with('/') {
                self.add(format!("{key}[{i}]"), format!("\"{pointer}\" is no JSON pointer; it begins with \"/\", as \"/{pointer}\" does"));
            }
        }
    }
}

fn host(config: &Config, found: &mut Findings) {
    let host = &config.host;
    for (key, value) in [
        ("settle_every_ms", host.settle_every_ms),
        ("settle_messages_max", host.settle_messages_max as u64),
        ("poll_ms", host.poll_ms),
        ("memory_bytes_max", host.memory_bytes_max as u64),
        ("stop_ms_max", host.stop_ms_max),
    ] {
        found.positive(format!("host.{key}"), value);
    }
    if host.lease_ms < 1_000 {
        found.add("host.lease_ms", "must be at least 1000: a shorter lease is lost whenever the machine is busy");
    }
    let scheme = config.store.url.split(':').next().unwrap_or_default();
    if !["sqlite", "postgres", "postgresql"].contains(&scheme) {
        found.add("store.url", "must start with \"sqlite://\" or \"postgres://\"");
    }
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if !config.store.schema.starts_with(|c: char| c.is_ascii_lowercase() || c == '_') || !config.store.schema.chars().all(plain) {
        found.add("store.schema", format!("\"{}\" is no schema name; use a-z, 0-9 and _", config.store.schema));
    }
    found.positive("store.connections_max", config.store.connections_max.into());
    found.positive("store.statement_timeout_ms", config.store.statement_timeout_ms);
    for (key, value) in [
        ("tick_ms", config.runtime.tick_ms),
        ("instances_max", config.runtime.instances_max.into()),
        ("instance_messages_max", config.runtime.instance_messages_max),
        ("memory_bytes_max", config.runtime.memory_bytes_max as u64),
        ("component_bytes_max", config.runtime.component_bytes_max as u64),
        ("compile_s_max", config.runtime.compile_s_max),
        ("compile_bytes_max", config.runtime.compile_bytes_max),
    ] {
        found.positive(format!("runtime.{key}"), value);
    }
}

fn cluster(name: &str, kafka: &KafkaConfig, found: &mut Findings) {
    let key = format!("kafka.{name}.brokers");
    for broker in kafka.brokers.split(',').map(str::trim) {
        let port = broker.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none() {
            found.add(&*key, format!("\"{broker}\" is no HOST:PORT"));
        }
    }
    if let Err(reason) = settings::client(name, kafka, &[], &[]) {
        found.add(format!("kafka.{name}.properties"), reason);
    }
}

fn known_cluster(config: &Config, key: &str, cluster: &str, found: &mut Findings) {
    if config.kafka.contains_key(cluster) {
        return;
    }
    let names: Vec<&str> = config.kafka.keys().map(String::as_str).collect();
    let advice = if names.is_empty() { format!("; add [kafka.{cluster}] with its brokers") } else { nearest::advice(cluster, &names) };
    found.add(key, format!("there is no cluster \"{cluster}\" under [kafka]{advice}"));
}

fn feed(config: &Config, name: &str, feed: &feed::Config, found: &mut Findings) {
    let key = |rest: &str| format!("feeds.{name}.{rest}");
    match &feed.source {
        feed::SourceConfig::Kafka { cluster, topic } => {
            known_cluster(config, &key("source.cluster"), cluster, found);
            found.filled(key("source.topic"), topic);
        }
        feed::SourceConfig::File { path, .. } => found.filled(key("source.path"), &path.to_string_lossy()),
    }
    if feed.table.is_empty() && feed.table_name.is_none() {
        found.add(key("table"), "a feed needs `table`, JSON pointers to the table's name, or `table_name`, one table for all messages");
    }
    found.pointers(&key("table"), &feed.table);
    found.pointers(&key("key"), feed.key.iter().filter(|pointer| *pointer != "key"));
    found.pointers(&key("dedupe"), &feed.dedupe);
    for (table, settings) in &feed.tables {
        found.pointers(&key(&format!("tables.{table}.key")), settings.key.iter().flatten().filter(|pointer| *pointer != "key"));
        found.pointers(&key(&format!("tables.{table}.dedupe")), settings.dedupe.iter().flatten());
    }
    if !(1..=LANES_MAX).contains(&feed.lanes) {
        found.add(key("lanes"), format!("must be from 1 to {LANES_MAX}, not {}", feed.lanes));
    }
    if feed.retry.backoff_ms.is_empty() {
        found.add(key("retry.backoff_ms"), "needs at least one wait, in milliseconds");
    }
    found.positive(key("retry.attempts_max"), feed.retry.attempts_max.into());
    found.positive(key("wait_timeout_ms"), feed.wait_timeout_ms);
    found.positive(key("payload_bytes_max"), feed.payload_bytes_max as u64);
    found.positive(key("batch_rows_max"), feed.batch_rows_max as u64);
    found.positive(key("batch_bytes_max"), feed.batch_bytes_max as u64);
    if let Some(delivery) = &feed.delivery {
        deliveries(config, &key("delivery"), delivery, found);
    }
    if jiff::tz::TimeZone::get(&feed.time_zone).is_err() {
        found.add(key("time_zone"), format!("there is no time zone \"{}\"; write an IANA name such as \"Europe/Oslo\"", feed.time_zone));
    }
}

fn deliveries(config: &Config, key: &str, delivery: &delivery::Config, found: &mut Findings) {
    for (rest, pointers, needed) in [("id", &delivery.id, true), ("mark", &delivery.mark, true), ("expected", &delivery.expected, false)] {
        found.pointers(&format!("{key}.{rest}"), pointers);
        if needed && pointers.is_empty() {
            found.add(format!("{key}.{rest}"), "needs at least one JSON pointer");
        }
    }
    if delivery.end.0.is_empty() && (delivery.start.0.is_empty() || delivery.expected.is_empty()) {
        found.add(format!("{key}.end"), "without an end, a delivery needs a start with a count (`expected`), or it is never complete");
    }
    let Some(order) = &delivery.order else { return };
    if !config.endpoints.contains_key(&order.endpoint) {
        let names: Vec<&str> = config.endpoints.keys().map(String::as_str).collect();
        let advice = nearest::advice(&order.endpoint, &names);
        found.add(format!("{key}.order.endpoint"), format!("there is no endpoint \"{}\" under [endpoints]{advice}", order.endpoint));
    }
    if !order.id.is_empty() {
        found.pointers(&format!("{key}.order.id"), [&order.id]);
    }
}

fn endpoint(name: &str, endpoint: &endpoint::config::Config, found: &mut Findings) {
    let key = |rest: &str| format!("endpoints.{name}.{rest}");
    let host = ["http://", "https://"].iter().find_map(|scheme| endpoint.base_url.strip_prefix(scheme));
    if host.is_none_or(|host| host.is_empty() || host.starts_with('/')) {
        found.add(key("base_url"), "must be \"http://HOST[:PORT]\" or \"https://HOST[:PORT]\"");
    }
    if !endpoint.path.starts_with('/') {
        found.add(key("path"), "must begin with \"/\"");
    }
    if endpoint.method.is_empty() || !endpoint.method.chars().all(|c| c.is_ascii_uppercase()) {
        found.add(key("method"), format!("\"{}\" is no HTTP method in capitals", endpoint.method));
    }
    for (i, range) in endpoint.retry_statuses.iter().enumerate() {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let status = |text: &str| text.trim().parse::<u16>().ok().filter(|status| (100..=599).contains(status));
        if !matches!((status(from), status(to)), (Some(from), Some(to)) if from <= to) {
            found.add(key(&format!("retry_statuses[{i}]")), format!("\"{range}\" is no status and no range such as \"500-599\""));
        }
    }
    for (rest, places) in [("retry_bodies", &endpoint.retry_bodies), ("final_bodies", &endpoint.final_bodies)] {
        let pointers: Vec<String> = places.iter().map(|place| place.pointer().to_owned()).collect();
        found.pointers(&key(rest), &pointers);
    }
    for (rest, waits) in [("backoff_ms", &endpoint.backoff_ms), ("away_ms", &endpoint.away_ms)] {
        if waits.is_empty() {
            found.add(key(rest), "needs at least one wait, in milliseconds");
        }
    }
    found.positive(key("tries"), endpoint.tries.into());
    found.positive(key("timeout_ms"), endpoint.timeout_ms);
    found.positive(key("concurrency_max"), endpoint.concurrency_max as u64);
    found.positive(key("breaker_open_ms"), endpoint.breaker_open_ms);
    found.positive(key("body_bytes_max"), endpoint.body_bytes_max as u64);
}

fn limits(config: &Config, plugin: &str, limits: &Limits, found: &mut Findings) {
    for (key, value) in [
        ("cpu_ms_max", limits.cpu_ms_max),
        ("memory_bytes_max", limits.memory_bytes_max as u64),
        ("output_bytes_max", limits.output_bytes_max as u64),
        ("rounds_max", limits.rounds_max as u64),
    ] {
        found.positive(format!("limits.{plugin}.{key}"), value);
    }
    if limits.memory_bytes_max > config.runtime.memory_bytes_max {
        let most = config.runtime.memory_bytes_max;
        found.add(format!("limits.{plugin}.memory_bytes_max"), format!("is above runtime.memory_bytes_max, which is {most}"));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::load::{Error, parse};

    const GOOD: &str = r#"
        [store]
        url = "postgres://tolk@localhost/tolk"
        [kafka.main]
        brokers = "a:9092, b:9092"
        [feeds.arena]
        source = { kind = "kafka", cluster = "main", topic = "arena" }
        table = ["/table"]
        key = ["key", "/after/id"]
        time_zone = "Europe/Oslo"
        [feeds.arena.tables.t]
        key = ["/id"]
        [targets.out]
        kind = "kafka"
        cluster = "main"
        topic = "out"
        [endpoints.person]
        base_url = "http://person"
        path = "/p/{id}"
        [limits.default]
        cpu_ms_max = 50
    "#;

    fn check(from: &str, to: &str, key: &str, words: &str) {
        assert!(GOOD.contains(from), "the good config has {from}");
        let Err(Error::Wrong { problems, .. }) = parse(&GOOD.replacen(from, to, 1), Path::new("tolk.toml"), &|_| None) else {
            panic!("{to} is taken")
        };
        assert_eq!(problems.len(), 1, "{to}: {problems:?}");
        assert_eq!(problems[0].key, key, "{problems:?}");
        assert!(problems[0].text.contains(words), "{problems:?}");
        assert!(problems[0].line.is_some(), "{problems:?}");
    }

    #[test]
    fn each_check_names_its_key() {
        assert!(parse(GOOD, Path::new("tolk.toml"), &|_| None).is_ok());
        check("cluster = \"main\", ", "cluster = \"mian\", ", "feeds.arena.source.cluster", "did you mean `main`?");
        check("cluster = \"main\"\n", "cluster = \"other\"\n", "targets.out.cluster", "\"other\"");
        check("\"/table\"", "\"table\"", "feeds.arena.table[0]", "\"/table\"");
        check("table = [\"/table\"]", "table = []", "feeds.arena.table", "table_name");
        check("\"/after/id\"", "\"after.id\"", "feeds.arena.key[0]", "JSON pointer");
        check("key = [\"/id\"]", "key = [\"id\"]", "feeds.arena.tables.t.key[0]", "JSON pointer");
        check("Europe/Oslo", "Europe/Olso", "feeds.arena.time_zone", "Europe/Olso");
        check("time_zone =", "lanes = 5000\n time_zone =", "feeds.arena.lanes", "4096");
        check("time_zone =", "lanes = 0\n time_zone =", "feeds.arena.lanes", "4096");
        check("time_zone =", "retry.attempts_max = 0\n time_zone =", "feeds.arena.retry.attempts_max", "greater");
        check("b:9092", "b", "kafka.main.brokers", "\"b\"");
        check("[feeds.arena]", "properties = { acks = \"1\" }\n [feeds.arena]", "kafka.main.properties", "`acks`");
        check("http://person", "person:80", "endpoints.person.base_url", "http://");
        check("\"/p/{id}\"", "\"p/{id}\"", "endpoints.person.path", "\"/\"");
        check("path = \"/p", "retry_statuses = [\"5xx\"]\n path = \"/p", "endpoints.person.retry_statuses[0]", "5xx");
        check("cpu_ms_max = 50", "cpu_ms_max = 0", "limits.default.cpu_ms_max", "greater");
        check("cpu_ms_max = 50", "memory_bytes_max = 1000000000000", "limits.default.memory_bytes_max", "runtime.memory_bytes_max");
        check("[limits.default]", "[retention]\n parts = 0\n [limits.default]", "retention.parts", "64");
        check("postgres://", "mysql://", "store.url", "sqlite://");
    }
}
