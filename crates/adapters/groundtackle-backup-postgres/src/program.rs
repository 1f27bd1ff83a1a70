//! Programs of PostgreSQL as children: what they say, how they end, and that they do end.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use groundtackle_backup::Result;
use groundtackle_core::Secret;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::config::PostgresBackupConfig;
use crate::error::{Failed, given_up};

/// What is kept of what a program says on its standard error, from its end.
const SAID_BYTES: usize = 4 << 10;

/// How long a program may take to end after its last byte, and to say why it failed.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// Children of a task that may be dropped any moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Children(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    given_up: bool,
    children: Vec<Arc<OwnedFd>>,
}

impl Children {
    /// Ends all of them, now and to come, when it is dropped.
    pub(crate) fn end_on_drop(&self) -> EndOnDrop {
        EndOnDrop(self.clone())
    }

    fn add(&self, child: &Arc<OwnedFd>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.given_up {
            true => kill(child),
            false => known.children.push(child.clone()),
        }
    }

    /// Whether nobody waits for what they do.
    pub(crate) fn given_up(&self) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.given_up
    }
}

/// See [`Children::end_on_drop`].
#[derive(Debug)]
pub(crate) struct EndOnDrop(Children);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        let mut known = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.given_up = true;
        for child in known.children.drain(..) {
            kill(&child);
        }
    }
}

/// By its descriptor: its number may be another process' by now.
fn kill(child: &OwnedFd) {
    signal(child, Signal::KILL);
}

fn signal(child: &OwnedFd, signal: Signal) {
    if let Err(error) = pidfd_send_signal(child, signal)
        && error != rustix::io::Errno::SRCH
    {
        tracing::warn!(%error, "a program could not be ended");
    }
}

/// Why nothing more is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Not,
    /// Its standard output was closed.
    Closed,
    /// It brought nothing for too long.
    Stalled,
}

/// A program that runs; killed when it is dropped.
pub(crate) struct Program {
    name: &'static str,
    child: Child,
    descriptor: Arc<OwnedFd>,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    stderr: Option<ChildStderr>,
    said: Vec<u8>,
    stall: Duration,
    ended: Ended,
    secret: Option<Secret>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Program");
        shown.field("name", &self.name).finish_non_exhaustive()
    }
}

