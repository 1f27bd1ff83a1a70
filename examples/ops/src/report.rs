//! What goes to standard output, and how far the work is.

use std::fmt;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use serde::Serialize;

use crate::failure::{Failure, Result};

/// Where there is no terminal, a line so often.
const LINE_EVERY: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug)]
pub struct Report {
    pub json: bool,
}

impl Report {
    /// One JSON object on a line of standard output; nothing without `--json`.
    pub fn json(self, value: &impl Serialize) -> Result<()> {
        if !self.json {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        serde_json::to_writer(&mut out, value)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out))
            .map_err(output)
    }

    /// What was asked for, in the one form or the other.
    pub fn answer(self, json: &impl Serialize, text: &str) -> Result<()> {
        if self.json {
            self.json(json)
        } else {
            self.text(text)
        }
    }

    /// For people: on standard output, or on standard error if that is for JSON.
    pub fn text(self, text: &str) -> Result<()> {
        if self.json {
            note(text);
            return Ok(());
        }
        writeln!(io::stdout(), "{text}").map_err(output)
    }
}

/// A line on standard error. Work does not end because nobody can be told.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

pub fn output(source: io::Error) -> Failure {
    Failure::System {
        what: "standard output could not be written",
        source,
    }
}

/// How many blocks of how many are done: a bar on a terminal, lines otherwise.
#[derive(Debug)]
pub struct Progress {
    verb: &'static str,
    bar: ProgressBar,
    began: Instant,
    last_line: Instant,
}

impl Progress {
    pub fn new(verb: &'static str, blocks: u64) -> Self {
        let bar = ProgressBar::new(blocks);
        let style = ProgressStyle::with_template(
            "{wide_bar} {pos}/{len} blocks, {speed} blocks/s, {eta} left, height {msg}",
        );
        if let Ok(style) = style {
            bar.set_style(style.with_key(
                "speed",
                |state: &ProgressState, out: &mut dyn fmt::Write| {
                    // There is nobody to tell of a failure.
                    let _ = write!(out, "{:.0}", state.per_sec());
                },
            ));
        }
        let now = Instant::now();
        Self {
            verb,
            bar,
            began: now,
            last_line: now,
        }
    }

    pub fn block(&mut self, height: u32) {
        let hidden = self.bar.is_hidden();
        if !hidden {
            self.bar.set_message(height.to_string());
        }
        self.bar.inc(1);
        if hidden && self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            note(&format!(
                "{} {} of {} blocks, height {height}, {:.0} blocks/s",
                self.verb,
                self.bar.position(),
                self.bar.length().unwrap_or_default(),
                self.bar.position() as f64 / self.began.elapsed().as_secs_f64(),
            ));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
