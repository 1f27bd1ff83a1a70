//! What goes to standard output, and how far the work is.

use std::fmt;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use serde::Serialize;

use crate::failure::{Failure, Result};

/// Where there is no terminal, a line so often.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// How often what goes on by itself is looked at.
const SHOWN_EVERY: Duration = Duration::from_millis(200);

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

/// How many blocks, coins or MiB of how many are done: a bar on a terminal, lines otherwise.
#[derive(Debug)]
pub struct Progress {
    verb: &'static str,
    unit: &'static str,
    bar: ProgressBar,
    began: Instant,
    last_line: Instant,
}

impl Progress {
    pub fn new(verb: &'static str, blocks: u64) -> Self {
        Self::of(verb, "blocks", Some(blocks), ", height {msg}")
    }

    /// Of coins; how many there are may not be known.
    pub fn of_coins(verb: &'static str, coins: Option<u64>) -> Self {
        Self::of(verb, "coins", coins, "")
    }

    fn of(verb: &'static str, unit: &'static str, total: Option<u64>, more: &str) -> Self {
        let (bar, template) = match total {
            Some(total) => (
                ProgressBar::new(total),
                format!(
                    "{{wide_bar}} {verb} {{pos}}/{{len}} {unit}, {{speed}} {unit}/s, {{eta}} left{more}"
                ),
            ),
            None => (
                ProgressBar::no_length(),
                format!("{verb} {{pos}} {unit}, {{speed}} {unit}/s{more}"),
            ),
        };
        if let Ok(style) = ProgressStyle::with_template(&template) {
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
            unit,
            bar,
            began: now,
            last_line: now,
        }
    }

    /// Of bytes, in MiB; how many there will be may not be known.
    pub fn of_bytes(verb: &'static str, bytes: Option<u64>) -> Self {
        Self::of(verb, "MiB", bytes.map(|bytes| bytes >> 20), "")
    }

    /// So many by now.
    pub fn bytes(&mut self, bytes: u64) {
        self.coins(bytes >> 20);
    }

    /// One block more.
    pub fn block(&mut self, height: u32) {
        if !self.bar.is_hidden() {
            self.bar.set_message(height.to_string());
        }
        self.bar.inc(1);
        self.line(&format!(", height {height}"));
    }

    /// So many coins by now.
    pub fn coins(&mut self, coins: u64) {
        self.bar.set_position(coins);
        self.line("");
    }

    fn line(&mut self, more: &str) {
        if self.bar.is_hidden() && self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            let of = self.bar.length();
            note(&format!(
                "{} {}{} {unit}{more}, {:.0} {unit}/s",
                self.verb,
                self.bar.position(),
                of.map(|total| format!(" of {total}")).unwrap_or_default(),
                self.bar.position() as f64 / self.began.elapsed().as_secs_f64(),
                unit = self.unit,
            ));
        }
    }
}

/// Shows how far `work` is while it goes on: `bytes` says so.
pub async fn following<T>(
    progress: &mut Progress,
    bytes: impl Fn() -> u64,
    work: impl Future<Output = T>,
) -> T {
    let mut ticks = tokio::time::interval(SHOWN_EVERY);
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            _ = ticks.tick() => progress.bytes(bytes()),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
