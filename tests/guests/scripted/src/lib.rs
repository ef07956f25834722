//! A translator that does what its message says, so that a test of the host reads in one place. Its config is copied into its outputs.

use serde_json::{Value, json};
use tolk_sdk::{Binding, Call, Context, Description, Entry, Id, KnownId, Message, Outcome, Output, Request, Scan, Stop, Translator, Write};

struct Scripted {
    config: String,
}

impl Translator for Scripted {
    fn describe() -> Description {
        Description::new("scripted", "1.0.0", "Does what its message says")
            .table("*")
            .reads("c")
            .writes("c")
            .namespace("n")
            .endpoint("e")
            .target("out")
    }

    fn configure(config: &str) -> Result<Self, String> {
        if config == "refuse" { Err("told to refuse".to_owned()) } else { Ok(Self { config: config.to_owned() }) }
    }

    fn translate(&self, message: &Message, ctx: &Context) -> Result<Outcome, Stop> {
        let script: Value = message.json()?;
        let mut saw = Vec::new();
        for key in texts(&script["read"]) {
            let value = ctx.entry("c", key)?;
            saw.push(value.map_or(Value::Null, |value| String::from_utf8_lossy(value).into()));
        }
        if let Some(prefix) = script["scan"].as_str() {
            let page = ctx.entries(Scan::new("c").index("i", prefix).limit(100))?;
            saw.push(page.items.iter().map(|(key, _)| key.clone()).collect());
        }
        if let Some(key) = script["id"].as_str() {
            saw.push(ctx.all(Id::new("n", key))?.into());
        }
        if let Some(key) = script["known"].as_str() {
            saw.push(ctx.all(KnownId::new("n", key))?.into());
        }
        if let Some(item) = script["call"].as_str() {
            saw.push(ctx.call(Call::new("e").param("item", item))?.status.into());
        }
        if let Some(item) = script["lenient"].as_str() {
            let answer = ctx.call(Call::new("e").param("item", item).lenient())?;
            saw.push(answer.ok().map_or(Value::Null, |response| response.status.into()));
        }
        self.end(&script, saw, ctx)
    }
}

impl Scripted {
    fn end(&self, script: &Value, saw: Vec<Value>, ctx: &Context) -> Result<Outcome, Stop> {
        let times = script["times"].as_u64().unwrap_or(u64::MAX);
        let trying = u64::from(ctx.attempt()) < times;
        let missing = saw.iter().any(Value::is_null);
        match script["do"].as_str().unwrap_or("put") {
            "ignore" => return Ok(Outcome::ignored("told-to", "the message says so").into()),
            "reject" => return Ok(Outcome::rejected("told-to", "the message says so").field("/do").into()),
            "fail" if missing || script["read"].is_null() => return Ok(Outcome::failed("told-to", "the message says so").into()),
            "retry" if trying => return Ok(Outcome::retry("told-to", "the message says so").into()),
            "wait" if trying && (missing || script["read"].is_null()) => {
                let mut wait = Outcome::waiting("told-to", "the message says so");
                for key in texts(&script["on"]) {
                    wait = wait.on(Request::from(Entry::new("c", key)));
                }
                if let Some(ms) = script["timeout"].as_u64() {
                    wait = wait.timeout_ms(ms);
                }
                return Ok(wait.into());
            }
            "trap" => panic!("told to"),
            "loop" => loop {
                std::hint::black_box(0);
            },
            "again" => return Err(Stop::from(Outcome::failed("unreachable", "asked again for what is answered"))),
            _ => {}
        }
        let mut translation = Outcome::handled();
        for write in script["write"].as_array().into_iter().flatten() {
            let key = write[0].as_str().unwrap_or_default();
            let write = match write[1].as_str() {
                Some(value) => Write::set("c", key, value).index("i", write[2].as_str().unwrap_or("none")),
                None => Write::remove("c", key),
            };
            translation = translation.write(write);
        }
        if let Some(binding) = script["bind"].as_array() {
            translation = translation.bind(Binding::new("n", text(&binding[0]), text(&binding[1])));
        }
        let key = script["key"].as_str().unwrap_or_default();
        let delivery = ctx.delivery().map(|delivery| json!([delivery.id, delivery.params, delivery.expected]));
        for i in 0..script["outputs"].as_u64().unwrap_or(1) {
            let mut payload = json!({
                "key": key, "seq": script["seq"], "i": i, "saw": saw, "attempt": ctx.attempt(), "by": self.config,
                "waited": ctx.waited_ms(), "cause": format!("{:?}", ctx.cause()),
            });
            if let Some(delivery) = &delivery {
                payload["delivery"] = delivery.clone();
            }
            let mut output = Output::put("out", key, payload.to_string());
            // What "changed" means: what was seen, not when.
            if script["revisit"].is_u64() {
                output = output.fingerprint(json!([i, saw]).to_string());
            }
            translation = translation.output(output);
        }
        if let Some(after) = script["revisit"].as_i64() {
            translation = translation.revisit_at_ms(ctx.now().ms + after);
        }
        Ok(translation.into())
    }
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

tolk_sdk::register!(Scripted);
