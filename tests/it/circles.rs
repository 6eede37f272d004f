//! Holds that no files of a crate import each other in a circle: what one file does must be readable without the rest.
//!
//! It reads paths (`use crate::…`, `super::…`, a child's name) and knows no Rust beyond them. A child may name its parent,
//! and a parent its children; every other circle is a complaint.

use std::collections::{BTreeMap, BTreeSet};

use super::tidy::{code_of, is_test_file, root, rust_files, without_tests};

/// Where the crates' files are.
const CRATES: [&str; 6] = [
    "crates/model/src",
    "crates/storage/src",
    "crates/core/src",
    "crates/serve/src",
    "crates/sentry/src",
    "src",
];

/// A file's module, such as `["op", "backup", "commit"]`.
type Module = Vec<String>;

#[test]
fn no_files_import_each_other_in_a_circle() {
    let mut complaints = Vec::new();
    for folder in CRATES {
        let mut files = BTreeMap::new();
        for file in rust_files(&[folder]) {
            let name = file.to_str().unwrap();
            if !is_test_file(name) && !name.ends_with("main.rs") {
                let text = std::fs::read_to_string(root().join(&file)).unwrap();
                let module = module_of(name.strip_prefix(folder).unwrap());
                files.insert(module, without_tests(&code_of(&text)));
            }
        }
        assert!(files.len() > 5, "{folder} is not looked at");
        for circle in circles(&files) {
            complaints.push(format!("{folder}: {}", circle.join(" <-> ")));
        }
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

fn module_of(path: &str) -> Module {
    let path = path.trim_start_matches('/').trim_end_matches(".rs");
    let mut parts: Module = path.split('/').map(str::to_owned).collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib")) {
        parts.pop();
    }
    parts
}

/// Returns the files of each circle, by the names of their modules.
fn circles(files: &BTreeMap<Module, String>) -> Vec<Vec<String>> {
    let known: BTreeMap<&Module, BTreeSet<Module>> = files
        .iter()
        .map(|(module, code)| (module, imports(module, code, files)))
        .collect();
    let reached: BTreeMap<&Module, BTreeSet<&Module>> = known
        .keys()
        .map(|module| (*module, reach(module, &known)))
        .collect();
    let mut found = BTreeSet::new();
    for (module, all) in &reached {
        if all.contains(*module) {
            let circle = all
                .iter()
                .filter(|other| reached[**other].contains(*module));
            found.insert(circle.map(|module| module.join("::")).collect());
        }
    }
    found.into_iter().collect()
}

fn reach<'a>(
    from: &Module,
    known: &'a BTreeMap<&Module, BTreeSet<Module>>,
) -> BTreeSet<&'a Module> {
    let mut reached = BTreeSet::new();
    let mut left: Vec<&Module> = known[from].iter().collect();
    while let Some(next) = left.pop() {
        if reached.insert(next) {
            left.extend(&known[next]);
        }
    }
    reached
}

/// Returns the files that one imports. What stands above it is family: that a parent lists its children makes no circle.
fn imports(module: &Module, code: &str, files: &BTreeMap<Module, String>) -> BTreeSet<Module> {
    let mut found = BTreeSet::new();
    for path in paths(code) {
        let Some(absolute) = absolute(module, &path, files) else {
            continue;
        };
        let target = (0..=absolute.len())
            .rev()
            .map(|length| absolute[..length].to_vec())
            .find(|target| files.contains_key(target));
        found.extend(target.filter(|target| !module.starts_with(target)));
    }
    found
}

/// Returns a path from the root of the crate on; none where it leads out of the crate.
fn absolute(module: &Module, path: &[String], files: &BTreeMap<Module, String>) -> Option<Module> {
    let mut base = match path[0].as_str() {
        "crate" => Vec::new(),
        "self" | "super" => module.clone(),
        name => {
            let mut child = module.clone();
            child.push(name.to_owned());
            if !files.contains_key(&child) {
                return None;
            }
            module.clone()
        }
    };
    for part in path {
        match part.as_str() {
            "crate" | "self" => {}
            "super" => {
                base.pop();
            }
            name => base.push(name.to_owned()),
        }
    }
    Some(base)
}

/// Returns every path of at least two names, groups in braces taken apart.
fn paths(code: &str) -> Vec<Module> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < code.len() {
        let name = name_at(code, at);
        if name.is_empty() {
            at += code[at..].chars().next().map_or(1, char::len_utf8);
            continue;
        }
        if code[at + name.len()..].starts_with("::") {
            at = follow(code, at, &[], &mut found);
        } else {
            at += name.len();
        }
    }
    found
}

/// Reads the path at `at` behind those names that stand in front of it, and returns where it ends.
fn follow(code: &str, at: usize, before: &[String], found: &mut Vec<Module>) -> usize {
    let mut path = before.to_vec();
    let mut at = at;
    loop {
        let name = name_at(code, at);
        path.push(name.to_owned());
        at += name.len();
        if !code[at..].starts_with("::") {
            found.push(path);
            return at.max(1);
        }
        at += 2;
        if code[at..].starts_with('{') {
            return group(code, at + 1, &path, found);
        }
        if name_at(code, at).is_empty() {
            found.push(path);
            return at;
        }
    }
}

/// Reads the group whose brace was opened before `at`.
fn group(code: &str, mut at: usize, path: &[String], found: &mut Vec<Module>) -> usize {
    while at < code.len() && !code[at..].starts_with('}') {
        at = if name_at(code, at).is_empty() {
            at + code[at..].chars().next().map_or(1, char::len_utf8)
        } else {
            follow(code, at, path, found)
        };
    }
    code.len().min(at + 1)
}

fn name_at(code: &str, at: usize) -> &str {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let rest = &code[at..];
    &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())]
}

/// Files by their names and texts, and the circles among them.
fn found_in(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    let files = files
        .iter()
        .map(|(name, code)| (module_of(name), (*code).to_owned()));
    circles(&files.collect())
}

#[test]
fn a_circle_is_found() {
    for files in [
        &[
            ("a.rs", "use crate::b::X;"),
            ("b.rs", "fn f() { super::a::g() }"),
        ][..],
        &[
            ("op/a.rs", "use super::{c, b::{self, X}};"),
            ("op/b.rs", "use crate::op::a;"),
        ],
        &[
            ("a.rs", "use crate::b;"),
            ("b.rs", "use crate::c;"),
            ("c.rs", "use crate::{d, a::X};"),
        ],
        // Through a folder: its file lists what its children import.
        &[
            ("tell.rs", "use crate::op::Report;"),
            ("op/mod.rs", "mod a; use a::run;"),
            ("op/a.rs", "use crate::tell;"),
        ],
    ] {
        assert_eq!(found_in(files).len(), 1, "{files:?}");
    }
}

#[test]
fn families_and_lines_are_no_circles() {
    for files in [
        &[
            ("op/mod.rs", "mod a; use a::f;"),
            ("op/a.rs", "use super::Request;"),
        ][..],
        &[
            ("a.rs", "use crate::b;"),
            ("b.rs", "use std::b; use crate::c;"),
            ("c.rs", ""),
        ],
        &[
            ("a.rs", "use crate::op::b::X;"),
            ("op/b.rs", "use super::c;"),
            ("op/c.rs", ""),
        ],
    ] {
        assert!(found_in(files).is_empty(), "{files:?}");
    }
}
