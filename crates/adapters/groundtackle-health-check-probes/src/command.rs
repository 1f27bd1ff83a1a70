use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use groundtackle_health_check::{Check, Observation};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::probe::failed;

/// A program that exits with 0 if all is well.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct CommandProbe {
    /// The program: a path, or a name that is looked up in `PATH`. No shell reads it.
    pub program: PathBuf,
    /// Its arguments. Everybody on the machine can see them: they must not be secret.
    #[serde(default)]
    pub args: Vec<String>,
    /// Exit codes that are `Warn`. Default: none.
    #[serde(default)]
    pub warn_codes: Vec<i32>,
    /// Exit codes that are `Unknown`. Default: none.
    #[serde(default)]
    pub unknown_codes: Vec<i32>,
    /// Whether operators see the first line that it writes. Default true.
    #[serde(default = "yes")]
    pub show_output: bool,
}

const fn yes() -> bool {
    true
}

/// As much of each stream as is kept. The rest is read and forgotten, so that the program can go on.
const MAX_OUTPUT_BYTES: usize = Observation::MAX_DETAIL_BYTES;

/// How long the end of the output is waited for once the program has ended: what it started may hold on to it.
const LAST_OUTPUT: Duration = Duration::from_millis(100);

impl CommandProbe {
    /// A probe by this program.
    pub fn new(
        program: impl Into<PathBuf>,
        args: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            program: program.into(),
            args: args.into_iter().map(Into::into).collect(),
            warn_codes: Vec::new(),
            unknown_codes: Vec::new(),
            show_output: true,
        }
    }

    fn judge(&self, status: ExitStatus, output: &str) -> Observation {
        let seen = match status.code() {
            Some(0) => Observation::pass(),
            Some(code) if self.warn_codes.contains(&code) => Observation::warn("exit-code"),
            Some(code) if self.unknown_codes.contains(&code) => Observation::unknown("exit-code"),
            Some(_) => Observation::fail("exit-code"),
            None => Observation::fail("killed"),
        };
        let said = output.lines().map(str::trim).find(|line| !line.is_empty());
        match said.filter(|_| self.show_output) {
            Some(said) if status.success() => seen.with_detail(said),
            Some(said) => seen.with_detail(format!("{status}: {said}")),
            None if status.success() => seen,
            None => seen.with_detail(status.to_string()),
        }
    }
}

/// The program with all that it started, until it has ended.
struct Group {
    child: Child,
    id: Option<Pid>,
}

impl Drop for Group {
    fn drop(&mut self) {
        // The program has not been waited for, so that its number is still its own.
        if let Some(id) = self.id {
            // It may be gone already.
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}

/// Reads to the end, and keeps the beginning.
async fn beginning(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) -> io::Result<()> {
    let Some(mut from) = from else { return Ok(()) };
    let mut buffer = [0; 4096];
    loop {
        let read = from.read(&mut buffer).await?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else {
            return Ok(());
        };
        let room = MAX_OUTPUT_BYTES.saturating_sub(kept.len());
        kept.extend(part.iter().take(room));
    }
}

#[async_trait]
impl Check for CommandProbe {
    async fn check(&self) -> Observation {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return failed("not-started", self.program.display(), &error),
        };
        let id = child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let mut group = Group { child, id };
        let (stdout, stderr) = (group.child.stdout.take(), group.child.stderr.take());
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let status = {
            let read =
                async { tokio::join!(beginning(stdout, &mut out), beginning(stderr, &mut err)) };
            let mut read = std::pin::pin!(read);
            let mut at_end = false;
            let status = tokio::select! {
                status = group.child.wait() => status,
                _ = &mut read => {
                    at_end = true;
                    group.child.wait().await
                }
            };
            group.id = None;
            if !at_end {
                // Whether it ended or not, what was read is there.
                let _ = timeout(LAST_OUTPUT, read).await;
            }
            status
        };
        match status {
            Ok(status) => {
                let text = if out.is_empty() { &err } else { &out };
                self.judge(status, &String::from_utf8_lossy(text))
            }
            Err(error) => failed("not-started", self.program.display(), &error),
        }
    }
}
