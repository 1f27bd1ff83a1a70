//! The tests that a document names are there.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test asserts")]

use std::path::Path;

#[test]
fn each_test_that_stands_for_a_promise_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = std::fs::read_to_string(root.join("docs/health-check-promises.md")).unwrap();
    let (mut file, mut source) = ("", String::new());
    let mut found = 0;
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        // What stands in backticks: files, and the tests after each.
        let tests = line.rsplit_once(" | ").unwrap().1;
        for quoted in tests.split('`').skip(1).step_by(2) {
            if quoted.ends_with(".rs") {
                file = quoted;
                source = std::fs::read_to_string(root.join(file))
                    .unwrap_or_else(|error| panic!("{file}: {error}"));
            } else if quoted.contains('_') {
                let there = source.lines().map(str::trim_start).any(|line| {
                    let line = line.trim_start_matches("pub ").trim_start_matches("async ");
                    line.strip_prefix("fn ")
                        .is_some_and(|name| name.starts_with(&format!("{quoted}(")))
                });
                assert!(there, "there is no {quoted} in {file}");
                found += 1;
            }
        }
    }
    assert!(found > 100, "{found} tests");
}
