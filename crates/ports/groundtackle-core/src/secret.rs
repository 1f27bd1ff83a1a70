use std::fmt;

use serde::Deserialize;

/// A text that is not to be seen: a password, or a URL with one. It prints as `***`, and is read by
/// [`expose`](Self::expose) alone. It reads from any serde format and is written to none.
///
/// ```
/// use groundtackle_core::Secret;
///
/// let secret = Secret::from("open sesame");
/// assert_eq!(format!("{secret:?}"), "***");
/// assert_eq!(secret.expose(), "open sesame");
/// ```
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text, for whoever has to send it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: Into<String>> From<T> for Secret {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_reads_and_does_not_show() {
        let secret: Secret = serde_json::from_str("\"pa55\"").unwrap();
        assert_eq!(secret, Secret::from("pa55"));
        assert!(!secret.is_empty());
        assert!(!format!("{secret:?} {:#?}", Some(&secret)).contains("pa55"));
        // An error about the value names what it is, not what it says.
        let error = serde_json::from_str::<Vec<Secret>>("[\"pa55\", 7]").unwrap_err();
        assert!(!error.to_string().contains("pa55"), "{error}");
    }
}