/// A command of which nothing of this process' environment is known but where programs and the user's files are.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C");
    for name in ["PATH", "HOME"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

impl Program {
    /// Starts one that talks to the server.
    pub(crate) fn connect(
        config: &PostgresBackupConfig,
        name: &'static str,
        arguments: &[&OsStr],
        children: &Children,
    ) -> Result<Self> {
        let path = crate::config::program_in(config.programs.as_deref(), name);
        let mut command = command(&path);
        command.envs(config.environment()).args(arguments);
        let mut program = Self::start(name, command, config.stall_timeout, children)?;
        program.secret.clone_from(&config.password);
        Ok(program)
    }

    pub(crate) fn start(
        name: &'static str,
        mut command: Command,
        stall: Duration,
        children: &Children,
    ) -> Result<Self> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|error| Failed::start(name, error))?;
        let opened = Pid::from_raw(i32::try_from(child.id()).unwrap_or_default())
            .ok_or(rustix::io::Errno::SRCH)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
        let pipes = (child.stdout.take(), child.stderr.take(), opened);
        let (Some(stdout), stderr, Ok(descriptor)) = pipes else {
            let ended = child.kill().and_then(|()| child.wait().map(drop));
            let error = pipes.2.err().map(io::Error::from).or(ended.err());
            let error = error.unwrap_or_else(|| io::ErrorKind::Other.into());
            return Err(Failed::start(name, error));
        };
        let descriptor = Arc::new(descriptor);
        children.add(&descriptor);
        Ok(Self {
            name,
            stdin: child.stdin.take(),
            child,
            descriptor,
            stdout,
            stderr,
            said: Vec::new(),
            stall,
            ended: Ended::Not,
            secret: None,
        })
    }

    /// Has nothing more to tell it.
    pub(crate) fn close_input(&mut self) {
        self.stdin = None;
    }

    /// Tells it a line; short enough for a pipe.
    pub(crate) fn tell(&mut self, line: &str) -> io::Result<()> {
        match &mut self.stdin {
            Some(stdin) => stdin.write_all(format!("{line}\n").as_bytes()),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// One line, without its end; `None` if the output ends before, or none comes in time.
    pub(crate) fn line(&mut self) -> io::Result<Option<String>> {
        const LINE_BYTES: usize = 4 << 10;
        let (mut line, mut byte) = (Vec::new(), [0]);
        while line.len() < LINE_BYTES {
            match self.read(&mut byte)? {
                0 => return Ok(None),
                _ if byte == *b"\n" => return Ok(Some(String::from_utf8_lossy(&line).into())),
                _ => line.extend(byte),
            }
        }
        Ok(None)
    }

    /// What it wrote to its standard error, from the end, without what is secret.
    fn said(&self) -> String {
        let said = String::from_utf8_lossy(&self.said);
        let said = said.trim().to_owned();
        match self.secret.as_ref().filter(|secret| !secret.is_empty()) {
            Some(secret) => said.replace(secret.expose(), "***"),
            None => said,
        }
    }

    /// Reads what is on the standard error now; whether that is still open.
    fn hear(&mut self) {
        let Some(stderr) = &mut self.stderr else {
            return;
        };
        let mut buffer = [0; 4 << 10];
        match stderr.read(&mut buffer) {
            Ok(0) => self.stderr = None,
            Ok(count) => {
                self.said.extend(buffer.get(..count).unwrap_or_default());
                let over = self.said.len().saturating_sub(SAID_BYTES);
                self.said.drain(..over);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.stderr = None,
        }
    }

    /// Waits until its end, and for all that it says until then; `None` if it takes longer.
    fn wait(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        let begun = Instant::now();
        loop {
            let left = timeout.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            let (ended, heard) = {
                let mut fds = vec![PollFd::new(&*self.descriptor, PollFlags::IN)];
                fds.extend(
                    self.stderr
                        .as_ref()
                        .map(|stderr| PollFd::new(stderr, PollFlags::IN)),
                );
                poll_for(&mut fds, left)?;
                let ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
                (ready(0), ready(1))
            };
            // All that it said before it ended is in the pipe; what it left running may hold that open.
            match (heard, ended) {
                (true, _) => self.hear(),
                (false, true) => return self.child.wait().map(Some),
                (false, false) => {}
            }
        }
    }

    /// Whether it was cut off because it brought nothing.
    pub(crate) fn has_stalled(&self) -> bool {
        self.ended == Ended::Stalled
    }

    /// Whether all that it sends was read.
    pub(crate) fn has_closed(&self) -> bool {
        self.ended == Ended::Closed
    }

    /// Whether it has ended, after so long at most; what it says meanwhile is heard.
    pub(crate) fn has_ended_within(&mut self, time: Duration) -> io::Result<bool> {
        Ok(self.wait(time)?.is_some())
    }

    /// Asks it to end.
    pub(crate) fn interrupt(&self) {
        signal(&self.descriptor, Signal::INT);
    }

    /// Waits for its end, which is a success only if it says so.
    pub(crate) fn finish(mut self, children: &Children) -> Result<()> {
        self.close_input();
        let (name, stall) = (self.name, self.stall);
        if self.ended == Ended::Stalled {
            self.kill();
            return Err(Failed::stalled(name, stall, self.said()));
        }
        let ended = self.wait(END_TIMEOUT);
        if children.given_up() {
            return Err(given_up());
        }
        match ended {
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => {
                let how = match (status.code(), status.signal()) {
                    (Some(code), _) => format!("exit status {code}"),
                    (None, Some(signal)) => format!("killed by signal {signal}"),
                    (None, None) => "an unknown status".into(),
                };
                Err(Failed::ended(name, how, self.said()))
            }
            Ok(None) => {
                self.kill();
                Err(Failed::stalled(name, END_TIMEOUT, self.said()))
            }
            Err(error) => Err(Failed::start(name, error)),
        }
    }

    fn kill(&mut self) {
        kill(&self.descriptor);
        // So that no process is left that nobody asks for.
        if let Err(error) = self.child.wait() {
            tracing::warn!(%error, program = self.name, "a program's end was not seen");
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Up to so long.
fn poll_for(fds: &mut [PollFd<'_>], timeout: Duration) -> io::Result<()> {
    // A longer one than the system has is none.
    let timeout = Timespec::try_from(timeout).ok();
    match poll(fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Its standard output. The time that the reader takes is not the program's.
impl Read for Program {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended != Ended::Not || buffer.is_empty() {
            return Ok(0);
        }
        let begun = Instant::now();
        loop {
            let left = self.stall.saturating_sub(begun.elapsed());
            if left.is_zero() {
                self.ended = Ended::Stalled;
                kill(&self.descriptor);
                return Err(io::ErrorKind::TimedOut.into());
            }
            let (brought, heard) = {
                let mut fds = vec![PollFd::from_borrowed_fd(self.stdout.as_fd(), PollFlags::IN)];
                fds.extend(
                    self.stderr
                        .as_ref()
                        .map(|stderr| PollFd::new(stderr, PollFlags::IN)),
                );
                poll_for(&mut fds, left)?;
                let ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
                (ready(0), ready(1))
            };
            if heard {
                self.hear();
            }
            if brought {
                let count = self.stdout.read(buffer)?;
                if count == 0 {
                    self.ended = Ended::Closed;
                }
                return Ok(count);
            }
        }
    }
}
