//! Runs all measurements, one after the other, and writes what they print with pictures of their ratios:
//! `cargo run --release -p groundtackle-benches`. Linux only.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use groundtackle_benches::BoxError;
use groundtackle_benches::chart::svg;
use groundtackle_benches::machine::machine;
use groundtackle_benches::tables::tables;

const USAGE: &str = "report [--out target/benchmarks] [--only coins,utxo,...] [--skip engines,...] [--quick]

Writes OUT/benchmarks.md and a picture for each table that has ratios. --quick measures little, to see that all of it works: its figures
mean nothing. Leave the machine alone while it runs.";

struct Measurement {
    name: &'static str,
    title: &'static str,
    /// What it needs beside cargo, and where that comes from.
    needs: Option<(&'static str, &'static str)>,
    args: &'static [&'static str],
    quick: &'static [&'static str],
}

const MEASUREMENTS: [Measurement; 7] = [
    Measurement {
        name: "coins",
        title: "Coin segments beside zstd",
        needs: None,
        args: &[],
        quick: &["20000"],
    },
    Measurement {
        name: "utxo",
        title: "The embedded store beside its raw engine and Bitcoin Core's",
        needs: None,
        args: &[],
        quick: &[
            "--blocks",
            "10",
            "--txs-per-block",
            "200",
            "--repeat",
            "1",
            "--only",
            "connect,raw,scan,muhash",
        ],
    },
    Measurement {
        name: "engines",
        title: "Embedded engines",
        needs: None,
        args: &[],
        quick: &[
            "--blocks",
            "10",
            "--txs-per-block",
            "200",
            "--kills",
            "1",
            "--skip",
            "kill,torn,full",
        ],
    },
    Measurement {
        name: "servers",
        title: "Stores on PostgreSQL and Redis beside the least that they can do",
        needs: Some(("redis-server", "Debian's redis-server and postgresql")),
        args: &[],
        quick: &[
            "--txs-per-block",
            "100",
            "--seed-blocks",
            "2",
            "--blocks",
            "4",
        ],
    },
    Measurement {
        name: "aerospike",
        title: "The store on Aerospike beside its raw client and a function in the server",
        needs: Some(("asd", "https://github.com/aerospike/aerospike-server")),
        args: &[],
        quick: &["--batches", "4", "--batch", "100", "--mined", "1000"],
    },
    Measurement {
        name: "backup",
        title: "Backups beside restic, borg, zstd and a copy",
        needs: None,
        args: &[],
        quick: &["--gb", "0.02", "--rounds", "1"],
    },
    Measurement {
        name: "health",
        title: "Probes beside a handler that returns a constant",
        needs: None,
        args: &[],
        quick: &[
            "--requests",
            "2000",
            "--rate",
            "1000",
            "--seconds",
            "1",
            "--first",
            "0",
        ],
    },
];

/// What stands beside ours, and what says which one it is.
const VERSIONS: [&[&str]; 8] = [
    &["rustc", "--version"],
    &["psql", "--version"],
    &["redis-server", "--version"],
    &["asd", "--version"],
    &["restic", "version"],
    &["borg", "--version"],
    &["zstd", "--version"],
    &["git", "describe", "--always", "--dirty"],
];

struct Options {
    out: PathBuf,
    only: Option<String>,
    skip: String,
    quick: bool,
}

impl Options {
    fn parse() -> Result<Self, BoxError> {
        let mut options = Self {
            out: "target/benchmarks".into(),
            only: None,
            skip: String::new(),
            quick: false,
        };
        let mut arguments = env::args().skip(1);
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or(USAGE);
            match name.as_str() {
                "--out" => options.out = value()?.into(),
                "--only" => options.only = Some(value()?),
                "--skip" => options.skip = value()?,
                "--quick" => options.quick = true,
                _ => return Err(USAGE.into()),
            }
        }
        for name in options
            .only
            .iter()
            .chain([&options.skip])
            .flat_map(|names| names.split(','))
        {
            if !name.is_empty() && !MEASUREMENTS.iter().any(|each| each.name == name) {
                return Err(format!("{name}: there is no such measurement\n{USAGE}").into());
            }
        }
        Ok(options)
    }

    fn wants(&self, name: &str) -> bool {
        let named = |names: &str| names.split(',').any(|each| each == name);
        self.only.as_deref().is_none_or(named) && !named(&self.skip)
    }
}

