//! The JSON that a run printed against the schemas of the book, and the id of its failure against the book's list.
//!
//! A schema lets unknown fields pass, because fields may be added; here it does not. So a field that is added without
//! its schema fails the first test that sees it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use boon::{Compiler, Schemas};
use serde_json::{Value, json};

/// Commands whose standard output has no schema of ours: pages, a JSON Schema, and what belongs to a guarded command.
const WITHOUT: [&str; 4] = ["completions", "man", "config-schema", "guard"];

/// Where the schemas seem to lie: relative references lead from one to the other.
const BASE: &str = "https://pgkeep.invalid/schemas/";

/// Returns the folder of the schemas.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/src/schemas")
}

/// Returns every schema file by its name without `.json`.
pub fn files() -> &'static BTreeMap<String, Value> {
    static FILES: OnceLock<BTreeMap<String, Value>> = OnceLock::new();
    FILES.get_or_init(|| {
        let entries = fs::read_dir(folder()).expect("the book has schemas");
        let paths = entries.map(|entry| entry.expect("the folder can be read").path());
        let read = |path: PathBuf| {
            let stem = path.file_stem().expect("a file has a name");
            let name = stem.to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).expect("a schema can be read");
            let schema = serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (name, schema)
        };
        paths.map(read).collect()
    })
}

/// Says what is wrong with a value; `schema` is a file's name, or one of its parts: `stored#/$defs/pin`.
pub fn problem(schema: &str, value: &Value) -> Option<String> {
    let (file, part) = schema.split_once('#').unwrap_or((schema, ""));
    let mut compiler = Compiler::new();
    compiler.enable_format_assertions();
    for (name, text) in files() {
        let mut closed = text.clone();
        close(&mut closed);
        compiler
            .add_resource(&format!("{BASE}{name}.json"), closed)
            .expect("a schema has a place");
    }
    let mut schemas = Schemas::new();
    let place = format!("{BASE}{file}.json#{part}");
    let index = compiler
        .compile(&place, &mut schemas)
        .unwrap_or_else(|error| panic!("`{schema}` is no schema: {error:#}"));
    let error = schemas.validate(value, index).err()?;
    Some(format!("{error:#}"))
}

/// Forbids fields that a schema does not name, unless it says itself what others are.
fn close(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    if object.contains_key("properties") && !object.contains_key("additionalProperties") {
        object.insert("additionalProperties".to_owned(), json!(false));
    }
    for (keyword, value) in object {
        match (keyword.as_str(), value) {
            ("properties" | "$defs", Value::Object(schemas)) => {
                schemas.values_mut().for_each(close);
            }
            ("anyOf" | "oneOf", Value::Array(schemas)) => schemas.iter_mut().for_each(close),
            ("items" | "additionalProperties", value) => close(value),
            _ => {}
        }
    }
}

/// Commands that have others below them.
const PARENTS: [&str; 2] = ["config", "keys"];

/// What a run of pgkeep was asked, as far as it decides what it prints.
struct Asked<'a> {
    arguments: &'a [&'a str],
    /// The command, with the one below it: `list`, `config-show`.
    command: String,
}

impl<'a> Asked<'a> {
    /// Reads a command line; none without a known command, or where it only asks for help.
    fn read(arguments: &'a [&'a str]) -> Option<Self> {
        // What stands behind it belongs to a guarded command.
        let end = arguments.iter().position(|&argument| argument == "--");
        let arguments = &arguments[..end.unwrap_or(arguments.len())];
        let is_help = |argument: &&str| matches!(*argument, "-h" | "--help" | "-V" | "--version");
        if arguments.iter().any(is_help) {
            return None;
        }
        let is_command = |name: &str| {
            files().contains_key(name) || WITHOUT.contains(&name) || PARENTS.contains(&name)
        };
        let mut words = arguments.iter().filter(|word| !word.starts_with('-'));
        let command = match *words.find(|&&word| word == "unpin" || is_command(word))? {
            "unpin" => "pin".to_owned(),
            name if PARENTS.contains(&name) => format!("{name}-{}", words.next()?),
            name => name.to_owned(),
        };
        Some(Self { arguments, command })
    }

    fn has(&self, flag: &str) -> bool {
        self.arguments.contains(&flag)
    }

    /// Tells whether standard output carries JSON of ours.
    fn answers_in_json(&self) -> bool {
        // Rows and dumps go to standard output where no file is named.
        let is_data = matches!(self.command.as_str(), "extract" | "get");
        self.has("--json")
            && !self.has("--nagios")
            && !is_data
            && !WITHOUT.contains(&self.command.as_str())
    }
}

