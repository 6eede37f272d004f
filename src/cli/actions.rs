//! GitHub Actions: commands for its runner, the summary and the outputs of a step.
//!
//! Whatever comes from outside is written so that the runner cannot take it for a command, nor the page for markup.
//! The grammar is the runner's own: <https://github.com/actions/runner/blob/main/src/Runner.Common/ActionCommand.cs>.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Longest table of a summary: the runner drops a summary beyond a megabyte as a whole.
const MAX_ROWS: usize = 500;

/// The files that a step writes for its runner.
#[derive(Debug, Default)]
pub(super) struct Actions {
    summary: Option<PathBuf>,
    output: Option<PathBuf>,
}

impl Actions {
    /// Looks whether a runner reads along; none where it does not.
    pub(super) fn find(variable: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        let is_there = variable("GITHUB_ACTIONS").is_some_and(|value| value == "true");
        let file = |name| {
            variable(name)
                .filter(|path| !path.is_empty())
                .map(PathBuf::from)
        };
        is_there.then(|| Self {
            summary: file("GITHUB_STEP_SUMMARY"),
            output: file("GITHUB_OUTPUT"),
        })
    }

    /// Adds a table to the page of the run.
    pub(super) fn summarize(&self, table: &Table) -> io::Result<()> {
        append(self.summary.as_deref(), &table.markdown())
    }

    /// Sets outputs of the step.
    pub(super) fn set_outputs(&self, outputs: &[(&str, String)]) -> io::Result<()> {
        let text: String = outputs
            .iter()
            .map(|(name, value)| assignment(name, value))
            .collect();
        append(self.output.as_deref(), &text)
    }
}

fn append(path: Option<&Path>, text: &str) -> io::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    file.write_all(text.as_bytes())
}

/// Renders a command of the runner.
pub(super) fn command(name: &str, properties: &[(&str, &str)], data: &str) -> String {
    let escaped = |text: &str| {
        text.replace('%', "%25")
            .replace('\r', "%0D")
            .replace('\n', "%0A")
    };
    let properties: Vec<String> = properties
        .iter()
        .map(|(name, value)| {
            format!(
                "{name}={}",
                escaped(value).replace(':', "%3A").replace(',', "%2C")
            )
        })
        .collect();
    let space = if properties.is_empty() { "" } else { " " };
    format!("::{name}{space}{}::{}", properties.join(","), escaped(data))
}

/// Takes away what makes a line a command: `::` at its beginning, and the older `##[` anywhere in it.
pub(super) fn shielded(text: &str) -> String {
    let line = |line: &str| {
        let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
        let rest = match rest.strip_prefix("::") {
            Some(rest) => format!(": :{rest}"),
            None => rest.to_owned(),
        };
        format!("{indent}{rest}").replace("##[", "## [")
    };
    // A runner ends a line at each of the three.
    let lines = text.split_inclusive(['\n', '\r']);
    lines.map(line).collect()
}

/// The same for JSON, which never begins a line with a colon: the second `#` is written by its number.
pub(super) fn shielded_json(text: &str) -> String {
    text.replace("##[", "#\\u0023[")
}

/// Renders an output: on one line, or between two marks that do not stand in the value.
fn assignment(name: &str, value: &str) -> String {
    if !value.contains(['\n', '\r']) {
        return format!("{name}={value}\n");
    }
    let mut mark = "PGKEEP_END".to_owned();
    while value.contains(&mark) {
        mark.push('_');
    }
    format!("{name}<<{mark}\n{value}\n{mark}\n")
}

/// A table of a summary.
pub(super) struct Table {
    title: String,
    headers: &'static [&'static str],
    rows: Vec<Vec<Cell>>,
}

/// One cell of a table.
pub(super) enum Cell {
    /// Our own words.
    Words(String),
    /// Text from outside, such as a name from a server.
    Foreign(String),
}

