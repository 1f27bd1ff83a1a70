//! Locks of files and directories, for as long as they are open.

use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// A process that is being started holds its parent's locks for a moment.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(10);

/// Takes the lock; false where somebody else keeps it.
pub(crate) fn lock(file: impl AsFd) -> Result<bool, Errno> {
    let mut tries = 0..TRIES;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) if tries.next().is_some() => thread::sleep(PAUSE),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test asserts")]
mod tests {
    use std::fs::File;
    use std::sync::mpsc::channel;

    use super::*;

    /// As a child has it between its beginning and its program's: another descriptor of the same opening.
    #[test]
    fn what_is_held_for_a_moment_is_waited_out() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (File::open(&folder).unwrap(), File::open(&folder).unwrap());
        assert!(lock(&first).unwrap());
        assert!(!lock(&second).unwrap(), "it is kept");
        let inherited = first.try_clone().unwrap();
        drop(first);
        let (begins, begun) = channel();
        let holder = thread::spawn(move || {
            begun.recv().unwrap();
            thread::sleep(PAUSE);
            drop(inherited);
        });
        begins.send(()).unwrap();
        assert!(lock(&second).unwrap());
        holder.join().unwrap();
    }
}
