//! Where a key of a policy is written.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// A step on the way to a value: a table's key, or a number in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Key(&'static str),
    Index(usize),
}

/// As reasons and errors write it: `window[2].hours.zone`.
pub(crate) fn path_text(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => text.extend([".", key]),
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// The line, from 1, of a byte.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().iter().take(at);
    before
        .filter(|byte| **byte == b'\n')
        .count()
        .saturating_add(1)
}

/// The line of what a path leads to, or of as much of it as is there.
pub(crate) fn line_of_path(text: &str, json: bool, path: &[Step]) -> usize {
    let at = if json {
        json_place(text, path)
    } else {
        toml_place(text, path)
    };
    line_of(text, at)
}

fn toml_place(text: &str, path: &[Step]) -> usize {
    let Ok(table) = DeTable::parse(text) else {
        return 0;
    };
    let mut place: Range<usize> = 0..0;
    let mut value = DeValue::Table(table.into_inner());
    for step in path {
        let next = match (value, step) {
            (DeValue::Table(mut table), Step::Key(key)) => table.remove(*key),
            (DeValue::Array(items), Step::Index(index)) => items.into_iter().nth(*index),
            _ => None,
        };
        let Some(next) = next else { break };
        place = next.span();
        value = next.into_inner();
    }
    place.start
}

/// In a text that is known to be JSON.
fn json_place(text: &str, path: &[Step]) -> usize {
    let mut scan = Scan {
        bytes: text.as_bytes(),
        at: 0,
    };
    let mut place = 0;
    for step in path {
        match scan.enter(step) {
            Some(at) => place = at,
            None => break,
        }
    }
    place
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn peek(&mut self) -> Option<u8> {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.bytes.get(self.at).copied()
    }

    fn eat(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += 1;
        }
        found
    }

    /// The text between quotes, as it is written.
    fn string(&mut self) -> Option<&[u8]> {
        if !self.eat(b'"') {
            return None;
        }
        let from = self.at;
        loop {
            match *self.bytes.get(self.at)? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        self.bytes.get(from..self.at - 1)
    }

    fn skip(&mut self) -> Option<()> {
        let mut depth = 0usize;
        loop {
            match self.peek()? {
                b'"' => {
                    self.string()?;
                }
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                _ => self.at += 1,
            }
            if depth == 0 && matches!(self.peek(), None | Some(b',' | b'}' | b']')) {
                return Some(());
            }
        }
    }

    /// Stands before a value; goes on to before the one that the step leads to.
    fn enter(&mut self, step: &Step) -> Option<usize> {
        let start = self.at;
        let found = self.enter_from_here(step);
        if found.is_none() {
            self.at = start;
        }
        found
    }

    fn enter_from_here(&mut self, step: &Step) -> Option<usize> {
        let mut index = 0;
        if !self.eat(if matches!(step, Step::Key(_)) {
            b'{'
        } else {
            b'['
        }) {
            return None;
        }
        loop {
            self.peek()?;
            let place = self.at;
            let found = match step {
                Step::Key(key) => {
                    let found = self.string()? == key.as_bytes();
                    if !self.eat(b':') {
                        return None;
                    }
                    found
                }
                Step::Index(wanted) => *wanted == index,
            };
            if found {
                return Some(place);
            }
            self.skip()?;
            index += 1;
            if !self.eat(b',') {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_path_is_found_in_both_formats() {
        let path = [
            Step::Key("window"),
            Step::Index(1),
            Step::Key("hours"),
            Step::Key("zone"),
        ];
        let toml = "version = 1\n[[window]]\nname = \"a\"\n[[window]]\nname = \"b\"\n[window.hours]\nzone = \"UTC\"\n";
        assert_eq!(line_of_path(toml, false, &path), 7);
        let json = "{ \"version\": 1,\n\"window\": [ {\"name\": \"]}\\\"\"},\n {\"name\": \"b\", \"hours\":\n { \"zone\": 3 } } ] }";
        assert_eq!(line_of_path(json, true, &path), 4);
        assert_eq!(path_text(&path), "window[1].hours.zone");
        // What is not there is where it would have to be.
        let missing = [Step::Key("window"), Step::Index(1), Step::Key("kind")];
        assert_eq!(line_of_path(json, true, &missing), 3);
        assert_eq!(line_of_path("", true, &missing), 1);
    }
}
