//! Texts of others in Discord's Markdown.

/// As Discord counts, or more: it says "characters", and its clients are written in JavaScript.
pub(crate) fn length(text: &str) -> usize {
    text.encode_utf16().count()
}

/// What means something in Discord's Markdown, or begins a mention, a link, an emoji or a time.
const SPECIAL: &str = "\\*_~`|<>@#:[]()-";

/// Text so that it is shown as it is: marks are escaped, and what has no shape of its own, or turns the direction of what follows, is a
/// space. At most `limit` long; what is cut ends in `…`.
pub(crate) fn escaped(text: &str, limit: usize) -> String {
    let mut shown = String::new();
    let mut used = 0_usize;
    for c in text.chars() {
        let c = if c.is_control() || is_invisible(c) {
            ' '
        } else {
            c
        };
        let takes = c
            .len_utf16()
            .saturating_add(usize::from(SPECIAL.contains(c)));
        // Room for the mark of what is cut.
        if used.saturating_add(takes) >= limit {
            if limit > 0 {
                shown.push('…');
            }
            break;
        }
        used = used.saturating_add(takes);
        if SPECIAL.contains(c) {
            shown.push('\\');
        }
        shown.push(c);
    }
    shown
}

/// Zero width, or a change of direction.
const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_of_it_means_anything() {
        for (text, shown) in [
            ("plain 99.9 % of it", "plain 99.9 % of it"),
            (
                "**bold** _it_ ~~no~~ ||hid||",
                "\\*\\*bold\\*\\* \\_it\\_ \\~\\~no\\~\\~ \\|\\|hid\\|\\|",
            ),
            ("@everyone <@1> <#2>", "\\@everyone \\<\\@1\\> \\<\\#2\\>"),
            ("[a](https://b)", "\\[a\\]\\(https\\://b\\)"),
            ("`x` :smile: a\\", "\\`x\\` \\:smile\\: a\\\\"),
            ("a\nb\u{202e}c\u{200b}d", "a b c d"),
        ] {
            assert_eq!(escaped(text, 1000), shown);
        }
        assert_eq!(escaped("abcdef", 4), "abc…");
        assert_eq!(escaped("ab**", 4), "ab…");
        assert_eq!(escaped("abc", 4), "abc");
        assert_eq!(escaped("abc", 0), "");
    }

    proptest! {
        #[test]
        fn it_keeps_its_limit_and_cuts_no_mark(text in any::<String>(), limit in 0_usize..300) {
            let shown = escaped(&text, limit);
            prop_assert!(length(&shown) <= limit);
            let mut chars = shown.chars();
            while let Some(c) = chars.next() {
                if c == '\\' {
                    prop_assert!(chars.next().is_some_and(|c| SPECIAL.contains(c)));
                } else {
                    prop_assert!(!SPECIAL.contains(c) && !c.is_control(), "{shown:?}");
                }
            }
        }
    }
}
