//! Which actions are open: rows of `action` unfolded into the messages that they are about, less what is done or in hand. Knows nothing of how
//! those messages stand.

use std::collections::{HashMap, HashSet};

use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::super::text::plain;
use super::super::{Postgres, Try, columns};
use super::{kind_of, stretch};
use crate::message::{FeedId, Place};
use crate::store::ActionKind;

/// Rows of each lane that are not wholly in hand, in their order, as many as it takes for `$5` actions. `$4`, `$6`: rows of which some actions
/// are in hand, and which. One in hand may be done already: its settlement is committed before the host takes note of it.
const ASKED: &str = "
    WITH held AS MATERIALIZED (
        SELECT h.action, bit_count(h.which::bit(200) & ~coalesce(
          (SELECT bit_or(d.which) FROM action_done d WHERE d.action = h.action), B'0'::bit(200))) AS messages
        FROM unnest($4::bigint[], $6::text[]) h(action, which))
    SELECT o.id, o.feed, o.lane, o.n, o.ns, (SELECT bit_or(d.which) FROM action_done d WHERE d.action = o.id), o.not_before_ms, o.after_n,
      o.kind, o.force, o.pinned, o.detail, c.why
    FROM unnest($1::int[], $2::int[]) l(feed, lane) CROSS JOIN LATERAL (
      SELECT s.* FROM (
        SELECT a.*, sum(a.free) OVER (ORDER BY a.not_before_ms, a.n, a.id ROWS UNBOUNDED PRECEDING) - a.free AS before FROM (
          SELECT a.*, a.open - coalesce(h.messages, 0) AS free FROM action a LEFT JOIN held h ON h.action = a.id
          WHERE a.feed = l.feed AND a.lane = l.lane AND a.open > 0 AND a.open > coalesce(h.messages, 0)
            AND a.not_before_ms <= (SELECT coalesce($3, (extract(epoch FROM clock_timestamp()) * 1000)::bigint))
          ORDER BY a.not_before_ms, a.n, a.id LIMIT $5) a) s
      WHERE s.before < $5) o
    LEFT JOIN command c ON c.id = o.command";

/// A row of `action` with what is open of it.
pub(super) struct Asked {
    pub id: i64,
    pub place: Place,
    ns: Option<Vec<i64>>,
    /// Bits of those that are done, after the four bytes that count them.
    done: Option<Vec<u8>>,
    pub not_before_ms: i64,
    pub after_n: Option<i64>,
    pub kind: ActionKind,
    pub force: bool,
    pub pinned: Option<i64>,
    pub detail: Option<String>,
    pub why: String,
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
            ns: row.try_get(4)?,
            done: row.try_get_unchecked(5)?,
            not_before_ms: row.try_get(6)?,
            after_n: row.try_get(7)?,
            kind: kind_of(row.try_get(8)?)?,
            force: row.try_get(9)?,
            pinned: row.try_get(10)?,
            detail: row.try_get::<Option<String>, _>(11)?.map(plain),
            why: row.try_get::<Option<String>, _>(12)?.map(plain).unwrap_or_default(),
        })
    }

    fn is_done(&self, ordinal: usize) -> bool {
        self.done.as_ref().is_some_and(|bits| bits[4 + ordinal / 8] & (0x80 >> (ordinal % 8)) != 0)
    }

    /// What is neither done nor in hand.
    pub fn open<'a>(&'a self, known: &HashSet<i64>) -> impl Iterator<Item = Chosen<'a>> {
        let numbers = self.ns.as_deref().unwrap_or(std::slice::from_ref(&self.place.n));
        numbers
            .iter()
            .enumerate()
            .filter(|(ordinal, _)| !self.is_done(*ordinal))
            .map(|(ordinal, n)| Chosen { of: self, id: stretch::number(self.id, ordinal), n: *n })
            .filter(|chosen| !known.contains(&chosen.id))
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

/// A page: of each lane at most `lane_max` actions, `rows_max` in all, by time, then in the order of their messages.
pub(super) fn page<'a>(asked: &'a [Asked], known: &[i64], lane_max: i64, rows_max: i64) -> Vec<Chosen<'a>> {
    let known: HashSet<i64> = known.iter().copied().collect();
    let mut of_lane: HashMap<(FeedId, i32), usize> = HashMap::new();
    let (lane_max, rows_max) = (usize::try_from(lane_max).unwrap_or_default(), usize::try_from(rows_max).unwrap_or_default());
    let mut chosen = Vec::new();
    for row in asked {
        let taken = of_lane.entry((row.place.feed, row.place.lane)).or_default();
        let before = chosen.len();
        chosen.extend(row.open(&known).take(lane_max - *taken));
        *taken += chosen.len() - before;
    }
    chosen.sort_by_key(|one| (one.of.not_before_ms, one.of.place.feed, one.of.place.lane, one.n, one.id));
    chosen.truncate(rows_max);
    chosen
}

impl Postgres {
    /// Rows with something open, in the order of each lane.
    pub(super) async fn asked(
        &self,
        connection: &mut PgConnection,
        lanes: &[(FeedId, i32)],
        known: &[i64],
        lane_max: i64,
    ) -> Try<Vec<Asked>> {
        let held = stretch::bits_of(known);
        let (feeds, lanes) = columns(lanes);
        let rows = sqlx::query(ASKED)
            .bind(feeds)
            .bind(lanes)
            .bind(self.clock.fixed_ms())
            .bind(held.keys().copied().collect::<Vec<_>>())
            .bind(lane_max)
            .bind(held.into_values().collect::<Vec<_>>())
            .fetch_all(connection)
            .await?;
        let mut asked = rows.iter().map(Asked::read).collect::<Try<Vec<_>>>()?;
        asked.sort_by_key(|row| (row.not_before_ms, row.place.n, row.id));
        Ok(asked)
    }
}
