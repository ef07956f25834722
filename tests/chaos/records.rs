//! What a topic can do to its reader: records that were deleted, a topic made anew, transactions, messages sent twice, odd bytes, every
//! compression and times out of this world.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use tolk::message::Captured;

use crate::check;
use crate::script::Message;
use crate::spoiler::Spoiler;
use crate::table::{Case, Experiment, experiment};
use crate::world::{Resends, World, tail};

pub fn all() -> Vec<Experiment> {
    vec![
        experiment!(
            "F28",
            short,
            "the topic deleted, made anew and filled beyond the positions: while the host is down, and under its eyes",
            made_anew
        ),
        experiment!("F29", short, "records deleted before they were read", deleted),
        experiment!("F30", short, "half of the producer's transactions aborted", aborted),
        experiment!("F31", short, "the same messages produced again, without and with a dedupe key", again),
        experiment!("B01 B02 B03 B04", short, "broken and odd payloads, keys, headers and sizes", odd),
        experiment!("B05", short, "gzip, snappy, lz4, zstd; records spoilt on their way", compressed),
        experiment!("B06", short, "timestamps: none, before 1970, in the year 9999", timestamps),
    ]
}

/// The committed positions, as one text.
pub async fn positions(world: &World) -> String {
    let sql = "SELECT coalesce(string_agg(source_partition || ':' || next_offset, ' ' ORDER BY source_partition), '') FROM source_position";
    sqlx::query_scalar(sql).fetch_one(&mut world.books.connect().await).await.unwrap()
}

/// A host that must not read on, and must say why; the stored positions stay as they are.
pub async fn refuses_to_read(world: &mut World, words: &str) {
    let before = positions(world).await;
    world.start(1);
    says_why(world, words).await;
    assert_eq!(positions(world).await, before, "nothing is skipped and nothing is read");
}

/// Waits until the one host has stopped reading for a reason with these words, and stops it.
async fn says_why(world: &mut World, words: &str) {
    world
        .until(&format!("the host says {words:?}"), async |world| {
            let said = world.hosts[0].said();
            (said.contains("ingest stopped") && said.contains(words), tail(&said).lines().last().unwrap_or_default().to_owned())
        })
        .await;
    world.hosts.remove(0).terminate().await;
}

async fn deleted(case: Case) -> String {
    let mut world = World::shared(case.seed).await;
    world.start(1);
    world.load(120);
    world.until_ended(80).await;
    world.rest(Resends::Suffix).await;
    let lost = records("lost", 0, 60);
    let (kafka, topic) = world.rig.input();
    kafka.produce(topic, &lost);
    let end = i64::try_from(kafka.consume(topic).iter().filter(|message| message.partition == 0).count()).unwrap();
    kafka.delete_records(topic, end - 10).await;
    refuses_to_read(&mut world, &format!("begins at {}", end - 10)).await;
    world.books.balance().await;
    format!("{} records deleted, 10 left: the host names the gap and reads nothing; 120 messages before it unharmed", lost.len() - 10)
}

async fn made_anew(case: Case) -> String {
    let mut figures = Vec::new();
    for down in if case.full { vec![true, false] } else { vec![true] } {
        let mut world = World::shared(case.seed).await;
        world.start(1);
        world.load(120);
        world.until_ended(80).await;
        if down {
            world.rest(Resends::Suffix).await;
        } else {
            world.come_to_rest().await;
        }
        let before = positions(&world).await;
        let (kafka, topic) = world.rig.input();
        kafka.delete_topic(topic).await;
        kafka.make_topic(topic, 4, &[]).await;
        for partition in 0..4 {
            kafka.produce(topic, &records("anew", partition, 200));
        }
        if down {
            refuses_to_read(&mut world, "made anew").await;
        } else {
            says_why(&mut world, "made anew").await;
            assert_eq!(positions(&world).await, before, "nothing of the new topic is read as if the old one went on");
        }
        world.books.balance().await;
        assert!(world.rig.outputs().iter().all(|out| &out.key[..] != b"anew"));
        figures.push(if down { "while it was down" } else { "under its eyes" });
    }
    format!("800 records in a topic made anew, none read, the ids of both topics told: {}", figures.join(", "))
}

/// Messages that would be handled if they were read.
pub fn records(key: &str, partition: i32, count: usize) -> Vec<Captured> {
    let payload = |seq: usize| format!("{{\"table\":\"a\",\"key\":{key:?},\"seq\":{seq}}}");
    (0..count).map(|seq| Captured { partition, payload: Some(payload(seq).into()), ..Captured::default() }).collect()
}

