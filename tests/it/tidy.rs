//! Holds what Cargo cannot: layers inside a crate, what the model may not touch, heads, words. It reads text and knows no Rust
//! beyond braces.
//!
//! Rough on purpose: a false alarm costs a minute, a crossed layer costs the design. Each rule is shown to fail below.

use std::fs;
use std::path::{Path, PathBuf};

/// Words that must not stand in a layer, and why.
struct Layer {
    folder: &'static str,
    words: &'static [&'static str],
    why: &'static str,
}

const LAYERS: [Layer; 11] = [
    Layer {
        folder: "crates/model/src/",
        words: &[
            "std::fs",
            "std::process",
            "std::env",
            "std::net",
            "std::thread",
            "SystemTime",
            "Instant",
            "Timestamp::now",
            "Zoned::now",
            "println!",
            "eprintln!",
        ],
        why: "the model is pure: time, randomness, files and the environment are arguments",
    },
    Layer {
        folder: "crates/core/src/op/",
        words: &[
            "clap",
            "println!",
            "eprintln!",
            "print!",
            "eprint!",
            "std::env",
            "axum",
            "anstream",
        ],
        why: "an operation takes a request value and returns a report value",
    },
    Layer {
        folder: "crates/core/src/op/",
        words: &[
            "std::time::Instant",
            "SystemTime",
            "Timestamp::now",
            "Zoned::now",
            "rand",
        ],
        why: "time and dice come through the context's clock, waits through tokio's timer",
    },
    Layer {
        folder: "crates/core/src/setup/",
        words: &[
            "clap",
            "println!",
            "eprintln!",
            "print!",
            "eprint!",
            "std::env",
            "axum",
            "anstream",
        ],
        why: "every front door makes its requests with it, and hands its environment in",
    },
    Layer {
        folder: "crates/storage/src/",
        words: &["std::env", "AmazonS3Builder::from_env"],
        why: "the environment is read by `cli/settings.rs` and handed in",
    },
    Layer {
        folder: "crates/core/src/postgres/",
        words: &["pgkeep_storage", "crate::lock", "crate::op", "object_store"],
        why: "the edges do not know each other",
    },
    Layer {
        folder: "crates/core/src/notify/",
        words: &[
            "pgkeep_storage",
            "crate::postgres",
            "crate::lock",
            "crate::op",
            "std::env",
        ],
        why: "the edges do not know each other",
    },
    Layer {
        folder: "crates/core/src/lock.rs",
        words: &["pgkeep_storage", "crate::postgres", "crate::op", "std::env"],
        why: "the edges do not know each other",
    },
    Layer {
        folder: "crates/core/src/log/",
        words: &[
            "pgkeep_storage",
            "crate::op",
            "crate::postgres",
            "crate::notify",
            "std::env",
            "anstream",
            "LazyLock",
            "OnceLock",
        ],
        why: "every part logs and none is known; what is secret and where lines go is handed in",
    },
    Layer {
        folder: "crates/core/src/copies/",
        words: &["crate::op", "crate::postgres", "crate::notify", "std::env"],
        why: "operations read what is stored through it, and it knows none of them",
    },
    Layer {
        folder: "crates/core/src/stream/",
        words: &["crate::op", "crate::cli", "std::env"],
        why: "data flows one way; a stage knows neither its operation nor the front door",
    },
];

/// Ways to spawn a program.
const SPAWNS: [&str; 3] = [
    "std::process::Command",
    "tokio::process",
    "process::Command",
];

/// Words that a file may not be named by: they say nothing about what it owns.
const NAMES: [&str; 5] = ["helper", "util", "manager", "misc", "common"];

/// What is promised for later belongs into an issue.
const LATER: [&str; 4] = ["TODO", "FIXME", "XXX", "HACK"];

