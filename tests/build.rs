//! Makes one copy of the in-memory store that can be wrong in each of the ways of `mutants/list.rs`.

#![allow(clippy::expect_used, reason = "a failure must end the build")]

use std::{env, fs};

const MEMORY: &str = "../crates/ports/groundtackle-utxo-store/src/memory";

fn main() {
    let mutants: &[(&str, &str, &str)] = include!("mutants/list.rs");
    println!("cargo::rerun-if-changed=mutants/list.rs");
    let read = |file: &str| {
        println!("cargo::rerun-if-changed={file}");
        fs::read_to_string(file).expect("the in-memory store is there")
    };
    let mut original = read(&format!("{MEMORY}.rs"));
    for module in ["blocks", "spend"] {
        let text = read(&format!("{MEMORY}/{module}.rs"));
        let inlined = format!("mod {module} {{\nuse super::is_mutant;\n{text}}}");
        let outside = format!("mod {module};");
        assert!(original.contains(&outside), "{outside} is not in memory.rs");
        original = original.replacen(&outside, &inlined, 1);
    }
    let mut source = original.clone();
    for (number, (case, is, becomes)) in mutants.iter().enumerate() {
        assert_eq!(
            original.matches(is).count(),
            1,
            "{case}: {is:?} must occur once in the in-memory store"
        );
        let becomes = becomes.replace("mutant", &format!("is_mutant({number})"));
        source = source.replacen(is, &becomes, 1);
        assert!(
            source.contains(&becomes),
            "{case}: {is:?} lies in another mutant's place"
        );
    }
    // Inner docs can't be included, and the port shows most of its modules' items at its root only.
    source = source.replace("//!", "//");
    for module in ["error", "store", "types", "verdict"] {
        source = source.replace(&format!("crate::{module}::"), "groundtackle_utxo_store::");
    }
    source = source.replace("crate::", "groundtackle_utxo_store::");
    let out = env::var("OUT_DIR").expect("cargo sets it");
    fs::write(format!("{out}/memory.rs"), source).expect("the folder is ours");
}
