//! Cases of `Actions` about very many messages: pages of open actions and their order, and what is known of them once they are done.

use tolk::message::Status;
use tolk::store::{
    ActionKind, ActionResult, Applied, Command, End, Filter, HandledRun, MessageDetail, OpenAction, OutputRow, Pick, Settled, Settlement,
    Verdict,
};

use super::actions::{ALL, apply, command, filter, ids, open};
use super::rig::{Rig, START_MS, done, end, output, row};

pub async fn open_actions_come_in_order_and_in_pages(rig: Rig) {
    let owner = rig.owner().await;
    let rows: Vec<_> = (0..6).map(|offset| row(offset as i32 % 2, offset, &format!("k{offset}"))).collect();
    owner.append(&rows).await;
    let messages = owner.fetch().await;
    let of = |lane: i32, n: i64| messages.iter().find(|m| m.place.lane == lane && m.place.n == n).unwrap();
    owner.store.command(&command(ActionKind::Retry), &ids(&[of(1, 1), of(0, 3)])).await.unwrap();
    rig.pass_ms(5);
    owner.store.command(&command(ActionKind::Retry), &ids(&[of(0, 1)])).await.unwrap();
    let slow = Command { per_second: Some(2), ..command(ActionKind::Replay) };
    owner.store.command(&slow, &ids(&[of(0, 2), of(1, 2), of(1, 3)])).await.unwrap();
    let places = |found: &[OpenAction]| found.iter().map(|a| (a.message.place.lane, a.message.place.n)).collect::<Vec<_>>();
    let page = async |lanes: &[_], known: &[i64], rows, bytes| owner.store.open_actions(lanes, known, rows, bytes).await.unwrap();
    let all = open(&owner).await;
    assert_eq!(places(&all), [(0, 3), (1, 1), (0, 1), (0, 2)]);
    assert_eq!(places(&page(&owner.lanes(), &[], 3, ALL.1).await), [(0, 3), (1, 1), (0, 1)]);
    assert_eq!(places(&page(&owner.lanes(), &[], ALL.0, 1).await), [(0, 3)]);
    assert_eq!(places(&page(&owner.lanes(), &[all[0].id, all[2].id], 1, ALL.1).await), [(1, 1)]);
    assert_eq!(places(&page(&[(owner.feed, 1)], &[], ALL.0, ALL.1).await), [(1, 1)]);
    assert!(page(&[(owner.feed, 3)], &[], ALL.0, ALL.1).await.is_empty());
    rig.pass_ms(500);
    assert_eq!(places(&open(&owner).await)[4..], [(1, 2)]);
    rig.pass_ms(500);
    assert_eq!(places(&open(&owner).await)[4..], [(1, 2), (1, 3)]);
}

pub async fn a_command_about_very_many_is_done_in_parts(rig: Rig) {
    const MANY: i64 = 2_500;
    let owner = rig.owner().await;
    let rows: Vec<_> = (0..MANY).map(|offset| row(0, offset, &format!("k{}", offset % 700))).collect();
    owner.append(&rows).await;
    let messages = owner.fetch().await;
    owner.commit(messages.iter().map(done).collect()).await;
    let all = Command { pick: Pick::AllOfKey, ..command(ActionKind::Replay) };
    assert_eq!(owner.store.command(&all, &filter(Filter::default())).await.unwrap(), MANY);
    let page = async |known: &[i64], rows| owner.store.open_actions(&owner.lanes(), known, rows, ALL.1).await.unwrap();
    let numbers = |found: &[OpenAction]| found.iter().map(|action| action.message.place.n).collect::<Vec<_>>();
    let first = page(&[], 1_200).await;
    assert_eq!(numbers(&first), (1..=1_200).collect::<Vec<_>>());
    let known: Vec<i64> = first.iter().map(|action| action.id).collect();
    assert_eq!(numbers(&page(&known, 100).await), (1_201..=1_300).collect::<Vec<_>>());

    let of = |action: &OpenAction| match action.message.place.n % 10 {
        0 => Applied { id: action.id, result: ActionResult::Superseded, became: Status::Ignored, handled: None },
        _ => Applied { id: action.id, result: ActionResult::Applied, became: Status::Handled, handled: None },
    };
    let odd: Vec<Applied> =
        first.iter().filter(|action| action.message.place.n % 2 == 1 || action.message.place.n % 10 == 0).map(of).collect();
    apply(&owner, odd.clone()).await;
    // Told again it is nothing new.
    apply(&owner, odd[..100].to_vec()).await;
    let open = async || owner.store.audit(Some(all.id), None, 1).await.unwrap()[0].open;
    assert_eq!(open().await, MANY - 720);
    let left: Vec<i64> = (1..=MANY).filter(|n| *n > 1_200 || (n % 2 == 0 && n % 10 != 0)).collect();
    assert_eq!(numbers(&page(&[], MANY).await), left);
    let of_message = async |n: i64| owner.store.actions(None, Some(messages[n as usize - 1].id), 10).await.unwrap();
    let results =
        [(10, Some(ActionResult::Superseded)), (11, Some(ActionResult::Applied)), (12, None), (1_200, Some(ActionResult::Superseded))];
    for (n, result) in results {
        let listed = of_message(n).await;
        assert_eq!(listed.iter().map(|action| (action.id, action.result)).collect::<Vec<_>>(), [(known[n as usize - 1], result)], "{n}");
    }

    apply(&owner, page(&[], MANY).await.iter().map(of).collect()).await;
    assert_eq!(open().await, 0);
    assert!(page(&[], MANY).await.is_empty());
    let listed = owner.store.actions(Some(all.id), None, MANY).await.unwrap();
    let with = |result| listed.iter().filter(|action| action.result == Some(result)).count() as i64;
    assert_eq!((with(ActionResult::Applied), with(ActionResult::Superseded)), (MANY * 9 / 10, MANY / 10));
    let newest_first = listed.windows(2).all(|two| two[0].id > two[1].id);
    assert!(newest_first && listed.len() as i64 == MANY);
}

