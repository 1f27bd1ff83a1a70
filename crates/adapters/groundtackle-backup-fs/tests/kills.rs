//! Processes that are killed while they write: what they were told is done is there, everything that is listed is whole,
//! and what they left is listed nowhere and can be removed.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, SystemTime};
use std::{env, fs, io, thread};

use groundtackle_backup::{ObjectKey, PutIf, Target};
use groundtackle_backup_fs::{FsTarget, FsTargetConfig};
use groundtackle_backup_testkit::content;
use tempfile::TempDir;

const PLACE: &str = "GROUNDTACKLE_TEST_VICTIM";
const FAIL_POINT: &str = "GROUNDTACKLE_TEST_FAIL_POINT";
const HOUR: Duration = Duration::from_secs(3600);

/// Points at which a process dies by itself.
const POINTS: [&str; 9] = [
    "backup_fs.put.begun",
    "backup_fs.put.synced",
    "backup_fs.upload.begun",
    "backup_fs.upload.written",
    "backup_fs.upload.synced",
    "backup_fs.named",
    "backup_fs.name_synced",
    "backup_fs.removed",
    "none",
];

fn key(text: &str) -> ObjectKey {
    text.try_into().unwrap()
}

/// Its bytes follow from its name.
fn bytes(number: u64) -> u64 {
    number * 40_009 % 700_001
}

async fn open(path: &Path) -> FsTarget {
    let config = FsTargetConfig::default();
    FsTarget::open(path, config).await.unwrap()
}

fn say(what: &str, name: &str) {
    // Not by println!, which the test runner might capture.
    writeln!(io::stdout(), "\n{what} {name}").expect("the parent reads");
}

async fn write_until_killed(path: &Path) {
    let target = open(path).await;
    let run = std::process::id();
    for number in 1.. {
        let name = format!("packs/{}/{run}-{number}", number % 3);
        let body = content(number, 0..bytes(number));
        if number % 4 == 0 {
            let put = target.put(&key(&name), body, &PutIf::Absent, None).await;
            put.unwrap().unwrap();
        } else {
            let mut upload = target.upload(&key(&name), None).await.unwrap();
            for from in (0..body.len()).step_by(100_000) {
                let to = body.len().min(from + 100_000);
                upload.write(body.slice(from..to)).await.unwrap();
            }
            upload.finish().await.unwrap().unwrap();
        }
        say("wrote", &name);
        if number % 5 == 0 {
            say("removes", &name);
            target.remove(&key(&name)).await.unwrap().unwrap();
            say("removed", &name);
        }
    }
}

fn start(path: &Path, point: Option<(&str, u64)>) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["killed_at_any_moment", "--exact", "--nocapture"])
        .env(PLACE, path)
        .env_remove(FAIL_POINT)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if let Some((point, times)) = point {
        command.env(FAIL_POINT, format!("{point}:{times}"));
    }
    command.spawn().unwrap()
}

/// Whatever is there after a crash.
async fn check(path: &Path, lines: &[String]) -> u64 {
    let target = open(path).await;
    let lines = lines.iter().filter_map(|line| line.split_once(' '));
    let mut wanted = Vec::new();
    let mut open_end = None;
    for (what, name) in lines {
        match what {
            "wrote" => wanted.push(name),
            "removes" => open_end = Some(name),
            "removed" => wanted.retain(|wanted| *wanted != name),
            _ => {}
        }
    }
    wanted.retain(|name| open_end != Some(name));
    for name in wanted {
        let found = target.info(&key(name)).await.unwrap();
        assert!(found.is_some(), "{name} was acknowledged");
    }
    for info in target.list("", None, usize::MAX).await.unwrap().objects {
        let (_, number) = info.key.as_str().rsplit_once('-').unwrap();
        let number = number.parse().unwrap();
        assert_eq!(info.bytes, bytes(number), "{info:?}");
        let read = target.read(&info.key, 0..info.bytes).await.unwrap();
        assert!(read == Some(content(number, 0..info.bytes)), "{info:?}");
    }
    let left = fs::read_dir(path.join(".unfinished")).unwrap().count() as u64;
    let soon = SystemTime::now() + HOUR;
    assert_eq!(target.remove_unfinished(soon).await.unwrap(), left);
    assert_eq!(fs::read_dir(path.join(".unfinished")).unwrap().count(), 0);
    left
}

#[test]
fn killed_at_any_moment() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Some(path) = env::var_os(PLACE) {
        return runtime.block_on(write_until_killed(Path::new(&path)));
    }
    let kills = env::var("GROUNDTACKLE_TEST_KILLS").ok();
    let kills = kills.map_or(200, |kills| kills.parse().unwrap());
    let folder = TempDir::new().unwrap();
    let (mut left, mut written) = (0, 0);
    for round in 0..kills {
        // A new place now and then: the checks read all that is there.
        let path = folder.path().join((round / 10).to_string());
        let point = POINTS[(round % POINTS.len() as u64) as usize];
        let point = (point != "none").then_some((point, 1 + round * 7 % 5));
        let mut child = start(&path, point);
        let output = BufReader::new(child.stdout.take().unwrap());
        let (send, receive) = channel();
        let reader = thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                send.send(line).unwrap();
            }
        });
        if point.is_none() {
            // From its first word on, a time of its own.
            let mut lines = Vec::new();
            while !lines.iter().any(|line: &String| line.starts_with("wrote")) {
                lines.push(receive.recv().unwrap());
            }
            thread::sleep(Duration::from_micros(round * 7_919 % 40_000));
            child.kill().unwrap();
            child.wait().unwrap();
            reader.join().unwrap();
            lines.extend(receive.try_iter());
            written += lines.len();
            left += runtime.block_on(check(&path, &lines));
            continue;
        }
        let status = child.wait().unwrap();
        assert!(!status.success(), "it dies at {point:?}");
        reader.join().unwrap();
        let lines: Vec<_> = receive.try_iter().collect();
        written += lines.len();
        left += runtime.block_on(check(&path, &lines));
    }
    assert!(left > kills / 4, "kills are to come in the middle: {left}");
    assert!(written > 0);
}
