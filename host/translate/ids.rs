//! Derived ids: the same on every re-run, unguessable without the installation's secret.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

/// The id of a source key: uuid v8 over HMAC-SHA256(secret, namespace, key).
pub fn derive(secret: &[u8; 32], namespace: &str, key: &str) -> Uuid {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(&(namespace.len() as u64).to_be_bytes());
    mac.update(namespace.as_bytes());
    mac.update(key.as_bytes());
    let mut half = [0; 16];
    half.copy_from_slice(&mac.finalize().into_bytes()[..16]);
    Uuid::new_v8(half)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_stable_and_apart() {
        let one = derive(&[1; 32], "n", "k");
        assert_eq!(one, derive(&[1; 32], "n", "k"));
        assert_eq!(one.get_version_num(), 8);
        for other in [derive(&[2; 32], "n", "k"), derive(&[1; 32], "nk", ""), derive(&[1; 32], "n", "l")] {
            assert_ne!(one, other);
        }
    }
}
