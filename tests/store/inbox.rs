//! Cases of `Inbox`: what comes in is there, once, in order, byte for byte.

use std::sync::Arc;

use bytes::Bytes;
use tolk::message::{Captured, KeyHash, NewMessage, Position, Prejudged, Status};
use tolk::store::{Advance, Appended, LaneRead};

use super::rig::{Rig, row};

fn odd_messages() -> Vec<NewMessage> {
    let blob = |bytes: &[u8]| Some(Bytes::copy_from_slice(bytes));
    let captured = [
        Captured { key: None, payload: None, ..Captured::default() },
        Captured { key: blob(b""), payload: blob(b""), ..Captured::default() },
        Captured { key: blob(b"\0"), payload: blob(b"a\0b"), timestamp_ms: Some(-1), ..Captured::default() },
        Captured { key: blob(b"\xff\xfe"), payload: blob(b"\xc3\x28 \xed\xa0\x80"), timestamp_ms: Some(i64::MAX), ..Captured::default() },
        Captured { key: Some(Bytes::from(vec![7; 1 << 20])), payload: Some(Bytes::from(vec![0; 3 << 20])), ..Captured::default() },
        Captured { headers: (0..1_000).map(|i| (format!("h{i}"), blob(&[i as u8]))).collect(), ..Captured::default() },
        Captured {
            headers: vec![
                ("twice".to_owned(), blob(b"1")),
                ("null".to_owned(), None),
                ("twice".to_owned(), blob(b"2")),
                ("empty".to_owned(), blob(b"")),
                (String::new(), blob(b"\xff\0")),
                ("\u{0}æ\u{10ffff}".to_owned(), None),
            ],
            ..Captured::default()
        },
    ];
    let whole = |(captured, offset)| NewMessage { captured: Captured { offset, ..captured }, ..row(0, offset, "k") };
    captured.into_iter().zip(0..).map(whole).collect()
}

pub async fn bytes_round_trip(rig: Rig) {
    let owner = rig.owner().await;
    let mut rows = odd_messages();
    rows[1].table = Arc::from("");
    rows[1].ordering_key = None;
    rows[1].prejudged = Some(Prejudged { status: Status::Invalid, code: "no-table".to_owned(), reason: "no pointer æ".to_owned() });
    rows[3].ordering_key = Some(Bytes::from_static(b"\xff\0"));
    assert_eq!(owner.append(&rows).await, 0);
    let found = owner.fetch().await;
    assert_eq!(found.len(), rows.len());
    for (found, row) in found.iter().zip(&rows) {
        assert!(found.captured == row.captured, "offset {}", row.captured.offset);
        assert_eq!((found.id, &found.table, found.key_hash), (row.id, &row.table, row.key_hash));
        assert_eq!(found.prejudged, row.prejudged);
        assert_eq!(found.received_ms, rig.now_ms());
    }
}

pub async fn numbers_are_gapless_per_lane(rig: Rig) {
    let owner = rig.owner().await;
    let lanes = [0, 1, 1, 3, 0, 1, 0, 3, 1];
    for batch in 0..3 {
        let rows: Vec<_> = lanes.iter().zip(batch * 9..).map(|(lane, offset)| row(*lane, offset, "k")).collect();
        owner.append(&rows).await;
    }
    for lane in 0..4 {
        let reads = [LaneRead { feed: owner.feed, lane, after: 0 }];
        let found = owner.store.fetch(&reads, 100, 1 << 30).await.unwrap();
        let numbers: Vec<_> = found.iter().map(|message| message.place.n).collect();
        assert_eq!(numbers, (1..=found.len() as i64).collect::<Vec<_>>());
        assert_eq!(found.len(), 3 * lanes.iter().filter(|at| **at == lane).count());
        assert!(found.is_sorted_by_key(|message| message.captured.offset), "in the order of the rows");
        assert!(found.iter().all(|message| message.place.lane == lane && message.place.feed == owner.feed));
    }
}

pub async fn append_is_fenced_by_epoch(rig: Rig) {
    let owner = rig.owner().await;
    let advance = Advance { partition: 0, expected: None, next_offset: 1 };
    let answer = owner.store.append(owner.feed, owner.feed_epoch() + 1, &[row(0, 0, "k")], &[advance]).await.unwrap();
    assert_eq!(answer, Appended::Fenced);
    assert!(owner.fetch().await.is_empty());
    assert!(owner.store.positions(owner.feed).await.unwrap().is_empty());
}

pub async fn append_is_fenced_by_position(rig: Rig) {
    let owner = rig.owner().await;
    owner.append(&[row(0, 0, "k")]).await;
    for expected in [None, Some(0), Some(2)] {
        let advance = Advance { partition: 0, expected, next_offset: 3 };
        let fresh = Advance { partition: 1, expected: None, next_offset: 9 };
        let rows = [row(0, 2, "k"), NewMessage { dedupe: Some(KeyHash::of("T", b"d")), ..row(1, 3, "k") }];
        let answer = owner.store.append(owner.feed, owner.feed_epoch(), &rows, &[fresh, advance]).await.unwrap();
        assert_eq!(answer, Appended::Fenced, "expected {expected:?}");
    }
    assert_eq!(owner.fetch().await.len(), 1);
    assert_eq!(owner.store.positions(owner.feed).await.unwrap(), [Position { partition: 0, next_offset: 1 }]);
    // Nothing of the fenced appends stayed: neither numbers nor hashes.
    let rows = [row(0, 1, "k"), NewMessage { dedupe: Some(KeyHash::of("T", b"d")), ..row(1, 2, "k") }];
    assert_eq!(owner.append(&rows).await, 0);
    assert_eq!(owner.fetch().await.iter().map(|message| message.place.n).collect::<Vec<_>>(), [1, 2, 1]);
}

