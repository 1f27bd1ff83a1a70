#![doc = include_str!("../README.md")]

use std::fmt;
use std::io::{Read, Write};
use std::str::FromStr;

use age::x25519::{Identity, Recipient};
use groundtackle_backup::{
    DataKey, Error, HexBytes, KeyUnwrapping, KeyWrapping, Result, Retryability, WrappedKey,
};
use groundtackle_core::Secret;

/// What [`WrappedKey::scheme`] says.
pub const SCHEME: &str = "age";

/// The longest wrapped key that is read, in bytes: thousands of recipients.
const MAX_WRAPPED_BYTES: usize = 1 << 20;

/// Those who can read.
#[derive(Clone)]
pub struct AgeRecipients(Vec<Recipient>);

impl fmt::Debug for AgeRecipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(ToString::to_string))
            .finish()
    }
}

impl AgeRecipients {
    /// From their public keys, `age1…`.
    ///
    /// # Errors
    /// `InvalidRequest` for none, and for what is no public key.
    pub fn new<T: AsRef<str>>(recipients: impl IntoIterator<Item = T>) -> Result<Self> {
        let parse = |text: &str| {
            Recipient::from_str(text).map_err(|error| {
                // A secret key in this place must not come out of it.
                let shown = match text.starts_with("age1") {
                    true => text,
                    false => "what is given",
                };
                Error::invalid_request(format!(
                    "{shown} is no recipient ({error}): write the public key that age-keygen prints, age1…"
                ))
            })
        };
        let recipients: Vec<_> = recipients
            .into_iter()
            .map(|text| parse(text.as_ref()))
            .collect::<Result<_>>()?;
        if recipients.is_empty() {
            return Err(Error::invalid_request(
                "there is no recipient: nobody could read the backup",
            ));
        }
        Ok(Self(recipients))
    }

    /// Their public keys, as a wrapped key names them.
    pub fn recipients(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }
}

fn failed(action: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::backend(SCHEME, action, Retryability::Permanent, error)
}

impl KeyWrapping for AgeRecipients {
    fn wrap(&self, key: &DataKey) -> Result<WrappedKey> {
        let wrap = "wrapping a key";
        let recipients = self
            .0
            .iter()
            .map(|recipient| recipient as &dyn age::Recipient);
        let encryptor = age::Encryptor::with_recipients(recipients).map_err(|e| failed(wrap, e))?;
        let mut blob = Vec::new();
        let mut writer = encryptor
            .wrap_output(&mut blob)
            .map_err(|e| failed(wrap, e))?;
        let written = writer.write_all(key.expose());
        written.map_err(|e| failed(wrap, e))?;
        writer.finish().map_err(|e| failed(wrap, e))?;
        Ok(WrappedKey {
            scheme: SCHEME.into(),
            recipients: self.recipients(),
            blob: HexBytes(blob),
        })
    }
}

/// Those at hand who can read.
#[derive(Clone)]
pub struct AgeIdentities(Vec<Identity>);

impl fmt::Debug for AgeIdentities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.recipients()).finish()
    }
}

impl AgeIdentities {
    /// From their secret keys, `AGE-SECRET-KEY-1…`.
    ///
    /// # Errors
    /// `InvalidRequest` for none, and for what is no secret key; the text is not told.
    pub fn new(identities: impl IntoIterator<Item = Secret>) -> Result<Self> {
        let identities: Vec<_> = identities
            .into_iter()
            .map(|secret| {
                Identity::from_str(secret.expose().trim()).map_err(|error| {
                    Error::invalid_request(format!(
                        "one of the identities can't be read ({error}): give what age-keygen prints, AGE-SECRET-KEY-1…"
                    ))
                })
            })
            .collect::<Result<_>>()?;
        if identities.is_empty() {
            return Err(Error::invalid_request(
                "there is no identity: nothing can be read",
            ));
        }
        Ok(Self(identities))
    }

    /// Their public keys.
    pub fn recipients(&self) -> Vec<String> {
        let public = |identity: &Identity| identity.to_public().to_string();
        self.0.iter().map(public).collect()
    }
}

