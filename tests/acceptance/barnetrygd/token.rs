//! Who is let in: a case's token at the real admin door, signed by a real issuer on loopback.

use anyhow::{Context as _, bail};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tolk::admin::Door;
use tolk::config::Config;

use crate::issuer::{Issuer, Key};

/// The status of an operator's call with a token of this kind: 401, 403, or what the host behind the door says.
pub async fn status(config: &Config, token: &str) -> anyhow::Result<u16> {
    let key = Key::rsa(0);
    let issuer = Issuer::start(vec![key.published("k1")]).await;
    let mut claims = issuer.claims(&["operator"]);
    let token = match token {
        "none" => None,
        kind if kind.contains("audience") => {
            claims["aud"] = json!("another-application");
            Some(key.token("k1", &claims))
        }
        kind if kind.contains("issuer") => {
            claims["iss"] = json!("https://another.issuer");
            Some(key.token("k1", &claims))
        }
        "ok" | "right" | "valid" | "correct" | "good" => Some(key.token("k1", &claims)),
        other => bail!("a token \"{other}\" is not played"),
    };
    let mut config = config.clone();
    let oidc =
        format!("listen = \"127.0.0.1:0\"\n[oidc]\nissuer = \"{}\"\naudience = [\"tolk\"]\noperators = [\"operator\"]", issuer.stub.url());
    config.admin = toml::from_str(&oidc)?;
    let door = Door::bind(&config).await?.context("the config has a door")?;
    let (address, stop) = (door.address(), CancellationToken::new());
    let (_host, serving) = door.serve(stop.clone());
    let serving = tokio::spawn(serving);
    let status = call(address, token.as_deref()).await;
    stop.cancel();
    serving.await?;
    status
}

async fn call(address: std::net::SocketAddr, token: Option<&str>) -> anyhow::Result<u16> {
    let bearer = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!("POST /api/v1/actions HTTP/1.1\r\nhost: {address}\r\n{bearer}content-length: 0\r\nconnection: close\r\n\r\n");
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).context("the door answers with a status")
}
