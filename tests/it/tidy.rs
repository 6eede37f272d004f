//! Holds the shape of the source: layers, sizes, heads, words. It reads text and knows no Rust beyond braces.
//!
//! Rough on purpose: a false alarm costs a minute, a crossed layer costs the design. Each rule is shown to fail below.

use std::fs;
use std::path::{Path, PathBuf};

/// Longest file, in lines, but for tables of cases (`tests.rs`); beyond it a second subject has usually moved in.
const MAX_FILE_LINES: usize = 900;

/// Longest function, in lines, but for a flat `match` and for a test, whose table of cases is data.
const MAX_FUNCTION_LINES: usize = 70;

/// Longest median function of the library, in lines.
const MAX_MEDIAN_LINES: usize = 10;

/// Nesting inside a flat `match`: an arm's block, and one value or call in it.
const FLAT_DEPTH: usize = 3;

/// Words that must not stand in a layer, and why.
struct Layer {
    folder: &'static str,
    words: &'static [&'static str],
    why: &'static str,
}

const LAYERS: [Layer; 10] = [
    Layer {
        folder: "src/model/",
        words: &[
            "tokio",
            "std::fs",
            "std::process",
            "std::env",
            "std::net",
            "std::thread",
            "SystemTime",
            "Instant",
            "Timestamp::now",
            "Zoned::now",
            "tracing",
            "rand",
            "println!",
            "eprintln!",
        ],
        why: "the model is pure: time, randomness, files and the environment are arguments",
    },
    Layer {
        folder: "src/model/",
        words: &[
            "crate::cli",
            "crate::clock",
            "crate::context",
            "crate::op",
            "crate::postgres",
            "crate::storage",
            "crate::stream",
        ],
        why: "the model knows nobody but itself",
    },
    Layer {
        folder: "src/op/",
        words: &[
            "clap",
            "println!",
            "eprintln!",
            "print!",
            "eprint!",
            "std::env",
            "axum",
            "anstream",
            "crate::cli",
        ],
        why: "an operation takes a request value and returns a report value",
    },
    Layer {
        folder: "src/op/",
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
        folder: "src/storage/",
        words: &[
            "crate::postgres",
            "crate::lock",
            "crate::op",
            "crate::cli",
            "std::process::Command",
            "tokio::process",
        ],
        why: "the edges do not know each other",
    },
    Layer {
        folder: "src/storage/",
        words: &["std::env", "AmazonS3Builder::from_env"],
        why: "the environment is read by `cli/settings.rs` and handed in",
    },
    Layer {
        folder: "src/postgres/",
        words: &[
            "crate::storage",
            "crate::lock",
            "crate::op",
            "crate::cli",
            "object_store",
        ],
        why: "the edges do not know each other",
    },
    Layer {
        folder: "src/notify/",
        words: &[
            "crate::storage",
            "crate::postgres",
            "crate::lock",
            "crate::op",
            "crate::cli",
            "std::env",
        ],
        why: "the edges do not know each other",
    },
    Layer {
        folder: "src/lock.rs",
        words: &[
            "crate::storage",
            "crate::postgres",
            "crate::op",
            "crate::cli",
            "std::env",
        ],
        why: "the edges do not know each other",
    },
    Layer {
        folder: "src/stream/",
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
    let mut lengths = Vec::new();
    for file in rust_files(&["src", "tests", "benches"]) {
        let text = fs::read_to_string(root().join(&file)).unwrap();
        let name = file.to_str().unwrap();
        complaints.extend(complaints_of(name, &text));
        if name.starts_with("src/") && !is_test_file(name) {
            let functions = functions_of(&without_tests(&code_of(&text)));
            lengths.extend(functions.iter().map(Function::lines));
        }
    }
    complaints.extend(median_complaint(&mut lengths));
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

fn complaints_of(name: &str, text: &str) -> Vec<String> {
    let code = code_of(text);
    let product = without_tests(&code);
    let mut all = head_and_size(name, text);
    all.extend(file_name(name));
    all.extend(layers(name, &product));
    all.extend(spawns(name, &product));
    all.extend(words(name, text, &code, &product));
    all.extend(functions_of(&code).iter().filter_map(|f| too_long(name, f)));
    all
}

fn head_and_size(name: &str, text: &str) -> Vec<String> {
    let mut all = Vec::new();
    if !text.starts_with("//!") {
        all.push(format!(
            "{name}: no `//!` head: say what the file owns, the promise it keeps, what it never does"
        ));
    }
    let lines = text.lines().count();
    if lines > MAX_FILE_LINES && !name.ends_with("/tests.rs") {
        all.push(format!(
            "{name}: {lines} lines, at most {MAX_FILE_LINES}: it owns two things"
        ));
    }
    all
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
    if !name.starts_with("src/") || name.starts_with("src/postgres/") || is_test_file(name) {
        return Vec::new();
    }
    let mut lines: Vec<_> = SPAWNS
        .iter()
        .flat_map(|word| mentions(product, word))
        .collect();
    lines.sort_unstable();
    lines.dedup();
    let complain = |line| format!("{name}:{line}: spawns a program: only `src/postgres/` does");
    lines.into_iter().map(complain).collect()
}

fn words(name: &str, text: &str, code: &str, product: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut complain = |lines: Vec<usize>, what: &str| {
        all.extend(lines.iter().map(|line| format!("{name}:{line}: {what}")));
    };
    complain(mentions(code, "unsafe"), "`unsafe`");
    if name.starts_with("src/") && !is_test_file(name) {
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

fn too_long(name: &str, function: &Function) -> Option<String> {
    let lines = function.lines();
    (lines > MAX_FUNCTION_LINES && !function.is_test && !function.is_flat_match()).then(|| {
        format!(
            "{name}:{}: `{}` has {lines} lines, at most {MAX_FUNCTION_LINES}",
            function.line, function.name
        )
    })
}

fn median_complaint(lengths: &mut [usize]) -> Option<String> {
    lengths.sort_unstable();
    let median = lengths.get(lengths.len() / 2).copied().unwrap_or_default();
    (median > MAX_MEDIAN_LINES)
        .then(|| format!("src: the median function has {median} lines, at most {MAX_MEDIAN_LINES}"))
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

fn stands_alone(code: &str, at: usize, word: &str) -> bool {
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
fn code_of(text: &str) -> String {
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
fn without_tests(code: &str) -> String {
    let mut left = code.to_owned();
    while let Some(start) = left.find("#[cfg(test)]") {
        let open = left[start..]
            .find(['{', ';'])
            .map_or(left.len(), |at| start + at);
        let end = if left[open..].starts_with('{') {
            closing(&left, open)
        } else {
            open
        };
        let end = left.len().min(end + 1);
        let blank: String = left[start..end]
            .chars()
            .map(|c| if c == '\n' { '\n' } else { ' ' })
            .collect();
        left.replace_range(start..end, &blank);
    }
    left
}

fn is_test_file(name: &str) -> bool {
    name.ends_with("/tests.rs") || name.contains("/tests/") || !name.starts_with("src/")
}

/// One function, found by its keyword and braces.
struct Function {
    name: String,
    line: usize,
    is_test: bool,
    body: String,
}

impl Function {
    /// Lines between the braces, both included.
    fn lines(&self) -> usize {
        self.body.lines().count()
    }

    /// Tells whether nearly all of it is one `match` whose arms hold no logic of their own.
    fn is_flat_match(&self) -> bool {
        let Some(at) = self.body.find("match ") else {
            return false;
        };
        let Some(open) = self.body[at..].find('{').map(|brace| at + brace) else {
            return false;
        };
        let arms = &self.body[open..closing(&self.body, open)];
        let around = self.lines() - arms.lines().count();
        around <= 15 && depth_of(arms) <= FLAT_DEPTH
    }
}

fn depth_of(code: &str) -> usize {
    let mut depth = 0_usize;
    let mut deepest = 0;
    for byte in code.bytes() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

fn functions_of(code: &str) -> Vec<Function> {
    code.match_indices("fn ")
        .filter(|(at, _)| stands_alone(code, *at, "fn"))
        .filter_map(|(at, _)| {
            let rest = &code[at + 3..];
            let name: String = rest
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            let open = at + 3 + body_start(rest)?;
            (!name.is_empty()).then(|| Function {
                name,
                line: line_of(code, at),
                is_test: is_marked_as_test(&code[..at]),
                body: code[open..code.len().min(closing(code, open) + 1)].to_owned(),
            })
        })
        .collect()
}

/// Looks at the attributes in front: `#[test]`, `#[tokio::test(…)]`.
fn is_marked_as_test(before: &str) -> bool {
    let attributes = before
        .rfind(['{', '}', ';'])
        .map_or(before, |at| &before[at..]);
    ["#[test]", "::test]", "::test("]
        .iter()
        .any(|mark| attributes.contains(mark))
}

/// Returns where the body opens; a declaration in a trait ends before it has one.
fn body_start(rest: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b';' if depth == 0 => return None,
            b'{' if depth == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folders: &[&str]) -> Vec<PathBuf> {
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
    let files = rust_files(&["src", "tests"]);
    for file in ["src/lib.rs", "src/model/id.rs", "tests/it/tidy.rs"] {
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
const BAD: [(&str, &str, &str); 20] = [
    ("src/model/a.rs", "use tokio::fs;", "`tokio`"),
    ("src/model/a.rs", "use std::{fmt, fs};", "`std::fs`"),
    (
        "src/model/a.rs",
        "use std::{\n    fmt,\n    time::{Duration, SystemTime},\n};",
        "`SystemTime`",
    ),
    (
        "src/model/a.rs",
        "fn f() { let at = Timestamp::now(); }",
        "`Timestamp::now`",
    ),
    (
        "src/model/a.rs",
        "fn f() { std::env::var(\"X\"); }",
        "`std::env`",
    ),
    (
        "src/model/a.rs",
        "use crate::{failure, storage::Storage};",
        "`crate::storage`",
    ),
    (
        "src/model/a/b.rs",
        "fn f() { tracing::info!(\"x\"); }",
        "`tracing`",
    ),
    ("src/op/a.rs", "fn f() { println!(\"x\"); }", "`println!`"),
    ("src/op/a.rs", "use clap::Parser;", "`clap`"),
    (
        "src/op/a.rs",
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
        "src/storage/a.rs",
        "use crate::postgres::Dump;",
        "`crate::postgres`",
    ),
    (
        "src/postgres/a.rs",
        "use crate::storage::Storage;",
        "`crate::storage`",
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
            "src/model/a.rs",
            "// tokio, std::fs and SystemTime are not for us: \"unsafe\".",
        ),
        (
            "src/model/a.rs",
            "const WORDS: &str = \"tokio::fs { println!\";",
        ),
        (
            "src/model/a.rs",
            "use std::{fmt, io::{self, Read}};\nfn random_brand() {}",
        ),
        (
            "src/model/a.rs",
            "#[cfg(test)]\nmod tests {\n    use std::fs;\n    fn f() { x.unwrap(); }\n}",
        ),
        ("src/model/tests.rs", "use std::fs;\nfn f() { x.unwrap(); }"),
        (
            "src/op/a.rs",
            "use crate::storage::Storage;\nfn f() { writeln!(out, \"x\"); }",
        ),
        ("src/postgres/a.rs", "use tokio::process::Command;"),
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
    for (name, code) in good {
        assert_eq!(about(name, code), [""; 0], "{name}: {code}");
    }
}

#[test]
fn long_files_and_functions_fail_but_for_a_flat_match() {
    let lines = |line: &str, count: usize| format!("{line}\n").repeat(count);
    let long_file = about("src/a.rs", &lines("// x", MAX_FILE_LINES));
    assert!(long_file[0].contains("it owns two things"));
    let long = format!("fn long() {{\n{}}}", lines("    x();", MAX_FUNCTION_LINES));
    assert!(about("src/a.rs", &long)[0].contains("`long` has 72 lines"));
    let short = format!(
        "fn short() {{\n{}}}",
        lines("    x();", MAX_FUNCTION_LINES - 2)
    );
    assert_eq!(about("src/a.rs", &short), [""; 0]);
    let test = format!("fn a() {{}}\n#[tokio::test(x)]\nasync {long}");
    assert_eq!(about("src/a.rs", &test), [""; 0]);
    let after_test = format!("#[test]\nfn a() {{}}\n{long}");
    assert_eq!(about("src/a.rs", &after_test).len(), 1);
    let arms = lines("        A { x, .. } => B { x },", MAX_FUNCTION_LINES);
    let flat = format!("fn flat(&self) -> [u8; 2] {{\n    match self {{\n{arms}    }}\n}}");
    assert_eq!(about("src/a.rs", &flat), [""; 0]);
    let nested = "        A => { if x { for y in z { if y { w() } } } }";
    let deep = flat.replacen("        A { x, .. } => B { x },", nested, 1);
    assert!(about("src/a.rs", &deep)[0].contains("`flat` has"));
    assert!(median_complaint(&mut [1, 11, 12]).is_some());
    assert!(median_complaint(&mut [1, 10, 40]).is_none());
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
