//! Deliveries in the system's own words: what a case gives, what the host says of them, and the one table of states, codes and alarms.

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use tolk::delivery::health::{Code, Newest, health};
use tolk::delivery::{Rules, State};
use tolk::message::Place;
use tolk::store::{Answer, By, Delivery, MessageStatus, Ordered};
use uuid::Uuid;

use super::TABLE;
use super::play::Scenario;
use super::recipients::{Recipient, record};

/// More deliveries than any case has.
const DELIVERIES_MAX: i64 = 100;

/// A delivery's state; `None`: there is no such delivery, or it was invalidated as a whole.
pub fn word(state: State) -> Option<&'static str> {
    match state {
        State::Open => Some("Bestilt"),
        State::Started => Some("Startet"),
        State::Complete => Some("Ferdig"),
        _ => None,
    }
}

/// Why a record was refused; `None`: it was not.
pub fn refusal(status: &MessageStatus) -> Option<&'static str> {
    match status.code.as_deref().filter(|_| matches!(status.status.as_str(), "invalid" | "ignored"))? {
        "delivery-unknown" | "delivery-invalid" => Some("EksistererIkke"),
        code if code.starts_with("delivery-") => Some("UgyldigTistand"),
        _ => Some("KafkaMeldingDeserialiseringException"),
    }
}

/// The status of the whole and its text.
fn alarm(code: Code) -> (&'static str, &'static str) {
    match code {
        Code::None => ("IkkeKjort", ""),
        Code::TooOld => ("Feil", "For lenge siden siste innlesing"),
        Code::Incomplete => ("Feil", "Innlesing er ikke prosessert"),
        Code::Unfinished => ("Feil", "Alle mottakere er ikke prosessert"),
        Code::Failed => ("Feil", "Det finnes feilede mottakere"),
        // An order without an answer: the original knows no such thing.
        Code::Unclear => ("Feil", "Det er uklart om en bestilling kom fram"),
        Code::Ok => ("OK", ""),
    }
}

/// Who does things in a case.
pub fn by() -> By {
    By { whom: "acceptance".to_owned(), why: "the case says so".to_owned() }
}

/// A delivery that a case gives.
struct Given {
    id: String,
    year: i64,
    state: String,
    age_ms: i64,
    expected: Option<usize>,
    read: usize,
    /// Numbers and states of its recipients.
    recipients: Vec<(String, String)>,
}

impl Given {
    fn read(given: &Value, number: usize) -> anyhow::Result<Self> {
        const KNOWN: [&str; 7] = ["id", "state", "year", "antallIdenterLest", "forespurt", "expected", "recipients"];
        let fields = given.as_object().context("a delivery is an object")?;
        if let Some(key) = fields.keys().find(|key| !KNOWN.contains(&key.as_str())) {
            bail!("given.deliveries: the field `{key}` is not played");
        }
        let recipients = recipients_of(&given["recipients"])?;
        let state = given["state"].as_str().unwrap_or(if recipients.is_empty() { "Bestilt" } else { "Ferdig" });
        let count = |field: &str| given[field].as_u64().map(usize::try_from).transpose();
        Ok(Self {
            id: given["id"].as_str().map_or_else(|| made_id(number), str::to_owned),
            year: given["year"].as_i64().unwrap_or(2020),
            state: state.to_owned(),
            age_ms: given["forespurt"].as_str().map(age_ms).transpose()?.unwrap_or(0),
            expected: count("expected")?,
            read: count("antallIdenterLest")?.unwrap_or(0),
            recipients,
        })
    }
}

/// Numbers and states: texts are states where they are one, else numbers.
fn recipients_of(given: &Value) -> anyhow::Result<Vec<(String, String)>> {
    let list = given.as_array().map(Vec::as_slice).unwrap_or_default().iter().enumerate();
    list.map(|(number, given)| {
        let free = format!("{:011}", 70_000 + number);
        Ok(match given {
            Value::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => (text.clone(), "Klar".to_owned()),
            Value::String(state) => (free, state.clone()),
            Value::Object(fields) => {
                let text = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
                (text("ident").unwrap_or(free), text("state").unwrap_or_else(|| "Klar".to_owned()))
            }
            other => bail!("given.recipients: {other} is no recipient"),
        })
    })
    .collect()
}

