//! A child process that does not outlive the test.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long a server may take to come or go.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until the test's process is gone, however that comes about, then ends the server and removes
/// its folder: a server that all tests of a process share is in a static, which is never dropped.
const WATCHDOG: &str = r#"
read -r line
[ "$line" = gone ] && exit
kill -QUIT "$1"
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    kill -0 "$1" || break
    sleep 0.05
done
# What was started in the background of a script ignores the first signal.
kill -KILL "$1"
rm -rf "$2"
"#;

/// A server's main process.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    watchdog: Child,
}

impl Process {
    /// Starts a server; `folder` goes with it when the test's process dies.
    pub(crate) fn start(mut command: Command, folder: &Path) -> Self {
        let child = command.spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?} can't be started: {error}"));
        let watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "sh", &child.id().to_string()])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        Self { child, watchdog }
    }

    /// There is no `kill` on a bare Debian.
    pub(crate) fn signal(&self, signal: Signal) {
        // It may be gone already.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Makes it stand still; on a busy machine a thread goes on for a while after the signal.
    pub(crate) fn stop_threads(&self) {
        self.signal(Signal::STOP);
        let begun = Instant::now();
        while self.runs() {
            assert!(begun.elapsed() < PATIENCE, "a frozen process runs");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether one of its threads is not stopped.
    fn runs(&self) -> bool {
        let Ok(threads) = fs::read_dir(format!("/proc/{}/task", self.id())) else {
            return false;
        };
        let runs = |thread: fs::DirEntry| {
            // The state stands behind the name, which may have any characters.
            let stat = fs::read_to_string(thread.path().join("stat")).ok()?;
            let (_, state) = stat.rsplit_once(") ")?;
            Some(!state.starts_with(['T', 't', 'Z', 'X']))
        };
        threads
            .filter_map(Result::ok)
            .filter_map(runs)
            .any(|runs| runs)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_gone(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }

    /// Waits until it is gone.
    pub(crate) fn wait(&mut self) {
        let begun = Instant::now();
        while !self.is_gone() {
            if begun.elapsed() > PATIENCE {
                self.child.kill().expect("a child");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Some(mut stdin) = self.watchdog.stdin.take() {
            stdin.write_all(b"gone\n").expect("the watchdog reads");
            drop(stdin);
            self.watchdog.wait().expect("a child");
        }
    }

    /// Waits until `ready`; `false` if the process ends before, or hangs and is killed.
    pub(crate) fn is_up(&mut self, what: &str, mut ready: impl FnMut() -> bool) -> bool {
        let begun = Instant::now();
        while !ready() {
            if self.is_gone() {
                self.wait();
                return false;
            }
            if begun.elapsed() > PATIENCE {
                eprintln!("{what} does not come up");
                self.child.kill().expect("a child");
                self.wait();
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }
}

/// A port of the loopback interface that nobody listens to.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback interface");
    listener.local_addr().expect("an address").port()
}

pub(crate) fn listens(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}
