//! Cases about one recipient outside any state: `translate` and `lookup`. The component runs against the real endpoints, round by round, in
//! a delivery of the case's year.

use std::sync::Arc;

use anyhow::Context as _;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tolk::endpoint::{Called, Caller};
use tolk::message::{Captured, FeedId, KeyHash, Message, Place};
use tolk::plugin::{Answer, Context, Delivery, Limits, Outcome, Reply, Request};
use tolk::runtime::Translator;
use uuid::Uuid;

use super::{TABLE, TOKEN, form};
use crate::bench::{self, Bench};
use crate::diff::{difference, short};

/// The endpoint of look-ups.
const PERSON: &str = "person-identity";

/// The translator's component, loaded.
pub struct Alone {
    translator: Arc<Translator>,
}

/// What became of a recipient.
enum Ended {
    /// A translation, sent or kept, or what was found wrong with the recipient itself.
    Form(Value),
    /// The attempt failed: the class of the failure where it has one, and its text.
    Error { class: Option<&'static str>, text: String },
    /// The look-up succeeded, and nothing more was wanted.
    Found,
}

impl Alone {
    /// Builds and loads the translator.
    pub fn new(bench: &Bench, folder: &str) -> anyhow::Result<Self> {
        let component = bench::build(&[folder])?.pop().context("one folder makes one component")?;
        Ok(Self { translator: bench.runtime.load_component(&component, Limits { needs_max: 1_000, ..Limits::default() }, "")? })
    }

    /// Plays one recipient; `year` none: its look-up alone.
    pub async fn play(&self, bench: &Bench, ident: &str, year: Option<i64>, expect: &Value) -> anyhow::Result<Vec<String>> {
        let before = bench.remote.count();
        let ended = self.run(bench, ident, year).await?;
        let requests = bench.remote.requests(before);
        let mut found = Vec::new();
        let wanted = expect.get("wanted").filter(|wanted| wanted.is_object()).unwrap_or(expect);
        let mut told = false;
        for (key, expected) in wanted.as_object().context("expect is an object")? {
            match key.as_str() {
                "http_calls" => {
                    if expected.as_u64() != Some(requests.len() as u64) {
                        found.push(difference(key, &short(expected), &requests.len().to_string()));
                    }
                }
                "headers" => {
                    let request = requests.iter().find(|request| request.path == super::remote::GRAPHQL).context("there was a look-up")?;
                    super::expect::headers(expected, request, TOKEN, &mut found)?;
                }
                "error" => {
                    told = true;
                    let class = ended.class();
                    if expected.as_str() != class {
                        found.push(difference("error", &short(expected), &format!("{class:?} {}", ended.text().unwrap_or_default())));
                    }
                }
                "error_contains" => {
                    told = true;
                    super::expect::contains(expected, ended.text(), &mut found)?;
                }
                key => {
                    let Ended::Form(form) = &ended else {
                        found.push(difference(key, &short(expected), ended.text().unwrap_or("a person that was looked up")));
                        continue;
                    };
                    if !form::compare(form, key, expected, &mut found)? {
                        form::unknown(key)?;
                    }
                }
            }
        }
        if let (Ended::Error { text, .. }, false) = (&ended, told) {
            found.push(difference("error", "none", text));
        }
        Ok(found)
    }

    async fn run(&self, bench: &Bench, ident: &str, year: Option<i64>) -> anyhow::Result<Ended> {
        let message = recipient(ident);
        let params = vec![("year".to_owned(), year.unwrap_or(2020).to_string())];
        let delivery = Delivery { id: Uuid::from_u128(7).to_string(), params, expected: Some(1) };
        let mut context = Context { delivery: Some(delivery), ..Context::default() };
        let endpoints = bench.endpoints_of(&bench.endpoint_settings()?)?;
        loop {
            let verdict = self.translator.translate(&mut bench.runtime.here(), &message, "barnetrygd", &context);
            let verdict = verdict.map_err(|trouble| anyhow::anyhow!("{}: {}", trouble.code, trouble.text))?;
            let Outcome::Needs(requests) = verdict.outcome else { return ended(verdict.outcome, year.is_none()) };
            let calls = requests.into_iter().map(|request| match request {
                Request::Call(call) => Ok(call),
                other => anyhow::bail!("the translator asks for {other:?}"),
            });
            let calls = calls.collect::<anyhow::Result<Vec<_>>>()?;
            if year.is_none() && calls.iter().any(|call| call.endpoint != PERSON) {
                return Ok(Ended::Found);
            }
            let answers = join_all(calls.iter().map(|call| endpoints.call(call, message.id))).await;
            for (call, called) in calls.into_iter().zip(answers) {
                match called {
                    Called::Response(response) => {
                        context.answers.push(Answer { request: Request::Call(call), reply: Reply::Response(response) });
                    }
                    Called::Failed { code, reason, .. } => return Ok(Ended::Error { class: Some(class(&code)), text: reason }),
                    Called::Away { reason, .. } => return Ok(Ended::Error { class: Some("RestClientException"), text: reason }),
                    Called::Wrong { reason } => anyhow::bail!("the call is wrong: {reason}"),
                }
            }
        }
    }
}

impl Ended {
    fn class(&self) -> Option<&'static str> {
        match self {
            Self::Error { class, .. } => *class,
            _ => None,
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Error { text, .. } => Some(text),
            _ => None,
        }
    }
}

/// The cause that the system names for a failure that the endpoint itself has found.
fn class(code: &str) -> &'static str {
    if code == "remote-body" { "PdlException" } else { "RestClientException" }
}

fn ended(outcome: Outcome, lookup: bool) -> anyhow::Result<Ended> {
    let json = |bytes: Option<&bytes::Bytes>| serde_json::from_slice(bytes.map(|bytes| &bytes[..]).unwrap_or_default());
    Ok(match outcome {
        Outcome::Translated(translation) => match translation.outputs.first() {
            Some(output) => Ended::Form(json(output.payload.as_ref())?),
            None => Ended::Form(json(translation.writes.first().and_then(|write| write.value.as_ref()))?),
        },
        Outcome::Retry(fault) if fault.code == "UgyldigIdent" && lookup => {
            Ended::Error { class: Some("PersonOppslagException"), text: fault.message }
        }
        Outcome::Retry(fault) if fault.code == "UgyldigIdent" => Ended::Form(json(fault.detail.as_ref())?),
        Outcome::Retry(fault) => {
            let class = ["PdlException", "RestClientException"].into_iter().find(|class| fault.code == *class);
            Ended::Error { class, text: fault.message }
        }
        other => anyhow::bail!("the translator ended as {other:?}"),
    })
}

fn recipient(ident: &str) -> Message {
    let delivery = Uuid::from_u128(7);
    let payload = json!({ "meldingstype": TABLE, "requestId": delivery, "personident": ident, "antallIdenterTotalt": 1 });
    Message {
        place: Place { feed: FeedId(0), lane: 0, n: 1 },
        id: Uuid::from_u128(8),
        table: TABLE.into(),
        key_hash: KeyHash::of(TABLE, ident.as_bytes()),
        captured: Captured { payload: Some(payload.to_string().into()), ..Captured::default() },
        received_ms: 0,
        prejudged: None,
        delivery: None,
    }
}