impl KeyUnwrapping for AgeIdentities {
    fn unwrap(&self, wrapped: &WrappedKey) -> Result<Option<DataKey>> {
        let damaged = |detail: String| Error::corrupt("a wrapped key", detail);
        if wrapped.scheme != SCHEME {
            return Ok(None);
        }
        if wrapped.blob.0.len() > MAX_WRAPPED_BYTES {
            return Err(damaged(format!("it has {} bytes", wrapped.blob.0.len())));
        }
        let decryptor = age::Decryptor::new(wrapped.blob.0.as_slice())
            .map_err(|error| damaged(error.to_string()))?;
        let identities = self.0.iter().map(|identity| identity as &dyn age::Identity);
        let mut reader = match decryptor.decrypt(identities) {
            Ok(reader) => reader,
            Err(age::DecryptError::NoMatchingKeys) => return Ok(None),
            Err(error) => return Err(damaged(error.to_string())),
        };
        let mut key = [0; 32];
        let mut rest = [0; 1];
        let read = reader
            .read_exact(&mut key)
            .and_then(|()| reader.read(&mut rest));
        match read {
            Ok(0) => Ok(Some(DataKey::from_bytes(key))),
            Ok(_) => Err(damaged("it is longer than a key".into())),
            Err(error) => Err(damaged(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test asserts"
    )]

    use age::secrecy::ExposeSecret;
    use groundtackle_backup::SystemEntropy;

    use super::*;

    fn identity() -> (Secret, AgeIdentities) {
        let secret = Secret::from(Identity::generate().to_string().expose_secret());
        let identities = AgeIdentities::new([secret.clone()]).unwrap();
        (secret, identities)
    }

    #[test]
    fn each_recipient_opens_it_and_nobody_else() {
        let ((_, first), (_, second), (_, other)) = (identity(), identity(), identity());
        let all = [first.recipients(), second.recipients()].concat();
        let recipients = AgeRecipients::new(&all).unwrap();
        let key = DataKey::random(&SystemEntropy).unwrap();
        let wrapped = recipients.wrap(&key).unwrap();
        assert_eq!(wrapped.recipients, all);
        for identities in [&first, &second] {
            let opened = identities.unwrap(&wrapped).unwrap().unwrap();
            assert_eq!(opened.expose(), key.expose());
        }
        assert!(other.unwrap(&wrapped).unwrap().is_none());
        let foreign = WrappedKey {
            scheme: "other".into(),
            ..wrapped
        };
        assert!(first.unwrap(&foreign).unwrap().is_none());
    }

    #[test]
    fn damage_is_no_other_key() {
        let (_, identities) = identity();
        let recipients = AgeRecipients::new(identities.recipients()).unwrap();
        let wrapped = recipients
            .wrap(&DataKey::random(&SystemEntropy).unwrap())
            .unwrap();
        for at in 0..wrapped.blob.0.len() {
            for bit in 0..8 {
                let mut damaged = wrapped.clone();
                damaged.blob.0[at] ^= 1 << bit;
                // What names the recipient in the header may now name somebody else.
                assert!(
                    !matches!(identities.unwrap(&damaged), Ok(Some(_))),
                    "{at}.{bit}"
                );
            }
            let mut cut = wrapped.clone();
            cut.blob.0.truncate(at);
            assert!(!matches!(identities.unwrap(&cut), Ok(Some(_))), "{at}");
        }
    }

    #[test]
    fn secrets_do_not_show() {
        let (secret, identities) = identity();
        let text = secret.expose();
        let error = AgeRecipients::new([text]).unwrap_err();
        let wrong = AgeIdentities::new([Secret::from(&text[..40])]).unwrap_err();
        for shown in [
            format!("{identities:?}"),
            format!("{error:?} {error}"),
            format!("{wrong:?} {wrong}"),
        ] {
            assert!(!shown.contains(&text[16..40]), "{shown}");
        }
        assert!(AgeRecipients::new([""; 0]).is_err());
        assert!(AgeIdentities::new([]).is_err());
    }
}