#[test]
fn source_keeps_its_shape() {
    let mut complaints = Vec::new();
    for file in rust_files(&["src", "crates", "tests", "benches"]) {
        let text = fs::read_to_string(root().join(&file)).unwrap();
        complaints.extend(complaints_of(file.to_str().unwrap(), &text));
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

fn complaints_of(name: &str, text: &str) -> Vec<String> {
    let code = code_of(text);
    let product = without_tests(&code);
    let mut all: Vec<_> = head(name, text).into_iter().collect();
    all.extend(file_name(name));
    all.extend(layers(name, &product));
    all.extend(spawns(name, &product));
    all.extend(tasks(name, &product));
    all.extend(bound_twice(name, &code));
    all.extend(words(name, text, &code, &product));
    all
}

fn head(name: &str, text: &str) -> Option<String> {
    (!text.starts_with("//!")).then(|| {
        format!(
            "{name}: no `//!` head: say what the file owns, the promise it keeps, what it never does"
        )
    })
}

fn file_name(name: &str) -> Option<String> {
    let word = NAMES.iter().find(|word| {
        let mut parts = name.split(['/', '.', '_']);
        parts.any(|part| part.trim_end_matches('s') == **word)
    })?;
    Some(format!(
        "{name}: named `{word}`: name it after what it owns"
    ))
}

fn layers(name: &str, product: &str) -> Vec<String> {
    let applies = |layer: &&Layer| name.starts_with(layer.folder) && !is_test_file(name);
    LAYERS
        .iter()
        .filter(applies)
        .flat_map(|layer| {
            layer.words.iter().flat_map(move |word| {
                let lines = mentions(product, word);
                lines.into_iter().map(move |line| {
                    format!(
                        "{name}:{line}: `{word}` in `{}`: {}",
                        layer.folder, layer.why
                    )
                })
            })
        })
        .collect()
}

fn spawns(name: &str, product: &str) -> Vec<String> {
    // The browser of a desktop is no program of a run: it outlives the demo that opens a page in it.
    const ALLOWED: [&str; 3] = [
        "crates/core/src/postgres/",
        "crates/storage/src/rclone/",
        "src/cli/commands/demo/browser.rs",
    ];
    if ALLOWED.iter().any(|folder| name.starts_with(folder)) || is_test_file(name) {
        return Vec::new();
    }
    let mut lines: Vec<_> = SPAWNS
        .iter()
        .flat_map(|word| mentions(product, word))
        .collect();
    lines.sort_unstable();
    lines.dedup();
    let complain = |line| {
        format!(
            "{name}:{line}: spawns a program: only `crates/core/src/postgres/` and `crates/storage/src/rclone/` do"
        )
    };
    lines.into_iter().map(complain).collect()
}

/// A task that leaves its run's span behind would log for no run.
fn tasks(name: &str, product: &str) -> Option<String> {
    let is_below = ["crates/core/src/", "crates/storage/src/"]
        .iter()
        .any(|folder| name.starts_with(folder));
    let count = |word: &str| product.matches(word).count();
    let is_lost = count("tokio::spawn(") > count(".in_current_span()");
    (is_below && !is_test_file(name) && is_lost)
        .then(|| format!("{name}: spawns a task without `in_current_span`"))
}

/// Two bindings of one name in a row please the formatter, and leave the reader to find out which one is meant.
fn bound_twice(name: &str, code: &str) -> Vec<String> {
    let next_is_same = |at: usize| {
        let (bound, end) = binding(code, at)?;
        let gap = code[end..].len() - code[end..].trim_start().len();
        let (again, _) = binding(code, end + gap)?;
        (bound == again && bound != "_").then(|| (bound, line_of(code, end + gap)))
    };
    code.match_indices("let ")
        .filter(|(at, word)| stands_alone(code, *at, word))
        .filter_map(|(at, _)| next_is_same(at))
        .map(|(bound, line)| {
            format!(
                "{name}:{line}: `{bound}` is bound twice in a row: write one chain, or name the first after what it is"
            )
        })
        .collect()
}

/// Reads a `let` that binds one name without a pattern: the name, and where the statement ends.
fn binding(code: &str, at: usize) -> Option<(&str, usize)> {
    let pattern = code[at..].strip_prefix("let ")?;
    let rest = pattern.strip_prefix("mut ").unwrap_or(pattern);
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let (name, behind) = rest.split_at(rest.find(|c| !is_part(c))?);
    let is_single = behind.trim_start().starts_with([':', '=']);
    let mut depth = 0;
    let end = code[at..].bytes().position(|byte| {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth -= 1,
            _ => {}
        }
        depth < 0 || (depth == 0 && byte == b';')
    })?;
    (is_single && depth == 0).then_some((name, at + end + 1))
}

fn words(name: &str, text: &str, code: &str, product: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut complain = |lines: Vec<usize>, what: &str| {
        all.extend(lines.iter().map(|line| format!("{name}:{line}: {what}")));
    };
    complain(mentions(code, "unsafe"), "`unsafe`");
    if !is_test_file(name) {
        let what = "`unwrap()`: return the error, or `expect` the invariant in words";
        complain(mentions(product, ".unwrap()"), what);
        complain(
            mentions(text, ".expect(\"\")"),
            "`expect` without the invariant in words",
        );
    }
    // This file names the words that it looks for.
    if !name.ends_with("tidy.rs") {
        for word in LATER {
            complain(
                mentions(text, word),
                "left for later: do it, or open an issue",
            );
        }
    }
    all
}

/// Returns the lines (from 1) where `word` stands for itself, `use std::{fs, io}` included for `std::fs`.
fn mentions(code: &str, word: &str) -> Vec<usize> {
    let mut lines: Vec<_> = code
        .match_indices(word)
        .filter(|(at, _)| stands_alone(code, *at, word))
        .map(|(at, _)| line_of(code, at))
        .collect();
    if let Some((path, last)) = word.rsplit_once("::") {
        lines.extend(grouped(code, path, last));
    }
    lines
}

/// Finds `path::{…, last, …}`, however deep `last` lies in the braces.
fn grouped(code: &str, path: &str, last: &str) -> Vec<usize> {
    let open = format!("{path}::{{");
    code.match_indices(&open)
        .filter(|(at, _)| stands_alone(code, *at, path))
        .filter_map(|(at, _)| {
            let start = at + open.len() - 1;
            let group = &code[start..closing(code, start)];
            let found = group
                .match_indices(last)
                .find(|(at, _)| stands_alone(group, *at, last) && !group[..*at].ends_with("::"))?;
            Some(line_of(code, start + found.0))
        })
        .collect()
}

pub(super) fn stands_alone(code: &str, at: usize, word: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let starts_word = word.starts_with(|c: char| c.is_alphanumeric());
    let ends_word = word.ends_with(|c: char| c.is_alphanumeric());
    let before = starts_word && is_part(code[..at].chars().next_back());
    let after = ends_word && is_part(code[at + word.len()..].chars().next());
    !before && !after
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// Returns the place of the brace that closes the one at `open`, or the end.
fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    code.len()
}

/// Blanks comments, strings and character literals, and keeps every line where it was.
pub(crate) fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let end = literal_end(text, at).unwrap_or(0);
        if end > at {
            let blank = |c: char| if c == '\n' { '\n' } else { ' ' };
            code.extend(text[at..end].chars().map(blank));
            at = end;
        } else {
            let c = rest.chars().next().expect("`at` lies before the end");
            code.push(c);
            at += c.len_utf8();
        }
    }
    code
}

