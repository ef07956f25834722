//! What a message has published so far, as fingerprints: a revisit publishes only what changed. Pure.

use serde::{Deserialize, Serialize};

use crate::message::KeyHash;
use crate::plugin::{Action, Output};

/// Fingerprints of the outputs of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The run that published them, or found them unchanged.
    pub run: i32,
    /// One for each output, in order.
    outputs: Vec<String>,
}

impl Published {
    /// The fingerprints of all outputs of a run.
    pub fn of(run: i32, outputs: &[Output]) -> Self {
        Self { run, outputs: outputs.iter().map(fingerprint).collect() }
    }

    /// Reads what [`Published::text`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// As text.
    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("numbers and texts are JSON")
    }

    /// Leaves only outputs that are not as they were published before.
    pub fn changed(&self, outputs: Vec<Output>) -> Vec<Output> {
        outputs.into_iter().filter(|output| !self.outputs.contains(&fingerprint(output))).collect()
    }
}

/// Target, key, action and what "changed" means: the translator's fingerprint, else payload and headers.
fn fingerprint(output: &Output) -> String {
    let action = match output.action {
        Action::Put => "put",
        Action::Merge => "merge",
        Action::Delete => "delete",
    };
    let mut parts: Vec<Vec<u8>> = vec![output.target.clone().into_bytes(), action.into(), optional(output.key.as_deref())];
    match &output.fingerprint {
        Some(fingerprint) => parts.push(optional(Some(fingerprint))),
        None => {
            parts.push(optional(output.payload.as_deref()));
            for (name, value) in &output.headers {
                parts.push(name.clone().into_bytes());
                parts.push(optional(value.as_deref()));
            }
        }
    }
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    KeyHash::of_parts(&parts).0.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that tell nothing from empty.
fn optional(bytes: Option<&[u8]>) -> Vec<u8> {
    bytes.map_or_else(Vec::new, |bytes| [&[1], bytes].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(key: &str, payload: Option<&str>, fingerprint: Option<&str>) -> Output {
        let bytes = |text: &str| bytes::Bytes::from(text.to_owned());
        Output {
            target: "t".to_owned(),
            action: Action::Put,
            key: Some(bytes(key)),
            payload: payload.map(bytes),
            headers: Vec::new(),
            version: None,
            fingerprint: fingerprint.map(bytes),
        }
    }

    #[test]
    fn only_what_changed_is_left() {
        let before = Published::of(3, &[output("a", Some("1"), None), output("b", Some("1"), Some("f")), output("c", None, None)]);
        let before = Published::parse(&before.text()).unwrap();
        assert_eq!(before.run, 3);
        let now = vec![output("a", Some("2"), None), output("b", Some("2"), Some("f")), output("c", Some(""), None)];
        let changed: Vec<_> = before.changed(now).into_iter().map(|output| output.key.unwrap()).collect();
        assert_eq!(changed, ["a", "c"]);
    }
}