pub async fn what_is_in_hand_and_done_already_hides_nothing(rig: Rig) {
    let owner = rig.owner().await;
    let rows: Vec<_> = (0..600).map(|offset| row(0, offset, "k")).collect();
    owner.append(&rows).await;
    owner.commit(owner.fetch().await.iter().map(done).collect()).await;
    let all = Command { pick: Pick::AllOfKey, ..command(ActionKind::Replay) };
    owner.store.command(&all, &filter(Filter::default())).await.unwrap();
    let page = async |known: &[i64], rows| owner.store.open_actions(&owner.lanes(), known, rows, ALL.1).await.unwrap();
    let first = page(&[], 150).await;
    let known: Vec<i64> = first.iter().map(|action| action.id).collect();
    let of = |action: &OpenAction| Applied { id: action.id, result: ActionResult::Applied, became: Status::Handled, handled: None };
    apply(&owner, first[..120].iter().map(of).collect()).await;
    let next: Vec<i64> = page(&known, 100).await.iter().map(|action| action.message.place.n).collect();
    assert_eq!(next, (151..=250).collect::<Vec<_>>());
}

pub async fn large_messages_are_read_in_their_order(rig: Rig) {
    let owner = rig.owner().await;
    let rows: Vec<_> = (0..500).map(|offset| row(0, offset, "k")).collect();
    owner.append(&rows).await;
    let messages = owner.fetch().await;
    owner.commit(messages.iter().map(done).collect()).await;
    let size = messages[0].size() as i64;
    // The later command is about the earlier messages, at the same time.
    let replay = command(ActionKind::Replay);
    owner.store.command(&replay, &ids(&messages[300..].iter().collect::<Vec<_>>())).await.unwrap();
    owner.store.command(&command(ActionKind::Replay), &ids(&messages[..300].iter().collect::<Vec<_>>())).await.unwrap();
    let mut seen = Vec::new();
    let mut known = Vec::new();
    while seen.len() < 500 {
        let some = owner.store.open_actions(&owner.lanes(), &known, ALL.0, 70 * size).await.unwrap();
        assert!(!some.is_empty() && some.len() < 100, "{} of {}", some.len(), seen.len());
        known.extend(some.iter().map(|action| action.id));
        seen.extend(some.iter().map(|action| action.message.place.n));
    }
    assert_eq!(seen, (1..=500).collect::<Vec<_>>());
}

pub async fn orders_of_one_time_interleave(rig: Rig) {
    let owner = rig.owner().await;
    let rows: Vec<_> = (0..150).map(|offset| row(0, offset, "k")).collect();
    owner.append(&rows).await;
    let messages = owner.fetch().await;
    owner.commit(messages.iter().map(done).collect()).await;
    let (odd, even): (Vec<_>, Vec<_>) = messages.iter().partition(|message| message.place.n % 2 == 1);
    for some in [odd, even] {
        owner.store.command(&command(ActionKind::Replay), &ids(&some)).await.unwrap();
    }
    let page = owner.store.open_actions(&owner.lanes(), &[], 40, ALL.1).await.unwrap();
    assert_eq!(page.iter().map(|action| action.message.place.n).collect::<Vec<_>>(), (1..=40).collect::<Vec<_>>());
}

