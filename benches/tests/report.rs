//! The report runs measurements, and finds what is worth a picture.

#![allow(clippy::unwrap_used, reason = "a test asserts")]

use std::fs;
use std::process::Command;

fn report(folder: &std::path::Path, args: &[&str]) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_report"));
    command.arg("--out").arg(folder).args(args);
    command.output().unwrap()
}

#[test]
fn a_quick_report_has_tables_pictures_machine_and_versions() {
    let folder = tempfile::tempdir().unwrap();
    let done = report(folder.path(), &["--quick", "--only", "coins,health"]);
    assert!(done.status.success(), "{done:?}");
    let text = fs::read_to_string(folder.path().join("benchmarks.md")).unwrap();
    for said in [
        "A quick run, whose figures mean nothing",
        "MiB of memory, Linux",
        "\n- rustc ",
        "## Coin segments beside zstd",
        "| columns | 0.6",
        "| `/readyz` |",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
    for picture in ["coins-1.svg", "health-1.svg"] {
        assert!(text.contains(&format!("]({picture})")), "{picture}: {text}");
        let svg = fs::read_to_string(folder.path().join(picture)).unwrap();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    }
    assert!(!text.contains("PostgreSQL and Redis beside"), "{text}");
}

#[test]
fn a_measurement_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let refused = report(folder.path(), &["--only", "coins,nonsense"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(
        said.contains("nonsense: there is no such measurement"),
        "{said}"
    );
}
