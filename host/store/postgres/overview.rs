//! How everything stands: hosts, feeds, lanes, targets and the rows of `work`.

use async_trait::async_trait;
use sqlx::Connection;
use uuid::Uuid;

use super::messages::plan_freely;
use super::{Postgres, Try, retried};
use crate::message::Status;
use crate::store::overview::{FeedState, HostState, LaneState, Overview, Overviews, TargetState, WorkState};
use crate::store::{Error, Result, Schema};

impl Postgres {
    async fn overview_once(&self) -> Try<Overview> {
        let now_ms = self.now_ms().await?;
        let mut connection = self.pool().await?.acquire().await?;
        let mut transaction = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        plan_freely(&mut transaction).await?;
        let (settlement,): (i64,) = sqlx::query_as("SELECT coalesce(max(number), 0) FROM settlement").fetch_one(&mut *transaction).await?;
        let hosts: Vec<(Uuid, String, i64, Option<i64>)> =
            sqlx::query_as("SELECT id, name, lease_until_ms, revision FROM host ORDER BY number").fetch_all(&mut *transaction).await?;
        let feeds: Vec<(i32, String, i32, Option<Uuid>, i64)> =
            sqlx::query_as("SELECT id, name, lanes, owner, epoch FROM feed ORDER BY name").fetch_all(&mut *transaction).await?;
        let positions: Vec<(i32, i32, i64)> =
            sqlx::query_as("SELECT feed, source_partition, next_offset FROM source_position ORDER BY 1, 2")
                .fetch_all(&mut *transaction)
                .await?;
        let lanes: Vec<(String, i32, Option<Uuid>, i64, i64, i64)> = sqlx::query_as(
            "SELECT f.name, l.lane, l.owner, l.epoch, l.cursor, coalesce(t.tail, 0) FROM lane l JOIN feed f ON f.id = l.feed
             LEFT JOIN lane_tail t ON t.feed = l.feed AND t.lane = l.lane ORDER BY f.name, l.lane",
        )
        .fetch_all(&mut *transaction)
        .await?;
        let targets: Vec<(String, Option<Uuid>, i64, i64, i32, i64)> = sqlx::query_as(
            "SELECT t.name, c.owner, c.epoch, c.settlement, c.position, (SELECT count(*) FROM parked_output p WHERE p.target = t.id)
             FROM target t JOIN target_cursor c ON c.target = t.id ORDER BY t.name",
        )
        .fetch_all(&mut *transaction)
        .await?;
        let work: Vec<(String, i16, i64)> =
            sqlx::query_as("SELECT f.name, w.status, count(*) FROM work w JOIN feed f ON f.id = w.feed GROUP BY 1, 2 ORDER BY 1, 2")
                .fetch_all(&mut *transaction)
                .await?;
        transaction.commit().await?;
        let count = |(feed, code, count): (String, i16, i64)| {
            let status = Status::from_code(code).ok_or_else(|| Error::Corrupt(format!("a row of work has the status {code}")))?;
            Ok::<_, Error>(WorkState { feed, status: status.as_str().to_owned(), count })
        };
        Ok(Overview {
            now_ms,
            settlement,
            hosts: hosts
                .into_iter()
                .map(|(id, name, lease_until_ms, revision)| HostState {
                    id,
                    name,
                    lease_until_ms,
                    lives: lease_until_ms >= now_ms,
                    revision,
                })
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
            work: work.into_iter().map(count).collect::<Result<_>>()?,
        })
    }
}

#[async_trait]
impl Overviews for Postgres {
    async fn overview(&self) -> Result<Overview> {
        retried!(self, "look at how everything stands", self.overview_once())
    }
}
