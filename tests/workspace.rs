//! What must hold across the crates of the workspace, read from their manifests.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

struct Package {
    name: String,
    description: String,
    /// From the workspace's root, with slashes.
    folder: String,
    published: bool,
    tier: Option<String>,
    maintainers: usize,
}

fn cargo(arguments: &[&str]) -> String {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(arguments)
        .args(["--locked", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn metadata(options: &[&str]) -> Value {
    let arguments = [&["metadata", "--format-version=1"], options].concat();
    serde_json::from_str(&cargo(&arguments)).unwrap()
}

/// The workspace's packages, by name.
fn packages() -> Vec<Package> {
    let metadata = metadata(&["--no-deps"]);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut packages: Vec<_> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| {
            let manifest = PathBuf::from(package["manifest_path"].as_str().unwrap());
            let folder = manifest.parent().unwrap().strip_prefix(root()).unwrap();
            Package {
                name: text(&package["name"]).unwrap(),
                description: text(&package["description"]).unwrap_or_default(),
                folder: folder.to_str().unwrap().replace('\\', "/"),
                published: package["publish"].is_null(),
                tier: text(&package["metadata"]["groundtackle"]["tier"]),
                maintainers: package["metadata"]["groundtackle"]["maintainers"]
                    .as_array()
                    .map_or(0, Vec::len),
            }
        })
        .collect();
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    packages
}

/// The port that an adapter implements: its name is the port's and the backend's.
fn port_of(adapter: &Package, packages: &[Package]) -> String {
    packages
        .iter()
        .filter(|port| port.folder.starts_with("crates/ports/"))
        .filter(|port| adapter.name.starts_with(&format!("{}-", port.name)))
        .max_by_key(|port| port.name.len())
        .map(|port| port.name.clone())
        .unwrap_or_else(|| panic!("{} is named after no port", adapter.name))
}

/// The folder promises a support tier; the manifest must promise the same, and ADAPTERS.md lists what both say.
/// `UPDATE=1 cargo test -p groundtackle-workspace-tests` writes the table anew.
#[test]
fn folder_manifest_and_table_agree_on_the_support_tier() {
    let packages = packages();
    let mut table = String::from("| adapter | port | support | what it is |\n|---|---|---|---|\n");
    for package in &packages {
        let promised = match package.folder.split('/').collect::<Vec<_>>()[..] {
            ["crates", "adapters", _] => Some(("lts", "long-term")),
            ["crates", "community", _] => Some(("community", "community")),
            _ => None,
        };
        assert_eq!(
            package.tier.as_deref(),
            promised.map(|(tier, _)| tier),
            "`package.metadata.groundtackle.tier` of {} does not fit its folder {}",
            package.name,
            package.folder,
        );
        let Some((tier, support)) = promised else {
            continue;
        };
        assert!(
            tier == "lts" || package.maintainers > 0,
            "{} must name its maintainers in `package.metadata.groundtackle.maintainers`",
            package.name,
        );
        let port = port_of(package, &packages);
        let Package {
            name,
            description,
            folder,
            ..
        } = package;
        table += &format!("| [{name}]({folder}) | {port} | {support} | {description} |\n");
    }

    let (begin, end) = ("<!-- adapters: generated -->\n", "<!-- adapters: end -->");
    let path = root().join("ADAPTERS.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text
        .split_once(begin)
        .expect("ADAPTERS.md marks where its table begins");
    let (_, after) = rest
        .split_once(end)
        .expect("ADAPTERS.md marks where its table ends");
    let expected = format!("{before}{begin}{table}{end}{after}");
    if env::var_os("UPDATE").is_some() {
        fs::write(&path, expected).unwrap();
    } else {
        assert!(
            text == expected,
            "ADAPTERS.md is out of date: run this test with UPDATE=1. It must say:\n{table}"
        );
    }
}

#[test]
fn each_crate_lies_in_a_folder_of_its_name() {
    for Package { name, folder, .. } in packages() {
        if folder.starts_with("crates/") {
            assert!(
                folder.ends_with(&format!("/{name}")),
                "{name} lies in {folder}"
            );
        }
    }
}

/// Outside the tree there is no workspace to inherit from, and no path but the registry's.
#[test]
fn each_recipe_can_be_copied_out() {
    let packages = packages();
    for Package { name, folder, .. } in packages
        .iter()
        .filter(|p| p.folder.starts_with("examples/"))
    {
        let folder = root().join(folder);
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        assert!(
            !manifest.contains("workspace"),
            "{name} inherits from the workspace"
        );
        for line in manifest.lines().filter(|line| line.contains("path = ")) {
            assert!(
                line.contains("version = "),
                "{name} needs more than a path: {line}"
            );
        }
        assert!(
            folder.join("README.md").is_file(),
            "{name} lacks a README.md"
        );
    }
}

fn array(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A package on the registry carries only what lies in its own folder, and what the registry shows of it stands in its
/// manifest.
#[test]
fn each_package_carries_its_documents_and_describes_itself() {
    let metadata = metadata(&["--no-deps"]);
    let mut published = 0;
    for package in array(&metadata["packages"]) {
        if !package["publish"].is_null() {
            continue;
        }
        published += 1;
        let name = text(&package["name"]);
        let listed = cargo(&["package", "--list", "--allow-dirty", "--package", name]);
        let listed: BTreeSet<_> = listed.lines().collect();
        for file in [
            "README.md",
            "CHANGELOG.md",
            "LICENSE-MIT",
            "LICENSE-APACHE",
            "Cargo.lock",
        ] {
            assert!(listed.contains(file), "{name}'s package lacks {file}");
        }
        let folder = Path::new(text(&package["manifest_path"])).parent().unwrap();
        for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
            assert_eq!(
                fs::read_to_string(folder.join(licence)).unwrap(),
                fs::read_to_string(root().join(licence)).unwrap(),
                "{name} carries another {licence}: ln -s ../../../{licence} in its folder"
            );
        }
        for (key, at_most) in [("description", 200), ("repository", 200), ("homepage", 200)] {
            let length = text(&package[key]).len();
            assert!(
                (1..=at_most).contains(&length),
                "{name}: {key} of {length} bytes"
            );
        }
        assert_eq!(text(&package["license"]), "MIT OR Apache-2.0", "{name}");
        assert_eq!(
            text(&package["documentation"]),
            format!("https://docs.rs/{name}")
        );
        // What the registry takes.
        assert!(
            (1..=5).contains(&array(&package["keywords"]).len()),
            "{name}: keywords"
        );
        assert!(
            (1..=5).contains(&array(&package["categories"]).len()),
            "{name}: categories"
        );
        let documented = &package["metadata"]["docs"]["rs"];
        assert!(documented["targets"].is_array(), "{name}: docs.rs");
        // Features that begin with underscores are our own tests', and no reader's.
        let features = package["features"].as_object().unwrap();
        assert_eq!(
            documented["all-features"] == true,
            features.keys().any(|feature| !feature.starts_with('_')),
            "{name}: docs.rs shows what features bring"
        );
    }
    assert!(published > 40, "{published}");
}

/// Keep a Changelog's headings, and an entry at least: an empty changelog says nothing of what is released.
#[test]
fn each_published_crate_has_a_changelog_and_the_root_lists_it() {
    let overview = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    for Package { name, folder, .. } in packages().iter().filter(|package| package.published) {
        let changelog = fs::read_to_string(root().join(folder).join("CHANGELOG.md")).unwrap();
        assert!(
            changelog.starts_with(&format!("# Changelog of {name}\n")),
            "{name}: the title"
        );
        let headings: Vec<_> = changelog
            .lines()
            .filter(|line| line.starts_with("##"))
            .collect();
        for heading in &headings {
            let known = match heading.strip_prefix("### ") {
                Some(kind) => [
                    "Added",
                    "Changed",
                    "Deprecated",
                    "Removed",
                    "Fixed",
                    "Security",
                ]
                .contains(&kind),
                None => heading.starts_with("## ["),
            };
            assert!(known, "{name}: {heading}");
        }
        let version = format!("## [{}]", env!("CARGO_PKG_VERSION"));
        assert!(
            headings
                .iter()
                .any(|heading| *heading == "## [Unreleased]" || heading.starts_with(&version)),
            "{name}: nothing of this version"
        );
        assert!(changelog.contains("\n- "), "{name}: no entry");
        let link = format!("- [{name}]({folder}/CHANGELOG.md)\n");
        assert!(overview.contains(&link), "CHANGELOG.md lacks {link}");
    }
}

/// `1.90` or `1.90.0`, as numbers.
fn rust(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap());
    (parts.next().unwrap(), parts.next().unwrap())
}

/// `resolver = "3"` locks such versions, unless one is named that has no older: a dependency that needs a newer Rust
/// than we promise breaks the promise for whoever builds with the lock.
#[test]
fn no_dependency_of_a_published_crate_needs_a_newer_rust_than_we_declare() {
    let metadata = metadata(&[
        "--all-features",
        "--filter-platform=x86_64-unknown-linux-gnu",
    ]);
    let packages: BTreeMap<_, _> = array(&metadata["packages"])
        .iter()
        .map(|package| (text(&package["id"]), package))
        .collect();
    let nodes: BTreeMap<_, _> = array(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| (text(&node["id"]), node))
        .collect();
    let mut ahead: Vec<_> = packages
        .iter()
        .filter(|(_, package)| package["source"].is_null() && package["publish"].is_null())
        .map(|(id, _)| *id)
        .collect();
    let ours = rust(text(&packages[ahead[0]]["rust_version"]));
    let (mut seen, mut declared) = (BTreeSet::new(), 0);
    while let Some(id) = ahead.pop() {
        if !seen.insert(id) {
            continue;
        }
        let package = packages[id];
        if let Some(theirs) = package["rust_version"].as_str() {
            declared += 1;
            assert!(
                rust(theirs) <= ours,
                "{} {} needs Rust {theirs}",
                text(&package["name"]),
                text(&package["version"])
            );
        }
        for dependency in array(&nodes[id]["deps"]) {
            // Only what a user builds: development's dependencies have a kind, too.
            if array(&dependency["dep_kinds"])
                .iter()
                .any(|kind| kind["kind"] != "dev")
            {
                ahead.push(text(&dependency["pkg"]));
            }
        }
    }
    assert!(declared > 100, "{declared} of {} declare one", seen.len());
    println!(
        "{declared} of {} packages declare a Rust version, none a newer one than {}.{}",
        seen.len(),
        ours.0,
        ours.1
    );
}

/// The oldest Rust of the manifests is the one that CI builds with.
#[test]
fn ci_builds_with_the_oldest_rust_that_the_manifests_declare() {
    let workflow = fs::read_to_string(root().join(".github/workflows/ci.yml")).unwrap();
    for package in array(&metadata(&["--no-deps"])["packages"]) {
        let image = format!(
            "container: rust:{}-bookworm\n",
            text(&package["rust_version"])
        );
        let name = text(&package["name"]);
        assert!(workflow.contains(&image), "{name}: ci.yml lacks {image}");
    }
}

/// A badge that nobody checks tells of last year.
#[test]
fn the_badges_tell_the_truth() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let metadata = metadata(&["--no-deps"]);
    for package in array(&metadata["packages"]) {
        if package["publish"].is_null() {
            let declared = text(&package["rust_version"]);
            let badge = format!("https://img.shields.io/badge/rust-{declared}%2B-blue");
            assert!(readme.contains(&badge), "README.md lacks {badge}");
            let licence = text(&package["license"])
                .replace('-', "--")
                .replace(' ', "%20");
            let badge = format!("https://img.shields.io/badge/licence-{licence}-blue");
            assert!(readme.contains(&badge), "README.md lacks {badge}");
        }
    }
    let workflow = readme
        .split("/actions/workflows/")
        .nth(1)
        .and_then(|rest| rest.split("/badge.svg").next())
        .expect("a badge of CI");
    let workflow = root().join(".github/workflows").join(workflow);
    assert!(workflow.is_file(), "there is no {}", workflow.display());
}

/// All sources below `folder`. What a build made is left out.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let (path, name) = (entry.path(), entry.file_name());
        if !entry.file_type().unwrap().is_dir() {
            found.extend(Some(path).filter(|path| path.extension().is_some_and(|it| it == "rs")));
        } else if name != "target" && !name.as_encoded_bytes().starts_with(b".") {
            found.extend(rust_files(&path));
        }
    }
    found
}

/// Files that are longer than others may be, and why.
const LONG_FILES: [(&str, &str); 0] = [];

/// Who looks for something finds it by the name of a file, and reads that to its end.
#[test]
fn no_file_of_rust_is_too_long_to_read() {
    const MOST_LINES: usize = 900;
    let files = rust_files(&root());
    assert!(!files.is_empty());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(root()).unwrap().to_str().unwrap();
        let lines = text.lines().count();
        let argued = LONG_FILES.iter().any(|(long, _)| *long == name);
        assert!(
            (lines > MOST_LINES) == argued,
            "{name} has {lines} lines: split it by subject, or argue in LONG_FILES, above {MOST_LINES} alone"
        );
    }
}