fn main() -> Result<(), BoxError> {
    let options = Options::parse()?;
    fs::create_dir_all(&options.out)?;
    let beside = env::current_exe()?;
    let beside = beside.parent().ok_or("a program without a folder")?;
    let on = machine();
    let mut report = format!("# Measured on {}\n\n{on}\n\n", today()?);
    if options.quick {
        report.push_str("**A quick run, whose figures mean nothing.**\n\n");
    }
    let mut wanted = MEASUREMENTS.iter().filter(|each| options.wants(each.name));
    if wanted.any(|each| !beside.join(each.name).exists()) {
        build()?;
    }
    for command in VERSIONS {
        if let Some(version) = version(command) {
            report.push_str(&format!("- {version}\n"));
        }
    }
    for each in MEASUREMENTS.iter().filter(|each| options.wants(each.name)) {
        report.push_str(&format!("\n## {}\n\n", each.title));
        match each
            .needs
            .filter(|needs| version(&[needs.0, "--version"]).is_none())
        {
            Some((program, from)) => {
                let line =
                    format!("**Not measured**: there is no `{program}` on the PATH ({from}).\n");
                eprintln!("{}: {line}", each.name);
                report.push_str(&line);
            }
            None => report.push_str(&measure(each, beside, &options, &on)?),
        }
        // What was measured is kept, whatever becomes of the next.
        fs::write(options.out.join("benchmarks.md"), &report)?;
    }
    println!("{}", options.out.join("benchmarks.md").display());
    Ok(())
}

/// `cargo run` has built this program alone.
fn build() -> Result<(), BoxError> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args([
        "build",
        "--locked",
        "--package",
        env!("CARGO_PKG_NAME"),
        "--bins",
    ]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    if !build.status()?.success() {
        return Err("the measurements can't be built".into());
    }
    Ok(())
}

/// Runs one, and gives what it printed, with its pictures.
fn measure(
    each: &Measurement,
    beside: &Path,
    options: &Options,
    on: &str,
) -> Result<String, BoxError> {
    let args = if options.quick { each.quick } else { each.args };
    eprintln!("{} {}", each.name, args.join(" "));
    let begin = Instant::now();
    let mut run = Command::new(beside.join(each.name));
    let run = run.args(args).stderr(Stdio::inherit()).output()?;
    let took = Duration::from_secs(begin.elapsed().as_secs());
    if !run.status.success() {
        return Err(format!("{} ended with {}", each.name, run.status).into());
    }
    let printed = String::from_utf8(run.stdout)?;
    let mut section = format!(
        "`{} {}`, {took:?}\n\n{}\n",
        each.name,
        args.join(" "),
        printed.trim()
    );
    let mut pictures = 0;
    for table in tables(&printed) {
        let Some(series) = table.ratios() else {
            continue;
        };
        pictures += 1;
        let title = if table.title.is_empty() {
            each.title
        } else {
            &table.title
        };
        let name = format!("{}-{pictures}.svg", each.name);
        fs::write(options.out.join(&name), svg(title, &series, on))?;
        section.push_str(&format!("\n![{title}: {}]({name})\n", series.what));
    }
    if pictures == 0 {
        return Err(format!("{} printed no table with ratios", each.name).into());
    }
    Ok(section)
}

/// The first line that a program says of itself.
fn version(command: &[&str]) -> Option<String> {
    let (program, args) = command.split_first()?;
    let found = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8(found.stdout).ok()?;
    let line = text.lines().next()?.trim();
    Some(if *program == "git" {
        format!("this tree: {line}")
    } else {
        line.to_owned()
    })
}

fn today() -> Result<String, BoxError> {
    let seconds = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)?
        .as_secs();
    Ok(jiff::Timestamp::from_second(i64::try_from(seconds)?)?
        .strftime("%F")
        .to_string())
}