/// Returns where the comment or literal that starts at `at` ends.
fn literal_end(text: &str, at: usize) -> Option<usize> {
    let rest = &text[at..];
    let after_name = text[..at]
        .chars()
        .next_back()
        .is_some_and(|c| c.is_alphanumeric() || c == '_');
    if rest.starts_with("//") {
        return Some(at + rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(at + rest.find("*/").map_or(rest.len(), |end| end + 2));
    }
    if rest.starts_with('\'') {
        return character_end(rest).map(|end| at + end);
    }
    let prefix = rest.find(|c| !matches!(c, 'b' | 'c' | 'r'))?;
    if prefix > 0 && (after_name || prefix > 2) {
        return None;
    }
    let is_raw = rest[..prefix].contains('r');
    let hashes = rest[prefix..]
        .bytes()
        .take_while(|byte| *byte == b'#')
        .count();
    let body = prefix + hashes;
    if !rest[body..].starts_with('"') || (hashes > 0 && !is_raw) {
        return None;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    Some(at + string_end(rest, body + 1, &close, is_raw))
}

fn string_end(rest: &str, body: usize, close: &str, is_raw: bool) -> usize {
    let bytes = rest.as_bytes();
    let mut at = body;
    while at < bytes.len() {
        if !is_raw && bytes[at] == b'\\' {
            at += 2;
        } else if bytes[at..].starts_with(close.as_bytes()) {
            return at + close.len();
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// Tells a character literal from a lifetime: it has a second quote.
fn character_end(rest: &str) -> Option<usize> {
    let mut chars = rest.char_indices().skip(1);
    let (_, first) = chars.next()?;
    if first == '\\' {
        let escaped = rest.char_indices().skip(3);
        return escaped
            .into_iter()
            .find(|(_, c)| *c == '\'')
            .map(|(at, _)| at + 1);
    }
    let (at, second) = chars.next()?;
    (second == '\'').then_some(at + 1)
}

/// Blanks what stands under `#[cfg(test)]`, and keeps every line where it was.
pub(crate) fn without_tests(code: &str) -> String {
    let mut left = code.to_owned();
    while let Some(start) = left.find("#[cfg(test)]") {
        let open = left[start..]
            .find(['{', ';'])
            .map_or(left.len(), |at| start + at);
        let last = if left[open..].starts_with('{') {
            closing(&left, open)
        } else {
            open
        };
        let end = left.len().min(last + 1);
        let blank: String = left[start..end]
            .chars()
            .map(|c| if c == '\n' { '\n' } else { ' ' })
            .collect();
        left.replace_range(start..end, &blank);
    }
    left
}

pub(crate) fn is_test_file(name: &str) -> bool {
    let is_product = name.starts_with("src/") || name.contains("/src/");
    name.ends_with("/tests.rs")
        || name.contains("/tests/")
        || name.starts_with("crates/testing/")
        || !is_product
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn rust_files(folders: &[&str]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = folders.iter().map(PathBuf::from).collect();
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(root().join(&folder));
        for entry in entries.into_iter().flatten().map(Result::unwrap) {
            let path = folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

#[test]
fn finds_the_source() {
    let files = rust_files(&["src", "crates", "tests"]);
    for file in ["src/lib.rs", "crates/model/src/id.rs", "tests/it/tidy.rs"] {
        assert!(
            files.contains(&PathBuf::from(file)),
            "{file} is not looked at"
        );
    }
}

/// A file with a head, so that only the line in question is complained about.
fn about(name: &str, code: &str) -> Vec<String> {
    complaints_of(name, &format!("//! Head.\n{code}\n"))
}

/// A file, a line of it, and what must be complained about.
const BAD: [(&str, &str, &str); 26] = [
    (
        "crates/model/src/a.rs",
        "fn f() { let x = a(|| { 1; });\n    // Why.\n    let mut x: u8 = x.b(); }",
        "a.rs:4: `x` is bound twice",
    ),
    (
        "tests/it/a.rs",
        "fn f() { let x = a(); let x = b(x)?; }",
        "`x` is bound twice",
    ),
    (
        "crates/core/src/log/a.rs",
        "static LOG: OnceLock<u8> = OnceLock::new();",
        "none is known",
    ),
    (
        "crates/core/src/a.rs",
        "fn f() { tokio::spawn(work()); }",
        "without `in_current_span`",
    ),
    (
        "crates/storage/src/a.rs",
        "fn f() { tokio::spawn(one().in_current_span()); tokio::spawn(two()); }",
        "without `in_current_span`",
    ),
    ("crates/model/src/a.rs", "use std::{fmt, fs};", "`std::fs`"),
    (
        "crates/model/src/a.rs",
        "use std::{\n    fmt,\n    time::{Duration, SystemTime},\n};",
        "`SystemTime`",
    ),
    (
        "crates/model/src/a.rs",
        "fn f() { let at = Timestamp::now(); }",
        "`Timestamp::now`",
    ),
    (
        "crates/model/src/a.rs",
        "fn f() { std::env::var(\"X\"); }",
        "`std::env`",
    ),
    (
        "crates/core/src/op/a.rs",
        "fn f() { println!(\"x\"); }",
        "`println!`",
    ),
    ("crates/core/src/op/a.rs", "use clap::Parser;", "`clap`"),
    (
        "crates/core/src/op/a.rs",
        "use std::process::Command;",
        "spawns a program",
    ),
    (
        "src/a.rs",
        "use std::process::{self, Command};",
        "spawns a program",
    ),
    (
        "src/a.rs",
        "use tokio::{process, time};",
        "spawns a program",
    ),
    (
        "crates/core/src/postgres/a.rs",
        "use pgkeep_storage::Storage;",
        "`pgkeep_storage`",
    ),
    (
        "crates/core/src/notify/a.rs",
        "use crate::{clock, op::get};",
        "`crate::op`",
    ),
    (
        "crates/core/src/copies/a.rs",
        "use crate::op::restore;",
        "`crate::op`",
    ),
    ("crates/core/src/setup/a.rs", "use clap::Args;", "`clap`"),
    (
        "crates/core/src/setup/a.rs",
        "fn f() { std::env::var(\"X\"); }",
        "`std::env`",
    ),
    (
        "crates/storage/src/a.rs",
        "use tokio::process;",
        "spawns a program",
    ),
    ("src/a.rs", "fn f() { x.unwrap(); }", "`unwrap()`"),
    ("src/a.rs", "fn f() { x.expect(\"\"); }", "invariant"),
    ("tests/it/a.rs", "fn f() { unsafe { x() } }", "`unsafe`"),
    ("src/a.rs", "// TODO: later", "left for later"),
    ("src/string_utils.rs", "", "named `util`"),
    ("src/helper/a.rs", "", "named `helper`"),
];

#[test]
fn each_rule_fails_on_a_bad_file() {
    for (name, code, expected) in BAD {
        let complaints = about(name, code);
        assert!(
            complaints
                .iter()
                .any(|complaint| complaint.contains(expected)),
            "{name}: {code}\nexpected {expected}, got {complaints:?}"
        );
    }
    assert_eq!(complaints_of("src/a.rs", "fn f() {}\n").len(), 1, "no head");
}

#[test]
fn good_files_pass() {
    let good = [
        (
            "crates/model/src/a.rs",
            "// tokio, std::fs and SystemTime are not for us: \"unsafe\".",
        ),
        (
            "crates/model/src/a.rs",
            "const WORDS: &str = \"tokio::fs { println!\";",
        ),
        (
            "crates/model/src/a.rs",
            "use std::{fmt, io::{self, Read}};\nfn random_brand() {}",
        ),
        (
            "crates/model/src/a.rs",
            "#[cfg(test)]\nmod tests {\n    use std::fs;\n    fn f() { x.unwrap(); }\n}",
        ),
        (
            "crates/model/src/tests.rs",
            "use std::fs;\nfn f() { x.unwrap(); }",
        ),
        (
            "crates/core/src/op/a.rs",
            "use pgkeep_storage::Storage;\nfn f() { writeln!(out, \"x\"); }",
        ),
        (
            "crates/core/src/postgres/a.rs",
            "use tokio::process::Command;",
        ),
        (
            "crates/core/src/a.rs",
            "fn f() { tokio::spawn(work().in_current_span()); }",
        ),
        (
            "src/cli.rs",
            "use clap::Command;\nfn f() { println!(\"x\"); }",
        ),
        (
            "src/a.rs",
            "fn f() { x.unwrap_or_default(); x.expect(\"a table has a name\"); }",
        ),
        (
            "tests/it/a.rs",
            "fn f() { x.unwrap(); std::process::Command::new(\"sh\"); }",
        ),
    ];
    let bound_once = [
        "let x = a(); let Some(x) = x else { return };",
        "let x = a(); b(); let x = x.c();",
        "let x = a(); let y = x; let x = y.b();",
        "if let Some(x) = a { let x = x.b(); }",
        "let _ = a(); let _ = b();",
        "let x = { let y = a(); y }; let y = x;",
    ];
    for code in bound_once {
        let found = about("src/a.rs", &format!("fn f() {{ {code} }}"));
        assert_eq!(found, [""; 0], "{code}");
    }
    for (name, code) in good {
        assert_eq!(about(name, code), [""; 0], "{name}: {code}");
    }
}

#[test]
fn literals_and_comments_are_blanked_in_place() {
    let cases = [
        ("a(\"x{\\\"y\"); b", "a(       ); b"),
        ("r#\"a\"{\"# + 'x' + '{'", "         +     +    "),
        ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
        ("b\"{\" b'{' '\\'' '\\u{7b}' c", "     b                  c"),
        ("x // {\ny /* {\n */ z", "x     \ny     \n    z"),
        ("for_r\"{\"", "for_r   "),
    ];
    for (text, expected) in cases {
        assert_eq!(code_of(text), expected, "{text}");
    }
}
