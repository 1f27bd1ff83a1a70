//! How well a team delivers, from the release gate's signed log.

mod report;

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use groundtackle_release_gate::{Head, PublicKey, Timestamp, Verified, verify};

use crate::report::Report;

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Report the four figures of DORA, and how incidents went. Exit code 1: the log can't be read, or is not what was written; 2: a flag
/// is wrong.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// The log.
    log: PathBuf,
    /// Its head; one that was kept elsewhere shows whether somebody cut off records. Default: the log's name with `.head` after it.
    #[arg(long, value_name = "FILE")]
    head: Option<PathBuf>,
    /// A public key whose records count. May be given several times.
    #[arg(long = "trust", value_name = "KEY", required = true)]
    trusted: Vec<PublicKey>,
    /// Whose deployments.
    #[arg(long, value_name = "NAME")]
    environment: String,
    /// The first instant, such as 2026-10-01T00:00:00Z.
    #[arg(long, value_name = "TIME")]
    from: Timestamp,
    /// The first instant after. Default: now.
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let now = Timestamp::now();
    let until = cli.until.unwrap_or(now);
    if until > now {
        eprintln!("--until is yet to come: nobody knows what will be");
        return ExitCode::from(2);
    }
    let verified = match read(&cli) {
        Ok(verified) => verified,
        Err(error) => {
            eprintln!("{}: {error}", cli.log.display());
            return ExitCode::FAILURE;
        }
    };
    let Verified { records, head, .. } = verified;
    let Some(report) = Report::of(&records, head, &cli.environment, cli.from, until) else {
        eprintln!("--until is no later than --from");
        return ExitCode::from(2);
    };
    let text = match cli.json {
        true => serde_json::to_string_pretty(&report),
        false => Ok(report.to_string()),
    };
    match text {
        Ok(text) => println!("{text}"),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// The log, if it is what was written.
fn read(cli: &Cli) -> Result<Verified, Fault> {
    let mut file = File::open(&cli.log)?;
    // While somebody appends, log and head don't fit together.
    file.lock_shared()?;
    let mut log = Vec::new();
    file.read_to_end(&mut log)?;
    let beside = || Path::new(&format!("{}.head", cli.log.display())).to_owned();
    let path = cli.head.clone().unwrap_or_else(beside);
    let head = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let head = Head::open(head.trim_end(), &cli.trusted)?;
    Ok(verify(&log, &cli.trusted, Some(&head))?)
}
