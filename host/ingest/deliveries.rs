//! What the owner of a feed does for its deliveries beside reading: makes the calls that order them, ends those whose time is up, and lets
//! go held parts in pieces. Knows nothing of plugins.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::delivery::{self, OrderConfig, Rules};
use crate::endpoint::{Called, Caller};
use crate::message::FeedId;
use crate::plugin::{Call, Response};
use crate::store::{self, Answer, Delivery, Store, Tended};
use crate::trouble::{Chain, Pause};

/// Namespace of orders: uuid5 of it and `FEED/NUMBER` is what a call is made for.
const ORDERS: Uuid = Uuid::from_u128(0x6f1d_1a52_3b0c_5e67_9a54_746f_6c6b_0002);
/// Held parts let go in one transaction.
const PIECE_ROWS: i64 = 5_000;
/// How much of an answer's body a reason keeps, in characters.
const BODY_CHARS: usize = 1_000;
/// How often an order in doubt is told.
const ALARM_EVERY: Duration = Duration::from_secs(60);

/// The duties of one feed's one owner.
pub struct Duty {
    /// The feed's name.
    pub name: String,
    /// Its number.
    pub feed: FeedId,
    /// The epoch of our lease.
    pub epoch: i64,
    /// Its settings.
    pub config: delivery::Config,
    /// Where deliveries are.
    pub store: Arc<dyn Store>,
    /// Who makes the calls.
    pub caller: Arc<dyn Caller>,
    /// Rung when held parts were let go: a hint for translate.
    pub released: Arc<Notify>,
}

impl Duty {
    /// Does both until told to stop or fenced. Trouble is waited out and logged.
    pub async fn run(&self, poll: Duration, stop: &CancellationToken) {
        tokio::join!(self.tend_all(poll, stop), self.order_all(poll, stop));
    }

    async fn tend_all(&self, poll: Duration, stop: &CancellationToken) {
        let (mut pause, mut alarmed) = (Pause::default(), None::<Instant>);
        while !stop.is_cancelled() {
            match self.tend().await {
                Ok(None) => return,
                Ok(Some(tended)) => {
                    pause.reset();
                    if tended.unclear == 0 {
                        alarmed = None;
                    } else if alarmed.is_none_or(|at| at.elapsed() >= ALARM_EVERY) {
                        alarmed = Some(Instant::now());
                        tracing::error!(
                            feed = self.name,
                            orders = tended.unclear,
                            "nobody knows whether an order arrived; see `tolk deliveries list`, then bind its id or invalidate it"
                        );
                    }
                    if !tended.more {
                        wait(poll, stop).await;
                    }
                }
                Err(error) => pause.wait(&self.name, &error, stop).await,
            }
        }
    }

    async fn order_all(&self, poll: Duration, stop: &CancellationToken) {
        let Some(order) = &self.config.order else { return };
        let mut pause = Pause::default();
        while !stop.is_cancelled() {
            match self.store.take_order(self.feed, self.epoch).await {
                Ok(Some(delivery)) => {
                    pause.reset();
                    self.place(order, &delivery, stop).await;
                }
                Ok(None) => wait(poll, stop).await,
                Err(error) => pause.wait(&self.name, &error, stop).await,
            }
        }
    }

    /// One turn of tending: what is over by time, and one piece of held parts. `None`: fenced.
    pub async fn tend(&self) -> store::Result<Option<Tended>> {
        let tended = self.store.tend_deliveries(self.feed, self.epoch, PIECE_ROWS).await?;
        if let Some(tended) = tended
            && (tended.released > 0 || tended.expired > 0)
        {
            tracing::info!(feed = self.name, released = tended.released, expired = tended.expired, "tended deliveries");
            self.released.notify_one();
        }
        Ok(tended)
    }

    /// Makes the call of the next order, if there is one, and stores what came of it. False: there is none.
    pub async fn order(&self) -> store::Result<bool> {
        let Some(order) = &self.config.order else { return Ok(false) };
        let Some(delivery) = self.store.take_order(self.feed, self.epoch).await? else { return Ok(false) };
        self.place(order, &delivery, &CancellationToken::new()).await;
        Ok(true)
    }

