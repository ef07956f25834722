//! Headers in one column: their number, then name and value of each, framed by lengths. Order, repetition and null values stay.
//! Both stores keep this form; no headers at all are a null column.

use bytes::{Buf, BufMut, Bytes};

use super::{Error, Result};
use crate::message::Headers;

/// Appends the stored form of some headers.
pub fn encode_into(headers: &Headers, buffer: &mut Vec<u8>) {
    put_length(buffer, headers.len());
    for (name, value) in headers {
        put_length(buffer, name.len());
        buffer.put_slice(name.as_bytes());
        match value {
            None => put_length(buffer, 0),
            Some(value) => {
                put_length(buffer, value.len() + 1);
                buffer.put_slice(value);
            }
        }
    }
}

/// The stored form of some headers; `None` for none.
pub fn encode(headers: &Headers) -> Option<Vec<u8>> {
    if headers.is_empty() {
        return None;
    }
    let mut buffer = Vec::with_capacity(16 * headers.len());
    encode_into(headers, &mut buffer);
    Some(buffer)
}

/// The headers of a stored form.
pub fn decode(stored: Option<Bytes>) -> Result<Headers> {
    let Some(mut rest) = stored else { return Ok(Headers::new()) };
    let count = take_length(&mut rest)?;
    // A count from a damaged row must not reserve memory: each header takes two bytes at least.
    let mut headers = Headers::with_capacity(count.min(rest.len() / 2));
    for _ in 0..count {
        let length = take_length(&mut rest)?;
        let name = String::from_utf8(take(&mut rest, length)?.to_vec()).map_err(|_| damaged("a name is not UTF-8"))?;
        let value = match take_length(&mut rest)? {
            0 => None,
            length => Some(take(&mut rest, length - 1)?),
        };
        headers.push((name, value));
    }
    Ok(headers)
}

/// Lengths take seven bits a byte, the lowest first.
fn put_length(buffer: &mut Vec<u8>, mut length: usize) {
    while length > 0x7f {
        buffer.push(length as u8 | 0x80);
        length >>= 7;
    }
    buffer.push(length as u8);
}

fn take_length(rest: &mut Bytes) -> Result<usize> {
    let mut length = 0_usize;
    for shift in (0..35).step_by(7) {
        if !rest.has_remaining() {
            return Err(damaged("a length is cut off"));
        }
        let byte = rest.get_u8();
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(length);
        }
    }
    Err(damaged("a length is too long"))
}

fn take(rest: &mut Bytes, length: usize) -> Result<Bytes> {
    if rest.len() < length {
        return Err(damaged("a header is cut off"));
    }
    Ok(rest.split_to(length))
}

fn damaged(what: &str) -> Error {
    Error::Corrupt(format!("headers of a stored message: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: Headers) {
        let stored = encode(&headers);
        assert_eq!(stored.is_none(), headers.is_empty());
        assert_eq!(decode(stored.map(Bytes::from)).unwrap(), headers);
    }

    #[test]
    fn order_repetition_nulls_and_long_values_stay() {
        check(Headers::new());
        check(vec![("a".into(), None), ("a".into(), Some(Bytes::new())), ("".into(), Some(Bytes::from_static(&[0, 255])))]);
        check(vec![("æ".into(), Some(Bytes::from(vec![7; 70_000])))]);
        check((0..1_000).map(|i| (format!("h{i}"), Some(Bytes::from(i.to_string())))).collect());
    }

    #[test]
    fn damaged_rows_are_errors() {
        let whole = encode(&vec![("name".into(), Some(Bytes::from_static(b"value")))]).unwrap();
        for cut in 0..whole.len() {
            assert!(decode(Some(Bytes::from(whole[..cut].to_vec()))).is_err(), "cut at {cut}");
        }
        assert!(decode(Some(Bytes::from_static(&[255; 9]))).is_err());
    }
}