/// Panics when a run printed JSON that its schema does not know, or a failure that the book does not list.
pub fn assert_known(arguments: &[&str], stdout: &[u8], stderr: &[u8]) {
    let Some(asked) = Asked::read(arguments) else {
        return;
    };
    let stdout = String::from_utf8_lossy(stdout);
    if asked.answers_in_json() {
        assert_all_known(&asked.command, documents(&stdout));
    } else if asked.has("--json") && matches!(asked.command.as_str(), "extract" | "get") {
        // With a file it is one document; without, nobody knows what the rows look like.
        let is_report = |value: &Value| value.get("table_rows").or(value.get("sha256")).is_some();
        let document = serde_json::from_str(&stdout).ok().filter(is_report);
        assert_all_known(&asked.command, document.into_iter().collect());
    }
    for line in String::from_utf8_lossy(stderr).lines() {
        let Ok(object) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        match object["message_type"].as_str() {
            Some("exit_error") => {
                assert_all_known("exit-error", vec![object.clone()]);
                assert_listed(&object, &asked.command);
            }
            Some("summary") if asked.command == "guard" => assert_all_known("guard", vec![object]),
            None if object.get("timestamp").is_some() && object.get("level").is_some() => {
                assert_all_known("log-line", vec![object]);
            }
            _ => {}
        }
    }
}

/// Returns one document, or those of each line.
fn documents(text: &str) -> Vec<Value> {
    if let Ok(document) = serde_json::from_str(text) {
        return vec![document];
    }
    let read = |line: &str| {
        serde_json::from_str(line).unwrap_or_else(|error| {
            panic!("standard output carries JSON only under --json: {error}: {line}")
        })
    };
    text.lines().map(read).collect()
}

fn assert_all_known(schema: &str, values: Vec<Value>) {
    for value in values {
        if let Some(problem) = problem(schema, &value) {
            panic!("docs/src/schemas/{schema}.json does not fit this output: {problem}\n{value:#}");
        }
        assert_findings_listed(&value);
    }
}

/// Behind good work, and where a guard sees no way to restore, the code is another one and the id stays.
const BEHIND_GOOD_WORK: u64 = 3;
const REFUSED: u64 = 25;

/// Panics unless the book lists the id of a failure with its exit code.
fn assert_listed(exit_error: &Value, command: &str) {
    let (id, code) = (&exit_error["id"], &exit_error["code"]);
    let id = id.as_str().expect("an id is a text");
    let code = code.as_u64().expect("a code is a number");
    let listed = listed_ids().get(id);
    let is_said_above = code == BEHIND_GOOD_WORK || (command == "guard" && code == REFUSED);
    let is_listed =
        listed.is_some_and(|codes| codes.is_empty() || codes.contains(&code) || is_said_above);
    assert!(
        is_listed,
        "docs/src/scripting.md does not list the id `{id}` with exit code {code}"
    );
}

/// Returns the ids of failures of the book with their exit codes; none where it depends.
pub fn listed_ids() -> &'static BTreeMap<String, Vec<u64>> {
    static IDS: OnceLock<BTreeMap<String, Vec<u64>>> = OnceLock::new();
    IDS.get_or_init(|| table_of("## Ids"))
}

/// Returns the names in the first cells of the table under a heading, with the numbers in the second cells.
fn table_of(heading: &str) -> BTreeMap<String, Vec<u64>> {
    let page = folder().with_file_name("scripting.md");
    let text = fs::read_to_string(page).expect("the book has a page on scripting");
    let table = text.lines().skip_while(|line| *line != heading).skip(1);
    let rows = table
        .take_while(|line| !line.starts_with('#'))
        .filter(|line| line.starts_with("| `"));
    let mut ids = BTreeMap::new();
    for row in rows {
        let mut cells = row.split('|').skip(1);
        let names = cells.next().expect("a row has cells");
        let code = cells.next().expect("a row has a second cell");
        let codes: Vec<u64> = code
            .split(',')
            .filter_map(|code| code.trim().parse().ok())
            .collect();
        let ids_of_row = names.split('`').skip(1).step_by(2);
        ids.extend(ids_of_row.map(|name| (name.to_owned(), codes.clone())));
    }
    ids
}

/// Panics unless the book lists every finding and every check of a document.
fn assert_findings_listed(document: &Value) {
    static FINDINGS: OnceLock<BTreeMap<String, Vec<u64>>> = OnceLock::new();
    static CHECKS: OnceLock<BTreeMap<String, Vec<u64>>> = OnceLock::new();
    let Some(object) = document.as_object() else {
        return document
            .as_array()
            .into_iter()
            .flatten()
            .for_each(assert_findings_listed);
    };
    for (name, value) in object {
        let items = value.as_array().into_iter().flatten();
        let (listed, key) = match name.as_str() {
            "warnings" | "problems" => (FINDINGS.get_or_init(|| table_of("### Findings")), "id"),
            "checks" => (CHECKS.get_or_init(|| table_of("### Checks")), "check"),
            _ => {
                assert_findings_listed(value);
                continue;
            }
        };
        for id in items.filter_map(|item| item[key].as_str()) {
            // A failure may be the only thing that was found.
            let is_listed =
                listed.contains_key(id) || (key == "id" && listed_ids().contains_key(id));
            assert!(
                is_listed,
                "docs/src/scripting.md does not list `{id}`, which is in `{name}`"
            );
        }
    }
}