impl Table {
    /// Starts a table below a title of our own words.
    pub(super) fn new(title: &str, headers: &'static [&'static str]) -> Self {
        Self {
            title: title.to_owned(),
            headers,
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub(super) fn add(&mut self, row: impl Into<Vec<Cell>>) {
        self.rows.push(row.into());
    }

    fn markdown(&self) -> String {
        let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut text = format!("\n### {}\n\n", self.title);
        text += &row(self
            .headers
            .iter()
            .map(|&header| header.to_owned())
            .collect());
        text += &row(self.headers.iter().map(|_| "---".to_owned()).collect());
        for cells in self.rows.iter().take(MAX_ROWS) {
            text += &row(cells.iter().map(Cell::markdown).collect());
        }
        if let Some(left) = self
            .rows
            .len()
            .checked_sub(MAX_ROWS)
            .filter(|left| *left > 0)
        {
            text += &format!("\n{left} more are not shown.\n");
        }
        text + "\n"
    }
}

impl Cell {
    fn markdown(&self) -> String {
        match self {
            Self::Words(text) => text.clone(),
            Self::Foreign(text) if text.is_empty() => String::new(),
            Self::Foreign(text) => format!("<code>{}</code>", literal(text)),
        }
    }
}

/// Writes text so that neither Markdown nor HTML finds anything in it: all but letters and digits as numbers.
fn literal(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            c if c.is_alphanumeric() || matches!(c, ' ' | '-') => out.push(c),
            c if c.is_control() => out.push(' '),
            c => out += &format!("&#{};", u32::from(c)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Name, properties, data.
    type Read = (String, Vec<(String, String)>, String);

    /// Reads a line as the runner does.
    fn read(line: &str) -> Option<Read> {
        let rest = line.trim_start().strip_prefix("::")?;
        let (info, data) = rest.split_once("::")?;
        let (name, properties) = info.split_once(' ').unwrap_or((info, ""));
        let whole = |text: &str| {
            text.replace("%0D", "\r")
                .replace("%0A", "\n")
                .replace("%25", "%")
        };
        let property = |text: &str| {
            let (name, value) = text.split_once('=')?;
            let value = value
                .replace("%0D", "\r")
                .replace("%0A", "\n")
                .replace("%3A", ":");
            Some((
                name.to_owned(),
                value.replace("%2C", ",").replace("%25", "%"),
            ))
        };
        let properties = properties.split(',').filter_map(property).collect();
        Some((name.to_owned(), properties, whole(data)))
    }

    #[test]
    fn a_command_is_one_line_and_reads_back() {
        let line = command("error", &[("title", "a: b, 100%")], "one\r\ntwo: 5%\n::x::");
        assert_eq!(
            line,
            "::error title=a%3A b%2C 100%25::one%0D%0Atwo: 5%25%0A::x::"
        );
        let title = ("title".to_owned(), "a: b, 100%".to_owned());
        assert_eq!(
            read(&line),
            Some(("error".into(), vec![title], "one\r\ntwo: 5%\n::x::".into()))
        );
        assert_eq!(command("add-mask", &[], "pw"), "::add-mask::pw");
    }

    #[test]
    fn nothing_from_outside_is_a_command() {
        assert_eq!(
            shielded("a::b\n  ::error::x\n::stop-commands::y\r::z"),
            "a::b\n  : :error::x\n: :stop-commands::y\r: :z"
        );
        assert_eq!(shielded("see ##[error]x\n"), "see ## [error]x\n");
        let json = shielded_json("{\"a\":\"##[error]\"}");
        assert_eq!(json, "{\"a\":\"#\\u0023[error]\"}");
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["a"], "##[error]");
    }

    #[test]
    fn an_output_of_several_lines_stands_between_marks() {
        assert_eq!(assignment("id", "a=b"), "id=a=b\n");
        assert_eq!(
            assignment("id", "a\nb"),
            "id<<PGKEEP_END\na\nb\nPGKEEP_END\n"
        );
        assert_eq!(
            assignment("id", "PGKEEP_END\n"),
            "id<<PGKEEP_END_\nPGKEEP_END\n\nPGKEEP_END_\n"
        );
    }

    #[test]
    fn a_table_shows_foreign_names_as_they_are() {
        let mut table = Table::new("pgkeep", &["database", "size"]);
        table.add([
            Cell::Foreign("a|b\n<img>`@x`".into()),
            Cell::Words("1 MiB".into()),
        ]);
        assert_eq!(
            table.markdown(),
            "\n### pgkeep\n\n| database | size |\n| --- | --- |\n\
             | <code>a&#124;b &#60;img&#62;&#96;&#64;x&#96;</code> | 1 MiB |\n\n"
        );
        for _ in 0..MAX_ROWS + 2 {
            table.add([Cell::Words("x".into()), Cell::Words(String::new())]);
        }
        assert!(table.markdown().ends_with("\n3 more are not shown.\n\n"));
    }

    #[test]
    fn a_runner_is_found_by_its_own_variable() {
        let with = |value: &'static str| {
            Actions::find(move |name| match name {
                "GITHUB_ACTIONS" => Some(value.into()),
                "GITHUB_OUTPUT" => Some("/out".into()),
                _ => Some(OsString::new()),
            })
        };
        let found = with("true").unwrap();
        assert_eq!(
            (found.output.as_deref(), found.summary),
            (Some(Path::new("/out")), None)
        );
        assert!(with("false").is_none() && with("").is_none());
    }

    proptest! {
        #[test]
        fn any_text_survives_a_command(title in "[^\\x00]{0,30}", data in "[^\\x00]{0,60}") {
            let line = command("warning", &[("title", &title)], &data);
            prop_assert!(!line.contains(['\n', '\r']));
            let (name, properties, read_data) = read(&line).unwrap();
            prop_assert_eq!(name, "warning");
            prop_assert_eq!(read_data, data);
            prop_assert_eq!(properties.first().map(|(_, value)| value.trim_end().to_owned()), Some(title.trim_end().to_owned()));
        }

        #[test]
        fn no_text_is_a_command_once_it_is_shielded(text in "(::|##\\[|error|\\n|\\r|\\t| |x){0,20}") {
            let told = shielded(&text);
            for line in told.split(['\n', '\r']) {
                prop_assert!(read(line).is_none() && !line.contains("##["), "{}", line);
            }
        }

        #[test]
        fn no_text_leaves_its_cell(text in "[\\x00-\\x7f]{0,40}") {
            let shown = literal(&text);
            prop_assert!(!shown.contains(['|', '<', '>', '`', '*', '_', '[', '\n', '\r', '@']), "{}", shown);
        }
    }
}
