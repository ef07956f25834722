//! Who takes what among living hosts: pure arithmetic over what the leases' tables say. Knows no SQL.

use std::collections::HashMap;

use uuid::Uuid;

/// A living host and whether it wants the thing in question.
pub(super) type Living = HashMap<Uuid, bool>;

/// What a host takes and gives back.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Moves<T> {
    pub(super) take: Vec<T>,
    pub(super) give: Vec<T>,
}

/// The lanes of one feed: each living host that wants the feed has its share of them. What does not divide evenly goes to other hosts at
/// each feed, so that many small feeds are spread as fairly as one large one.
pub(super) fn lanes(me: Uuid, feed: i32, living: &Living, lanes: &[(i32, Option<Uuid>)]) -> Moves<i32> {
    let share = share(me, feed, living, lanes.len());
    let mine: Vec<i32> = lanes.iter().filter(|(_, owner)| *owner == Some(me)).map(|(lane, _)| *lane).collect();
    if mine.len() > share {
        return Moves { take: Vec::new(), give: mine[share..].to_vec() };
    }
    let free = lanes.iter().filter(|(_, owner)| owner.is_none_or(|owner| !living.contains_key(&owner)));
    Moves { take: free.map(|(lane, _)| *lane).take(share - mine.len()).collect(), give: Vec::new() }
}

/// How many of a feed's lanes a host has; the shares of all hosts that want the feed add up to its lanes.
fn share(me: Uuid, feed: i32, living: &Living, lanes: usize) -> usize {
    let mut hosts: Vec<Uuid> = living.iter().filter(|(_, wants)| **wants).map(|(host, _)| *host).collect();
    hosts.sort_unstable();
    let Some(rank) = hosts.iter().position(|host| *host == me) else { return 0 };
    let turn = (rank + feed.unsigned_abs() as usize) % hosts.len();
    lanes / hosts.len() + usize::from(turn < lanes % hosts.len())
}

/// Things owned whole (feeds, targets), one after the other: a free one goes to a host that wants it and has the fewest; whoever has two
/// more than such a host gives one back.
pub(super) fn singles<T: Copy>(me: Uuid, things: &[(T, Option<Uuid>, Living)]) -> Moves<T> {
    let mut owned: HashMap<Uuid, usize> = HashMap::new();
    for owner in things.iter().filter_map(|(_, owner, living)| owner.filter(|owner| living.contains_key(owner))) {
        *owned.entry(owner).or_default() += 1;
    }
    let mut moves = Moves { take: Vec::new(), give: Vec::new() };
    for (thing, owner, living) in things {
        let count = |host: &Uuid| owned.get(host).copied().unwrap_or(0);
        let (mine, fewest) = (count(&me), living.iter().filter(|(host, wants)| **wants && **host != me).map(|(host, _)| count(host)).min());
        let wanted = living.get(&me) == Some(&true);
        match owner.filter(|owner| living.contains_key(owner)) {
            None if wanted && fewest.is_none_or(|fewest| mine <= fewest) => {
                moves.take.push(*thing);
                *owned.entry(me).or_default() += 1;
            }
            Some(owner) if owner == me && (!wanted || (moves.give.is_empty() && fewest.is_some_and(|fewest| mine >= fewest + 2))) => {
                moves.give.push(*thing);
                *owned.entry(me).or_default() -= 1;
            }
            _ => {}
        }
    }
    moves
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Uuid = Uuid::from_u128(1);
    const B: Uuid = Uuid::from_u128(2);
    const DEAD: Uuid = Uuid::from_u128(3);

    fn both() -> Living {
        HashMap::from([(A, true), (B, true)])
    }

    #[test]
    fn lanes_are_shared_and_a_dead_hosts_lanes_are_free() {
        let free: Vec<_> = (0..5).map(|lane| (lane, None)).collect();
        assert_eq!(lanes(A, 0, &HashMap::from([(A, true)]), &free).take, [0, 1, 2, 3, 4]);
        assert_eq!(lanes(A, 0, &both(), &free).take, [0, 1, 2]);
        assert_eq!(lanes(A, 0, &HashMap::from([(A, true), (B, false)]), &free).take, [0, 1, 2, 3, 4], "B does not want the feed");
        let all_mine: Vec<_> = (0..5).map(|lane| (lane, Some(A))).collect();
        assert_eq!(lanes(A, 0, &both(), &all_mine).give, [3, 4]);
        assert_eq!(lanes(B, 0, &both(), &all_mine), Moves::default());
        let dead: Vec<_> = (0..4).map(|lane| (lane, Some(DEAD))).collect();
        assert_eq!(lanes(B, 0, &both(), &dead).take, [0, 1]);
    }

    #[test]
    fn what_does_not_divide_goes_to_another_host_at_each_feed() {
        let hosts: Vec<Uuid> = (1..=3).map(Uuid::from_u128).collect();
        let living: Living = hosts.iter().map(|host| (*host, true)).collect();
        let shares = |host: Uuid, lanes| (1..=9).map(|feed| share(host, feed, &living, lanes)).sum::<usize>();
        for lanes in [1, 4, 64] {
            assert!((1..=9).all(|feed| hosts.iter().map(|host| share(*host, feed, &living, lanes)).sum::<usize>() == lanes));
            let sums: Vec<usize> = hosts.iter().map(|host| shares(*host, lanes)).collect();
            assert!(sums.iter().all(|sum| *sum == 3 * lanes), "nine feeds of {lanes} lanes: {sums:?}");
        }
    }

    #[test]
    fn single_things_go_to_whoever_has_the_fewest() {
        let free = |n| (0..n).map(|thing| (thing, None, both())).collect::<Vec<_>>();
        assert_eq!(singles(A, &free(3)).take, [0], "B has fewer after the first");
        let alone: Vec<_> = (0..3).map(|thing| (thing, Some(DEAD), HashMap::from([(A, true)]))).collect();
        assert_eq!(singles(A, &alone).take, [0, 1, 2]);
        let mine: Vec<_> = (0..3).map(|thing| (thing, Some(A), both())).collect();
        assert_eq!(singles(A, &mine).give, [0]);
        assert_eq!(singles(B, &mine), Moves::default());
        let unwanted = [(7, Some(A), HashMap::from([(A, false), (B, true)]))];
        assert_eq!(singles(A, &unwanted).give, [7]);
    }
}
