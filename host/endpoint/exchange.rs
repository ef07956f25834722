//! One HTTP exchange: a request goes out with credentials, and an answer of bounded size comes back, or why not. Judges nothing.

use std::error::Error as _;
use std::fmt;

use bytes::{Bytes, BytesMut};
use reqwest::header::HeaderMap;
use reqwest::{Client, RequestBuilder, StatusCode};

use super::auth::{Auth, Credentials};

/// What an exchange ended in.
pub enum Exchange {
    /// An answer.
    Answer { status: StatusCode, headers: HeaderMap, body: Bytes },
    /// None that could be read.
    Broken(Trouble),
    /// Nothing was sent: there is no token.
    NoToken(String),
}

/// Why a body could not be read.
pub enum Trouble {
    /// The connection broke, or the deadline came.
    Transport(String),
    /// It is longer than the cap, in bytes.
    TooLarge(usize),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(reason) => f.write_str(reason),
            Self::TooLarge(max) => write!(f, "the body is longer than {max} bytes"),
        }
    }
}

/// Sends a request, with a second try where a kept token was refused.
pub async fn exchange(client: &Client, auth: &Auth, request: &RequestBuilder, body_bytes_max: usize) -> Exchange {
    let credentials = match auth.credentials(client).await {
        Ok(credentials) => credentials,
        Err(reason) => return Exchange::NoToken(reason),
    };
    let first = send(request, &credentials, body_bytes_max).await;
    let refused = matches!(&first, Exchange::Answer { status, .. } if *status == StatusCode::UNAUTHORIZED);
    if !refused || !auth.refused(&credentials).await {
        return first;
    }
    match auth.credentials(client).await {
        Ok(credentials) => send(request, &credentials, body_bytes_max).await,
        Err(reason) => Exchange::NoToken(reason),
    }
}

async fn send(request: &RequestBuilder, credentials: &Credentials, body_bytes_max: usize) -> Exchange {
    let mut request = request.try_clone().expect("a body of bytes can be sent again");
    if let Some((name, value)) = credentials {
        request = request.header(name, value.clone());
    }
    let mut response = match request.send().await {
        Ok(response) => response,
        Err(error) => return Exchange::Broken(Trouble::Transport(cause(error.without_url()))),
    };
    match read_body(&mut response, body_bytes_max).await {
        Ok(body) => Exchange::Answer { status: response.status(), headers: response.headers().clone(), body },
        Err(trouble) => Exchange::Broken(trouble),
    }
}

/// The whole body, or why not; never more than `max` bytes and a piece are held.
pub async fn read_body(response: &mut reqwest::Response, max: usize) -> Result<Bytes, Trouble> {
    if response.content_length().is_some_and(|length| length > max as u64) {
        return Err(Trouble::TooLarge(max));
    }
    let mut body = BytesMut::new();
    while let Some(piece) = response.chunk().await.map_err(|error| Trouble::Transport(cause(error.without_url())))? {
        if body.len() + piece.len() > max {
            return Err(Trouble::TooLarge(max));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

/// An error with its sources, in one line.
pub fn cause(error: reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// The first `max` bytes as text on one line: control characters escaped, bytes that are no UTF-8 replaced.
pub fn escaped(bytes: &[u8], max: usize) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(max)]);
    let mut line: String =
        text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect();
    if bytes.len() > max {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_shown_on_one_line() {
        assert_eq!(escaped(b"a\r\n\x1b[31mred\0 \"q\"", 200), "a\\r\\n\\u{1b}[31mred\\u{0} \"q\"");
        assert_eq!(escaped(&[b'x'; 300], 3), "xxx…");
        assert_eq!(escaped(b"\xff\xfe", 10), "\u{fffd}\u{fffd}");
    }
}
