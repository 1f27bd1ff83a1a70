//! What the documents promise: pages that are listed, links that lead somewhere, code that is compiled, and a
//! runbook that knows each alert.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use groundtackle_health_check::Objective;
use groundtackle_health_check_http::{RUNBOOK, prometheus_rules};

fn root() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    folder.canonicalize().unwrap()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Files below `folder` whose names end so. What a build made is left out.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            if name != "target" && !name.starts_with('.') {
                found.extend(files(&entry.path(), ending));
            }
        } else if name.ends_with(ending) {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// The lines outside of code, and the blocks of code with their languages.
fn parts(text: &str) -> (Vec<&str>, Vec<(&str, Vec<&str>)>) {
    let (mut prose, mut blocks) = (Vec::new(), Vec::new());
    let mut open: Option<(&str, Vec<&str>)> = None;
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(language), None) => open = Some((language, Vec::new())),
            (None, Some((_, lines))) => lines.push(line),
            (None, None) => prose.push(line),
        }
    }
    assert!(open.is_none(), "a block of code has no end");
    (prose, blocks)
}

/// The targets of Markdown's links and images; none in code.
fn links(text: &str) -> Vec<String> {
    let (prose, _) = parts(text);
    let prose = prose.join("\n");
    let outside: String = prose.split('`').step_by(2).collect();
    let links = outside.split("](").skip(1);
    links
        .filter_map(|rest| Some(rest.split_once(')')?.0.to_owned()))
        .collect()
}

/// As GitHub and mdBook name headings in addresses.
fn anchors(text: &str) -> BTreeSet<String> {
    let (prose, _) = parts(text);
    let headings = prose.iter().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let text = line.trim_start_matches('#').trim().to_lowercase();
            let kept = text
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.collect::<String>().replace(' ', "-")
        })
        .collect()
}

/// A document that names what is not there promises what is not built.
#[test]
fn each_relative_link_of_the_documents_leads_somewhere() {
    let documents = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let documents =
        documents.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let documents = documents.chain(files(&root().join("docs"), ".md"));
    let documents = documents.chain(files(&root().join("deploy"), ".md"));
    let documents = documents.chain(files(&root().join("examples"), ".md"));
    for document in documents {
        let text = read(&document);
        for link in links(&text).iter().filter(|link| !link.contains(':')) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => document.clone(),
                path => document.parent().unwrap().join(path),
            };
            let from = document.display();
            assert!(
                target.exists(),
                "{from} links to {link}, which is not there"
            );
            assert!(
                anchor.is_empty() || anchors(&read(&target)).contains(anchor),
                "{from} links to {link}, where no heading is called so"
            );
        }
    }
}

/// mdBook renders no page that its summary lacks.
#[test]
fn the_summary_lists_each_page_once() {
    let docs = root().join("docs");
    let mut listed = links(&read(&docs.join("SUMMARY.md")));
    listed.sort();
    let pages = files(&docs, ".md").into_iter().map(|page| {
        let page = page.strip_prefix(&docs).unwrap();
        page.to_str().unwrap().replace('\\', "/")
    });
    let mut pages: Vec<_> = pages.filter(|page| page != "SUMMARY.md").collect();
    pages.sort();
    assert_eq!(listed, pages);
}

fn without_indents<'a>(lines: impl IntoIterator<Item = &'a str>) -> String {
    let lines = lines.into_iter().map(|line| line.trim().to_owned() + "\n");
    lines.collect()
}

/// Each block of Rust is a piece of what is compiled: a recipe's source, or the example in a crate's README.
/// `…` stands for lines that are left out.
#[test]
fn all_code_of_the_documents_is_compiled() {
    let compiled = files(&root().join("examples"), ".rs").into_iter();
    let compiled = compiled.chain(files(&root().join("crates"), "README.md"));
    let compiled: Vec<_> = compiled
        .map(|path| without_indents(read(&path).lines()))
        .collect();
    let mut blocks_seen = 0;
    for page in files(&root().join("docs"), ".md") {
        let text = read(&page);
        for (language, block) in parts(&text).1 {
            if !language.starts_with("rust") {
                continue;
            }
            blocks_seen += 1;
            for piece in block.split(|line| line.trim() == "…") {
                let piece = without_indents(piece.iter().copied());
                assert!(
                    compiled.iter().any(|source| source.contains(&piece)),
                    "{}: this is nowhere in what is compiled:\n{piece}",
                    page.display()
                );
            }
        }
    }
    assert!(blocks_seen > 0);
}

/// The sections of the runbook, by their headings.
fn sections(text: &str) -> Vec<(&str, &str)> {
    let sections = text.split("\n#").skip(1);
    sections
        .filter_map(|section| section.trim_start_matches('#').split_once('\n'))
        .map(|(heading, body)| (heading.trim(), body))
        .collect()
}

fn assert_explained(name: &str, sections: &[(&str, &str)]) {
    let section = sections.iter().find(|(heading, _)| *heading == name);
    let (_, body) = section.unwrap_or_else(|| panic!("docs/runbook.md has no section {name:?}"));
    for word in ["**Meaning.**", "**Look here.**", "**Mend.**"] {
        assert!(
            body.contains(word),
            "{name}: {word} is missing in docs/runbook.md"
        );
    }
}

/// Whoever is woken finds a section of the alert's name.
#[test]
fn the_runbook_knows_each_alert_that_is_generated() {
    let objective: Objective = serde_json::from_value(serde_json::json!({
        "name": "available", "target": 0.99, "window": "quarter",
        "alerts": [{ "severity": "page", "budget_spent": 0.02, "long": "6h", "short": "30m" }],
    }))
    .expect("an objective");
    let rules = prometheus_rules("node", &[objective], RUNBOOK);
    let alerts: BTreeSet<_> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .map(|name| name.trim_matches('"'))
        .collect();
    assert!(alerts.contains("HealthErrorBudgetBurns"), "{alerts:?}");
    let text = read(&root().join("docs/runbook.md"));
    let sections = sections(&text);
    assert_eq!(
        rules.matches("runbook_url: ").count(),
        rules.matches("- alert: ").count()
    );
    for alert in alerts {
        assert_explained(alert, &sections);
        // Where a heading of that name is.
        let at = format!("runbook_url: \"{RUNBOOK}#{}\"", alert.to_lowercase());
        assert!(rules.contains(&at), "{at}");
    }
}

/// And one of each check that a ready set brings, commented ones included.
#[test]
fn the_runbook_knows_each_check_of_the_ready_sets() {
    let sets = files(&root().join("crates"), ".toml");
    let sets = sets
        .iter()
        .filter(|path| path.parent().unwrap().ends_with("sets"));
    let text = read(&root().join("docs/runbook.md"));
    let sections = sections(&text);
    let mut names = BTreeSet::new();
    for set in sets {
        let set = read(set);
        let lines = set.lines().map(|line| line.trim_start_matches("# "));
        let found = lines.filter_map(|line| line.strip_prefix("name = \""));
        names.extend(found.map(|name| name.trim_end_matches('"').to_owned()));
    }
    assert!(
        names.contains("legacy") && names.contains("node"),
        "{names:?}"
    );
    for name in names {
        assert_explained(&name, &sections);
    }
}