async fn aborted(case: Case) -> String {
    let mut world = World::shared(case.seed).await;
    world.start(2);
    let (mut sent, mut thrown) = (Vec::new(), 0);
    for round in 0..if case.full { 40 } else { 6 } {
        let messages = if round == 0 { world.scripts.some(60) } else { world.scripts.some(20) };
        let (kafka, topic) = world.rig.input();
        let ghosts: Vec<Captured> = (0..4).flat_map(|partition| records("ghost", partition, 5)).collect();
        kafka.produce_in_transaction(topic, &ghosts, false);
        thrown += ghosts.len();
        let captured: Vec<Captured> = messages.iter().map(|message| message.captured.clone()).collect();
        kafka.produce_in_transaction(topic, &captured, true);
        sent.extend(messages);
    }
    let rest = world.scripts.rest();
    world.rig.produce(&rest);
    sent.extend(rest);
    ends(&mut world, &statuses(&sent)).await;
    let outs = world.rig.outputs();
    assert!(outs.iter().all(|out| &out.key[..] != b"ghost"), "nothing of an aborted transaction comes out");
    let unique: HashSet<&String> = outs.iter().map(|out| &out.event_id).collect();
    assert_eq!(unique.len(), sent.iter().map(|message| message.outputs.len()).sum::<usize>());
    check::order_per_key(&outs);
    format!("{thrown} messages aborted, none read; {} committed, each ended as it must", sent.len())
}

fn statuses(sent: &[Message]) -> BTreeMap<String, usize> {
    let mut statuses = BTreeMap::new();
    for message in sent {
        *statuses.entry(message.status.to_owned()).or_default() += 1;
    }
    statuses
}

/// Waits until messages stand so and all is published, and stops the hosts.
pub async fn ends(world: &mut World, expected: &BTreeMap<String, usize>) {
    world
        .until(&format!("{expected:?}"), async |world| {
            let (counts, unpublished) = (world.rig.counts().await, world.rig.store.unpublished().await.unwrap());
            (counts == *expected && unpublished.iter().all(|(_, count)| *count == 0), format!("{counts:?}, unpublished {unpublished:?}"))
        })
        .await;
    for host in world.hosts.drain(..) {
        host.terminate().await;
    }
}

async fn again(case: Case) -> String {
    let mut figures = Vec::new();
    for dedupe in [false, true] {
        let mut world = World::shared(case.seed).await;
        if dedupe {
            world.configure("lanes = 8\n", "lanes = 8\ndedupe = [\"/key\", \"/seq\"]\n");
        }
        let (kafka, topic) = world.rig.input();
        let messages: Vec<Captured> = (0..4).flat_map(|partition| records(&format!("k{partition}"), partition, 25)).collect();
        // In one batch and in different ones.
        kafka.produce(topic, &messages);
        kafka.produce(topic, &messages);
        world.start(2);
        let once = if dedupe { [("handled", 100), ("ignored", 100)].as_slice() } else { &[("handled", 200)] };
        ends(&mut world, &once.iter().map(|(status, count)| ((*status).to_owned(), *count)).collect()).await;
        let (kafka, topic) = world.rig.input();
        kafka.produce(topic, &messages);
        world.start(2);
        let thrice = if dedupe { [("handled", 100), ("ignored", 200)].as_slice() } else { &[("handled", 300)] };
        ends(&mut world, &thrice.iter().map(|(status, count)| ((*status).to_owned(), *count)).collect()).await;
        world.books.balance().await;
        let ids: HashSet<String> = world.rig.outputs().into_iter().map(|out| out.event_id).collect();
        assert_eq!(ids.len(), if dedupe { 100 } else { 300 }, "each message that is handled has an id of its own");
        figures.push(format!("{} outputs {} a dedupe key", ids.len(), if dedupe { "with" } else { "without" }));
    }
    format!("100 messages sent three times: {}", figures.join(", "))
}

/// Payloads that are JSON or nearly so, each in its own way.
fn near_json() -> Vec<Bytes> {
    let within = |text: &str| Bytes::from(format!("{{\"table\":\"a\",\"key\":\"KEY\",\"x\":{text}}}"));
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    let avro = Bytes::from_static(b"\0\0\0\x03\xe7\x06KEY\xff\xff");
    let magic = Bytes::from_static(b"\x07\0\0\0\x01{\"table\":\"a\",\"key\":\"KEY\"}");
    let mut payloads: Vec<Bytes> =
        ["1e400", "-1e400", "NaN", "1,\"x\":2", "\"\\u0000\"", "\"\\ud800\"", &deep, "99999999999999999999999999", "[,]", "01"]
            .map(within)
            .to_vec();
    payloads.extend([avro, magic, Bytes::from_static(b"\xef\xbb\xbf{\"table\":\"a\",\"key\":\"KEY\"}")]);
    payloads.push(Bytes::from_static(b"{\"table\":\"a\",\"key\":\"KEY\",\"key\":\"other\"}"));
    payloads
}

