//! Deliveries: judged as they are appended, bound to their orders, counted, let go in pieces, and never told two things.

use std::sync::Arc;

use tolk::delivery::{DELIVERIES, Kind, Piece, Rules, State, entry_key};
use tolk::message::{Message, NewMessage, Status};
use tolk::store::{
    ActionKind, Advance, Answer, Appended, By, Command, Delivery, Done, Filter, Ordered, Pick, Selection, Settled, Tended, Verdict,
};

use super::rig::{Owner, Rig, done, entry, row, stays};

const RULES: Rules =
    Rules { has_start: true, has_end: true, counted: true, strict_order: true, grace_ms: 1_000, ordered_only: false, several: false };
const ORDERED: Rules = Rules { ordered_only: true, ..RULES };

/// A mark or part; parts have a key each.
fn piece(rules: Rules, offset: i64, id: &str, kind: Kind) -> NewMessage {
    NewMessage { delivery: Some(Piece { id: id.into(), kind, rules }), ..row(0, offset, &format!("k{offset}")) }
}

/// A whole delivery of `count` parts, beginning at an offset.
fn whole(rules: Rules, offset: i64, id: &str, count: i64) -> Vec<NewMessage> {
    let kinds = std::iter::once(Kind::Start(Some(count))).chain((0..count).map(|_| Kind::Part)).chain([Kind::End(Some(count))]);
    kinds.zip(offset..).map(|(kind, offset)| piece(rules, offset, id, kind)).collect()
}

fn by() -> By {
    By { whom: "who".to_owned(), why: "why".to_owned() }
}

async fn found(owner: &Owner, id: &str) -> Delivery {
    owner.store.delivery_by_id(owner.feed, id).await.unwrap().unwrap()
}

async fn told(owner: &Owner, delivery: &Delivery) -> Option<serde_json::Value> {
    let scan = super::rig::by_key(DELIVERIES, &entry_key(owner.feed.0, delivery.number));
    let entries = owner.store.entries(&scan).await.unwrap();
    entries.first().map(|(_, value)| serde_json::from_slice(value).unwrap())
}

fn codes(messages: &[Message]) -> Vec<Option<&str>> {
    messages.iter().map(|message| message.prejudged.as_ref().map(|said| said.code.as_str())).collect()
}

async fn order(owner: &Owner, year: &str) -> i64 {
    match owner.store.order_delivery(owner.feed, &[("year".into(), year.into())], &by(), false).await.unwrap() {
        Ordered::Placed(number) => number,
        other => panic!("{other:?}"),
    }
}

async fn tend(owner: &Owner, rows_max: i64) -> Tended {
    owner.store.tend_deliveries(owner.feed, owner.feed_epoch(), rows_max).await.unwrap().unwrap()
}

pub async fn parts_carry_their_delivery_and_marks_are_settled(rig: Rig) {
    let owner = rig.owner().await;
    owner.append(&whole(RULES, 0, "A", 2)).await;
    let messages = owner.fetch().await;
    let a = found(&owner, "A").await;
    assert_eq!(codes(&messages), [Some("delivery-start"), None, None, Some("delivery-end")]);
    let numbers: Vec<_> = messages.iter().map(|message| message.delivery).collect();
    assert_eq!(numbers, [None, Some(a.number), Some(a.number), None]);
    assert_eq!(messages[0].prejudged.as_ref().unwrap().status, Status::Handled);
    assert_eq!((a.tally.state, a.tally.accepted, a.release), (State::Complete, 2, true));
    let told = told(&owner, &a).await.unwrap();
    assert_eq!((&told["state"], &told["id"], &told["expected"]), (&"complete".into(), &"A".into(), &2.into()));
}

