//! An OpenID Connect issuer on loopback that signs whatever it is told to, and can change its keys or go away. Its keys are for tests only.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};

use crate::support::stub::{Reply, Stub};

/// RSA keys of 2048 bits (PKCS#1), made for these tests.
const RSA: [&str; 2] = [
    "MIIEpQIBAAKCAQEAvVQ5dYUabLmHiMNgEGRGHm4KvoX+L1SosJlDWKuiWMs2Z+Fh4VGMj5yfCeRL11fwEaT665DjprZQqj+sFxXBt+OVpeS2OWJCKeuQGIkW\
     oCTQKiQSrl2Qowf/VS+NpzjGm04qLrhqF6U9qpa8bThGwT5PgiMFQnVakL2TNwMQiaD3NsKfBAISQwp6ckT2+Cr5H+6NoK54czy0PNNaH2CrQUXdCoLB9ScV\
     +dSG64HKkwJp0VcYEeNDlB9MjXpp9CYlX/BF0NuKc9eMmCpzym9uCyGAn3ItPmEVtvG4qPCHZDxGDfVhUvkvGyxjgboFdQm+pgiLAsn87OBS5wm4UnKpXwID\
     AQABAoIBACJ7syVw80GnPwTNVPNXWCAVudY+sG+tczYLDCWbySt0A7pC5iF0SW4kwCC8mIWlyh9klaEPGC+WmDWR+EWSHGDiTjDTac8k0tkwwuN9IIZVfiaW\
     wGJKv1u6SqqYySuSXzYNNAijZQteeM9XugUIkXaD41ZYC46xsieXp7cG013Fh9I2WWq9Zc4kUO6av9qILDmXpyEy/AoBNkYDZGz+BPsk7S5LED7eeEDmc1qL\
     UlpPb2LFf4v/5gxS+TkRwOWwqcHJ4DmMxRpHQtQ03cTbYY463imstr83kWlMVRZjLQV2zg6e+nOK8bOi91eh7NUzPz4qnL/aW4ISo2u7kXUjrsECgYEA5A9B\
     EMA+psAM3vq3uOyWepEsounFmnbOjZLCP2O9YKSbUx0xYr0taKZ/kAQgey7EEt239NNYDrvQVOXII40/2qvGUso/2KXhD2bGY2X8kXEjlcI0HZWnFEZy/4RE\
     4khoS7eMc56btdy/rqgJnSA1krP3ZVf0czbHT0L1orPOBp8CgYEA1IY+ZyeN1Yh/+GBXpcyGnN32leJ/c22A1gI7LHYThfOqzMWlj4SyWl87AiRfAb2S9vDF\
     jYYqpty53jqbjYVU0bOq8OH6JKE6SnYPNc/ymdMQQbvR+Ip4FggAOLnGHL8udimQVeSMM3RDZntGQdpjHa9vT6vyc4PuMh50SnMSJUECgYEA3gdr1R8U38sB\
     vORikYrkRZeo2UK2utcH6RUEQCqeaMRY4+X7+qEq4EOY1WDvLn4tLiDlw1ku1clL3huHafVOQVoSzu9QkV+NaS0p4AOejQqVFmvnyRW1gCvGMbVYSuUrhOvB\
     tZ6pAblUdHnsQijlf1nudZ/XwYOHL0eFVU2wOwkCgYEAlXOeGJ6JMHugOoNNv6uXkmLJEFhKdlqwOk8xW6/hRNa46u2m4slXPxQvA++d3DR7UCq7Ui3ieptI\
     Hg4q65eysRFfCaxwYyf6PPjO83G70g7KJN+25chCcIPJ3BpQRlDvlGrgNHbXXSvKZhwUqSSxhOOlLGrnwfIqJJakAuLvBMECgYEAt+LqhskbFh2G0Iw8gi/2\
     erVU5EeoC5/zUCZyyZtImY7SlaxyQx3z7kqPymJoMHL0afZIUskhM0CFfEw6OY72IiTKWCcjIVuO+moK+Y7azFrlSQKjBNW9cpMs/epI9abY+0eMywlNOAij\
     DRT+wdF3jAbcoUDYD/pn0X7vns2gr50=",
    "MIIEogIBAAKCAQEA5dgvnT8H6lxp4o+fDpaSbRTIbcJ3Dfe7B10mLgp47kia5ePeQLpDnnvBeSjQ9aRRpYsnMRwOM/aHjOLWI/KFgKt1xJTojasM8heu+cI5\
     7Pfn6Q1PIZoYm2MkLt8nLdjjPwm5DDwE/Tr4rpqWtcm8FYepupScU9uGqn6WbslBpuG+zTo/D0Ue+cE2XLfndRWGB8+uYAX7vdWMSRfTrhy+z4t5zn/YNqAq\
     K8aNRTjBcAtIPq55UuyhXRoFcU2ocHFiW871Mg/1IcamGET5c4S59fGUxwvy7X8wx3dOImq1fX08rK7YQ2Sty1IzjvemI1Bes0jIs3XOK1qW31el+a58jQID\
     AQABAoIBAD9DQlPHMhANMK3F9zMmOZZhloszb9591dJAjs40XrXDcTMehaGOQydfi9Cj7eP2vuxQQVDQlo4x6HxcQTGywpE4YFlj3SCFOLJ311byYUw6re/l\
     FGc8yVIXtzFZhaimXmIO9IqMCJmEvkcc0Kenp6fLZ+mtltuz/Dx4TEKhDXt3eKJDjg7fYyI8CfZr2BYdcMiZAYoEbS3yvyNi3mspwngGtnHN+rJLlDKQX7z4\
     Sw4yV2oexsQJE8Kd/rmGKrAtCf+KHKKKWDSEzit4RU4vWsZkbzv9In7fZ7+epwB/fAn4V+PHxCKQ8yEYskOWFXXSggHg8r0uygKTdpq5rc6obwcCgYEA+CZa\
     mNz3R2EjQUEAIK3Wzm/TWH8UeHe5bm2X9pkVPKWcKp0Yfp+ArOjnx7VXRrXWanGh/B9kRTGZW7XO3JABNQ2G9d+bsTGlH5VAe3rQwwp7ub5Kk8KJojRkTgp+\
     ev5JiZDE2B25eC0WM7MtlT0r6wT9hkvaTM3pOFyOThE6VUsCgYEA7R2V/vXnfYaXRTGMNuUGt62lPO+nXVVshPlAq4Q/m2ZljJ9K3BoYiQ9J8cWcWbecYVwx\
     PZMhnSM1/qgBGmU8QOkl/43Y8GKlHenwFIw/GFaOa4Bb8yV0RG3CE5y6/xOAZPz3a5FZL01UOhkUPTi2DHU41jCbQRW5gP6UALcrRocCgYBEJsx09SLYsL3s\
     +vwc/YFkOuQRhv1JRKBhyqmUqWBiwp0MOw7yH75IPsMBXzV0DxavLzwssTZppoCW5mzEuKwMNQXe2yW4WYkfDm+iOg3Bs0xdq/xxblk8eiUeJdWs08/Af0kA\
     jdFVRxS06D3Zoe5A4qL6UjTHKTonJ4xRtnuN1wKBgHgwDe6tMEhlJ1nwUnUkw7Hot5/ajgf2G8qPGOOXZjJbxc9wkp5cL+GROVbuZmDne8Gx3Fess1YWGfFZ\
     sS1y8Qap5xPRD4xRRAaUpJeVuwmYHhqJdpIZgwSIad5NDE/sz6DgxHzmsMEUPkQwoBykGUrZRBT1kEx+OYgUAmsWbT4TAoGAKoEPioWjC16lFUwxpKg0wyx/\
     yA5Jj0B+zHI0H3HJsiM8MX2YgBrkR0qUzKaWzS43BXUVBG1f2Gp5NRIfBTPnfIp9YihurpZP1f8SKymZ6+DQC9/0BzXrSYqam4M87NEXnQXPcy4l1mLAiQ5r\
     6XV1dAeEbeYX7+zRucI4dapuSjM=",
];

