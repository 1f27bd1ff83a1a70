//! What must hold across the crates of the workspace, read from their manifests.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use std::{
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

/// The workspace's packages, by name.
fn packages() -> Vec<Package> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--no-deps",
            "--format-version=1",
            "--locked",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
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

/// A package on the registry carries only what lies in its own folder.
#[test]
fn each_published_crate_carries_its_licences_and_a_readme() {
    for Package { name, folder, .. } in packages().iter().filter(|package| package.published) {
        let folder = root().join(folder);
        for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
            let carried = fs::read_to_string(folder.join(licence)).unwrap_or_default();
            let ours = fs::read_to_string(root().join(licence)).unwrap();
            assert!(
                carried == ours,
                "{name} lacks {licence}: ln -s ../../../{licence} in its folder"
            );
        }
        assert!(
            folder.join("README.md").is_file(),
            "{name} lacks a README.md"
        );
    }
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
