//! Why a part is held: its delivery, what that lacks, what lets it go, and what a person can do.

use super::{Trail, Why, text};
use crate::delivery::State;
use crate::store::{Delivery, MessageDetail, Result};

/// Marks that a feed's deliveries have.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marks {
    pub(super) start: bool,
    pub(super) end: bool,
}

pub(super) async fn tell(trail: &Trail<'_>, detail: &MessageDetail, why: &mut Why) -> Result<()> {
    why.wakes = vec!["its delivery, once it is complete".to_owned()];
    why.next = vec!["tolk deliveries".to_owned()];
    let Some(number) = detail.message.delivery else { return Ok(()) };
    let Some(delivery) = trail.store.delivery(number).await? else { return Ok(()) };
    let feed = &detail.status.feed;
    let marks = trail.known.marks.get(feed).copied().unwrap_or_default();
    let named = delivery.id.as_ref().map_or_else(|| format!("delivery {number} of {feed}"), |id| format!("delivery {feed}/{id}"));
    let state = delivery.tally.state;
    why.why = format!("held: it is a part of {named}, which is {}", state.as_str());
    let lacks = lacks(&delivery, marks);
    if !lacks.is_empty() && !state.is_over() {
        why.why += &format!("; that lacks {}", lacks.join(" and "));
    }
    why.wakes = vec![match state {
        State::Complete | State::Invalid => format!("the owner of feed {feed}, which lets its parts go in pieces"),
        State::Unbound => "the answer of an order in flight that says whose delivery it is".to_owned(),
        _ => "its delivery, once it is complete; or invalid, and then it is ignored with all other parts".to_owned(),
    }];
    if let Some(due) = delivery.tally.due_ms.filter(|_| !state.is_over()) {
        why.wakes.push(format!("the end of the delivery's patience at {}: what lacks then makes it invalid", text::time(due)));
    }
    why.next = vec![format!("tolk deliveries show {number}"), format!("tolk messages --delivery {}", of(feed, &delivery))];
    match state {
        State::Unbound => why.next.push("tolk deliveries bind ORDER ID --reason TEXT".to_owned()),
        State::Complete | State::Invalid => {}
        _ => why.next.push(format!("tolk deliveries invalidate {number} --reason TEXT")),
    }
    Ok(())
}

/// As `--delivery` takes it.
fn of(feed: &str, delivery: &Delivery) -> String {
    format!("{feed}/{}", delivery.id.as_deref().unwrap_or("ID"))
}

/// What must come before a delivery is complete.
fn lacks(delivery: &Delivery, marks: Marks) -> Vec<String> {
    let tally = &delivery.tally;
    let missing = match tally.expected() {
        Some(expected) if expected > tally.accepted => Some(format!("{} of {expected} parts", expected - tally.accepted)),
        _ => None,
    };
    let start = (marks.start && tally.starts == 0).then(|| "its start".to_owned());
    let end = (marks.end && tally.ends == 0).then(|| "its end".to_owned());
    [start, end, missing].into_iter().flatten().collect()
}