/// A key that signs.
pub enum Key {
    Rsa(Box<RsaKeyPair>),
    Ec(Box<EcdsaKeyPair>),
}

impl Key {
    /// One of the two RSA keys.
    pub fn rsa(which: usize) -> Self {
        Self::Rsa(Box::new(RsaKeyPair::from_der(&STANDARD.decode(RSA[which]).unwrap()).unwrap()))
    }

    /// A new key on the curve P-256.
    pub fn ec() -> Self {
        let random = SystemRandom::new();
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self::Ec(Box::new(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, made.as_ref(), &random).unwrap()))
    }

    /// As an issuer publishes it.
    pub fn published(&self, id: &str) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Rsa(key) => {
                let PublicKeyComponents { n, e } = PublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": id, "n": text(&n), "e": text(&e) })
            }
            Self::Ec(key) => {
                let point = key.public_key().as_ref();
                json!({ "kty": "EC", "crv": "P-256", "use": "sig", "kid": id, "x": text(&point[1..33]), "y": text(&point[33..]) })
            }
        }
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::Ec(_) => "ES256",
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(key) => {
                let mut signed = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signed).unwrap();
                signed
            }
            Self::Ec(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
        }
    }

    /// A token with these claims, signed.
    pub fn token(&self, id: &str, claims: &Value) -> String {
        let text = unsigned(&json!({ "alg": self.algorithm(), "typ": "JWT", "kid": id }), claims);
        let signed = URL_SAFE_NO_PAD.encode(self.sign(text.as_bytes()));
        format!("{text}.{signed}")
    }
}

/// The first two parts of a token.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()))
}

/// A running issuer.
pub struct Issuer {
    pub stub: Stub,
    keys: Arc<Mutex<Vec<Value>>>,
    away: Arc<Mutex<bool>>,
}

impl Issuer {
    /// One that publishes these keys.
    pub async fn start(keys: Vec<Value>) -> Self {
        let (keys, away) = (Arc::new(Mutex::new(keys)), Arc::new(Mutex::new(false)));
        let (published, gone) = (keys.clone(), away.clone());
        let stub = Stub::start(move |_, request| {
            if *gone.lock().unwrap() {
                return Reply::Reset;
            }
            let url = format!("http://{}", request.header("host").unwrap());
            match request.path.as_str() {
                "/.well-known/openid-configuration" => {
                    Reply::json(200, &json!({ "issuer": url, "jwks_uri": format!("{url}/keys") }).to_string())
                }
                "/keys" => Reply::json(200, &json!({ "keys": *published.lock().unwrap() }).to_string()),
                _ => Reply::json(404, "{}"),
            }
        })
        .await;
        Self { stub, keys, away }
    }

    /// Publishes other keys from now on.
    pub fn publish(&self, keys: Vec<Value>) {
        *self.keys.lock().unwrap() = keys;
    }

    /// Goes away.
    pub fn leave(&self) {
        *self.away.lock().unwrap() = true;
    }

    /// Claims that are good for the audience `tolk` for an hour, with these roles.
    pub fn claims(&self, roles: &[&str]) -> Value {
        let now = jiff::Timestamp::now().as_second();
        json!({ "iss": self.stub.url(), "aud": "tolk", "sub": "kari", "iat": now, "nbf": now, "exp": now + 3600, "roles": roles })
    }
}
