//! How everything stands: hosts, feeds, lanes, targets and the rows of `work`, read as of one moment.

use async_trait::async_trait;
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::{Sqlite, rows};
use crate::store::Result;
use crate::store::overview::{FeedState, HostState, LaneState, Overview, Overviews, TargetState, WorkState};

#[async_trait]
impl Overviews for Sqlite {
    async fn overview(&self) -> Result<Overview> {
        const VERB: &str = "look at how everything stands";
        let mut reader = self.read_one_state(VERB).await?;
        overview(&mut reader, self.now()).await.map_err(self.failed(VERB))
    }
}

async fn overview(connection: &mut SqliteConnection, now_ms: i64) -> sqlx::Result<Overview> {
    let settlement = sqlx::query_scalar("SELECT coalesce(max(number), 0) FROM settlement").fetch_one(&mut *connection).await?;
    let hosts: Vec<(Uuid, String, i64, Option<i64>)> =
        sqlx::query_as("SELECT id, name, lease_until_ms, revision FROM host ORDER BY number").fetch_all(&mut *connection).await?;
    let feeds: Vec<(i32, String, i32, Option<Uuid>, i64)> =
        sqlx::query_as("SELECT id, name, lanes, owner, epoch FROM feed ORDER BY name").fetch_all(&mut *connection).await?;
    let positions: Vec<(i32, i32, i64)> =
        sqlx::query_as("SELECT feed, source_partition, next_offset FROM source_position ORDER BY 1, 2").fetch_all(&mut *connection).await?;
    let lanes: Vec<(String, i32, Option<Uuid>, i64, i64, i64)> = sqlx::query_as(
        "SELECT f.name, l.lane, l.owner, l.epoch, l.cursor, coalesce(t.tail, 0) FROM lane l JOIN feed f ON f.id = l.feed
         LEFT JOIN lane_tail t ON t.feed = l.feed AND t.lane = l.lane ORDER BY f.name, l.lane",
    )
    .fetch_all(&mut *connection)
    .await?;
    let targets: Vec<(String, Option<Uuid>, i64, i64, i32, i64)> = sqlx::query_as(
        "SELECT t.name, c.owner, c.epoch, c.settlement, c.position, (SELECT count(*) FROM parked_output p WHERE p.target = t.id)
         FROM target t JOIN target_cursor c ON c.target = t.id ORDER BY t.name",
    )
    .fetch_all(&mut *connection)
    .await?;
    let work: Vec<(String, i16, i64)> =
        sqlx::query_as("SELECT f.name, w.status, count(*) FROM work w JOIN feed f ON f.id = w.feed GROUP BY 1, 2 ORDER BY 1, 2")
            .fetch_all(&mut *connection)
            .await?;
    let count = |(feed, code, count)| Ok(WorkState { feed, status: rows::status_of(code)?.as_str().to_owned(), count });
    Ok(Overview {
        now_ms,
        settlement,
        hosts: hosts
            .into_iter()
            .map(|(id, name, lease_until_ms, revision)| HostState { id, name, lease_until_ms, lives: lease_until_ms >= now_ms, revision })
            .collect(),
        feeds: feeds
            .into_iter()
            .map(|(id, feed, lanes, owner, epoch)| {
                let of = positions.iter().filter(|(feed, ..)| *feed == id).map(|(_, partition, next)| (*partition, *next)).collect();
                FeedState { id, feed, lanes, owner, epoch, positions: of }
            })
            .collect(),
        lanes: lanes
            .into_iter()
            .map(|(feed, lane, owner, epoch, cursor, tail)| LaneState { feed, lane, owner, epoch, cursor, tail })
            .collect(),
        targets: targets
            .into_iter()
            .map(|(target, owner, epoch, settlement, index, parked)| TargetState { target, owner, epoch, settlement, index, parked })
            .collect(),
        work: work.into_iter().map(count).collect::<sqlx::Result<_>>()?,
    })
}
