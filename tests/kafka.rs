//! Sources and sinks on a real Kafka: what goes in comes out byte for byte, positions hold, and a broker may come and go.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tolk::feed::SourceConfig;
use tolk::message::{Captured, FeedId, Place, Position};
use tolk::plugin::{Action, Digest};
use tolk::sink::{self, Sent, Sink, header};
use tolk::source::kafka::mock::Mock;
use tolk::source::{self, Error, Source};
use tolk::store::{OutputCursor, OutputRow};
use uuid::Uuid;

use crate::support::kafka::Kafka;
use crate::support::services::Service;

const PATIENCE: Duration = Duration::from_secs(60);

fn open_source(kafka: &Kafka, topic: &str, properties: &[(&str, &str)]) -> Box<dyn Source> {
    let config = SourceConfig::Kafka { cluster: "test".to_owned(), topic: topic.to_owned() };
    source::open(topic, &config, &kafka.config(properties)).unwrap()
}

fn open_sink(kafka: &Kafka, topic: &str) -> std::sync::Arc<dyn Sink> {
    let config = sink::Config::Kafka { cluster: "test".to_owned(), topic: topic.to_owned(), min_key_interval_ms: 0 };
    sink::open("out", &config, &kafka.config(&[])).unwrap()
}

fn at(partition: i32, next_offset: i64) -> Position {
    Position { partition, next_offset }
}

fn text(text: &str) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(text.as_bytes()))
}

fn numbered(partition: i32, numbers: std::ops::Range<i64>) -> Vec<Captured> {
    numbers
        .map(|number| Captured { partition, payload: text(&number.to_string()), timestamp_ms: Some(number), ..Captured::default() })
        .collect()
}

fn numbers(messages: &[Captured], partition: i32) -> Vec<i64> {
    let own = messages.iter().filter(|message| message.partition == partition);
    own.map(|message| std::str::from_utf8(message.payload.as_ref().unwrap()).unwrap().parse().unwrap()).collect()
}

