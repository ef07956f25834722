//! Which actions are open: rows of `action` unfolded into the messages that they are about, less what is done or in hand. Knows nothing of how
//! those messages stand.

use std::collections::BTreeSet;
use std::sync::Arc;

use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::super::text::plain;
use super::super::{Postgres, Try, columns};
use super::kind_of;
use super::stretch::{self, Bits};
use crate::message::{FeedId, Map, Place, Set};
use crate::store::ActionKind;
use crate::store::actions::{fair, full_lanes};

/// Rows of a lane that are read first. They may be about very many messages, and hardly ever more are needed.
const FEW: i64 = 8;

/// Rows of each lane in their order, as many as it takes for `$5` actions and the stretch after them, which may interleave with them; at most
/// `$6`. `$4`: rows of which some actions are in hand; they count for nothing, but as others of theirs may not be in hand they are among them.
const ASKED: &str = "
    SELECT o.id, o.feed, o.lane, o.n, o.which,
      CASE WHEN o.which IS NOT NULL THEN (SELECT bit_or(d.which) FROM action_done d WHERE d.action = o.id) END, o.not_before_ms, o.after_n,
      o.kind, o.force, o.pinned, o.detail, c.why, o.bytes
    FROM unnest($1::int[], $2::int[]) l(feed, lane) CROSS JOIN LATERAL (
      SELECT s.* FROM (
        SELECT a.*, sum(a.free) OVER (ORDER BY a.not_before_ms, a.n, a.id ROWS UNBOUNDED PRECEDING) - a.free AS before FROM (
          SELECT a.*, CASE WHEN a.id IN (SELECT unnest($4::bigint[])) THEN 0 ELSE a.open END AS free FROM action a
          WHERE a.feed = l.feed AND a.lane = l.lane AND a.open > 0
            AND a.not_before_ms <= (SELECT coalesce($3, (extract(epoch FROM clock_timestamp()) * 1000)::bigint))
          ORDER BY a.not_before_ms, a.n, a.id LIMIT $6) a) s
      WHERE s.before < $5 + 200) o
    LEFT JOIN command c ON c.id = o.command";

/// A row of `action` with what is open of it.
pub(super) struct Asked {
    pub id: i64,
    pub place: Place,
    which: Option<Bits>,
    done: Option<Bits>,
    pub not_before_ms: i64,
    pub after_n: Option<i64>,
    pub kind: ActionKind,
    pub force: bool,
    pub pinned: Option<i64>,
    pub detail: Option<String>,
    pub why: Arc<str>,
    /// What its messages hold, at most; `None`: not known.
    pub bytes: Option<i64>,
}

/// An action of a page: of which row, its number, its message's number.
pub(super) struct Chosen<'a> {
    pub of: &'a Asked,
    pub id: i64,
    pub n: i64,
}

impl Asked {
    fn read(row: &PgRow) -> Try<Self> {
        let feed = FeedId(row.try_get(1)?);
        Ok(Self {
            id: row.try_get(0)?,
            place: Place { feed, lane: row.try_get(2)?, n: row.try_get(3)? },
            which: Bits::read(row, 4)?,
            done: Bits::read(row, 5)?,
            not_before_ms: row.try_get(6)?,
            after_n: row.try_get(7)?,
            kind: kind_of(row.try_get(8)?)?,
            force: row.try_get(9)?,
            pinned: row.try_get(10)?,
            detail: row.try_get::<Option<String>, _>(11)?.map(plain),
            why: row.try_get::<Option<String>, _>(12)?.map(plain).unwrap_or_default().into(),
            bytes: row.try_get(13)?,
        })
    }

    /// What is neither done nor in hand.
    pub fn open<'a>(&'a self, known: &Set<i64>) -> impl Iterator<Item = Chosen<'a>> {
        let one = self.which.is_none().then_some(self.place.n);
        let several = self.which.iter().flat_map(|which| which.numbers(self.place.n));
        one.into_iter()
            .chain(several)
            .filter(|n| !self.done.as_ref().is_some_and(|done| done.has(*n)))
            .map(|n| Chosen { of: self, id: stretch::number(self.id, n), n })
            .filter(|chosen| !known.contains(&chosen.id))
    }

    /// Whether it is about several messages.
    pub fn is_stretch(&self) -> bool {
        self.which.is_some()
    }

    /// Whether a later message of the key supersedes.
    pub fn yields(&self) -> bool {
        !self.force && matches!(self.kind, ActionKind::Retry | ActionKind::Restart | ActionKind::Replay | ActionKind::Revisit)
    }
}

