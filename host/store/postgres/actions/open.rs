//! Open actions with all that decides over them: the message, its row, its last outcome, and whether a later one of its key was handled.
//! All of it is of one moment, read table by table: messages, rows and outcomes of a stretch lie side by side.

use sqlx::postgres::{PgArguments, PgConnection, Postgres as Database};
use sqlx::query::Query;
use sqlx::{Connection, Row};

use super::super::rows::{MESSAGE_COLUMNS, Tables, message_columns, status_of, work_columns, work_row};
use super::super::{Postgres, Try, columns, uuid_of};
use super::asked::{Chosen, full, page};
use super::stretch::Bits;
use crate::message::{FeedId, Map, Message, Place, Set, Status};
use crate::store::actions::share;
use crate::store::{OpenAction, WorkRow};

/// Rows `x` of a table about the messages of stretches. Where nothing lies between them they are read in one go.
macro_rules! of_stretches {
    ($table:literal) => {
        concat!(
            "unnest($1::int[], $2::int[], $3::bigint[], $4::bigint[], $5::int[], $6::int[], $7::boolean[])
               WITH ORDINALITY s(feed, lane, low, high, first, last, dense, position)
             CROSS JOIN LATERAL (
               SELECT * FROM ",
            $table,
            " x WHERE s.dense AND x.feed = s.feed AND x.lane = s.lane AND x.n BETWEEN s.low AND s.high
               UNION ALL SELECT * FROM ",
            $table,
            " x WHERE NOT s.dense AND x.feed = s.feed AND x.lane = s.lane AND x.n = ANY(($8::bigint[])[s.first:s.last])) x"
        )
    };
}

/// The stretches of a page, as the statements take them.
#[derive(Default)]
struct Stretches {
    feeds: Vec<i32>,
    lanes: Vec<i32>,
    lows: Vec<i64>,
    highs: Vec<i64>,
    firsts: Vec<i32>,
    lasts: Vec<i32>,
    dense: Vec<bool>,
    ns: Vec<i64>,
    /// What their messages hold, at most; `None`: not known.
    bytes: Option<i64>,
}

impl Stretches {
    /// Of actions in their order: those of a row that follow each other are one.
    fn of(chosen: &[Chosen<'_>]) -> Self {
        let mut all = Self { bytes: Some(0), ..Self::default() };
        for stretch in chosen.chunk_by(|one, next| one.of.id == next.of.id) {
            let (low, high) = (stretch[0].n, stretch[stretch.len() - 1].n);
            let first = i32::try_from(all.ns.len() + 1).unwrap_or(i32::MAX);
            let count = i32::try_from(stretch.len()).unwrap_or(i32::MAX);
            all.feeds.push(stretch[0].of.place.feed.0);
            all.lanes.push(stretch[0].of.place.lane);
            all.lows.push(low);
            all.highs.push(high);
            all.firsts.push(first);
            all.lasts.push(first + count - 1);
            all.dense.push(high - low < i64::from(count));
            all.bytes = all.bytes.zip(stretch[0].of.bytes).map(|(known, bytes)| known.saturating_add(bytes));
            all.ns.extend(stretch.iter().map(|one| one.n));
        }
        all
    }

    fn bind<'q>(&'q self, query: Query<'q, Database, PgArguments>) -> Query<'q, Database, PgArguments> {
        query
            .bind(&self.feeds)
            .bind(&self.lanes)
            .bind(&self.lows)
            .bind(&self.highs)
            .bind(&self.firsts)
            .bind(&self.lasts)
            .bind(&self.dense)
            .bind(&self.ns)
    }

    /// Messages, with the number of the newest dropped one of their key; about `bytes_max`, the first of them, so that none comes before an
    /// earlier one of its key.
    async fn messages(&self, connection: &mut PgConnection, bytes_max: i64) -> Try<Map<Place, (Message, Option<i64>)>> {
        // To count them on the way takes as long as to read them.
        let rows = if self.bytes.is_some_and(|bytes| bytes <= bytes_max) {
            let all = concat!("SELECT ", message_columns!(), ", i.newer FROM (SELECT x.* FROM ", of_stretches!("inbox"), ") i");
            self.bind(sqlx::query(all)).fetch_all(connection).await?
        } else {
            let first = concat!(
                "SELECT ",
                message_columns!(),
                ", i.newer FROM (SELECT x.*, sum(x.size) OVER (ORDER BY s.position, x.n ROWS UNBOUNDED PRECEDING) AS so_far FROM ",
                of_stretches!("inbox"),
                ") i WHERE i.so_far - i.size < $9"
            );
            self.bind(sqlx::query(first)).bind(bytes_max.max(1)).fetch_all(connection).await?
        };
        let mut tables = Tables::default();
        let mut messages = Map::with_capacity_and_hasher(rows.len(), Default::default());
        for row in &rows {
            let message = tables.message(row)?;
            messages.insert(message.place, (message, row.try_get_unchecked(MESSAGE_COLUMNS)?));
        }
        Ok(messages)
    }

    /// Rows in `work`, of the highest run.
    async fn work(&self, connection: &mut PgConnection, messages: &Map<Place, (Message, Option<i64>)>) -> Try<Map<Place, WorkRow>> {
        let query =
            sqlx::query(concat!("SELECT w.feed, w.lane, w.n, ", work_columns!(), " FROM (SELECT x.* FROM ", of_stretches!("work"), ") w"));
        let mut work: Map<Place, WorkRow> = Map::default();
        for row in self.bind(query).fetch_all(connection).await? {
            let place = Place { feed: FeedId(row.try_get(0)?), lane: row.try_get(1)?, n: row.try_get(2)? };
            let Some((message, _)) = messages.get(&place) else { continue };
            let found = work_row(&row, 3, message)?;
            if work.get(&place).is_none_or(|known| known.run < found.run) {
                work.insert(place, found);
            }
        }
        Ok(work)
    }

    /// Ends of the highest run that has an outcome.
    async fn ends(&self, connection: &mut PgConnection) -> Try<Map<Place, (i32, Status)>> {
        let query = sqlx::query(concat!("SELECT x.feed, x.lane, x.n, x.run, x.status FROM ", of_stretches!("outcome")));
        let mut ends: Map<Place, (i32, Status)> = Map::default();
        for row in self.bind(query).fetch_all(connection).await? {
            let place = Place { feed: FeedId(row.try_get(0)?), lane: row.try_get(1)?, n: row.try_get(2)? };
            let found: (i32, Status) = (row.try_get(3)?, status_of(row.try_get(4)?)?);
            if ends.get(&place).is_none_or(|known| known.0 < found.0) {
                ends.insert(place, found);
            }
        }
        Ok(ends)
    }

    /// The highest runs that were simply handled.
    async fn handled(&self, connection: &mut PgConnection) -> Try<Map<Place, i32>> {
        let rows = sqlx::query(
            "SELECT x.feed, x.lane, x.n, d.run, d.which FROM unnest($1::int[], $2::int[], $3::bigint[], $4::bigint[]) s(feed, lane, low, high)
             JOIN action x ON x.feed = s.feed AND x.lane = s.lane AND x.n BETWEEN s.low - s.low % 200 AND s.high AND x.which IS NOT NULL
             JOIN action_done d ON d.action = x.id AND d.run >= 0",
        )
        .bind(&self.feeds)
        .bind(&self.lanes)
        .bind(&self.lows)
        .bind(&self.highs)
        .fetch_all(connection)
        .await?;
        let mut runs: Map<Place, i32> = Map::default();
        for row in rows {
            let (place, run) = (Place { feed: FeedId(row.try_get(0)?), lane: row.try_get(1)?, n: row.try_get(2)? }, row.try_get(3)?);
            for n in Bits::read(&row, 4)?.iter().flat_map(|which| which.numbers(place.n)) {
                let known = runs.entry(Place { n, ..place }).or_insert(run);
                *known = run.max(*known);
            }
        }
        Ok(runs)
    }
}

impl Postgres {
    pub(super) async fn open_once(&self, lanes: &[(FeedId, i32)], known: &[i64], rows_max: i64, bytes_max: i64) -> Try<Vec<OpenAction>> {
        let mut connection = self.pool().await?.acquire().await?;
        let mut transaction = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let known: Set<i64> = known.iter().copied().collect();
        let first = share(lanes.len(), rows_max);
        let mut asked = self.asked(&mut transaction, lanes, &known, first).await?;
        let mut chosen = page(&asked, &known, (first, first, rows_max));
        let fulls = full(&chosen, first);
        if fulls > 0 && (chosen.len() as i64) < rows_max {
            // Those that have more share what the others leave.
            let more = share(fulls, rows_max);
            asked = self.asked(&mut transaction, lanes, &known, more).await?;
            chosen = page(&asked, &known, (first, more, rows_max));
        }
        if chosen.is_empty() {
            transaction.rollback().await?;
            return Ok(Vec::new());
        }
        let stretches = Stretches::of(&chosen);
        let mut messages = stretches.messages(&mut transaction, bytes_max).await?;
        let work = stretches.work(&mut transaction, &messages).await?;
        let ends = stretches.ends(&mut transaction).await?;
        let handled = stretches.handled(&mut transaction).await?;
        let cursors = cursors(&mut transaction, lanes).await?;
        let (mut open, mut contested) = (Vec::with_capacity(chosen.len()), Vec::new());
        let several = several(&chosen);
        for one in &chosen {
            let place = one.place();
            let found = if several.contains(&place) { messages.get(&place).cloned() } else { messages.remove(&place) };
            let Some((message, newer)) = found else {
                // Beyond the limit of bytes: what comes later in the page must not come before it. Else it is gone.
                if open.is_empty() {
                    continue;
                } else {
                    break;
                };
            };
            let cursor = cursors.get(&(place.feed, place.lane)).copied().unwrap_or_default();
            let (row, passed) = (work.get(&place).cloned().map(Box::new), place.n <= cursor);
            let after_n = one.of.after_n.unwrap_or(place.n);
            // Only a done message that would run again can be superseded.
            let yields = passed && row.is_none() && one.of.yields();
            let superseded_by = newer.filter(|newer| yields && *newer > after_n);
            if yields && superseded_by.is_none() && after_n < cursor {
                contested.push(Later { of: open.len(), place, after_n, cursor, key_hash: uuid_of(message.key_hash) });
            }
            let end = ends.get(&place).copied();
            let simply = handled.get(&place).map(|run| (*run, Status::Handled));
            open.push(OpenAction {
                id: one.id,
                kind: one.of.kind,
                force: one.of.force,
                pinned: one.of.pinned,
                detail: one.of.detail.clone(),
                why: one.of.why.clone(),
                message,
                row,
                last: end.into_iter().chain(simply).max_by_key(|(run, _)| *run),
                plain: one.of.is_stretch() && end.is_none(),
                passed,
                superseded_by,
            });
        }
        for (of, n) in later(&mut transaction, &contested).await? {
            open[of].superseded_by = Some(n);
        }
        transaction.rollback().await?;
        Ok(open)
    }
}

/// Messages that are asked for more than once.
fn several(chosen: &[Chosen<'_>]) -> Set<Place> {
    let mut seen = Set::with_capacity_and_hasher(chosen.len(), Default::default());
    chosen.iter().map(Chosen::place).filter(|place| !seen.insert(*place)).collect()
}

async fn cursors(connection: &mut PgConnection, lanes: &[(FeedId, i32)]) -> Try<Map<(FeedId, i32), i64>> {
    let (feeds, lanes) = columns(lanes);
    let rows: Vec<(i32, i32, i64)> = sqlx::query_as(
        "SELECT l.feed, l.lane, l.cursor FROM unnest($1::int[], $2::int[]) o(feed, lane) JOIN lane l ON l.feed = o.feed AND l.lane = o.lane",
    )
    .bind(feeds)
    .bind(lanes)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(feed, lane, cursor)| ((FeedId(feed), lane), cursor)).collect())
}

/// An open action, by its index, whose key may have a handled message above `after_n`. What stands in `work` is not handled yet.
struct Later {
    of: usize,
    place: Place,
    after_n: i64,
    cursor: i64,
    key_hash: uuid::Uuid,
}

/// The numbers of the first such messages, where there is one. The scan goes along the inbox.
async fn later(connection: &mut PgConnection, asked: &[Later]) -> Try<Vec<(usize, i64)>> {
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT r.position, x.n FROM unnest($1::int[], $2::int[], $3::bigint[], $4::bigint[], $5::uuid[]) WITH ORDINALITY
           r(feed, lane, after_n, cursor, key_hash, position)
         CROSS JOIN LATERAL (
           SELECT x.n FROM inbox x
           WHERE x.feed = r.feed AND x.lane = r.lane AND x.n > r.after_n AND x.n <= r.cursor AND x.key_hash = r.key_hash
             AND (SELECT max(y.run) FROM work y WHERE y.feed = x.feed AND y.lane = x.lane AND y.n = x.n) IS NULL
             AND coalesce((SELECT y.status FROM outcome y WHERE y.feed = x.feed AND y.lane = x.lane AND y.n = x.n
               ORDER BY y.run DESC LIMIT 1), 1) = 1
           ORDER BY x.n LIMIT 1) x",
    )
    .bind(asked.iter().map(|one| one.place.feed.0).collect::<Vec<_>>())
    .bind(asked.iter().map(|one| one.place.lane).collect::<Vec<_>>())
    .bind(asked.iter().map(|one| one.after_n).collect::<Vec<_>>())
    .bind(asked.iter().map(|one| one.cursor).collect::<Vec<_>>())
    .bind(asked.iter().map(|one| one.key_hash).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let index = |position: i64| usize::try_from(position - 1).expect("positions count from 1");
    Ok(rows.into_iter().map(|(position, n)| (asked[index(position)].of, n)).collect())
}
