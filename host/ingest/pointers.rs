//! Reads a few JSON pointers out of a payload in one pass, without building the document. Knows nothing of feeds.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A compiled set of JSON pointers (RFC 6901).
#[derive(Clone, Debug, Default)]
pub struct PointerSet {
    nodes: Vec<Node>,
    slots: usize,
}

#[derive(Clone, Debug, Default)]
struct Node {
    children: Vec<(String, usize)>,
    slots: Vec<usize>,
}

impl PointerSet {
    /// Compiles pointers; results come in the same order.
    pub fn new<'a>(pointers: impl IntoIterator<Item = &'a str>) -> Self {
        let mut set = Self { nodes: vec![Node::default()], slots: 0 };
        for pointer in pointers {
            let mut at = 0;
            for token in pointer.split('/').skip(1) {
                let token = token.replace("~1", "/").replace("~0", "~");
                at = match set.nodes[at].children.iter().find(|(name, _)| *name == token) {
                    Some((_, child)) => *child,
                    None => {
                        set.nodes.push(Node::default());
                        let child = set.nodes.len() - 1;
                        set.nodes[at].children.push((token, child));
                        child
                    }
                };
            }
            set.nodes[at].slots.push(set.slots);
            set.slots += 1;
        }
        set
    }

    /// The scalar each pointer resolves to, as text; null, objects and arrays do not resolve.
    pub fn extract(&self, json: &[u8]) -> Result<Vec<Option<String>>, serde_json::Error> {
        let mut found = vec![None; self.slots];
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        At { set: self, node: 0, found: &mut found }.deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(found)
    }
}

struct At<'s, 'f> {
    set: &'s PointerSet,
    node: usize,
    found: &'f mut Vec<Option<String>>,
}

impl At<'_, '_> {
    fn put(self, text: impl FnOnce() -> String) {
        let slots = &self.set.nodes[self.node].slots;
        if let Some((last, rest)) = slots.split_last() {
            let text = text();
            for slot in rest {
                self.found[*slot] = Some(text.clone());
            }
            self.found[*last] = Some(text);
        }
    }

    fn child(&self, name: &str) -> Option<usize> {
        self.set.nodes[self.node].children.iter().find(|(child, _)| child == name).map(|(_, node)| *node)
    }
}

impl<'de> DeserializeSeed<'de> for At<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for At<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.put(|| value.to_string());
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.put(|| value.to_string());
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.put(|| value.to_string());
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.put(|| value.to_string());
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.put(|| value.to_owned());
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut index = 0_usize;
        loop {
            let more = match self.child(&index.to_string()) {
                Some(node) => seq.next_element_seed(At { set: self.set, node, found: self.found })?.is_some(),
                None => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                return Ok(());
            }
            index += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(child) = map.next_key_seed(Key(&self))? {
            match child {
                Some(node) => map.next_value_seed(At { set: self.set, node, found: self.found })?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// Looks a member's name up without keeping it.
struct Key<'k, 's, 'f>(&'k At<'s, 'f>);

impl<'de> DeserializeSeed<'de> for Key<'_, '_, '_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_, '_, '_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Self::Value, E> {
        if name.len() > 1 << 20 {
            return Err(E::custom("a member's name is longer than 1 MiB"));
        }
        Ok(self.0.child(name))
    }
}

/// Removes NUL, raw and as the six characters `\u0000`, as sources with text in C strings need it.
pub fn strip_nul(payload: &[u8]) -> Result<std::borrow::Cow<'_, [u8]>, serde_json::Error> {
    const ESCAPED: &[u8] = b"\\u0000";
    if !payload.contains(&0) && !payload.windows(ESCAPED.len()).any(|window| window == ESCAPED) {
        return Ok(payload.into());
    }
    let mut clean = Vec::with_capacity(payload.len());
    let mut at = 0;
    while at < payload.len() {
        if payload[at] == 0 {
            at += 1;
        } else if payload[at..].starts_with(ESCAPED) {
            at += ESCAPED.len();
        } else {
            clean.push(payload[at]);
            at += 1;
        }
    }
    if clean.is_empty() {
        return Err(serde_json::Error::custom("nothing but NUL"));
    }
    Ok(clean.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pointers: &[&str], json: &str, expected: &[Option<&str>]) {
        let found = PointerSet::new(pointers.iter().copied()).extract(json.as_bytes()).unwrap();
        assert_eq!(found.iter().map(Option::as_deref).collect::<Vec<_>>(), expected, "{pointers:?} in {json}");
    }

    #[test]
    fn pointers_resolve_to_scalars_in_one_pass() {
        let json = r#"{"table":"T","before":null,"after":{"ID":12345678901,"b":true,"a/b":"s","l":[1,{"x":"y"}]},"f":1.5}"#;
        check(
            &["/table", "/after/ID", "/before/ID", "/after/b", "/after/a~1b", "/after/l/1/x", "/f", "/after", "/after/ID", "/no"],
            json,
            &[Some("T"), Some("12345678901"), None, Some("true"), Some("s"), Some("y"), Some("1.5"), None, Some("12345678901"), None],
        );
        check(&["/before", "/table"], r#"{"before":null,"table":""}"#, &[None, Some("")]);
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        let set = PointerSet::new(["/a"]);
        for json in ["", "{", "{\"a\":1}}", "{\"a\":1} x", "\u{0}", "{\"a\":01}", "nul"] {
            assert!(set.extract(json.as_bytes()).is_err(), "{json}");
        }
        assert!(set.extract(&[b'"', 0xff, b'"']).is_err() || set.extract(&[b'"', 0xff, b'"']).unwrap() == vec![None]);
        assert!(set.extract("[".repeat(10_000).as_bytes()).is_err());
    }

    #[test]
    fn nul_goes_raw_and_escaped() {
        assert_eq!(&*strip_nul(b"a\0b\\u0000c").unwrap(), b"abc");
        assert_eq!(&*strip_nul(b"abc").unwrap(), b"abc");
    }
}
