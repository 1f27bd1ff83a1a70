use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::process::{Process, free_port};

/// How a server is started.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    /// Log each write, and sync the log so often: `always`, `everysec`, `no`. `None`: no log.
    pub append_fsync: Option<&'static str>,
    /// Ask for this password; otherwise everybody is let in.
    pub password: Option<String>,
    /// What is done at the memory limit; the server's own choice is `noeviction`.
    pub maxmemory_policy: Option<&'static str>,
    /// Further settings, as in `redis.conf`.
    pub settings: Vec<(String, String)>,
    /// Keep the data in this folder, such as a small file system's, instead of a temporary one.
    pub folder: Option<PathBuf>,
}

/// A Redis server.
#[derive(Debug)]
pub struct Redis {
    data: PathBuf,
    port: u16,
    process: Process,
    options: RedisOptions,
    // Last, so that it goes when the server is gone.
    _folder: Option<TempDir>,
}

impl Redis {
    /// Starts a server on new data.
    pub fn start(options: RedisOptions) -> Self {
        let temporary = match options.folder {
            Some(_) => None,
            None => Some(TempDir::new().expect("a temporary folder")),
        };
        let folder = temporary.as_ref().map(|folder| folder.path().to_owned());
        let folder = folder
            .or_else(|| options.folder.clone())
            .unwrap_or_default();
        let data = folder.join("data");
        fs::create_dir(&data).expect("a new folder");
        let port = free_port();
        let process = Self::launch(&data, port, &options);
        Self {
            data,
            port,
            process,
            options,
            _folder: temporary,
        }
    }

    fn launch(data: &Path, port: u16, options: &RedisOptions) -> Process {
        let mut redis = Command::new("redis-server");
        let log = data.with_extension("log");
        redis
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--dir"])
            .arg(data)
            .arg("--logfile")
            .arg(log)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .current_dir("/");
        match options.append_fsync {
            Some(fsync) => redis.args(["--appendonly", "yes", "--appendfsync", fsync]),
            None => redis.args(["--appendonly", "no"]),
        };
        if let Some(password) = &options.password {
            redis.args(["--requirepass", password]);
        }
        if let Some(policy) = options.maxmemory_policy {
            redis.args(["--maxmemory-policy", policy]);
        }
        for (name, value) in &options.settings {
            redis.arg(format!("--{name}")).arg(value);
        }
        let mut process = Process::start(redis, data.parent().unwrap_or(data));
        let up = process.is_up("redis-server", || {
            let answer = talk(port, None, &[b"PING"]);
            answer
                .is_some_and(|answer| answer.starts_with("+PONG") || answer.starts_with("-NOAUTH"))
        });
        assert!(
            up,
            "redis-server of the Debian package redis-server ends: {data:?}"
        );
        process
    }

    /// The server's port on 127.0.0.1.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Its URL, with the password if there is one.
    pub fn url(&self) -> String {
        self.url_at(self.port)
    }

    /// The same by way of another port: that of a proxy.
    pub fn url_at(&self, port: u16) -> String {
        let password = self.options.password.as_ref();
        let login = password.map(|password| format!(":{password}@"));
        format!("redis://{}127.0.0.1:{port}/0", login.unwrap_or_default())
    }

    /// Sends one command beside all others, and returns the answer as it is on the wire.
    pub fn command(&self, words: &[&str]) -> String {
        let words: Vec<_> = words.iter().map(|word| word.as_bytes()).collect();
        self.command_bytes(&words)
    }

    /// The same with this password instead of the server's first one.
    pub fn command_as(&self, password: &str, words: &[&str]) -> String {
        let words: Vec<_> = words.iter().map(|word| word.as_bytes()).collect();
        talk(self.port, Some(password), &words).expect("the server answers")
    }

    /// The same with words that are no text.
    pub fn command_bytes(&self, words: &[&[u8]]) -> String {
        talk(self.port, self.options.password.as_deref(), words).expect("the server answers")
    }

    /// What the server has written to its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.data.with_extension("log")).expect("a log")
    }

    /// Kills the server in the middle of whatever it does, as a lost machine would but for its disk.
    pub fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait();
    }

    /// Stops the server: those who are connected are thrown out.
    pub fn stop(&mut self) {
        self.process.signal(Signal::TERM);
        self.process.wait();
    }

    /// Makes it stand still: it takes what is sent, and does not answer.
    pub fn freeze(&self) {
        self.process.stop_threads();
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Starts it again where it went down by itself.
    pub fn revive(&mut self) {
        if self.process.is_gone() {
            self.process.wait();
            self.restart();
        }
    }

    /// Starts it again after [`kill`](Self::kill) or [`stop`](Self::stop), on the same data and port.
    pub fn restart(&mut self) {
        self.process = Self::launch(&self.data, self.port, &self.options);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.thaw();
        self.stop();
    }
}

/// One command on a connection of its own; `None` where nobody answers.
fn talk(port: u16, password: Option<&str>, words: &[&[u8]]) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .ok()?;
    let mut answers = BufReader::new(stream.try_clone().ok()?);
    let mut send = |words: &[&[u8]]| {
        let mut command = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            command.extend(format!("${}\r\n", word.len()).into_bytes());
            command.extend_from_slice(word);
            command.extend_from_slice(b"\r\n");
        }
        stream.write_all(&command).ok()?;
        answer(&mut answers)
    };
    if let Some(password) = password {
        send(&[b"AUTH", password.as_bytes()])?;
    }
    send(words)
}

/// One answer with all its parts.
fn answer(from: &mut impl BufRead) -> Option<String> {
    let mut text = String::new();
    if from.read_line(&mut text).ok()? == 0 {
        return None;
    }
    let length = text.get(1..)?.trim().parse::<i64>().unwrap_or(-1);
    let length = usize::try_from(length);
    match (text.chars().next()?, length) {
        ('$', Ok(length)) => {
            let mut bytes = vec![0; length + 2];
            from.read_exact(&mut bytes).ok()?;
            text += &String::from_utf8_lossy(&bytes);
        }
        ('*', Ok(parts)) => {
            for _ in 0..parts {
                text += &answer(from)?;
            }
        }
        _ => {}
    }
    Some(text)
}
