//! Bytes as lower-case hexadecimal text.

use std::fmt;

use serde::Deserialize;

use crate::error::Error;

/// So many bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Hex<const N: usize>(pub [u8; N]);

impl<const N: usize> Hex<N> {
    /// The other way round: as nodes print hashes.
    #[must_use]
    pub fn reversed(mut self) -> Self {
        self.0.reverse();
        self
    }
}

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl<const N: usize> fmt::Debug for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<const N: usize> TryFrom<String> for Hex<N> {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        let bytes = decode(&text).and_then(|bytes| bytes.try_into().ok());
        // Without the text itself: a secret may stand there by mistake.
        let wrong = || format!("write {N} bytes as lower-case hexadecimal digits");
        bytes
            .map(Self)
            .ok_or_else(|| Error::InvalidRequest(wrong()))
    }
}

pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'A'..=b'F' => None,
        _ => char::from(byte).to_digit(16),
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let byte = |[high, low]: &[u8; 2]| u8::try_from(digit(*high)? << 4 | digit(*low)?).ok();
    let bytes = pairs.iter().map(byte);
    rest.is_empty().then(|| bytes.collect()).flatten()
}
