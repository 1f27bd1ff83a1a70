//! The grammar of tags.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What tags look like: `#` is a number without leading zeros, a `*` at the end is any rest of letters, digits, `.`, `-`, `_`
/// and `+`, all else stands for itself. `"#.#.#"` takes `1.4.0` and not `1.4.0-rc.1`, which `"#.#.#-rc.#"` takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TagPattern(String);

impl TagPattern {
    /// Whether the whole tag is so.
    pub fn matches(&self, tag: &str) -> bool {
        let mut rest = tag;
        for character in self.0.chars() {
            let left = match character {
                '#' => {
                    let digits =
                        rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                    let Some((number, left)) = rest.split_at_checked(digits) else {
                        return false;
                    };
                    let plain = number.len() == 1 || !number.starts_with('0');
                    (!number.is_empty() && plain).then_some(left)
                }
                '*' => {
                    let fits = |c: char| c.is_ascii_alphanumeric() || ".-_+".contains(c);
                    return rest.chars().all(fits);
                }
                other => rest.strip_prefix(other),
            };
            match left {
                Some(left) => rest = left,
                None => return false,
            }
        }
        rest.is_empty()
    }
}

/// A text that is no [`TagPattern`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no pattern of tags: write text with # for a number, and * at the end alone, such as \"v#.#.#\" or \"#.#.#-rc.#\""
)]
pub struct ParseTagPatternError(String);

impl FromStr for TagPattern {
    type Err = ParseTagPatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let head = text.strip_suffix('*').unwrap_or(text);
        if text.is_empty() || head.contains('*') || head.contains("##") || text.len() > 100 {
            return Err(ParseTagPatternError(text.chars().take(80).collect()));
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for TagPattern {
    type Error = ParseTagPatternError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<TagPattern> for String {
    fn from(pattern: TagPattern) -> Self {
        pattern.0
    }
}

impl fmt::Display for TagPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_takes_whole_tags_alone() {
        for (pattern, yes, no) in [
            (
                "v#.#.#",
                &["v1.2.3", "v0.10.0"][..],
                &["1.2.3", "v1.2", "v01.2.3", "v1.2.3-rc.1", ""][..],
            ),
            (
                "#.#.#-rc.#",
                &["1.4.0-rc.1"],
                &["1.4.0", "1.4.0-rc.", "1.4.0-rc.1 "],
            ),
            ("v#*", &["v1", "v1.2-beta+x"], &["v", "v1/2", "v1 2"]),
        ] {
            let pattern: TagPattern = pattern.parse().unwrap();
            assert!(yes.iter().all(|tag| pattern.matches(tag)), "{pattern}");
            assert!(!no.iter().any(|tag| pattern.matches(tag)), "{pattern}");
        }
        for wrong in ["", "*#", "a*b", "##"] {
            assert!(wrong.parse::<TagPattern>().is_err(), "{wrong}");
        }
    }
}
