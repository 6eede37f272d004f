//! Holds the dependencies to what is used: a crate that nobody names any more costs build time and may have to be patched all the same.
//!
//! Reads `Cargo.toml` line by line and sources as text, as `tidy` does; each rule is shown to fail below.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::tidy::{code_of, root, rust_files, stands_alone, without_tests};

/// The text of one crate's sources, comments and strings left out.
struct Sources {
    /// What is built for users.
    product: String,
    /// That, and all tests and benches.
    all: String,
}

#[test]
fn every_dependency_is_used() {
    let mut complaints = Vec::new();
    let mut taken = BTreeSet::new();
    for manifest in manifests() {
        let text = fs::read_to_string(root().join(&manifest)).unwrap();
        let folder = manifest.parent().unwrap();
        let found = unused(&text, &sources(folder));
        complaints.extend(
            found
                .into_iter()
                .map(|what| format!("{}: {what}", manifest.display())),
        );
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            taken.extend(names(&text, section));
        }
    }
    let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    complaints.extend(untaken(&workspace, &taken));
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

fn manifests() -> Vec<PathBuf> {
    let crates = fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| Path::new("crates").join(entry.unwrap().file_name()));
    let mut folders: Vec<_> = crates.collect();
    folders.push(PathBuf::new());
    let manifests = folders.iter().map(|folder| folder.join("Cargo.toml"));
    manifests
        .filter(|manifest| root().join(manifest).exists())
        .collect()
}

fn sources(folder: &Path) -> Sources {
    let read = |folders: &[&str]| {
        let paths: Vec<_> = folders.iter().map(|name| folder.join(name)).collect();
        let folders: Vec<_> = paths.iter().map(|path| path.to_str().unwrap()).collect();
        let files = rust_files(&folders);
        let read = |file: &PathBuf| code_of(&fs::read_to_string(root().join(file)).unwrap());
        files.iter().map(read).collect::<Vec<_>>()
    };
    let source = read(&["src"]);
    Sources {
        product: source.iter().map(|code| without_tests(code)).collect(),
        all: source
            .into_iter()
            .chain(read(&["tests", "benches"]))
            .collect(),
    }
}

/// Says which dependencies of a crate its sources never name.
fn unused(manifest: &str, sources: &Sources) -> Vec<String> {
    let complain = |section: &str, code: &str| -> Vec<String> {
        let names = names(manifest, section).into_iter();
        let unused = names.filter(|name| !is_named(code, &name.replace('-', "_")));
        unused
            .map(|name| format!("nothing uses `{name}` of [{section}]"))
            .collect()
    };
    let mut all = complain("dependencies", &sources.product);
    all.extend(complain("dev-dependencies", &sources.all));
    all
}

/// Says which dependencies of the workspace no crate takes.
fn untaken(workspace: &str, taken: &BTreeSet<String>) -> Vec<String> {
    let names = names(workspace, "workspace.dependencies").into_iter();
    names
        .filter(|name| !taken.contains(name))
        .map(|name| format!("Cargo.toml: no crate takes `{name}` of [workspace.dependencies]"))
        .collect()
}

/// Returns the keys of one section.
fn names(manifest: &str, section: &str) -> Vec<String> {
    let header = format!("[{section}]");
    let lines = manifest
        .lines()
        .skip_while(|line| line.trim() != header)
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| line.contains('=') && !line.starts_with('#'));
    lines
        .map(|line| line.split(['.', ' ', '=']).next().unwrap().to_owned())
        .collect()
}

/// Tells whether code speaks of a crate: `name::`, or `use name;`.
fn is_named(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let after = &code[at + name.len()..];
        stands_alone(code, at, name) && (after.starts_with("::") || code[..at].ends_with("use "))
    })
}

#[test]
fn an_unused_dependency_is_found() {
    let manifest = "[package]\nname = \"a\"\n[dependencies]\nbytes.workspace = true\nserde = \"1\"\n\
                    serde-saphyr = { version = \"2\" }\n[dev-dependencies]\nproptest = \"1\"\n";
    let unused_in = |product: &str, all: &str| {
        let sources = Sources {
            product: product.to_owned(),
            all: all.to_owned(),
        };
        unused(manifest, &sources)
    };
    let product =
        "use bytes::Bytes; #[derive(serde::Deserialize)] fn f() { serde_saphyr::from_str(x) }";
    assert_eq!(unused_in(product, "use proptest;"), [""; 0]);
    let complaints = unused_in("fn f(bytes: &[u8]) { my_serde::x(); serde_json::y() }", "");
    assert_eq!(
        complaints,
        [
            "nothing uses `bytes` of [dependencies]",
            "nothing uses `serde` of [dependencies]",
            "nothing uses `serde-saphyr` of [dependencies]",
            "nothing uses `proptest` of [dev-dependencies]",
        ]
    );
    let workspace =
        "[workspace.dependencies]\nbytes = \"1\"\nwhich = \"8\"\n\n[package]\nname = \"a\"\n";
    let taken = BTreeSet::from(["bytes".to_owned()]);
    let complaints = untaken(workspace, &taken);
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(complaints[0].contains("`which`"), "{complaints:?}");
}