pub async fn duplicates_are_kept_and_marked(rig: Rig) {
    let owner = rig.owner().await;
    let deduped = |offset, key: &str| NewMessage { dedupe: Some(KeyHash::of("T", key.as_bytes())), ..row(0, offset, "k") };
    let invalid = Prejudged { status: Status::Invalid, code: "no-key".to_owned(), reason: String::new() };
    assert_eq!(owner.append(&[deduped(0, "x"), deduped(1, "y"), deduped(2, "x"), row(0, 3, "k")]).await, 1);
    let late = NewMessage { prejudged: Some(invalid), ..deduped(5, "z") };
    assert_eq!(owner.append(&[deduped(4, "y"), late, deduped(6, "z")]).await, 2);
    let marked = |message: &tolk::message::Message| message.prejudged.as_ref().is_some_and(|judged| judged.code == "duplicate");
    let found = owner.fetch().await;
    assert_eq!(found.iter().map(marked).collect::<Vec<_>>(), [false, false, true, false, true, false, true]);
    assert!(found.iter().filter(|message| marked(message)).all(|message| {
        message.prejudged.as_ref().unwrap().status == Status::Ignored && message.captured.payload.as_deref() == Some(b"{}")
    }));
    assert_eq!(found[5].prejudged.as_ref().unwrap().code, "no-key");
}

pub async fn positions_advance_without_rows(rig: Rig) {
    let owner = rig.owner().await;
    let append = async |expected, next_offset| {
        let advances = [Advance { partition: 7, expected, next_offset }];
        owner.store.append(owner.feed, owner.feed_epoch(), &[], &advances).await.unwrap()
    };
    assert_eq!(append(None, 5).await, Appended::Done { duplicates: 0 });
    assert_eq!(append(Some(5), 11).await, Appended::Done { duplicates: 0 });
    assert_eq!(append(Some(5), 12).await, Appended::Fenced);
    assert_eq!(owner.store.positions(owner.feed).await.unwrap(), [Position { partition: 7, next_offset: 11 }]);
}

pub async fn fetch_is_cut_by_rows(rig: Rig) {
    let owner = rig.owner().await;
    owner.append(&(0..40).map(|offset| row(offset as i32 % 2, offset, "k")).collect::<Vec<_>>()).await;
    let reads = [LaneRead { feed: owner.feed, lane: 0, after: 3 }, LaneRead { feed: owner.feed, lane: 1, after: 18 }];
    let found = owner.store.fetch(&reads, 5, 1 << 30).await.unwrap();
    let numbers = |lane| found.iter().filter(|message| message.place.lane == lane).map(|message| message.place.n).collect::<Vec<_>>();
    assert_eq!(numbers(0), [4, 5, 6, 7, 8]);
    assert_eq!(numbers(1), [19, 20]);
    assert!(owner.store.fetch(&[LaneRead { feed: owner.feed, lane: 0, after: 20 }], 5, 1 << 30).await.unwrap().is_empty());
    assert!(owner.store.fetch(&[], 5, 1 << 30).await.unwrap().is_empty());
}

pub async fn fetch_is_cut_by_bytes(rig: Rig) {
    let owner = rig.owner().await;
    let large = |offset| {
        let mut row = row(offset as i32 % 2, offset, "k");
        row.captured.payload = Some(Bytes::from(vec![1; 100_000]));
        row
    };
    owner.append(&(0..20).map(large).collect::<Vec<_>>()).await;
    let reads = [LaneRead { feed: owner.feed, lane: 0, after: 0 }, LaneRead { feed: owner.feed, lane: 1, after: 0 }];
    for bytes_max in [1, 350_000, 1_000_000] {
        let found = owner.store.fetch(&reads, 100, bytes_max).await.unwrap();
        assert!(!found.is_empty());
        assert!(found.len() as i64 <= 1 + bytes_max / 100_000, "{} rows of 100 kB for {bytes_max} bytes", found.len());
        for lane in 0..2 {
            let numbers: Vec<_> = found.iter().filter(|message| message.place.lane == lane).map(|message| message.place.n).collect();
            assert_eq!(numbers, (1..=numbers.len() as i64).collect::<Vec<_>>());
        }
    }
}

pub async fn a_large_batch_arrives_whole(rig: Rig) {
    let owner = rig.owner().await;
    let rows: Vec<_> = (0..5_003).map(|offset| row(offset as i32 % 4, offset, &format!("k{offset}"))).collect();
    assert_eq!(owner.append(&rows).await, 0);
    let mut found = owner.fetch().await;
    found.sort_by_key(|message| message.captured.offset);
    assert_eq!(found.iter().map(|message| message.id).collect::<Vec<_>>(), rows.iter().map(|row| row.id).collect::<Vec<_>>());
}