pub async fn a_delivery_grows_over_appends_and_breaks_alone(rig: Rig) {
    let owner = rig.owner().await;
    owner.append(&[piece(RULES, 0, "A", Kind::Start(None)), piece(RULES, 1, "B", Kind::Start(Some(5)))]).await;
    assert!(told(&owner, &found(&owner, "A").await).await.is_none(), "nothing is said of it before it is over");
    owner.append(&[piece(RULES, 2, "A", Kind::Part), piece(RULES, 3, "B", Kind::Part)]).await;
    let ends = [piece(RULES, 4, "B", Kind::End(Some(2))), piece(RULES, 5, "A", Kind::End(Some(1))), piece(RULES, 6, "B", Kind::Part)];
    owner.append(&ends).await;
    let (a, b) = (found(&owner, "A").await, found(&owner, "B").await);
    assert_eq!((a.tally.state, b.tally.state, b.tally.accepted), (State::Complete, State::Complete, 2));
    owner.append(&[piece(RULES, 7, "C", Kind::Part), piece(RULES, 8, "C", Kind::Start(None)), piece(RULES, 9, "A", Kind::Part)]).await;
    let c = found(&owner, "C").await;
    assert_eq!(c.tally.state, State::Started, "starts go first");
    owner.append(&[piece(RULES, 10, "C", Kind::End(Some(7))), piece(RULES, 11, "D", Kind::Part)]).await;
    let (c, d) = (found(&owner, "C").await, found(&owner, "D").await);
    assert_eq!((c.tally.state, d.tally.state), (State::Invalid, State::Invalid));
    let messages = owner.fetch().await;
    let said = [Some("delivery-start"), None, Some("delivery-complete"), Some("delivery-mismatch"), Some("delivery-state")];
    assert_eq!([codes(&messages)[8], codes(&messages)[7], codes(&messages)[9], codes(&messages)[10], codes(&messages)[11]], said);
    assert_eq!(told(&owner, &c).await.unwrap()["code"], "delivery-invalid");
}

pub async fn a_fenced_append_judges_nothing(rig: Rig) {
    let owner = rig.owner().await;
    let rows = whole(RULES, 0, "A", 1);
    let step = [Advance { partition: 0, expected: None, next_offset: 3 }];
    let fenced = owner.store.append(owner.feed, owner.feed_epoch() + 1, &rows, &step).await.unwrap();
    assert_eq!(fenced, Appended::Fenced);
    assert!(owner.store.delivery_by_id(owner.feed, "A").await.unwrap().is_none());
    owner.append(&rows).await;
    // The same records once more: their positions are passed.
    assert_eq!(owner.store.append(owner.feed, owner.feed_epoch(), &rows, &step).await.unwrap(), Appended::Fenced);
    assert_eq!(found(&owner, "A").await.tally.accepted, 1);
}

pub async fn a_duplicate_is_no_part(rig: Rig) {
    let owner = rig.owner().await;
    let same = |offset| NewMessage { dedupe: Some(tolk::message::KeyHash::of("T", b"same")), ..piece(RULES, offset, "A", Kind::Part) };
    owner.append(&[piece(RULES, 0, "A", Kind::Start(None)), same(1), same(2)]).await;
    assert_eq!(found(&owner, "A").await.tally.accepted, 1);
    assert_eq!(owner.fetch().await[2].delivery, None);
}

pub async fn an_order_is_guarded_and_bound(rig: Rig) {
    let owner = rig.owner().await;
    let (feed, epoch) = (owner.feed, owner.feed_epoch());
    let number = order(&owner, "2020").await;
    let params = [("year".to_owned(), "2020".to_owned())];
    assert_eq!(owner.store.order_delivery(feed, &params, &by(), false).await.unwrap(), Ordered::Open(number));
    let Ordered::Placed(forced) = owner.store.order_delivery(feed, &params, &by(), true).await.unwrap() else { panic!("not forced") };
    assert!(owner.store.take_order(feed, epoch + 1).await.unwrap().is_none(), "fenced");
    let taken = owner.store.take_order(feed, epoch).await.unwrap().unwrap();
    assert_eq!((taken.number, taken.tally.state, taken.params.as_slice()), (number, State::Calling, &params[..]));
    let bound = Answer::Bound("A".to_owned());
    assert!(!owner.store.answer_order(feed, epoch + 1, number, &bound, &ORDERED).await.unwrap());
    assert!(owner.store.answer_order(feed, epoch, number, &bound, &ORDERED).await.unwrap());
    assert!(!owner.store.answer_order(feed, epoch, number, &bound, &ORDERED).await.unwrap(), "it is answered");
    assert_eq!((found(&owner, "A").await.number, found(&owner, "A").await.tally.state), (number, State::Open));
    // The second order gets the id of the first: that is no delivery of its own.
    owner.store.take_order(feed, epoch).await.unwrap().unwrap();
    assert!(owner.store.answer_order(feed, epoch, forced, &bound, &ORDERED).await.unwrap());
    let other = owner.store.delivery(forced).await.unwrap().unwrap();
    assert_eq!((other.tally.state, other.tally.code.as_str()), (State::Refused, "delivery-id-known"));
    let all: Vec<i64> = owner.store.deliveries(feed, 10).await.unwrap().iter().map(|delivery| delivery.number).collect();
    assert_eq!(all, [forced, number]);
    let audit = owner.store.delivery_audit(number).await.unwrap();
    assert_eq!((audit.len(), audit[0].kind.as_str(), audit[0].by.as_str(), audit[0].why.as_str()), (1, "order", "who", "why"));
}

