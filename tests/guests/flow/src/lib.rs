//! The translator of the benchmarks. It reads a change event of about 1 kB as JSON and puts out a message of about 330 bytes; with the config
//! `identity` it puts out the payload as it came. What is PARKED waits for an order. Knows nothing of how it is measured.

use serde::{Deserialize, Serialize};
use tolk_sdk::{Context, Description, Entry, Message, Outcome, Stop, Translator};

struct Flow {
    identity: bool,
}

#[derive(Deserialize)]
struct Event {
    op_type: String,
    after: Row,
}

#[derive(Deserialize)]
#[serde(rename_all = "UPPERCASE")]
struct Row {
    item_id: u64,
    order_id: u64,
    state: String,
    name: String,
    street: String,
    postcode: String,
    town: String,
    from_date: String,
    to_date: Option<String>,
    percent: Option<f64>,
    changed_by: String,
    changed_at: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    id: u64,
    order: u64,
    operation: &'a str,
    state: &'a str,
    name: String,
    address: Address<'a>,
    period: Period<'a>,
    percent: Option<f64>,
    changed_by: &'a str,
    changed_at: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Address<'a> {
    street: &'a str,
    postcode: &'a str,
    town: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Period<'a> {
    from: &'a str,
    to: Option<&'a str>,
}

impl Translator for Flow {
    fn describe() -> Description {
        Description::new("flow", "1.0.0", "Measures the way from the inbox to the outputs").table("*").reads("order").target("out")
    }

    fn configure(config: &str) -> Result<Self, String> {
        match config {
            "" | "identity" => Ok(Self { identity: config == "identity" }),
            other => Err(format!("the config \"{other}\" is neither empty nor \"identity\"")),
        }
    }

    fn translate(&self, message: &Message, _ctx: &Context) -> Result<Outcome, Stop> {
        if self.identity {
            let key = message.key.clone().unwrap_or_default();
            return Ok(Outcome::put("out", key, message.bytes()).into());
        }
        let Event { op_type, after } = message.json()?;
        if after.state == "PARKED" {
            let order = Entry::new("order", after.order_id.to_string());
            return Ok(Outcome::waiting("order-missing", "its order has not come").on(order).into());
        }
        let operation = match op_type.as_str() {
            "I" => "created",
            "U" => "changed",
            other => return Err(Outcome::rejected("unknown-op", format!("op_type is {other}")).into()),
        };
        let item = Item {
            id: after.item_id,
            order: after.order_id,
            operation,
            state: &after.state,
            name: after.name.to_uppercase(),
            address: Address { street: &after.street, postcode: &after.postcode, town: &after.town },
            period: Period { from: &after.from_date, to: after.to_date.as_deref() },
            percent: after.percent,
            changed_by: &after.changed_by,
            changed_at: &after.changed_at,
        };
        let payload = serde_json::to_vec(&item).map_err(|error| Outcome::failed("no-json", error.to_string()))?;
        Ok(Outcome::put("out", after.item_id.to_string(), payload).into())
    }
}

tolk_sdk::register!(Flow);
