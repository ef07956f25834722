//! Kept answers: JSON, compressed; what a message's replay offline needs.

use bytes::Bytes;

use crate::plugin::Answer;

/// Packs answers for the store.
pub fn pack(answers: &[Answer]) -> Bytes {
    let json = serde_json::to_vec(answers).expect("answers are plain data");
    zstd::bulk::compress(&json, 1).map_or_else(|_| json.into(), Bytes::from)
}

/// Unpacks what `pack` packed.
pub fn unpack(bytes: &[u8]) -> Result<Vec<Answer>, String> {
    let json = zstd::stream::decode_all(bytes).map_err(|error| format!("the stored answers do not decompress: {error}"))?;
    serde_json::from_slice(&json).map_err(|error| format!("the stored answers do not parse: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::{Call, Reply, Request, Response};

    #[test]
    fn answers_come_back_as_they_were() {
        let call = Call { endpoint: "e".to_owned(), params: vec![("a".to_owned(), "1".to_owned())], body: None, lenient: false };
        let response = Response { status: 200, headers: vec![], body: Bytes::from_static(&[0, 255]) };
        let answers = vec![
            Answer { request: Request::Call(call), reply: Reply::Response(response) },
            Answer { request: Request::KnownId { namespace: "n".to_owned(), key: "k".to_owned() }, reply: Reply::KnownId(None) },
        ];
        assert_eq!(unpack(&pack(&answers)).unwrap(), answers);
        assert!(unpack(b"no").is_err());
    }
}
