//! A call as one text of bytes: equal calls have equal ones, whatever the order of their parameters. Knows nothing of HTTP.

use uuid::Uuid;

use crate::plugin::Call;

/// Namespace of the keys.
const KEYS: Uuid = Uuid::from_u128(0x2f0c_9a61_77d4_4c39_9d0e_51b3_6f2a_e84d);

/// The bytes of a call: its endpoint, its body and its parameters, or those of them that `only` names. Every part is told by its length, so
/// that no two calls run into each other.
pub fn bytes(call: &Call, only: Option<&[String]>) -> Vec<u8> {
    let mut params: Vec<&(String, String)> = call.params.iter().filter(|(name, _)| only.is_none_or(|only| only.contains(name))).collect();
    params.sort();
    let mut bytes = Vec::new();
    let mut part = |text: &[u8]| {
        bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
        bytes.extend_from_slice(text);
    };
    part(call.endpoint.as_bytes());
    for (name, value) in params {
        part(name.as_bytes());
        part(value.as_bytes());
    }
    // An even number of parts: no body; an odd one: a body, empty or not.
    if let Some(body) = &call.body {
        part(body);
    }
    bytes
}

/// The idempotency key of a call made for `origin`: the same at every try and attempt, another one for every other origin or call.
pub fn key(call: &Call, origin: Uuid) -> Uuid {
    let name = [origin.as_bytes().as_slice(), &bytes(call, None)].concat();
    Uuid::new_v5(&KEYS, &name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(params: &[(&str, &str)], body: Option<&str>) -> Call {
        let params = params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Call { endpoint: "e".to_owned(), params, body: body.map(|body| body.to_owned().into()), lenient: false }
    }

    #[test]
    fn equal_calls_are_equal_and_no_others() {
        let one = call(&[("a", "1"), ("b", "2")], Some("x"));
        assert_eq!(bytes(&one, None), bytes(&Call { lenient: true, ..call(&[("b", "2"), ("a", "1")], Some("x")) }, None));
        for other in [
            call(&[("a", "1"), ("b", "2")], None),
            call(&[("a", "1"), ("b", "2")], Some("")),
            call(&[("a", "1b2")], Some("x")),
            call(&[("a", "2"), ("b", "1")], Some("x")),
            Call { endpoint: "f".to_owned(), ..one.clone() },
        ] {
            assert_ne!(bytes(&one, None), bytes(&other, None), "{other:?}");
        }
        let only = ["a".to_owned()];
        assert_eq!(bytes(&one, Some(&only)), bytes(&call(&[("a", "1"), ("trace", "9")], Some("x")), Some(&only)));
    }

    #[test]
    fn keys_belong_to_one_origin_and_one_call() {
        let (one, two) = (call(&[("a", "1")], None), call(&[("a", "2")], None));
        let (m, n) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(key(&one, m), key(&one, m));
        assert!(key(&one, m) != key(&one, n) && key(&one, m) != key(&two, m));
    }
}