async fn odd(case: Case) -> String {
    let mut world = World::shared(case.seed).await;
    world.load(60);
    let mut more = world.scripts.odd();
    more.push(world.scripts.large(10 << 20));
    more.push(world.scripts.refused(1_200_000));
    world.send(more);
    world.start(2);
    let figures = world.rest(Resends::Suffix).await;
    // The same payload twice, in different batches and lanes: the same verdict, whatever it is, and the bytes as they came.
    let (mut world, payloads) = (World::shared(case.seed).await, near_json());
    world.start(2);
    for round in 0..2 {
        let key = format!("round-{round}");
        let with_key = |payload: &Bytes| Bytes::from(replaced(payload, b"KEY", key.as_bytes()));
        let messages: Vec<Captured> =
            payloads.iter().map(|payload| Captured { partition: round, payload: Some(with_key(payload)), ..Captured::default() }).collect();
        let (kafka, topic) = world.rig.input();
        kafka.produce(topic, &messages);
        let all = payloads.len() * (usize::try_from(round).unwrap() + 1);
        world.until_ended(all).await;
    }
    let mut verdicts = Vec::new();
    for round in 0..2 {
        let sql = format!(
            "SELECT string_agg(status || ' ' || coalesce(code, ''), ', ' ORDER BY \"offset\") FROM message_status WHERE \"partition\" = {round}"
        );
        let said: String = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut world.books.connect().await).await.unwrap();
        verdicts.push(said);
    }
    assert_eq!(verdicts[0], verdicts[1], "the same bytes, the same verdicts");
    assert!(!verdicts[0].contains("failed"), "nothing of this makes a plugin trap: {}", verdicts[0]);
    for host in world.hosts.drain(..) {
        host.terminate().await;
    }
    world.books.balance().await;
    format!("{figures}; {} payloads near JSON, twice, judged alike: {}", payloads.len(), verdicts[0])
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at..].starts_with(from) {
            out.extend_from_slice(to);
            at += from.len();
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    out
}

async fn compressed(case: Case) -> String {
    let mut world = World::shared(case.seed).await;
    world.start(2);
    let codecs = ["gzip", "snappy", "lz4", "zstd", "none"];
    for codec in codecs {
        let messages = world.scripts.some(if case.full { 2_000 } else { 80 });
        world.rig.produce_with(&messages, &[("compression.codec", codec), ("linger.ms", "50")]);
        world.sent.extend(messages);
    }
    let figures = world.rest(Resends::Suffix).await;
    format!("{}; {figures}; {}", codecs.join(", "), spoilt(case).await)
}

/// What is read with a wrong checksum is not taken, nor passed over: it is read again.
async fn spoilt(case: Case) -> String {
    const TIMES: u64 = 3;
    let spoiler = Spoiler::start(crate::services::kafka_brokers(), b"to-be-spoilt", TIMES).await;
    let mut world = World::shared(case.seed).await;
    world.configure(&format!("brokers = {:?}", crate::services::kafka_brokers()), &format!("brokers = {:?}", spoiler.brokers));
    let messages: Vec<Message> = (0..60).map(|number| world.scripts.put("c", &format!("to-be-spoilt-{}", number % 10))).collect();
    world.send(messages);
    world.start(1);
    let figures = world.rest(Resends::Suffix).await;
    assert_eq!(spoiler.left(), 0, "so many answers were to be spoilt yet");
    format!("{TIMES} answers of the broker spoilt: {figures}")
}

async fn timestamps(case: Case) -> String {
    let mut world = World::shared(case.seed).await;
    let times = [Some(-1), Some(1), Some(253_402_300_799_999), Some(i64::MAX / 2_000_000), Some(-62_135_596_800_000), Some(-86_400_000)];
    let mut messages = world.scripts.some(60);
    for (message, time) in messages.iter_mut().zip(times.iter().cycle()) {
        message.captured.timestamp_ms = *time;
    }
    world.rig.produce(&messages);
    // -1 says that there is no time.
    for message in &mut messages {
        message.captured.timestamp_ms = message.captured.timestamp_ms.filter(|time| *time != -1);
    }
    world.sent.extend(messages);
    world.start(2);
    let figures = world.rest(Resends::Suffix).await;
    let listed = world.rig.tolk.run(&["messages", "--limit", "1000", "-o", "json"]).expect(0).json();
    assert_eq!(listed.as_array().unwrap().len(), world.sent.len(), "all of them can be listed");
    check::capture(&world.rig, &world.sent, "handled");
    format!("{} kinds of times; {figures}", times.len())
}