/// The id of a delivery that a case calls by another name, or by none.
pub fn id_of(name: &str) -> String {
    Uuid::try_parse(name).map_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).to_string(), |id| id.to_string())
}

fn made_id(number: usize) -> String {
    id_of(&format!("delivery {number}"))
}

/// `now-5h`.
fn age_ms(text: &str) -> anyhow::Result<i64> {
    let rest = text.strip_prefix("now").with_context(|| format!("\"{text}\" is no age"))?;
    let Some(rest) = rest.strip_prefix('-').filter(|rest| !rest.is_empty()) else { return Ok(0) };
    let (number, unit) = rest.split_at(rest.len() - 1);
    let unit = match unit {
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 24 * 3_600_000,
        _ => bail!("\"{text}\" is no age"),
    };
    Ok(number.parse::<i64>().with_context(|| format!("\"{text}\" is no age"))? * unit)
}

impl Scenario<'_> {
    /// Makes what a case gives: deliveries, recipients, published messages.
    pub async fn given(&mut self, given: &Value) -> anyhow::Result<()> {
        const KNOWN: [&str; 8] =
            ["deliveries", "recipients", "http", "store_error", "store_error_once_at", "outbox_rows", "fagsaker", "crash_before_ack"];
        if let Some(key) = given.as_object().and_then(|given| given.keys().find(|key| !KNOWN.contains(&key.as_str()))) {
            bail!("given.{key} is not played");
        }
        let mut deliveries = match &given["deliveries"] {
            Value::Array(list) => {
                list.iter().enumerate().map(|(number, it)| Given::read(it, number)).collect::<anyhow::Result<Vec<_>>>()?
            }
            Value::Object(named) => {
                let named = named.iter().enumerate().map(|(number, (name, states))| {
                    let whole = serde_json::json!({ "id": id_of(name), "state": "Ferdig", "recipients": states });
                    Given::read(&whole, number)
                });
                named.collect::<anyhow::Result<_>>()?
            }
            _ => Vec::new(),
        };
        let more = recipients_of(&given["recipients"])?;
        let alone = self.is_of_one_recipient() && more.is_empty() && deliveries.is_empty();
        let needs_one = deliveries.is_empty() && (!more.is_empty() || alone);
        if needs_one {
            deliveries.push(Given::read(&serde_json::json!({ "state": "Ferdig" }), 0)?);
        }
        if let Some(first) = deliveries.first_mut() {
            first.recipients.extend(if alone { vec![("12345678910".to_owned(), "Klar".to_owned())] } else { more });
        }
        let now_ms = self.world.now_ms();
        let sent = usize::try_from(given["outbox_rows"].as_u64().unwrap_or(0))?;
        if sent > 0 {
            let ready = (0..sent).map(|number| (format!("{:011}", 80_000 + number), "Klar".to_owned())).collect();
            let mut delivery = Given::read(&serde_json::json!({ "state": "Ferdig" }), 0)?;
            delivery.recipients = ready;
            self.make(&delivery, now_ms).await?;
            self.send_all().await?;
        }
        for delivery in &deliveries {
            self.make(delivery, now_ms).await?;
        }
        self.world.set_now_ms(now_ms);
        let mut wanted = deliveries.iter().flat_map(|delivery| delivery.recipients.iter().map(|(_, state)| state.clone()));
        for at in 0..self.recipients.len() {
            let state = wanted.next().unwrap_or_else(|| "Klar".to_owned());
            if sent == 0 && state != "Klar" {
                self.bring(at, &state).await?;
            }
        }
        Ok(())
    }

    /// Makes one delivery by its order and its records.
    async fn make(&mut self, given: &Given, now_ms: i64) -> anyhow::Result<()> {
        self.world.set_now_ms(now_ms - given.age_ms);
        let params = vec![("year".to_owned(), given.year.to_string())];
        let Ordered::Placed(number) = self.world.store.order_delivery(self.world.feed_id(), &params, &by(), true).await? else {
            bail!("the order of a given delivery was not taken");
        };
        let (feed, epoch, rules) = (self.world.feed_id(), self.world.feed_epoch(), self.rules()?);
        self.world.store.take_order(feed, epoch).await?.context("the order is taken")?;
        let bound = self.world.store.answer_order(feed, epoch, number, &Answer::Bound(given.id.clone()), &rules).await?;
        ensure!(bound, "the order of a given delivery was not answered");
        if given.state == "Bestilt" {
            return Ok(());
        }
        let parts = given.read.max(given.recipients.len());
        let mut records = vec![record("START", &given.id, None, given.expected.unwrap_or(parts))];
        let fill = (given.recipients.len()..parts).map(|number| format!("{:011}", 60_000 + number));
        let idents: Vec<String> = given.recipients.iter().map(|(ident, _)| ident.clone()).chain(fill).collect();
        records.extend(idents.iter().map(|ident| record("DATA", &given.id, Some(ident), parts)));
        if given.state == "Ferdig" {
            records.push(record("SLUTT", &given.id, None, parts));
        }
        self.poll(&records).await?;
        let state = self.state(&given.id).await?;
        ensure!(state.map(|state| word(state.tally.state)) == Some(Some(given.state.as_str())), "a given delivery is not {}", given.state);
        Ok(())
    }

    /// Publishes something for every recipient there is.
    async fn send_all(&mut self) -> anyhow::Result<()> {
        let case = serde_json::json!({ "fagsakEiersIdent": "12345678910", "barnetrygdPerioder": [] });
        let stub = serde_json::json!({ "method": "POST", "url": "/api/ekstern/pensjon/hent-barnetrygd", "body": { "fagsaker": [case] } });
        self.stubs(&serde_json::json!([stub]))?;
        self.process().await?;
        self.passes.clear();
        Ok(())
    }

    /// A delivery by the id in its records.
    pub async fn state(&self, id: &str) -> anyhow::Result<Option<Delivery>> {
        Ok(self.world.store.delivery_by_id(self.world.feed_id(), id).await?)
    }

    /// Every delivery there is, the newest order first; those that were invalidated or refused are none.
    pub async fn deliveries(&self) -> anyhow::Result<Vec<Delivery>> {
        let mut all = self.world.store.deliveries(self.world.feed_id(), DELIVERIES_MAX).await?;
        all.retain(|delivery| word(delivery.tally.state).is_some());
        Ok(all)
    }

    /// The status of the whole and its text.
    pub async fn alarm(&self) -> anyhow::Result<(&'static str, &'static str)> {
        let config = self.world.delivery_config()?;
        let all = self.deliveries().await?;
        let failed = self.world.store.delivery_failures(self.world.feed_id()).await?;
        let done = match all.first() {
            Some(newest) => {
                let account = self.world.store.delivery_account(newest.number).await?.context("it has an account")?;
                ensure!(account.adds_up(), "the account of a delivery does not add up: {account:?}");
                account.handled + account.finished
            }
            None => 0,
        };
        let newest = all.first().map(|newest| Newest { tally: &newest.tally, opened_ms: newest.opened_ms, done });
        Ok(alarm(health(&config.health, newest, 0, failed, self.world.now_ms())))
    }

    /// Notes what the records since `before` have brought: recipients, and the last refusal.
    pub async fn read_records(&mut self, from: usize) -> anyhow::Result<()> {
        for (message, status) in self.world.rows().await?.into_iter().skip(from) {
            if let Some(refusal) = refusal(&status) {
                self.error = Some(refusal.to_owned());
            }
            let record: Value = serde_json::from_slice(message.captured.payload.as_deref().unwrap_or_default()).unwrap_or_default();
            let accepted = message.delivery.is_some() && record["meldingstype"] == TABLE && refusal(&status).is_none();
            if let (true, Some(delivery), Some(ident)) = (accepted, record["requestId"].as_str(), record["personident"].as_str()) {
                let place: Place = message.place;
                let (delivery, ident) = (delivery.to_owned(), ident.to_owned());
                self.recipients.push(Recipient { delivery, ident, id: message.id, place, history: vec!["Klar"], attempts: 0 });
            }
        }
        Ok(())
    }

    fn rules(&self) -> anyhow::Result<Rules> {
        Ok(Rules::of(self.world.delivery_config()?))
    }
}
