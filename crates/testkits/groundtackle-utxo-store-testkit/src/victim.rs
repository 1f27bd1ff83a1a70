//! A process that works on a store until it is killed: the test's own program, started again to run one case.

use std::fmt::{self, Display};
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::{env, io};

use crate::differential::{Call, Script, steps};
use crate::harness::{Opener, Subject, all};
use crate::mainnet;

const TASK: &str = "GROUNDTACKLE_TEST_VICTIM";
const FAIL_POINT: &str = "GROUNDTACKLE_TEST_FAIL_POINT";
const DONE: &str = "victim: done";
/// Steps of a generated sequence that a victim runs.
pub(crate) const STEPS: usize = 60;

/// What it does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// A generated sequence of this seed.
    Sequence(u64),
    /// Blocks 0 to 599 of the main network, from the store's tip on.
    Chain,
}

/// What a victim is told: work and address.
pub(crate) struct Task {
    work: Work,
    address: String,
}

impl Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.work {
            Work::Sequence(seed) => write!(f, "{seed} {}", self.address),
            Work::Chain => write!(f, "chain {}", self.address),
        }
    }
}

impl FromStr for Task {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (work, address) = text.split_once(' ').ok_or("no address")?;
        let work = match work {
            "chain" => Work::Chain,
            seed => Work::Sequence(seed.parse().map_err(|_| "no seed")?),
        };
        let address = address.into();
        Ok(Self { work, address })
    }
}

/// The task of this process, if it is a victim.
pub(crate) fn task() -> Option<Task> {
    let task = env::var(TASK).ok()?;
    Some(task.parse().expect("a victim's task comes from the kit"))
}

/// One line for each call that was acknowledged.
fn done() {
    // Not by print!, which the test runner might capture.
    writeln!(io::stdout(), "\n{DONE}").expect("the parent reads");
}

pub(crate) async fn work(harness: &dyn Opener, task: &Task) {
    let mut store = all(harness.open_at(&task.address).await);
    all(store.recover().await);
    match task.work {
        Work::Sequence(seed) => {
            let (mut script, prologue) = Script::begin(steps(seed, STEPS)).await;
            for call in prologue {
                call.apply(&*store).await;
            }
            done();
            while let Some((call, _)) = script.next().await {
                if matches!(call, Call::Reopen) {
                    drop(store);
                    store = all(harness.open_at(&task.address).await);
                    all(store.recover().await);
                }
                call.apply(&*store).await;
                done();
            }
        }
        Work::Chain => {
            let blocks = mainnet::blocks().await;
            let next = all(store.tip().await).map_or(0, |tip| tip.height as usize + 1);
            for block in &blocks[next..] {
                let connected = all(store.connect_block(block).await);
                connected.expect("the block is good");
                done();
            }
        }
    }
}

/// A victim, seen from the process that kills it.
pub(crate) struct Victim {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    acknowledged: usize,
}

impl Victim {
    /// Starts one that works at the place of `store`, which must be closed. It dies by itself when it
    /// comes by a write point for the Nth time.
    pub(crate) fn start(store: &Subject, work: Work, dies_at: Option<(&str, u32)>) -> Self {
        let address = store.address().expect("a need");
        let mut command = Command::new(env::current_exe().expect("a test is a program"));
        command
            .args([store.test(), "--exact", "--nocapture"])
            .env(TASK, Task { work, address }.to_string())
            .env_remove(FAIL_POINT)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        if let Some((point, times)) = dies_at {
            command.env(FAIL_POINT, format!("{point}:{times}"));
        }
        let mut process = command.spawn().expect("the test runs again");
        let lines = BufReader::new(process.stdout.take().expect("it is a pipe")).lines();
        Self {
            process,
            lines,
            acknowledged: 0,
        }
    }

    /// Waits until so many calls are acknowledged, or it has ended.
    pub(crate) fn wait_for(&mut self, acknowledged: usize) {
        while self.acknowledged < acknowledged {
            // A line that was cut by the end says nothing.
            match self.lines.next() {
                Some(Ok(line)) => self.acknowledged += usize::from(line == DONE),
                _ => break,
            }
        }
    }

    /// Kills it. How many calls it saw acknowledged, and whether it was killed before its end.
    pub(crate) fn kill(mut self) -> (usize, bool) {
        // It may have ended meanwhile.
        drop(self.process.kill());
        self.end()
    }

    /// Waits for its end, as [`kill`](Self::kill).
    pub(crate) fn end(mut self) -> (usize, bool) {
        self.wait_for(usize::MAX);
        let status = self.process.wait().expect("it was started");
        match status.code() {
            Some(0) => (self.acknowledged, false),
            None if killed(status) => (self.acknowledged, true),
            _ => panic!("the victim failed before it was killed: {status}"),
        }
    }
}

/// By us, or by itself at a write point.
#[cfg(unix)]
fn killed(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    const SIGABRT: i32 = 6;
    const SIGKILL: i32 = 9;
    matches!(status.signal(), Some(SIGABRT | SIGKILL))
}

#[cfg(not(unix))]
fn killed(_status: ExitStatus) -> bool {
    true
}
