//! The tests that the documents of promises name are there.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test asserts")]

use std::path::Path;

/// How many tests a document names: each is a function of the file named before it, in the last column of a table.
fn named(root: &Path, document: &str) -> usize {
    let text = std::fs::read_to_string(root.join("docs").join(document)).unwrap();
    let (mut file, mut source) = ("", String::new());
    let mut found = 0;
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        // What stands in backticks: files, and the tests after each.
        let tests = line.rsplit_once(" | ").unwrap().1;
        for quoted in tests.split('`').skip(1).step_by(2) {
            if quoted.ends_with(".rs") {
                file = quoted;
                source = std::fs::read_to_string(root.join(file))
                    .unwrap_or_else(|error| panic!("{document}: {file}: {error}"));
            } else if quoted.contains('_') {
                let there = source.lines().map(str::trim_start).any(|line| {
                    let line = line.trim_start_matches("pub ").trim_start_matches("async ");
                    line.strip_prefix("fn ")
                        .is_some_and(|name| name.starts_with(&format!("{quoted}(")))
                });
                assert!(there, "{document}: there is no {quoted} in {file}");
                found += 1;
            }
        }
    }
    found
}

#[test]
fn each_test_that_stands_for_a_promise_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let all = std::fs::read_dir(root.join("docs")).unwrap();
    let mut documents: Vec<_> = all
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with("-promises.md"))
        .collect();
    documents.sort();
    assert_eq!(
        documents,
        ["health-check-promises.md", "release-gate-promises.md"]
    );
    for document in documents {
        let found = named(&root, &document);
        assert!(found > 100, "{document}: {found} tests");
    }
}