    async fn place(&self, order: &OrderConfig, delivery: &Delivery, stop: &CancellationToken) {
        let origin = Uuid::new_v5(&ORDERS, format!("{}/{}", self.name, delivery.number).as_bytes());
        // `{order}` fills a header that tells one call from another.
        let params = delivery.params.iter().cloned().chain([("order".to_owned(), origin.to_string())]).collect();
        let call = Call { endpoint: order.endpoint.clone(), params, body: None, lenient: false };
        let answer = answer(&self.config, order, self.caller.call(&call, origin).await);
        match &answer {
            Answer::Bound(id) => tracing::info!(feed = self.name, delivery = delivery.number, id, "ordered"),
            Answer::Refused(_) => tracing::error!(feed = self.name, delivery = delivery.number, "an order was refused"),
            Answer::Unclear(_) => tracing::error!(feed = self.name, delivery = delivery.number, "an order's call has no clear answer"),
        }
        let (mut pause, rules) = (Pause::default(), Rules::of(&self.config));
        // The answer is nowhere else: it is given to the store until that takes it. Whoever stops meanwhile leaves the order unclear.
        loop {
            match self.store.answer_order(self.feed, self.epoch, delivery.number, &answer, &rules).await {
                Ok(true) => return,
                Ok(false) => {
                    tracing::warn!(feed = self.name, delivery = delivery.number, "the answer came too late: another host has the feed");
                    return;
                }
                Err(error) if stop.is_cancelled() => {
                    tracing::error!(feed = self.name, error = %Chain(&error), "an order's answer could not be stored");
                    return;
                }
                Err(error) => pause.wait(&self.name, &error, stop).await,
            }
        }
    }
}

async fn wait(poll: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(poll) => {}
    }
}

/// What a call's result means for an order. Only an answer that says no is a refusal; whatever may have arrived is unclear.
fn answer(config: &delivery::Config, order: &OrderConfig, called: Called) -> Answer {
    match called {
        Called::Response(response) if taken(order, response.status) => match id(config, order, &response) {
            Some(id) => Answer::Bound(id),
            None => Answer::Unclear(format!("the order was taken, but its answer has no id: {}", said(&response))),
        },
        Called::Response(response) => Answer::Refused(said(&response)),
        Called::Failed { code, reason, .. } if matches!(&*code, "remote-status" | "remote-body" | "remote-redirect") => {
            Answer::Refused(reason)
        }
        Called::Failed { reason, .. } | Called::Away { reason, .. } => Answer::Unclear(reason),
        Called::Wrong { reason } => Answer::Refused(reason),
    }
}

fn taken(order: &OrderConfig, status: u16) -> bool {
    if order.statuses.is_empty() { (200..300).contains(&status) } else { order.statuses.contains(&status) }
}

fn id(config: &delivery::Config, order: &OrderConfig, response: &Response) -> Option<String> {
    let text = std::str::from_utf8(&response.body).ok()?.trim();
    if order.id.is_empty() {
        return delivery::id_of(config, text);
    }
    let json: serde_json::Value = serde_json::from_str(text).ok()?;
    match json.pointer(&order.id)? {
        serde_json::Value::String(id) => delivery::id_of(config, id),
        serde_json::Value::Number(id) => delivery::id_of(config, &id.to_string()),
        _ => None,
    }
}

fn said(response: &Response) -> String {
    let body: String = String::from_utf8_lossy(&response.body).chars().take(BODY_CHARS).collect();
    format!("status {}: {body}", response.status)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn of(status: u16, body: &'static str, pointer: &str, statuses: &str) -> Answer {
        let text = format!(
            "id = [\"/id\"]\nid_is_uuid = true\nmark = [\"/m\"]\n[order]\nendpoint = \"e\"\nid = {pointer:?}\nstatuses = {statuses}"
        );
        let config: delivery::Config = toml::from_str(&text).unwrap();
        let order = config.order.clone().unwrap();
        answer(&config, &order, Called::Response(Response { status, headers: vec![], body: Bytes::from_static(body.as_bytes()) }))
    }

    #[test]
    fn ids_come_from_the_body_and_refusals_say_why() {
        let id = "3d797c7d-6273-4be3-bd57-e13de35251f8";
        assert_eq!(of(202, "3D797C7D-6273-4be3-bd57-e13de35251f8\n", "", "[202]"), Answer::Bound(id.to_owned()));
        assert_eq!(of(200, r#"{"a":{"id":"3d797c7d-6273-4be3-bd57-e13de35251f8"}}"#, "/a/id", "[]"), Answer::Bound(id.to_owned()));
        assert_eq!(of(500, "nothing today", "", "[202]"), Answer::Refused("status 500: nothing today".to_owned()));
        assert!(matches!(of(202, "no id", "", "[202]"), Answer::Unclear(reason) if reason.contains("no id")));
        assert!(matches!(of(200, "{}", "/id", "[202]"), Answer::Refused(_)));
    }
}
