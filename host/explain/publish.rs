//! Why a handled message's outputs are not out: the target's cursor, its owner, what is before them.

use super::{Trail, Why};
use crate::store::MessageDetail;

pub(super) fn tell(trail: &Trail<'_>, detail: &MessageDetail, why: &mut Why) {
    let overview = &trail.known.overview;
    if detail.outputs.is_empty() {
        why.why = "handled: it made no outputs".to_owned();
        return;
    }
    let mut waiting: Vec<(&str, usize)> = Vec::new();
    for (target, _, published, parked) in &detail.outputs {
        if let Some(reason) = parked {
            why.why = format!("target {target} refused an output for good: {reason}");
            why.next = vec![format!("tolk retry {} --reason TEXT", detail.status.id)];
        } else if !published {
            match waiting.iter_mut().find(|(name, _)| name == target) {
                Some((_, count)) => *count += 1,
                None => waiting.push((target, 1)),
            }
        }
    }
    if waiting.is_empty() && why.next.is_empty() {
        why.why = "handled, and its outputs are published".to_owned();
    }
    for (name, count) in waiting {
        let Some(target) = overview.targets.iter().find(|target| target.target == name) else { continue };
        let owner = target.owner.and_then(|owner| overview.hosts.iter().find(|host| host.id == owner));
        let behind = overview.settlement - target.settlement;
        why.why = format!("handled; {count} of its outputs are not published: target {name} is {behind} settlements behind");
        why.wakes.push(match owner {
            Some(host) if host.lives => format!("host {}, which publishes {name}", host.name),
            Some(host) => format!("whoever takes target {name} over from host {}, whose lease is over", host.name),
            None => format!("a host that publishes {name}; none does now"),
        });
        if owner.is_none_or(|host| !host.lives) {
            why.next.push("tolk run".to_owned());
        }
    }
}
