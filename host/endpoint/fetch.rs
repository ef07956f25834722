//! Fetches a document by its URL, for what is no call of a message: an issuer's keys. Knows no endpoint.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Client, StatusCode};

use super::Error;
use super::exchange::{cause, read_body};

/// An HTTP client that only fetches.
pub struct Fetcher {
    client: Client,
}

impl Fetcher {
    /// Makes the client; nothing is sent.
    pub fn new() -> Result<Self, Error> {
        // Another part of the process may have installed its own provider: that one serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .user_agent(concat!("tolk/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::Client(cause(error)))?;
        Ok(Self { client })
    }

    /// The body of a 200 answer, at most so many bytes, within so long; else why not. Redirects are not followed.
    pub async fn get(&self, url: &str, bytes_max: usize, limit: Duration) -> Result<Bytes, String> {
        let fetched = async {
            let mut response = self.client.get(url).send().await.map_err(|error| cause(error.without_url()))?;
            if response.status() != StatusCode::OK {
                return Err(format!("it answered {}", response.status()));
            }
            read_body(&mut response, bytes_max).await.map_err(|trouble| trouble.to_string())
        };
        match tokio::time::timeout(limit, fetched).await {
            Ok(result) => result.map_err(|reason| format!("{url}: {reason}")),
            Err(_) => Err(format!("{url}: no answer within {} s", limit.as_secs())),
        }
    }
}