/// Reads as ingest does: after an error that will pass, opens again at what has been read.
async fn read(source: &mut dyn Source, start: &[Position], count: usize) -> Vec<Captured> {
    let mut next: BTreeMap<i32, i64> = start.iter().map(|at| (at.partition, at.next_offset)).collect();
    let mut seen = Vec::new();
    let reading = async {
        while seen.len() < count {
            match source.next(100, 1 << 20).await {
                Ok(batch) => {
                    next.extend(batch.messages.iter().map(|message| (message.partition, message.offset + 1)));
                    seen.extend(batch.messages);
                }
                Err(error) if error.is_transient() => {
                    let positions: Vec<Position> = next.iter().map(|(partition, next)| at(*partition, *next)).collect();
                    while let Err(error) = source.open(&positions).await {
                        assert!(error.is_transient(), "{error}");
                    }
                }
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the messages come in time");
    seen
}

fn odd_messages() -> Vec<Captured> {
    let message = Captured { timestamp_ms: Some(1_700_000_000_000), ..Captured::default() };
    let odd_headers = vec![
        ("twice".to_owned(), text("1")),
        ("null".to_owned(), None),
        ("twice".to_owned(), text("")),
        ("bytes".to_owned(), Some(Bytes::from_static(b"\xff\xfe\x00"))),
        ("twice".to_owned(), text("1")),
    ];
    let many = (0..1_000).map(|number| (format!("h{number}"), text(&number.to_string()))).collect();
    vec![
        message.clone(),
        Captured { key: text("k"), ..message.clone() },
        Captured { key: text(""), payload: text(""), ..message.clone() },
        Captured { payload: Some(Bytes::from_static(b"\x00\xff{broken")), ..message.clone() },
        Captured { key: Some(vec![7; 1 << 20].into()), payload: text("a large key"), ..message.clone() },
        Captured { key: text("large"), payload: Some(vec![b'x'; 10_000_000].into()), ..message.clone() },
        Captured { payload: text("odd headers"), headers: odd_headers, ..message.clone() },
        Captured { payload: text("many headers"), headers: many, ..message.clone() },
        Captured { payload: text("no time"), timestamp_ms: Some(-1), ..message },
    ]
}

#[tokio::test]
async fn odd_messages_are_read_byte_for_byte() {
    let kafka = Kafka::shared();
    let topic = kafka.topic(1, &[("max.message.bytes", "20000000")]).await;
    let mut sent = odd_messages();
    kafka.produce(&topic, &sent);
    let mut source = open_source(&kafka, &topic, &[]);
    assert_eq!(source.name(), topic);
    source.open(&[]).await.unwrap();
    let seen = read(&mut *source, &[], sent.len()).await;
    for (offset, message) in sent.iter_mut().enumerate() {
        message.offset = offset as i64;
        message.timestamp_ms = message.timestamp_ms.filter(|timestamp| *timestamp >= 0);
    }
    for (seen, sent) in seen.iter().zip(&sent) {
        assert!(seen == sent, "{:?} is not {:?}", String::from_utf8_lossy(seen.payload.as_deref().unwrap_or_default()), sent.offset);
    }
    assert_eq!(seen.len(), sent.len());
}

#[tokio::test]
async fn reading_starts_at_the_positions_and_goes_on_after_a_restart() {
    let kafka = Kafka::shared();
    let topic = kafka.topic(2, &[]).await;
    kafka.produce(&topic, &numbered(0, 0..500));
    kafka.produce(&topic, &numbered(1, 0..300));
    let mut source = open_source(&kafka, &topic, &[]);
    source.open(&[at(0, 450)]).await.unwrap();
    let seen = read(&mut *source, &[], 350).await;
    assert_eq!(numbers(&seen, 0), (450..500).collect::<Vec<_>>());
    assert_eq!(numbers(&seen, 1), (0..300).collect::<Vec<_>>());

    // Another host, and a dropped call in every pause.
    kafka.produce(&topic, &numbered(0, 500..520));
    let mut source = open_source(&kafka, &topic, &[]);
    source.open(&[at(0, 500), at(1, 300)]).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 20 {
        if let Ok(batch) = tokio::time::timeout(Duration::from_micros(50), source.next(3, 1 << 20)).await {
            let batch = batch.unwrap();
            assert!(batch.messages.len() <= 3);
            seen.extend(batch.messages);
        }
    }
    assert_eq!(numbers(&seen, 0), (500..520).collect::<Vec<_>>());

    source.committed(&[at(0, 520), at(1, 300)]);
    let group = format!("tolk-{topic}");
    let shown = async {
        while kafka.committed(&group, &topic) != BTreeMap::from([(0, 520), (1, 300)]) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, shown).await.expect("lag tools see what is committed");
}

#[tokio::test]
async fn a_reader_slower_than_the_broker_loses_nothing() {
    let kafka = Kafka::shared();
    let topic = kafka.topic(1, &[]).await;
    // Far more than the thread may read ahead, taken in steps far smaller than it hands over.
    let large = |message: Captured| Captured { key: Some(vec![b'k'; 1_000].into()), ..message };
    kafka.produce(&topic, &numbered(0, 0..30_000).into_iter().map(large).collect::<Vec<_>>());
    let mut source = open_source(&kafka, &topic, &[("queued.max.messages.kbytes", "1024")]);
    source.open(&[]).await.unwrap();
    let mut expected = 0;
    while expected < 30_000 {
        let batch = tokio::time::timeout(PATIENCE, source.next(50, 7_000)).await.unwrap().unwrap();
        assert!((1..=7).contains(&batch.messages.len()), "{} messages", batch.messages.len());
        for message in batch.messages {
            assert_eq!((message.offset, message.payload), (expected, text(&expected.to_string())));
            expected += 1;
        }
    }
}

#[tokio::test]
async fn a_missing_topic_is_named_with_its_config_key() {
    let kafka = Kafka::shared();
    let error = open_source(&kafka, "no-such-topic", &[]).open(&[]).await.unwrap_err();
    assert!(!error.is_transient());
    assert!(error.to_string().contains("topic no-such-topic of cluster test"), "{error}");
    assert!(error.to_string().contains("feeds.no-such-topic.source.topic"), "{error}");
}

#[tokio::test]
async fn deleted_records_are_a_gap_and_never_skipped() {
    let kafka = Kafka::shared();
    let topic = kafka.topic(1, &[]).await;
    kafka.produce(&topic, &numbered(0, 0..50));
    kafka.delete_records(&topic, 40).await;
    let mut source = open_source(&kafka, &topic, &[]);
    match source.open(&[at(0, 7)]).await {
        Err(Error::Gap { partition: 0, offset: 7, reason, .. }) => assert!(reason.contains("begins at 40"), "{reason}"),
        other => panic!("{other:?}"),
    }
    source.open(&[at(0, 40)]).await.unwrap();
    assert_eq!(numbers(&read(&mut *source, &[], 10).await, 0), (40..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_topic_made_anew_is_a_gap() {
    let kafka = Kafka::shared();
    let topic = kafka.topic(1, &[]).await;
    kafka.produce(&topic, &numbered(0, 0..50));
    let mut source = open_source(&kafka, &topic, &[]);
    source.open(&[]).await.unwrap();
    read(&mut *source, &[], 50).await;
    let first = source.identity().expect("a broker tells a topic's id").to_owned();
    kafka.delete_topic(&topic).await;
    kafka.make_topic(&topic, 1, &[]).await;
    kafka.produce(&topic, &numbered(0, 0..3));
    // Under the reader's eyes, and for one that starts later.
    let watching = async {
        loop {
            match source.next(100, 1 << 20).await {
                Ok(batch) => assert_eq!(batch.messages, [], "nothing is read as if it went on"),
                Err(error) if error.is_transient() => match source.open(&[at(0, 50)]).await {
                    Err(error) if !error.is_transient() => return error,
                    _ => {}
                },
                Err(error) => return error,
            }
        }
    };
    let error = tokio::time::timeout(PATIENCE, watching).await.expect("the gap shows in time");
    assert!(matches!(error, Error::Gap { partition: 0, offset: 50, .. }), "{error}");
    let error = open_source(&kafka, &topic, &[]).open(&[at(0, 50)]).await.unwrap_err();
    assert!(error.to_string().contains("ends at 3"), "{error}");
    // Where it has grown beyond the position, its id tells.
    source.open(&[at(0, 2)]).await.unwrap();
    assert!(source.identity().is_some_and(|second| second != first), "{:?} after {first}", source.identity());
}

#[tokio::test]
async fn aborted_transactions_are_invisible() {
    let kafka = Kafka::shared();
    let topic = kafka.topic(1, &[]).await;
    let mut kept = Vec::new();
    for round in 0..6 {
        let numbers = round * 10..round * 10 + 10;
        let commit = round % 2 == 1;
        kafka.produce_in_transaction(&topic, &numbered(0, numbers.clone()), commit);
        kept.extend(numbers.filter(|_| commit));
    }
    let mut source = open_source(&kafka, &topic, &[]);
    source.open(&[]).await.unwrap();
    assert_eq!(numbers(&read(&mut *source, &[], 30).await, 0), kept);
}

#[tokio::test]
async fn partitions_that_are_added_are_read_from_their_beginning() {
    let kafka = Kafka::shared();
    let topic = kafka.topic(1, &[]).await;
    kafka.produce(&topic, &numbered(0, 0..5));
    let mut source = open_source(&kafka, &topic, &[("topic.metadata.refresh.interval.ms", "300")]);
    source.open(&[]).await.unwrap();
    read(&mut *source, &[], 5).await;
    kafka.grow_topic(&topic, 3).await;
    kafka.produce(&topic, &numbered(2, 0..7));
    kafka.produce(&topic, &numbered(0, 5..8));
    let seen = read(&mut *source, &[at(0, 5)], 10).await;
    assert_eq!(numbers(&seen, 0), (5..8).collect::<Vec<_>>());
    assert_eq!(numbers(&seen, 2), (0..7).collect::<Vec<_>>());
}

fn output(index: i32, key: Option<&str>, payload: Option<Bytes>) -> OutputRow {
    OutputRow {
        cursor: OutputCursor { settlement: 12, index },
        event_id: Uuid::from_u128(index as u128 + 1),
        place: Place { feed: FeedId(1), lane: 2, n: 3 },
        feed: "orders".to_owned(),
        digest: Some(Digest::of(b"plugin")),
        action: Action::Put,
        key: key.and_then(text),
        payload,
        headers: Vec::new(),
        version: None,
    }
}

#[tokio::test]
async fn outputs_arrive_in_order_with_their_headers() {
    let kafka = Kafka::shared();
    let topic = kafka.topic(1, &[]).await;
    let own = vec![("h".to_owned(), None), ("h".to_owned(), Some(Bytes::from_static(b"\xff"))), (header::FEED.to_owned(), text("forged"))];
    let mut outputs: Vec<OutputRow> = (0..2_000).map(|index| output(index, Some("k"), text(&index.to_string()))).collect();
    outputs[3] = OutputRow { action: Action::Delete, headers: own, ..output(3, Some("k"), text("gone")) };
    outputs[4] = OutputRow { digest: None, ..output(4, None, text("")) };
    let sink = open_sink(&kafka, &topic);
    assert_eq!(sink.send("out", &[]).await, []);
    assert_eq!(sink.send("out", &outputs).await, vec![Sent::Done; outputs.len()]);
    let seen = kafka.consume(&topic);
    assert_eq!(seen.len(), outputs.len());
    for (seen, output) in seen.iter().zip(&outputs) {
        let payload = output.payload.clone().filter(|_| output.action != Action::Delete);
        assert_eq!((&seen.key, &seen.payload), (&output.key, &payload));
        let ours = [
            (header::EVENT_ID, output.event_id.to_string()),
            (header::POSITION, format!("0000000000000000012.{:010}", output.cursor.index)),
            (header::FEED, "orders".to_owned()),
            (header::DIGEST, Digest::of(b"plugin").to_string()),
        ];
        let ours = ours.iter().take(if output.digest.is_some() { 4 } else { 3 }).map(|(name, value)| ((*name).to_owned(), text(value)));
        let expected: Vec<_> = output.headers.iter().filter(|(name, _)| name != header::FEED).cloned().chain(ours).collect();
        assert_eq!(seen.headers, expected);
    }
}

#[tokio::test]
async fn what_a_broker_refuses_holds_back_its_own_key_only() {
    let kafka = Kafka::shared();
    // The broker's limit is below the client's, so that it is the broker who refuses, and a whole record batch at that.
    let topic = kafka.topic(1, &[("max.message.bytes", "3000")]).await;
    let noise = |bytes: usize| -> Option<Bytes> { Some((0..bytes).map(|at| (at * at % 251) as u8 ^ (at / 251) as u8).collect()) };
    let random = || -> Option<Bytes> { Some((0..300).flat_map(|_| Uuid::new_v4().into_bytes()).collect()) };
    let outputs = [
        output(0, Some("a"), noise(200)),
        output(1, Some("b"), random()),
        output(2, Some("a"), text("last a")),
        output(3, Some("c"), Some(vec![0; 2_000_000].into())),
        output(4, Some("c"), text("behind")),
        output(5, Some("d"), text("d")),
    ];
    let sent = open_sink(&kafka, &topic).send("out", &outputs).await;
    let done: Vec<bool> = sent.iter().map(|sent| *sent == Sent::Done).collect();
    assert_eq!(done, [true, false, true, false, false, true], "{sent:?}");
    assert!(sent.iter().all(|sent| !matches!(sent, Sent::Away(_))), "{sent:?}");
    let seen = kafka.consume(&topic);
    let last = |key: &str| seen.iter().rev().find(|message| message.key == text(key)).map(|message| message.payload.clone());
    assert_eq!(last("a"), Some(text("last a")));
    assert_eq!(last("d"), Some(text("d")));
    assert_eq!((last("b"), last("c")), (None, None));
}

#[tokio::test]
async fn a_missing_topic_refuses_outputs() {
    let sent = open_sink(&Kafka::shared(), "no-such-target").send("out", &[output(0, None, None)]).await;
    assert!(matches!(&sent[..], [Sent::Refused(reason)] if reason.contains("no-such-target")), "{sent:?}");
}

#[tokio::test]
async fn source_and_sink_outlive_a_killed_broker() {
    let mut service = tokio::task::spawn_blocking(|| Service::start("kafka")).await.unwrap();
    let kafka = Kafka { brokers: service.lines[0].clone() };
    let (topic, target) = (kafka.topic(1, &[]).await, kafka.topic(1, &[]).await);
    kafka.produce(&topic, &numbered(0, 0..20));
    let mut source = open_source(&kafka, &topic, &[]);
    source.open(&[]).await.unwrap();
    let mut seen = read(&mut *source, &[], 20).await;
    let sink = open_sink(&kafka, &target);
    assert_eq!(sink.send("out", &[output(0, None, text("before"))]).await, [Sent::Done]);

    service.kill();
    let outputs = [output(1, None, text("during")), output(2, None, text("after"))];
    let sent = sink.send("out", &outputs).await;
    assert!(sent.iter().all(|sent| matches!(sent, Sent::Away(_))), "{sent:?}");
    let error = tokio::time::timeout(PATIENCE, source.next(100, 1 << 20)).await.unwrap().unwrap_err();
    assert!(error.is_transient(), "{error}");

    let service = tokio::task::spawn_blocking(move || {
        service.restart();
        service
    });
    let service = service.await.unwrap();
    let resent = async { while sink.send("out", &outputs).await != [Sent::Done, Sent::Done] {} };
    tokio::time::timeout(PATIENCE, resent).await.expect("the sink sends again");
    kafka.produce(&topic, &numbered(0, 20..40));
    seen.extend(read(&mut *source, &[at(0, 20)], 20).await);
    assert_eq!(numbers(&seen, 0), (0..40).collect::<Vec<_>>());
    let payloads: Vec<_> = kafka.consume(&target).into_iter().map(|message| message.payload).collect();
    assert_eq!(payloads[0], text("before"));
    assert_eq!(payloads.last(), Some(&text("after")));
    drop(service);
}

#[tokio::test]
async fn the_mock_cluster_takes_and_gives_messages() {
    let mock = Mock::start(&[("in", 2)]).unwrap();
    let kafka = Kafka { brokers: mock.brokers().to_owned() };
    let outputs: Vec<OutputRow> = (0..50).map(|index| output(index, Some("k"), text(&index.to_string()))).collect();
    assert_eq!(open_sink(&kafka, "in").send("out", &outputs).await, vec![Sent::Done; 50]);
    let mut source = open_source(&kafka, "in", &[]);
    source.open(&[]).await.unwrap();
    let seen = read(&mut *source, &[], 50).await;
    assert_eq!(numbers(&seen, seen[0].partition), (0..50).collect::<Vec<_>>());
}