pub async fn a_lane_with_much_to_do_keeps_nobody_out(rig: Rig) {
    let owner = rig.owner().await;
    let rows: Vec<_> = (0..600).map(|offset| row(i32::from(offset == 599), offset, "k")).collect();
    owner.append(&rows).await;
    let messages = owner.fetch().await;
    owner.commit(messages.iter().map(done).collect()).await;
    let (busy, other): (Vec<_>, Vec<_>) = messages.iter().partition(|message| message.place.lane == 0);
    owner.store.command(&command(ActionKind::Replay), &ids(&busy)).await.unwrap();
    rig.pass_ms(5);
    owner.store.command(&command(ActionKind::Retry), &ids(&other)).await.unwrap();
    let page = owner.store.open_actions(&owner.lanes(), &[], 40, ALL.1).await.unwrap();
    let places: Vec<_> = page.iter().map(|action| (action.message.place.lane, action.message.place.n)).collect();
    assert_eq!(places, (1..=39).map(|n| (0, n)).chain([(1, 1)]).collect::<Vec<_>>());
}

pub async fn a_run_that_was_simply_handled_is_known(rig: Rig) {
    let owner = rig.owner().await;
    let messages = owner.messages(&["a", "b", "a", "c"]).await;
    owner.commit_by(1, START_MS, messages.iter().map(done).collect()).await;
    let replay = async || {
        let all = Command { pick: Pick::AllOfKey, ..command(ActionKind::Replay) };
        owner.store.command(&all, &filter(Filter::default())).await.unwrap();
        open(&owner).await
    };
    let run = async |actions: Vec<OpenAction>, run: i32, rejected: i64| {
        let now_ms = START_MS + 10 * i64::from(run);
        let (mut applied, mut settled) = (Vec::new(), Vec::new());
        for action in actions {
            let spoiled = action.message.place.n == rejected;
            let handled = (action.plain && !spoiled).then_some(HandledRun { run, activation: 1, now_ms });
            let status = if spoiled { Status::Invalid } else { Status::Handled };
            applied.push(Applied { id: action.id, result: ActionResult::Applied, became: status, handled });
            let end = handled.is_none().then(|| End { now_ms, ..end(status, Some(1)) });
            let sent = output("a", "k", &format!("{run}"));
            settled.push(Settled { run, end, outputs: vec![sent], ..done(&action.message) });
        }
        let settlement = Settlement { actions: applied, ..owner.settlement(settled) };
        match owner.store.settle(&owner.host, owner.next_batch(), &settlement).await.unwrap() {
            Verdict::Committed { settlement, .. } => settlement,
            other => panic!("{other:?}"),
        }
    };
    let lasts = |actions: &[OpenAction]| actions.iter().map(|action| action.last).collect::<Vec<_>>();
    let first = replay().await;
    assert_eq!(lasts(&first), [None; 4]);
    let at = run(first, 1, 0).await;
    let detail = async |index: usize| owner.store.message(messages[index].id).await.unwrap().unwrap();
    let sent = |seen: &MessageDetail| {
        let payload = |row: &OutputRow| String::from_utf8(row.payload.clone().unwrap().to_vec()).unwrap();
        seen.outputs.iter().map(|(_, row, ..)| payload(row)).collect::<Vec<_>>()
    };
    let seen = detail(2).await;
    assert_eq!((seen.settlement, seen.now_ms, &*seen.status.status), (Some(at), Some(START_MS + 10), "handled"));
    assert_eq!(sent(&seen), ["1"]);

    let second = replay().await;
    assert_eq!(lasts(&second), [Some((1, Status::Handled)); 4]);
    run(second, 2, 2).await;
    let third = replay().await;
    let of_second = |n| Some((2, if n == 2 { Status::Invalid } else { Status::Handled }));
    assert_eq!(lasts(&third), (1..=4).map(of_second).collect::<Vec<_>>());
    let at = run(third, 3, 0).await;
    for index in [0, 1] {
        let seen = detail(index).await;
        assert_eq!((seen.settlement, seen.now_ms, &*seen.status.status), (Some(at), Some(START_MS + 30), "handled"));
        assert_eq!(sent(&seen), ["1", "2", "3"]);
    }
}