impl Chosen<'_> {
    /// The message.
    pub fn place(&self) -> Place {
        Place { n: self.n, ..self.of.place }
    }
}

/// A page: of each lane at most `lane_max` actions, `rows_max` in all, by time, then in the order of their messages. The first `share` of each
/// lane are sure of their place.
pub(super) fn page<'a>(asked: &'a [Asked], known: &Set<i64>, (share, lane_max, rows_max): (i64, i64, i64)) -> Vec<Chosen<'a>> {
    // Rows of one time may interleave: those that begin before the last that is chosen have their say too.
    let mut of_lane: Map<(FeedId, i32), (i64, (i64, i64))> = Map::default();
    let mut chosen: Vec<Chosen<'_>> = Vec::new();
    for row in asked {
        let (taken, last) = of_lane.entry(lane_of(row)).or_default();
        if *taken < lane_max || (row.not_before_ms, row.place.n) < *last {
            let before = chosen.len();
            chosen.extend(row.open(known));
            *taken += i64::try_from(chosen.len() - before).unwrap_or(i64::MAX);
            *last = chosen[before..].last().map_or(*last, |one| (row.not_before_ms, one.n).max(*last));
        }
    }
    chosen.sort_by_key(|one| (one.of.not_before_ms, one.of.place.feed, one.of.place.lane, one.n, one.id));
    let mut counts: Map<(FeedId, i32), i64> = Map::default();
    chosen.retain(|one| {
        let count = counts.entry(lane_of(one.of)).or_default();
        *count += 1;
        *count <= lane_max
    });
    fair(chosen, |one| lane_of(one.of), share, rows_max)
}

/// How many lanes have all of their share: there may be more of each.
pub(super) fn full(chosen: &[Chosen<'_>], share: i64) -> usize {
    full_lanes(chosen, |one| lane_of(one.of), share)
}

fn lane_of(row: &Asked) -> (FeedId, i32) {
    (row.place.feed, row.place.lane)
}

impl Postgres {
    /// Rows with something open, in the order of each lane.
    pub(super) async fn asked(
        &self,
        connection: &mut PgConnection,
        lanes: &[(FeedId, i32)],
        known: &Set<i64>,
        lane_max: i64,
    ) -> Try<Vec<Asked>> {
        let held: BTreeSet<i64> = known.iter().map(|id| stretch::row_of(*id)).collect();
        let held: Vec<i64> = held.into_iter().collect();
        let (feeds, numbers) = columns(lanes);
        let enough = lane_max.saturating_add(i64::try_from(held.len()).unwrap_or(i64::MAX));
        for limit in [enough.min(FEW), enough] {
            let rows = sqlx::query(ASKED)
                .bind(&feeds)
                .bind(&numbers)
                .bind(self.clock.fixed_ms())
                .bind(&held)
                .bind(lane_max)
                .bind(limit)
                .fetch_all(&mut *connection)
                .await?;
            let mut asked = rows.iter().map(Asked::read).collect::<Try<Vec<_>>>()?;
            if limit == enough || !is_short(&asked, known, lane_max, limit) {
                asked.sort_by_key(|row| (row.not_before_ms, row.place.n, row.id));
                return Ok(asked);
            }
        }
        unreachable!("the last limit is enough")
    }
}

/// Whether the limit of rows kept a lane from having `lane_max` actions.
fn is_short(asked: &[Asked], known: &Set<i64>, lane_max: i64, limit: i64) -> bool {
    let mut lanes: Map<(FeedId, i32), (i64, usize)> = Map::default();
    for row in asked {
        let (rows, actions) = lanes.entry((row.place.feed, row.place.lane)).or_default();
        *rows += 1;
        *actions += row.open(known).count();
    }
    lanes.values().any(|(rows, actions)| *rows >= limit && i64::try_from(*actions).unwrap_or(i64::MAX) < lane_max)
}
