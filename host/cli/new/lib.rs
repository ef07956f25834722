//! Translates a shop's change events: customers are remembered, orders are published with their customer's name.
//!
//! `translate` is a pure function. What it needs from the world it asks its context for; the `?` after each question returns to the
//! host while the answer is missing, and the host calls again with it. So the code reads as if everything were there.

use serde::{Deserialize, Serialize};
use tolk_sdk::{Context, Description, Entry, Message, Outcome, Stop, Translator, Write};

/// What `configure` makes, once per instance. Settings of yours go in here.
struct Shop;

/// A change event. Only the fields that are read are declared; the rest of the payload may hold anything.
#[derive(Deserialize)]
struct Event<R> {
    after: Option<R>,
}

#[derive(Deserialize)]
struct Customer {
    id: u64,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Order {
    number: u64,
    customer: u64,
    amount: f64,
}

#[derive(Serialize)]
struct Published<'a> {
    id: &'a str,
    number: u64,
    customer: &'a str,
    amount: f64,
}

impl Translator for Shop {
    /// The capability sheet: what is not on it is refused by the host.
    fn describe() -> Description {
        Description::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            env!("CARGO_PKG_DESCRIPTION"),
        )
        .table("SHOP.CUSTOMERS")
        .table("SHOP.ORDERS")
        .reads("customer")
        .writes("customer")
        .namespace("order")
        .target("out")
    }

    /// Gets the text that was given at activation.
    fn configure(_config: &str) -> Result<Self, String> {
        Ok(Self)
    }

    fn translate(&self, message: &Message, ctx: &Context) -> Result<Outcome, Stop> {
        match message.table.as_str() {
            "SHOP.CUSTOMERS" => customer(message),
            "SHOP.ORDERS" => order(message, ctx),
            other => Err(Outcome::rejected(
                "unknown-table",
                format!("this plugin knows no table {other}"),
            )
            .into()),
        }
    }
}

/// Nothing goes out for a customer; whoever waits for this entry is woken.
fn customer(message: &Message) -> Result<Outcome, Stop> {
    let event: Event<Customer> = message.json()?;
    let Some(customer) = event.after else {
        return Ok(Outcome::ignored("customer-left", "customers are never forgotten").into());
    };
    // Rejected: the message is wrong and stays so. It keeps its reason and can be replayed, its neighbours go on.
    let name = customer
        .name
        .ok_or_else(|| Outcome::rejected("no-name", "the customer has no name").field("name"))?;
    Ok(Outcome::handled()
        .write(Write::set("customer", customer.id, name))
        .into())
}

fn order(message: &Message, ctx: &Context) -> Result<Outcome, Stop> {
    let event: Event<Order> = message.json()?;
    let Some(order) = event.after else {
        return Ok(Outcome::ignored(
            "order-removed",
            "removed orders stay as they were published",
        )
        .into());
    };
    // The same id for the same number, now and on every later run; the host makes and keeps it.
    let id = ctx.id("order", order.number)?;
    // Waiting costs nothing: the host tries again when the entry appears, and holds later messages of this order back until then.
    let Some(name) = ctx.entry("customer", order.customer)? else {
        let reason = format!("customer {} has not come yet", order.customer);
        return Ok(Outcome::waiting("customer-missing", reason)
            .on(Entry::new("customer", order.customer))
            .into());
    };
    let name = String::from_utf8_lossy(name);
    let published = Published {
        id,
        number: order.number,
        customer: &name,
        amount: order.amount,
    };
    let payload = serde_json::to_vec(&published)
        .map_err(|error| Outcome::failed("not-json", error.to_string()))?;
    Ok(Outcome::put("out", id, payload).into())
}

tolk_sdk::register!(Shop);

#[cfg(test)]
mod tests {
    use tolk_sdk::testing::{World, captured};

    use super::*;

    /// Plays the captured messages one after the other against a fake world, as a host would.
    #[test]
    fn captured_messages_end_as_expected() {
        let mut world = World::new();
        let messages = captured(include_str!("../captures/sample.jsonl")).unwrap();
        let ends: Vec<String> = messages
            .iter()
            .map(|message| world.settle(&Shop, message).outcome.to_string())
            .collect();
        assert_eq!(
            ends,
            [
                "waiting customer-missing: customer 7 has not come yet",
                "translated",
                "translated",
                "rejected no-name: the customer has no name",
                "rejected bad-json: the payload ends in the middle of its JSON (line 1 column 35)",
                "ignored order-removed: removed orders stay as they were published",
            ]
        );
        // Now that the customer is known, the first order goes out.
        let played = world.settle(&Shop, &messages[0]);
        let id = world.id_of("order", 1001);
        let expected =
            format!(r#"{{"id":"{id}","number":1001,"customer":"Kari Nordmann","amount":99.5}}"#);
        assert_eq!(played.outputs()[0].payload_text(), expected);
    }
}
