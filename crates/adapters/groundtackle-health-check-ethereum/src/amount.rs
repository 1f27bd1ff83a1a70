//! Amounts, addresses and topics, as configs have them.

use std::fmt;

use ethers::types::{Address, H256, U256};
use ethers::utils::{format_units, parse_units, to_checksum};
use serde::Deserialize;

/// An amount of the chain's own coin: `"0.5 ether"`, `"20 gwei"` or `"1 wei"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Amount(U256);

impl Amount {
    /// Whether it is nothing.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0.is_zero()
    }

    pub(crate) const fn new(wei: U256) -> Self {
        Self(wei)
    }
}

impl TryFrom<String> for Amount {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let problem =
            "is no amount: write a number and its unit, such as 0.5 ether, 20 gwei or 1 wei";
        let (number, unit) = text.trim().split_once(' ').ok_or(problem)?;
        let places: usize = match unit.trim() {
            "ether" => 18,
            "gwei" => 9,
            "wei" => 0,
            _ => return Err(problem),
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || whole.len() > 40 || !digits(whole) || !digits(part) {
            return Err(problem);
        }
        if part.len() > places || (part.is_empty() && number.contains('.')) {
            return Err("is no amount: it has more decimal places than wei");
        }
        let wei = parse_units(number, unit.trim()).map_err(|_| problem)?;
        Ok(Self(wei.into()))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(ether) = format_units(self.0, "ether") else {
            return write!(f, "{} wei", self.0);
        };
        let ether = ether.trim_end_matches('0').trim_end_matches('.');
        write!(f, "{ether} ether")
    }
}

/// The address of an account or a contract: `0x` and 40 hexadecimal digits. In mixed case its checksum (EIP-55) must be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct AccountAddress(Address);

impl AccountAddress {
    pub(crate) const fn get(self) -> Address {
        self.0
    }
}

impl TryFrom<String> for AccountAddress {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let digits = text.strip_prefix("0x").unwrap_or_default();
        let address: Option<Address> = digits.parse().ok();
        let address = address
            .filter(|_| digits.len() == 40)
            .ok_or("is no address: write 0x and 40 hexadecimal digits")?;
        let mixed = digits.bytes().any(|byte| byte.is_ascii_lowercase())
            && digits.bytes().any(|byte| byte.is_ascii_uppercase());
        if mixed && to_checksum(&address, None) != text {
            return Err(
                "is no address: its checksum (EIP-55) is wrong, so that a digit must be; copy it again",
            );
        }
        Ok(Self(address))
    }
}

impl fmt::Display for AccountAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_checksum(&self.0, None))
    }
}

/// A topic of an event: an event's signature such as `"Transfer(address,address,uint256)"`, which stands first, an address, 32 bytes in
/// hexadecimal digits, or `""` for any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Topic(Option<H256>);

impl Topic {
    pub(crate) const fn get(self) -> Option<H256> {
        self.0
    }
}

impl TryFrom<String> for Topic {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let problem = "is no topic: write a signature such as Transfer(address,address,uint256), an address, 0x and 64 hexadecimal digits, or nothing for any";
        if text.is_empty() {
            return Ok(Self(None));
        }
        if let Some(digits) = text.strip_prefix("0x") {
            return match digits.len() {
                40 => Ok(Self(Some(AccountAddress::try_from(text)?.0.into()))),
                64 => digits
                    .parse()
                    .map(|topic| Self(Some(topic)))
                    .map_err(|_| problem),
                _ => Err(problem),
            };
        }
        // What is hashed is without spaces and names of parameters.
        let fine = |c: char| c.is_ascii_alphanumeric() || "_$,()[]".contains(c);
        if !text.chars().all(fine) || !text.contains('(') || !text.ends_with(')') {
            return Err(problem);
        }
        Ok(Self(Some(ethers::utils::keccak256(text).into())))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test asserts")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amounts_are_exact() {
        for (text, wei, shown) in [
            ("0.5 ether", "500000000000000000", "0.5 ether"),
            ("20 gwei", "20000000000", "0.00000002 ether"),
            ("1 wei", "1", "0.000000000000000001 ether"),
            (
                "1000000.000000000000000001 ether",
                "1000000000000000000000001",
                "1000000.000000000000000001 ether",
            ),
            ("0 ether", "0", "0 ether"),
            ("100 ether", "100000000000000000000", "100 ether"),
        ] {
            let amount = Amount::try_from(text.to_owned()).unwrap();
            assert_eq!(
                (amount.0.to_string().as_str(), amount.to_string().as_str()),
                (wei, shown)
            );
        }
        for text in [
            "",
            "1",
            "ether",
            "1ether",
            "-1 ether",
            "1 eth",
            "0.5 wei",
            "1. ether",
            ".5 ether",
            "1.0.0 ether",
            "1e3 wei",
            "0.0000000001 gwei",
            "١ ether",
        ] {
            assert!(Amount::try_from(text.to_owned()).is_err(), "{text:?}");
        }
        assert_eq!(Amount(U256::MAX).to_string().len(), 78 + 1 + 6);
    }

    #[test]
    fn a_wrong_digit_of_an_address_is_found() {
        // The example of EIP-55.
        let good = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
        for text in [
            good.to_owned(),
            good.to_lowercase(),
            format!("0x{}", good[2..].to_uppercase()),
        ] {
            assert_eq!(AccountAddress::try_from(text).unwrap().to_string(), good);
        }
        for text in [
            &good.replace('5', "6"),
            &good[..41],
            "5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
            "",
            "0x",
        ] {
            assert!(AccountAddress::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn topics_are_signatures_addresses_or_bytes() {
        let transfer = Topic::try_from("Transfer(address,address,uint256)".to_owned()).unwrap();
        let known = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef";
        assert_eq!(transfer, Topic::try_from(known.to_owned()).unwrap());
        let address =
            Topic::try_from("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed".to_owned()).unwrap();
        assert!(
            format!("{:?}", address.get().unwrap())
                .starts_with("0x0000000000000000000000005aaeb6053f")
        );
        assert_eq!(Topic::try_from(String::new()).unwrap().get(), None);
        for text in [
            "0x12",
            "Transfer",
            "Transfer(address from)",
            "0xzz",
            &format!("0x{}", "z".repeat(64)),
        ] {
            assert!(Topic::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in any::<String>(), number in "[0-9.]{0,90}", unit in "ether|gwei|wei") {
            for text in [text, format!("{number} {unit}")] {
                let _ = AccountAddress::try_from(text.clone());
                let _ = Topic::try_from(text.clone());
                if let Ok(amount) = Amount::try_from(text) {
                    let shown = amount.to_string();
                    prop_assert_eq!(Amount::try_from(shown).unwrap(), amount);
                }
            }
        }
    }
}