pub async fn equal_orders_at_once_are_one(rig: Rig) {
    let owner = Arc::new(rig.owner().await);
    let orders = (0..6).map(|_| {
        let owner = owner.clone();
        tokio::spawn(async move { owner.store.order_delivery(owner.feed, &[("y".into(), "1".into())], &by(), false).await.unwrap() })
    });
    let mut placed = 0;
    for order in orders.collect::<Vec<_>>() {
        placed += usize::from(matches!(order.await.unwrap(), Ordered::Placed(_)));
    }
    assert_eq!(placed, 1);
}

pub async fn messages_of_ids_that_nobody_knows_wait_for_orders_in_flight(rig: Rig) {
    let owner = rig.owner().await;
    owner.append(&[piece(ORDERED, 0, "early", Kind::Part)]).await;
    let number = order(&owner, "2020").await;
    owner.append(&whole(ORDERED, 1, "A", 1)).await;
    owner.append(&whole(ORDERED, 4, "X", 1)).await;
    owner.append(&whole(ORDERED, 7, "Y", 2)[..2]).await;
    assert_eq!((found(&owner, "A").await.tally.state, found(&owner, "X").await.tally.state), (State::Unbound, State::Unbound));
    owner.store.take_order(owner.feed, owner.feed_epoch()).await.unwrap().unwrap();
    let bound = Answer::Bound("A".to_owned());
    assert!(owner.store.answer_order(owner.feed, owner.feed_epoch(), number, &bound, &ORDERED).await.unwrap());
    let (a, x) = (found(&owner, "A").await, found(&owner, "X").await);
    assert_eq!((a.tally.state, a.order_number, a.params.len()), (State::Complete, Some(number), 1));
    assert_eq!(owner.store.delivery(number).await.unwrap().unwrap(), a);
    assert_eq!((x.tally.state, x.tally.code.as_str()), (State::Invalid, "delivery-unknown"));
    assert_eq!(told(&owner, &a).await.unwrap()["params"], serde_json::json!([["year", "2020"]]));
    assert_eq!(told(&owner, &x).await.unwrap()["code"], "delivery-unknown");
    owner.append(&[piece(ORDERED, 9, "Y", Kind::Part), piece(ORDERED, 10, "Z", Kind::Part)]).await;
    let messages = owner.fetch().await;
    assert_eq!([codes(&messages)[0], codes(&messages)[9], codes(&messages)[10]], [Some("delivery-unknown"); 3]);
    assert_eq!((messages[2].delivery, messages[0].delivery), (Some(a.number), None));
}

pub async fn an_order_that_was_left_is_unclear(rig: Rig) {
    let owner = rig.owner().await;
    let (feed, epoch) = (owner.feed, owner.feed_epoch());
    let number = order(&owner, "2020").await;
    let later = order(&owner, "2021").await;
    owner.store.take_order(feed, epoch).await.unwrap().unwrap();
    assert_eq!(owner.store.invalidate_delivery(number, &by()).await.unwrap(), Done::Refused(State::Calling));
    assert_eq!(owner.store.take_order(feed, epoch).await.unwrap().unwrap().number, later);
    assert_eq!(owner.store.delivery(number).await.unwrap().unwrap().tally.state, State::Unclear);
    let unclear = Answer::Unclear("no answer".to_owned());
    assert!(owner.store.answer_order(feed, epoch, later, &unclear, &ORDERED).await.unwrap());
    assert_eq!(tend(&owner, 10).await.unclear, 2);
    assert_eq!(owner.store.bind_delivery(number, "A", &ORDERED, &by()).await.unwrap(), Done::Parts(0));
    assert_eq!(owner.store.bind_delivery(later, "A", &ORDERED, &by()).await.unwrap(), Done::Refused(State::Open), "an id of another one");
    assert_eq!(owner.store.invalidate_delivery(later, &by()).await.unwrap(), Done::Parts(0));
    assert_eq!(tend(&owner, 10).await.unclear, 0);
}

