//! The scheme of Standard Webhooks (<https://www.standardwebhooks.com>), version 1.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use groundtackle_core::Secret;
use hmac::{Hmac, Mac};
use serde::Deserialize;
use sha2::Sha256;

/// A key to sign with: `whsec_` and 24 to 64 random bytes in base64. It is not shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Secret")]
pub struct SigningKey(Vec<u8>);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl TryFrom<Secret> for SigningKey {
    type Error = &'static str;

    fn try_from(text: Secret) -> Result<Self, &'static str> {
        let problem = "is no key: write whsec_ and 24 to 64 random bytes in base64, as from: echo whsec_$(head -c 32 /dev/urandom | base64)";
        let text = text.expose().strip_prefix("whsec_").ok_or(problem)?;
        let key = STANDARD.decode(text).map_err(|_| problem)?;
        if !(24..=64).contains(&key.len()) {
            return Err(problem);
        }
        Ok(Self(key))
    }
}

/// What `webhook-signature` says of a message: `v1,` and the HMAC-SHA256 of id, timestamp and body in base64. Receivers compare it in
/// constant time, and refuse timestamps that are some minutes away.
#[must_use]
pub fn signature(key: &SigningKey, id: &str, timestamp: u64, body: &[u8]) -> String {
    // Of a length that any HMAC takes.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key.0) else {
        return String::new();
    };
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test asserts")]
mod tests {
    use super::*;

    /// The example of the specification's libraries.
    #[test]
    fn it_signs_as_the_specification_does() {
        let key = Secret::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let key = SigningKey::try_from(key).unwrap();
        let body = br#"{"test": 2432232314}"#;
        let signed = signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(format!("{key:?}"), "***");
    }

    #[test]
    fn keys_are_long_enough() {
        for text in [
            "",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_",
            "whsec_c2hvcnQ=",
            "whsec_!!!",
        ] {
            assert!(SigningKey::try_from(Secret::from(text)).is_err(), "{text}");
        }
    }
}
