//! What a process has used, read from `/proc`: Linux only.

use crate::BoxError;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// User and system time of this process in seconds, threads that ended included.
///
/// # Errors
///
/// Off Linux.
pub fn process_cpu() -> Result<f64, BoxError> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').ok_or("no fields")?;
    let mut ticks = fields.split_whitespace().skip(11);
    let user: f64 = ticks.next().ok_or("no user time")?.parse()?;
    let system: f64 = ticks.next().ok_or("no system time")?.parse()?;
    // The kernel reports in hundredths, whatever its own timer does.
    Ok((user + system) / 100.0)
}

/// User and system time of processes that this one started and that have ended, theirs included, in seconds.
///
/// # Errors
///
/// Off Linux.
pub fn children_cpu() -> Result<f64, BoxError> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').ok_or("no fields")?;
    let mut ticks = fields.split_whitespace().skip(13);
    let user: f64 = ticks.next().ok_or("no user time of children")?.parse()?;
    let system: f64 = ticks.next().ok_or("no system time of children")?.parse()?;
    Ok((user + system) / 100.0)
}

/// Seconds of CPU of a server: its first process, and those it has started.
///
/// # Errors
///
/// Off Linux.
pub fn server_cpu(pid: u32) -> Result<f64, BoxError> {
    let mut ticks = 0;
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        // One that ends meanwhile is counted by its parent.
        let Ok(stat) = std::fs::read_to_string(path.join("stat")) else {
            continue;
        };
        let (id, rest) = stat.split_once(' ').ok_or("no fields")?;
        let (_, fields) = rest.rsplit_once(')').ok_or("no fields")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let number = |at: usize| -> Result<u64, BoxError> {
            Ok(fields.get(at).ok_or("no such field")?.parse()?)
        };
        let itself = id.parse() == Ok(pid);
        if itself || number(1)? == u64::from(pid) {
            ticks += number(11)? + number(12)?;
        }
        if itself {
            ticks += number(13)? + number(14)?;
        }
    }
    Ok(ticks as f64 / 100.0)
}

/// Time that this thread has run, in seconds.
///
/// # Errors
///
/// Off Linux.
pub fn thread_cpu() -> Result<f64, BoxError> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos: f64 = stat.split_whitespace().next().ok_or("empty")?.parse()?;
    Ok(nanos / 1e9)
}

/// Memory of a process that is resident now, in MiB.
///
/// # Errors
///
/// Off Linux.
pub fn rss_mib(pid: u32) -> Result<f64, BoxError> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.ok_or("no VmRSS")?.parse::<f64>()? / 1024.0)
}

/// The most memory that this process has had, in MiB.
///
/// # Errors
///
/// Off Linux.
pub fn peak_rss_mib() -> Result<u64, BoxError> {
    Ok(proc_number("/proc/self/status", "VmHWM:")? >> 10)
}

/// Bytes that this process has caused to be written to disks.
///
/// # Errors
///
/// Off Linux.
pub fn bytes_written() -> Result<u64, BoxError> {
    proc_number("/proc/self/io", "write_bytes:")
}

fn proc_number(file: &str, field: &str) -> Result<u64, BoxError> {
    let text = std::fs::read_to_string(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or("no such field")?.parse()?)
}

/// Waits until background threads have nothing left to do, two minutes at most.
///
/// # Errors
///
/// Off Linux.
pub fn settle() -> Result<(), BoxError> {
    let mut quiet = 0;
    for _ in 0..240 {
        let before = process_cpu()?;
        std::thread::sleep(Duration::from_millis(500));
        quiet = if process_cpu()? - before < 0.02 {
            quiet + 1
        } else {
            0
        };
        if quiet == 3 {
            break;
        }
    }
    Ok(())
}

/// Lets [`peak_rss_mib`] begin again, at what is taken now.
///
/// # Errors
///
/// Off Linux.
pub fn reset_peak_rss() -> Result<(), BoxError> {
    Ok(std::fs::write("/proc/self/clear_refs", "5")?)
}

/// Blocks that the directory really takes: preallocated holes do not count.
///
/// # Errors
///
/// Off Linux.
pub fn allocated(path: &Path) -> Result<u64, BoxError> {
    let metadata = std::fs::symlink_metadata(path)?;
    let mut bytes = metadata.blocks() * 512;
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path)? {
            bytes += allocated(&entry?.path())?;
        }
    }
    Ok(bytes)
}

/// The processor and the kernel, for the head of a table.
#[must_use]
pub fn machine() -> String {
    let read = |file| std::fs::read_to_string(file).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let value = text.lines().find(|line| line.starts_with(name));
        let value = value
            .and_then(|line| line.split_once(':'))
            .map(|(_, value)| value.trim());
        value.unwrap_or("?").to_owned()
    };
    let cpu = read("/proc/cpuinfo");
    format!(
        "{} x {} (family {}, model {}, {} MHz), {} MiB of memory, Linux {}",
        cpu.lines()
            .filter(|line| line.starts_with("processor"))
            .count(),
        field(&cpu, "model name"),
        field(&cpu, "cpu family"),
        field(&cpu, "model\t"),
        field(&cpu, "cpu MHz"),
        field(&read("/proc/meminfo"), "MemTotal")
            .trim_end_matches(" kB")
            .parse()
            .unwrap_or(0_u64)
            >> 10,
        read("/proc/sys/kernel/osrelease").trim(),
    )
}