pub async fn held_parts_are_let_go_in_pieces(rig: Rig) {
    let owner = rig.owner().await;
    owner.append(&whole(RULES, 0, "A", 5)[..6]).await;
    let parts: Vec<Message> = owner.fetch().await.split_off(1);
    owner.commit(parts.iter().map(|part| stays(part, Status::Held, true, None)).collect()).await;
    assert_eq!(tend(&owner, 2).await, Tended::default());
    owner.append(&[piece(RULES, 6, "A", Kind::End(Some(5)))]).await;
    for (released, more) in [(2, true), (2, true), (1, false), (0, false)] {
        let tended = tend(&owner, 2).await;
        assert_eq!((tended.released, tended.more), (released, more));
    }
    let due = owner.store.due(&owner.lanes(), &[], 10, 1 << 20).await.unwrap();
    assert_eq!(due.iter().map(|due| due.row.place.n).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
    assert!(due.iter().all(|due| due.row.status == Status::Pending));
    assert!(owner.store.tend_deliveries(owner.feed, owner.feed_epoch() + 1, 2).await.unwrap().is_none_or(|tended| tended.released == 0));
}

pub async fn a_part_held_by_what_was_true_before_is_stale(rig: Rig) {
    let owner = rig.owner().await;
    owner.append(&whole(RULES, 0, "A", 1)[..2]).await;
    let (part, at) = (owner.fetch().await.remove(1), owner.now_at().await);
    let key = entry_key(owner.feed.0, part.delivery.unwrap());
    owner.append(&[piece(RULES, 2, "A", Kind::End(Some(1)))]).await;
    let reads = vec![tolk::store::Read { request: entry(DELIVERIES, &key), at }];
    let held = Settled { reads, ..stays(&part, Status::Held, true, None) };
    assert!(matches!(owner.settle(vec![held]).await, Verdict::Stale(stale) if stale.len() == 1));
}

pub async fn what_lacks_too_long_is_invalid(rig: Rig) {
    let owner = rig.owner().await;
    let rules = Rules { several: true, ..RULES };
    owner
        .append(&[piece(rules, 0, "A", Kind::Start(None)), piece(rules, 1, "A", Kind::Part), piece(rules, 2, "A", Kind::End(Some(2)))])
        .await;
    rig.pass_ms(999);
    assert_eq!(tend(&owner, 10).await.expired, 0);
    assert_eq!(found(&owner, "A").await.tally.state, State::Started);
    rig.pass_ms(1);
    assert_eq!(tend(&owner, 10).await.expired, 1);
    let a = found(&owner, "A").await;
    assert_eq!((a.tally.state, a.tally.code.as_str()), (State::Invalid, "delivery-mismatch"));
    assert_eq!(told(&owner, &a).await.unwrap()["state"], "invalid");
}

pub async fn every_part_is_counted_once(rig: Rig) {
    let owner = rig.owner().await;
    owner.append(&whole(RULES, 0, "A", 6)).await;
    let number = found(&owner, "A").await.number;
    let account = owner.store.delivery_account(number).await.unwrap().unwrap();
    assert_eq!((account.open, account.accepted, account.by_status["pending"]), (6, 6, 6));
    assert!(account.adds_up());
    let messages = owner.fetch().await;
    let ends = |message: &Message, status| Settled { end: Some(super::rig::end(status, None)), ..done(message) };
    owner
        .commit(vec![
            ends(&messages[0], Status::Handled),
            ends(&messages[1], Status::Handled),
            stays(&messages[2], Status::Failed, true, None),
            stays(&messages[3], Status::Retry, true, Some(9)),
            ends(&messages[4], Status::Ignored),
        ])
        .await;
    let account = owner.store.delivery_account(number).await.unwrap().unwrap();
    assert_eq!((account.handled, account.failed, account.ignored, account.open), (1, 1, 1, 3));
    assert!(account.adds_up());
    assert_eq!(owner.store.delivery_failures(owner.feed).await.unwrap(), 1);
    assert_eq!(owner.store.delivery_account(99).await.unwrap(), None);
    // A failed one that is handled later counts as that alone.
    let again = Settled { had_work: true, ..ends(&messages[2], Status::Handled) };
    owner.commit(vec![again, ends(&messages[5], Status::Finished), ends(&messages[6], Status::Invalid)]).await;
    let account = owner.store.delivery_account(number).await.unwrap().unwrap();
    assert_eq!((account.handled, account.finished, account.invalid, account.open), (2, 1, 1, 1));
    assert!(account.adds_up());
}

pub async fn stop_and_rerun_ask_the_owners_of_the_parts(rig: Rig) {
    let owner = rig.owner().await;
    owner.append(&whole(RULES, 0, "A", 4)).await;
    let messages = owner.fetch().await;
    owner
        .commit(vec![done(&messages[0]), stays(&messages[1], Status::Failed, true, None), stays(&messages[2], Status::Retry, true, None)])
        .await;
    let number = found(&owner, "A").await.number;
    assert_eq!(owner.store.stop_delivery(number, &by()).await.unwrap(), Done::Parts(3), "the failed one is not open");
    assert_eq!(owner.store.rerun_delivery(number, &by()).await.unwrap(), Done::Parts(1));
    assert_eq!(owner.store.rerun_delivery(99, &by()).await.unwrap(), Done::Unknown);
    let audit = owner.store.delivery_audit(number).await.unwrap();
    let told: Vec<_> = audit.iter().map(|line| (line.kind.as_str(), line.messages, line.open)).collect();
    assert!(told.contains(&("stop", 3, 3)) && told.contains(&("rerun", 1, 1)), "{told:?}");
}

pub async fn a_filter_knows_the_parts_of_a_delivery(rig: Rig) {
    let owner = rig.owner().await;
    let mut rows = whole(RULES, 0, "A", 3);
    rows.extend([piece(RULES, 5, "B", Kind::Start(None)), piece(RULES, 6, "B", Kind::Part), row(1, 7, "none")]);
    owner.append(&rows).await;
    let of = |feed: &str, id: &str| Filter {
        delivery: Some((feed.to_owned(), id.to_owned())),
        limit: 100,
        oldest_first: true,
        ..Filter::default()
    };
    let offsets = async |filter: Filter| owner.store.messages(&filter).await.unwrap().iter().map(|row| row.offset).collect::<Vec<_>>();
    assert_eq!(offsets(of("arena", "A")).await, [1, 2, 3], "above the cursor; marks are no parts");
    let messages = owner.fetch().await;
    let part = |offset: i64| messages.iter().find(|message| message.captured.offset == offset).unwrap();
    let handled = Settled { end: Some(super::rig::end(Status::Handled, None)), ..done(part(1)) };
    let mut settled = vec![done(part(0)), handled, stays(part(2), Status::Failed, true, None)];
    settled.iter_mut().skip(1).for_each(|one| one.delivery = part(1).delivery);
    owner.commit(settled).await;
    assert_eq!(offsets(of("arena", "A")).await, [1, 2, 3], "handled, in work, not yet taken");
    assert_eq!(offsets(Filter { status: Some(Status::Failed), ..of("arena", "A") }).await, [2]);
    assert_eq!(offsets(Filter { limit: 1, ..of("arena", "A") }).await, [1]);
    assert_eq!(offsets(of("arena", "B")).await, [6]);
    assert_eq!(offsets(of("arena", "C")).await, [0_i64; 0]);
    assert_eq!(offsets(of("other", "A")).await, [0_i64; 0]);
    let captured = owner.store.captured(&of("arena", "A")).await.unwrap();
    assert_eq!(captured.len(), 3);
    let command = Command {
        id: uuid::Uuid::new_v4(),
        kind: ActionKind::Stop,
        by: "who".to_owned(),
        why: "why".to_owned(),
        object: "delivery arena/A".to_owned(),
        force: false,
        pinned: None,
        per_second: None,
        pick: Pick::Each,
    };
    let filter = Filter { limit: 0, ..of("arena", "A") };
    assert_eq!(owner.store.command(&command, &Selection::Filter(Box::new(filter))).await.unwrap(), 3);
}
