use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The units, largest first, so that a size prints in the largest one that divides it.
const UNITS: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// A number of bytes, written as `"64MiB"`.
///
/// The text is a whole number, perhaps a space, and a binary unit: `B`, `KiB`, `MiB`, `GiB` or `TiB`.
/// Decimal units, fractions and bare numbers are refused, because two readers may take them for two
/// different limits. A size prints in the largest unit that divides it, so it reads back as the same
/// number.
///
/// ```
/// use groundtackle_core::ByteSize;
///
/// let size: ByteSize = "64MiB".parse()?;
/// assert_eq!(size, ByteSize::mib(64));
/// assert_eq!(size.bytes(), 67_108_864);
/// assert_eq!(size.to_string(), "64MiB");
/// # Ok::<(), groundtackle_core::ParseByteSizeError>(())
/// ```
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(u64);

impl ByteSize {
    /// A size of this many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// A size of this many mebibytes; the largest size there is when that is out of range.
    pub const fn mib(mebibytes: u64) -> Self {
        Self(mebibytes.saturating_mul(1 << 20))
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let divides = |(_, bytes): &(&str, u64)| self.0 >= *bytes && self.0.is_multiple_of(*bytes);
        let (unit, bytes) = UNITS.into_iter().find(divides).unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / bytes)
    }
}

/// A text that is no [`ByteSize`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a size: write a whole number and one of B, KiB, MiB, GiB, TiB, such as \"64MiB\" (below 2^64 bytes)"
)]
pub struct ParseByteSizeError(String);

impl FromStr for ByteSize {
    type Err = ParseByteSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (number, unit) =
                text.split_at_checked(text.find(|c: char| !c.is_ascii_digit())?)?;
            let (_, bytes) = UNITS
                .into_iter()
                .find(|(name, _)| *name == unit.strip_prefix(' ').unwrap_or(unit))?;
            number.parse::<u64>().ok()?.checked_mul(bytes)
        };
        parse()
            .map(Self)
            .ok_or_else(|| ParseByteSizeError(text.to_owned()))
    }
}

impl TryFrom<String> for ByteSize {
    type Error = ParseByteSizeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> Self {
        size.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prints_in_the_largest_unit_that_divides() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1KiB"),
            (1536, "1536B"),
            (64 << 20, "64MiB"),
            (1 << 40, "1TiB"),
            (u64::MAX, "18446744073709551615B"),
        ] {
            assert_eq!(ByteSize::new(bytes).to_string(), text);
        }
    }

    #[test]
    fn a_space_before_the_unit_is_fine() {
        assert_eq!("64 MiB".parse(), Ok(ByteSize::mib(64)));
    }

    #[test]
    fn refuses_what_can_be_read_in_two_ways() {
        for text in [
            "",
            "64",
            "MiB",
            "64MB",
            "64mib",
            "64M",
            "1.5GiB",
            "-1B",
            " 1B",
            "1B ",
            "16777216TiB",
            "1\u{b5}B",
        ] {
            assert_eq!(
                text.parse::<ByteSize>(),
                Err(ParseByteSizeError(text.to_owned()))
            );
        }
        let error = serde_json::from_str::<ByteSize>("\"64MB\"")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("\"64MB\"") && error.contains("MiB"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn reads_back_what_it_prints(bytes: u64) {
            let size = ByteSize::new(bytes);
            prop_assert_eq!(size.to_string().parse(), Ok(size));
            let json = serde_json::to_string(&size).unwrap();
            prop_assert_eq!(serde_json::from_str::<ByteSize>(&json).unwrap(), size);
        }
    }
}
