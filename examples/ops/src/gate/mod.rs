//! May this artefact go to that environment now? `ops gate` asks a policy, and keeps a signed log of what was asked, said and done.

mod failure;
mod file;
mod past;
mod question;
mod statement;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use groundtackle_release_gate::{Gate as Rules, PolicyFormat, Timestamp, Verdict};

use crate::report::Report;
use failure::Result;

/// Shown by --help and in README.md.
pub const EXIT_CODES: &str = "\
Exit codes:
    0  go; or what was asked for is done
    1  no-go: something is known to be wrong
    2  hold: all that is missing is time
    3  inconclusive: something is not known
   64  the command line is wrong
   65  bad data: a policy, evidence, a key, or a log that is not what was written
   66  not found: a file, or a record of the log
   69  the log can't be gone on with: nobody trusted signed it, or its head is missing
   73  the file could not be created, or is there already
   74  reading or writing failed, a full disk included";

/// The code of a wrong command line: those of answers are below.
pub const USAGE: u8 = 64;

#[derive(Debug, Args)]
pub struct PolicyFile {
    /// The policy: TOML, or JSON if the name ends in .json.
    #[arg(long = "policy", value_name = "FILE")]
    path: PathBuf,
}

impl PolicyFile {
    fn read(&self) -> Result<Rules> {
        let text = file::read_text(&self.path)?;
        let name = self.path.display().to_string();
        Ok(Rules::read(&name, &text, PolicyFormat::of(&name))?)
    }
}

#[derive(Debug, Subcommand)]
pub enum Gate {
    /// Ask now, by the clock of this machine; with --log, write down the answer and all that it comes from.
    #[command(after_help = EXIT_CODES)]
    Check {
        #[command(flatten)]
        policy: PolicyFile,
        #[command(flatten)]
        question: question::Question,
        #[command(flatten)]
        log: file::MaybeLog,
        /// If it is go, write a signed permit into this new file, for a deployer that trusts the signer.
        #[arg(long, value_name = "FILE", requires = "log")]
        permit: Option<PathBuf>,
    },
    /// Say all that speaks against it, now or at another time; nothing is written down.
    #[command(after_help = EXIT_CODES)]
    Why {
        #[command(flatten)]
        policy: PolicyFile,
        #[command(flatten)]
        question: question::Question,
        #[command(flatten)]
        log: file::MaybeReading,
        /// When, such as 2026-11-10T11:00:00Z. Default: now.
        #[arg(long, value_name = "INSTANT")]
        at: Option<Timestamp>,
    },
    /// Say when the same evidence would give go; the exit code is of the answer now.
    #[command(after_help = EXIT_CODES)]
    When {
        #[command(flatten)]
        policy: PolicyFile,
        #[command(flatten)]
        question: question::Question,
        #[command(flatten)]
        log: file::MaybeReading,
        /// From when on, such as 2026-11-10T11:00:00Z. Default: now.
        #[arg(long, value_name = "INSTANT")]
        at: Option<Timestamp>,
    },
    /// Judge every decision of a log by this policy again, and compare; with times, the figures of DORA.
    #[command(after_help = EXIT_CODES)]
    Replay {
        #[command(flatten)]
        policy: PolicyFile,
        #[command(flatten)]
        log: file::Reading,
        #[command(flatten)]
        figures: past::Figures,
    },
    /// Look whether a log is what was written, up to its head.
    #[command(after_help = EXIT_CODES)]
    Verify {
        #[command(flatten)]
        log: file::Reading,
    },
    /// Print the minutes of a decision of a log: Markdown, or a page of HTML.
    #[command(after_help = EXIT_CODES)]
    Minutes {
        #[command(flatten)]
        log: file::Reading,
        /// The record's number. Default: the last decision.
        #[arg(long, value_name = "NUMBER")]
        record: Option<u64>,
        /// A page of HTML.
        #[arg(long)]
        html: bool,
    },
    /// Approve an artefact for an environment, signed.
    #[command(after_help = EXIT_CODES)]
    Approve {
        #[command(flatten)]
        policy: PolicyFile,
        #[command(flatten)]
        said: statement::Said,
        /// Where it may go.
        #[arg(long)]
        environment: String,
    },
    /// Say, signed, that an item of the checklist is done, or was found not to be.
    #[command(after_help = EXIT_CODES)]
    Tick {
        #[command(flatten)]
        policy: PolicyFile,
        #[command(flatten)]
        said: statement::Said,
        #[command(flatten)]
        item: statement::Item,
    },
    /// Pass, signed, what the policy lets people pass in need. Each of them runs this.
    #[command(after_help = EXIT_CODES)]
    Override {
        #[command(flatten)]
        policy: PolicyFile,
        #[command(flatten)]
        said: statement::Said,
        #[command(flatten)]
        need: statement::Need,
    },
    /// Write down how a deployment ended that a decision of the log allowed.
    #[command(after_help = EXIT_CODES)]
    Deployed {
        #[command(flatten)]
        log: file::Writing,
        #[command(flatten)]
        ended: past::Ended,
    },
    /// Make a key, in a new file that only you can read, and print its public half for policies and --trust.
    #[command(after_help = EXIT_CODES)]
    Key {
        /// The file.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

/// Prints what went wrong itself: its codes are not those of the other commands.
pub fn run(gate: &Gate, report: Report) -> ExitCode {
    match answer(gate, report) {
        Ok(verdict) => ExitCode::from(match verdict {
            Verdict::Go => 0,
            Verdict::NoGo => 1,
            Verdict::Hold => 2,
            Verdict::Inconclusive => 3,
        }),
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.code())
        }
    }
}

fn answer(gate: &Gate, report: Report) -> Result<Verdict> {
    match gate {
        Gate::Check {
            policy,
            question,
            log,
            permit,
        } => question::check(&policy.read()?, question, log, permit.as_deref(), report),
        Gate::Why {
            policy,
            question,
            log,
            at,
        } => question::why(
            &policy.read()?,
            question,
            log,
            at.unwrap_or_else(Timestamp::now),
            report,
        ),
        Gate::When {
            policy,
            question,
            log,
            at,
        } => question::when(
            &policy.read()?,
            question,
            log,
            at.unwrap_or_else(Timestamp::now),
            report,
        ),
        Gate::Replay {
            policy,
            log,
            figures,
        } => past::replay(&policy.read()?, log, figures, report),
        Gate::Verify { log } => past::verify(log, report),
        Gate::Minutes { log, record, html } => past::minutes(log, *record, *html, report),
        Gate::Approve {
            policy,
            said,
            environment,
        } => statement::approve(&policy.read()?, said, environment, report),
        Gate::Tick { policy, said, item } => statement::tick(&policy.read()?, said, item, report),
        Gate::Override { policy, said, need } => {
            statement::override_(&policy.read()?, said, need, report)
        }
        Gate::Deployed { log, ended } => past::deployed(log, ended, report),
        Gate::Key { out } => statement::key(out, report),
    }
}
