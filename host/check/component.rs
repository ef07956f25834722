//! A component as the harness runs it: in the same sandbox as in a host, on the calling thread, with what it uses measured.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::attempt::Guest;
use super::{diff, form};
use crate::message::Message;
use crate::plugin::{Context, Limits, Verdict};
use crate::runtime::{Error, Instances, Runtime, Translator, Trouble, thread_cpu};

/// A loaded component.
pub struct Component {
    runtime: Arc<Runtime>,
    translator: Arc<Translator>,
    instances: Instances,
    determinism: bool,
    cpu: Duration,
}

impl Component {
    /// Compiles and configures a component. With `determinism` each call is made on a fresh instance too, and compared.
    pub fn load(runtime: Arc<Runtime>, bytes: &[u8], limits: Limits, config: &str, determinism: bool) -> Result<Self, Error> {
        let translator = runtime.load_component(bytes, limits, config)?;
        Ok(Self { instances: runtime.here(), runtime, translator, determinism, cpu: Duration::ZERO })
    }

    /// What runs.
    pub fn translator(&self) -> &Translator {
        &self.translator
    }
}

impl Guest for Component {
    fn translate(&mut self, message: &Message, feed: &str, context: &Context) -> Result<Verdict, Trouble> {
        let before = thread_cpu();
        let verdict = self.translator.translate(&mut self.instances, message, feed, context);
        self.cpu += thread_cpu().saturating_sub(before);
        if self.determinism {
            let fresh = self.translator.translate(&mut self.runtime.here(), message, feed, context);
            if let Some(what) = deviation(&verdict, &fresh) {
                let text = format!("a fresh instance answers otherwise, so something outlives a message: {what} (warm -> fresh)");
                return Err(Trouble { code: "nondeterministic", text });
            }
        }
        verdict
    }

    fn limits(&self) -> &Limits {
        self.translator.limits()
    }

    fn used(&self) -> (Duration, usize) {
        (self.cpu, self.instances.memory_bytes())
    }
}

/// Where two answers to the same question differ.
fn deviation(warm: &Result<Verdict, Trouble>, fresh: &Result<Verdict, Trouble>) -> Option<String> {
    match (warm, fresh) {
        (Ok(warm), Ok(fresh)) if warm == fresh => None,
        (Ok(warm), Ok(fresh)) => {
            let form = |verdict: &Verdict| json!({"outcome": form::outcome(&verdict.outcome), "log": verdict.log});
            let differences = diff::differences(&form(warm), &form(fresh), &[]);
            // Bytes may differ where their readable forms do not.
            Some(differences.first().map_or_else(|| "in bytes that read alike".to_owned(), ToString::to_string))
        }
        // Their texts hold what was used, which varies.
        (Err(warm), Err(fresh)) if warm.code == fresh.code => None,
        (warm, fresh) => {
            let word = |result: &Result<Verdict, Trouble>| match result {
                Ok(verdict) => form::word(&verdict.outcome),
                Err(trouble) => trouble.code,
            };
            Some(format!("{} -> {}", word(warm), word(fresh)))
        }
    }
}
