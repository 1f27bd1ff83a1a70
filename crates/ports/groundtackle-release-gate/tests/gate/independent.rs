//! The log, read by others' implementations of DSSE and in-toto.

use std::io::Write;
use std::process::{Command, Output};

use crate::log::{decision_entry, entries, signer, write};

/// `None`, said aloud, where there is no Python that has them: `.ci/test` installs it.
fn read(log: &[u8]) -> Option<Output> {
    let Some(python) = std::env::var_os("GROUNDTACKLE_TEST_IN_TOTO") else {
        writeln!(
            std::io::stderr(),
            "skipped: GROUNDTACKLE_TEST_IN_TOTO names no Python with in-toto"
        )
        .expect("standard error is open");
        return None;
    };
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(log).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/gate/independent.py");
    let output = Command::new(python)
        .arg(script)
        .arg(file.path())
        .arg(signer().public().to_string())
        .output();
    Some(output.unwrap())
}

#[test]
fn an_independent_implementation_verifies_the_log() {
    let all: Vec<_> = entries().into_iter().chain([decision_entry()]).collect();
    let (lines, head) = write(all);
    let Some(output) = read(&lines.concat()) else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(said.trim(), format!("{} {}", head.records, head.digest));

    // It would say so if it were not.
    let mut forged = lines.concat();
    let at = forged
        .windows(7)
        .position(|bytes| bytes == b"\"sig\":\"")
        .unwrap()
        + 10;
    forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
    let output = read(&forged).unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("erif"), "{said}");
}
