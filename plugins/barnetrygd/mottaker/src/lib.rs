//! Translates the recipients of a delivery: each is completed with its persons, benefit and support, and goes out as one message. What
//! nothing goes out for is kept as an entry of `barnetrygdinformasjon`.

mod people;
mod steps;

use barnetrygd_rules::call::Calls;
use barnetrygd_rules::month::Window;
use barnetrygd_rules::names::{INFORMATION, TABLE, TARGET, YEAR, endpoint};
use serde::Deserialize;
use tolk_sdk::{Cause, Context, Delivery, Description, Message, Outcome, Stop, Translator, Write};

/// The code of a message that is no recipient.
const UNDECODABLE: &str = "KafkaMeldingDeserialiseringException";

struct Mottaker;

#[derive(Deserialize)]
struct Data {
    personident: String,
}

impl Translator for Mottaker {
    fn describe() -> Description {
        Description::new("barnetrygd-mottaker", env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_DESCRIPTION"))
            .table(TABLE)
            .writes(INFORMATION)
            .endpoint(endpoint::PERSON)
            .endpoint(endpoint::BENEFIT)
            .endpoint(endpoint::SUPPORT)
            .target(TARGET)
    }

    fn configure(config: &str) -> Result<Self, String> {
        if config.trim().is_empty() { Ok(Self) } else { Err("barnetrygd-mottaker takes no config".to_owned()) }
    }

    fn translate(&self, message: &Message, ctx: &Context) -> Result<Outcome, Stop> {
        let ident = ident(message)?;
        let delivery = ctx.delivery().ok_or_else(|| {
            Outcome::failed("no-delivery", "the recipient belongs to no delivery: set the feed's `deliveries`, whose id is /requestId")
        })?;
        // One id for each message, the same on every run of it: the message's own.
        let calls = Calls { correlation: &message.id, delivery: &delivery.id, window: window(delivery)? };
        let translation = steps::complete(ctx, calls, &ident)?.translation(message, &calls);
        // An earlier run may have left an entry where this one sends: one that was ordered to run again comes as a retry too.
        let forgets = !translation.outputs.is_empty() && ctx.cause() != Cause::First;
        Ok(if forgets { translation.write(Write::remove(INFORMATION, &message.id)) } else { translation }.into())
    }
}

fn ident(message: &Message) -> Result<String, Stop> {
    let data: Data = serde_json::from_slice(message.bytes())
        .map_err(|_| Outcome::rejected(UNDECODABLE, "the payload is no JSON object with a personident").field("personident"))?;
    let digits = !data.personident.is_empty() && data.personident.bytes().all(|byte| byte.is_ascii_digit());
    if !digits {
        return Err(Outcome::rejected(UNDECODABLE, "the recipient's number has other characters than digits").field("personident").into());
    }
    Ok(data.personident)
}

fn window(delivery: &Delivery) -> Result<Window, Stop> {
    let year = delivery.params.iter().find(|(name, _)| name == YEAR).map(|(_, year)| year);
    let year = year.and_then(|year| year.parse().ok()).filter(|year| (1900..=2200).contains(year));
    let year = year.ok_or_else(|| {
        Outcome::failed("no-year", format!("the delivery {} has no parameter \"{YEAR}\" with a year: order it with one", delivery.id))
    })?;
    Ok(Window::new(year))
}

tolk_sdk::register!(Mottaker);

#[cfg(test)]
mod tests;
