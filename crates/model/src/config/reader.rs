//! Typed values out of the tree, with every problem noted and none of them the end.
//!
//! A value that cannot be taken is noted once and then counts as not given. Messages show what stands in the
//! file, never what an environment variable or a secret file gave.

use std::ops::RangeInclusive;
use std::time::Duration;

use bytesize::ByteSize;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Span, SpanRelativeTo, civil};
use secrecy::SecretString;

use super::Problem;
use super::expand::{Env, expand, read_value_file};
use super::keys::{Key, Kind, Section};
use super::tree::{Entry, Node, Value};
use crate::name::{NameError, TableName, parse_schema};
use crate::nearest::{did_you_mean, nearest};

/// Longest piece of the file that a message shows.
const MAX_SHOWN: usize = 60;

/// Reads values and collects problems.
pub(super) struct Reader<'a> {
    env: &'a dyn Env,
    sections: &'a [&'static Section],
    problems: Vec<Problem>,
    /// Names of the storages that the file has, and then of its databases.
    pub storages: Vec<String>,
    pub databases: Vec<String>,
}

/// The known keys that one mapping gives, each once.
pub(super) struct Fields<'n> {
    section: &'static Section,
    /// Where the mapping stands, such as `databases.shop`; empty at the top.
    pub path: String,
    pub line: u64,
    given: Vec<(&'static Key, &'n Entry)>,
}

/// One given key.
pub(super) struct Field<'n> {
    /// What it may hold.
    pub key: &'static Key,
    /// The key as written: a known one, or a free name.
    pub name: &'n str,
    pub path: String,
    pub line: u64,
    pub node: &'n Node,
}

impl<'n> Fields<'n> {
    /// Finds a given key.
    pub fn find(&self, name: &str) -> Option<Field<'n>> {
        debug_assert!(
            self.section.key(name).is_some(),
            "`{name}` is in the table of keys"
        );
        let (key, entry) = self.given.iter().find(|(key, _)| key.name == name)?;
        Some(Field {
            key,
            name: &entry.key,
            path: join(&self.path, name),
            line: entry.line,
            node: &entry.node,
        })
    }

    /// Tells whether a key is given, well or badly.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Tells whether a key is given, itself or by a file.
    pub fn has_or_file(&self, name: &str) -> bool {
        self.find_or_file(name).is_some()
    }

    /// Finds a secret that is given, itself or by a file.
    pub fn find_or_file(&self, name: &str) -> Option<Field<'n>> {
        let is_given = |key: &Key| {
            key.name == name
                || key
                    .name
                    .strip_suffix("_file")
                    .is_some_and(|key| key == name)
        };
        let (key, _) = self.given.iter().find(|(key, _)| is_given(key))?;
        self.find(key.name)
    }

    /// Returns what a key takes.
    pub fn kind_of(&self, name: &str) -> Kind {
        self.section.key(name).map_or(Kind::Text, |key| key.kind)
    }

    /// Returns the line of a given key, else the line of the mapping.
    pub fn line_of(&self, name: &str) -> u64 {
        self.find(name).map_or(self.line, |field| field.line)
    }
}

impl<'a> Reader<'a> {
    /// Starts without problems.
    pub fn new(env: &'a dyn Env, sections: &'a [&'static Section]) -> Self {
        Self {
            env,
            sections,
            problems: Vec::new(),
            storages: Vec::new(),
            databases: Vec::new(),
        }
    }

    /// Returns all problems in the order of their lines, the same one once.
    pub fn finish(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| problem.line);
        // What an alias repeats is noted again under the same words at times.
        let mut seen = std::collections::HashSet::new();
        self.problems
            .retain(|problem| seen.insert((problem.line, problem.message.clone())));
        self.problems
    }

    /// Notes a problem.
    pub fn note(&mut self, line: u64, message: impl Into<String>) {
        let message = message.into();
        self.problems.push(Problem { line, message });
    }

    /// Opens a mapping as a section: notes unknown keys and keys written twice. A null is an empty mapping.
    pub fn open<'n>(
        &mut self,
        node: &'n Node,
        line: u64,
        path: &str,
        section: &'static Section,
    ) -> Option<Fields<'n>> {
        let entries = self.entries(node, line, path)?;
        let mut given = Vec::new();
        for entry in entries {
            match section.key(&entry.key) {
                Some(key) => given.push((key, entry)),
                None => self.note_unknown(entry, path, section),
            }
        }
        Some(Fields {
            section,
            path: path.to_owned(),
            line,
            given,
        })
    }

    /// Opens a mapping: notes keys written twice and returns the first of each.
    pub fn entries<'n>(&mut self, node: &'n Node, line: u64, path: &str) -> Option<Vec<&'n Entry>> {
        let entries = match &node.value {
            Value::Map(entries) => entries.as_slice(),
            Value::Null => &[],
            Value::Text(_) | Value::List(_) => {
                let what = if path.is_empty() {
                    "the file".to_owned()
                } else {
                    format!("`{path}`")
                };
                self.note(
                    line,
                    format!("{what} must hold keys, not {}", kind_of(node)),
                );
                return None;
            }
        };
        let mut first: std::collections::HashMap<&str, u64> = std::collections::HashMap::new();
        let mut kept = Vec::new();
        for entry in entries {
            match first.get(entry.key.as_str()) {
                Some(at) => {
                    let path = join(path, &entry.key);
                    self.note(
                        entry.line,
                        format!("`{path}` is given twice, first in line {at}"),
                    );
                }
                None => {
                    first.insert(&entry.key, entry.line);
                    kept.push(entry);
                }
            }
        }
        Some(kept)
    }

    /// Finds the section that has a key of exactly this name, where there is only one.
    fn home_of(&self, name: &str) -> Option<&'static Section> {
        let has = |section: &Section| section.key(name).is_some();
        // A drill's section lies in a database's, whose keys are the better known.
        let is_of_database = self.sections.iter().any(|s| s.name == "database" && has(s));
        let is_home =
            |section: &&&Section| has(section) && !(section.name == "drill" && is_of_database);
        let mut homes = self.sections.iter().filter(is_home);
        match (homes.next(), homes.next()) {
            (Some(home), None) => Some(*home),
            _ => None,
        }
    }

    fn note_unknown(&mut self, entry: &Entry, path: &str, section: &'static Section) {
        let full = join(path, &entry.key);
        let near = nearest(&entry.key, section.keys.iter().map(|key| key.name));
        let advice = match (near, self.home_of(&entry.key)) {
            (Some(near), _) => format!("; did you mean `{near}`?"),
            (None, Some(home)) => format!("; it belongs {}", home.place),
            (None, None) => String::new(),
        };
        self.note(entry.line, format!("`{full}` is not a known key{advice}"));
    }

    /// Opens the section that a key holds.
    pub fn open_key<'n>(&mut self, fields: &Fields<'n>, name: &str) -> Option<Fields<'n>> {
        let field = fields.find(name)?;
        let (Kind::Section(section) | Kind::SectionOrChoice(section, _)) = field.key.kind else {
            unreachable!("`{name}` holds a section in the table of keys")
        };
        self.open(field.node, field.line, &field.path, section)
    }

    /// Notes the required keys of a section that are not given.
    pub fn note_missing(&mut self, fields: &Fields) {
        for key in fields.section.keys {
            if key.is_required && !fields.has_or_file(key.name) {
                let path = join(&fields.path, key.name);
                self.note(fields.line, format!("`{path}` is missing"));
            }
        }
    }

    /// Reads a list of names out of those of the file, each once.
    pub fn names(&mut self, fields: &Fields, name: &str) -> Option<Vec<String>> {
        let field = fields.find(name)?;
        let (known, what) = match field.key.kind {
            Kind::Storages => (self.storages.clone(), "storage"),
            _ => (self.databases.clone(), "database"),
        };
        if what == "storage" {
            self.note_empty(&field, "names no storage");
        }
        let check = |name: &str| {
            // Where the storages themselves are missing, that is the problem, and not each name.
            if known.is_empty() || known.iter().any(|known| known == name) {
                return Ok(name.to_owned());
            }
            let advice = did_you_mean(name, known.iter().map(String::as_str));
            Err(format!("is not a {what} of this file{advice}"))
        };
        let named = self.list(&field, |reader, item| {
            let name = reader.value(item, item.line, &field.path, false, check)?;
            Some((name, item.line))
        })?;
        let mut names: Vec<String> = Vec::new();
        for (name, line) in named {
            if what == "storage" && names.contains(&name) {
                let message = format!("`{}` names `{}` twice", field.path, shown(&name));
                self.note(line, message);
            } else {
                names.push(name);
            }
        }
        Some(names)
    }

    /// Reads a program and its arguments; `form` tells what they look like.
    pub fn command(
        &mut self,
        fields: &Fields,
        name: &str,
        form: &str,
    ) -> Option<Vec<SecretString>> {
        let field = fields.find(name)?;
        match &field.node.value {
            Value::List(items) if !items.is_empty() => {
                let texts = self.texts(&field)?;
                Some(texts.into_iter().map(SecretString::from).collect())
            }
            _ => {
                let message = format!(
                    "`{}` must be a list of {form}; no shell reads it",
                    field.path
                );
                self.note(field.line, message);
                None
            }
        }
    }

    /// Notes a list that is there and empty.
    pub fn note_empty(&mut self, field: &Field, message: &str) {
        if matches!(&field.node.value, Value::List(items) if items.is_empty()) {
            self.note(field.line, format!("`{}` {message}", field.path));
        }
    }

    /// Reads text on one line.
    pub fn text(&mut self, fields: &Fields, name: &str) -> Option<String> {
        let field = fields.find(name)?;
        self.value(field.node, field.line, &field.path, false, |text| {
            check_text(text).map(str::to_owned)
        })
    }

    /// Reads the secret `name`, given itself or as the file `<name>_file`, not both.
    ///
    /// `check` tells what is wrong with the secret without showing it.
    pub fn secret(
        &mut self,
        fields: &Fields,
        name: &str,
        check: impl Fn(&str) -> Result<(), &'static str>,
    ) -> Option<SecretString> {
        let file = format!("{name}_file");
        if fields.has(name) && fields.has(&file) {
            let path = join(&fields.path, &file);
            self.note(
                fields.line_of(&file),
                format!("`{path}` cannot stand beside `{name}`"),
            );
            return None;
        }
        let checked = |text: &str| {
            check_text(text)?;
            check(text)?;
            Ok(SecretString::from(text.to_owned()))
        };
        if fields.has(&file) {
            let env = self.env;
            return self.scalar(fields, &file, |_, text| {
                let value = read_value_file(text, env)
                    .map_err(|why| format!("does not give a value: {why}"))?;
                checked(&value).map_err(|why: String| format!("names a file whose value {why}"))
            });
        }
        self.scalar(fields, name, |_, text| checked(text))
    }

    /// Reads a list of names of tables.
    pub fn tables(&mut self, fields: &Fields, name: &str) -> Option<Vec<TableName>> {
        let field = fields.find(name)?;
        self.list(&field, |reader, item| {
            reader.table(item, item.line, &field.path)
        })
    }

    /// Reads a list of names of schemas.
    pub fn schemas(&mut self, fields: &Fields, name: &str) -> Option<Vec<String>> {
        let field = fields.find(name)?;
        self.list(&field, |reader, item| {
            reader.value(item, item.line, &field.path, false, |text| {
                parse_name(text, parse_schema)
            })
        })
    }

    /// Reads the name of one table.
    pub fn table(&mut self, node: &Node, line: u64, path: &str) -> Option<TableName> {
        self.value(node, line, path, false, |text| parse_name(text, str::parse))
    }

    /// Reads a list whose every item is text.
    pub fn texts(&mut self, field: &Field) -> Option<Vec<String>> {
        self.list(field, |reader, item| {
            reader.value(item, item.line, &field.path, false, |text| {
                check_text(text).map(str::to_owned)
            })
        })
    }

    /// Reads each item of a list; a single value is a list of one. Items that fail are left out.
    pub fn list<T>(
        &mut self,
        field: &Field,
        read: impl Fn(&mut Self, &Node) -> Option<T>,
    ) -> Option<Vec<T>> {
        match &field.node.value {
            Value::List(items) => Some(items.iter().filter_map(|item| read(self, item)).collect()),
            Value::Null => {
                self.note(field.line, format!("`{}` has no value", field.path));
                None
            }
            Value::Text(_) | Value::Map(_) => read(self, field.node).map(|item| vec![item]),
        }
    }

    /// Reads the scalar of a key.
    pub fn scalar<T>(
        &mut self,
        fields: &Fields,
        name: &str,
        parse: impl FnOnce(&'static Key, &str) -> Result<T, String>,
    ) -> Option<T> {
        let field = fields.find(name)?;
        let kind = field.key.kind;
        let is_secret = matches!(kind, Kind::Secret | Kind::ConnectionUrl | Kind::SecretUrl);
        if matches!(kind, Kind::StorageUrl | Kind::Endpoint) {
            // An address may hold a password; it is not shown for what is wrong with it.
            let text = self.text(fields, name)?;
            let parsed = parse(field.key, &text);
            return parsed
                .map_err(|why| self.note(field.line, format!("`{}` {why}", field.path)))
                .ok();
        }
        self.value(field.node, field.line, &field.path, is_secret, |text| {
            parse(field.key, text)
        })
    }

    /// Reads one scalar. `parse` tells what the value must be, in words that go behind its path.
    pub fn value<T>(
        &mut self,
        node: &Node,
        line: u64,
        path: &str,
        is_secret: bool,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let written = match &node.value {
            Value::Text(written) => written,
            Value::Null => {
                self.note(line, format!("`{path}` has no value"));
                return None;
            }
            Value::List(_) | Value::Map(_) => {
                self.note(
                    line,
                    format!("`{path}` must be a single value, not {}", kind_of(node)),
                );
                return None;
            }
        };
        let text = match expand(written, self.env) {
            Ok(text) => text,
            Err(messages) => {
                messages
                    .into_iter()
                    .for_each(|message| self.note(line, message));
                return None;
            }
        };
        if text.is_empty() {
            self.note(line, format!("`{path}` is empty"));
            return None;
        }
        let what = if is_secret {
            format!("`{path}`")
        } else {
            format!("`{path}: {}`", shown(written))
        };
        parse(&text)
            .map_err(|why| self.note(line, format!("{what} {why}")))
            .ok()
    }
}

/// Puts a key behind the path of its mapping.
pub(super) fn join(path: &str, key: &str) -> String {
    let key = shown(key);
    if path.is_empty() {
        key
    } else {
        format!("{path}.{key}")
    }
}

/// Makes a piece of the file fit for a message: short, on one line, and without what may be a password in a URL.
pub(super) fn shown(text: &str) -> String {
    if let Some((scheme, _)) = text.split_once("://") {
        return format!("{}://...", shown(scheme));
    }
    let mut short: String = text.chars().take(MAX_SHOWN).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    short
        .chars()
        .map(|c| if c.is_control() || c == '`' { ' ' } else { c })
        .collect()
}

/// Writes choices as `a`, `b` or `c`.
fn one_of(choices: &[&str]) -> String {
    let quoted: Vec<String> = choices.iter().map(|choice| format!("`{choice}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

fn kind_of(node: &Node) -> &'static str {
    match node.value {
        Value::Null => "nothing",
        Value::Text(_) => "a single value",
        Value::List(_) => "a list",
        Value::Map(_) => "keys",
    }
}

/// Refuses what no host, path, password or program can hold.
pub(super) fn check_text(text: &str) -> Result<&str, String> {
    if text.contains(['\0', '\n', '\r']) {
        return Err("must be on one line".into());
    }
    Ok(text)
}

pub(super) fn parse_flag(text: &str) -> Result<bool, String> {
    match text {
        "true" | "True" | "TRUE" => Ok(true),
        "false" | "False" | "FALSE" => Ok(false),
        _ => Err("must be `true` or `false`".into()),
    }
}

pub(super) fn parse_count<T: TryFrom<u64>>(text: &str, kind: Kind) -> Result<T, String> {
    let (Kind::Count(min, max) | Kind::CountOrSpan(min, max)) = kind else {
        unreachable!("a count is asked for where the table of keys has one")
    };
    let is_plain = text.bytes().all(|b| b.is_ascii_digit());
    let number = text
        .parse::<u64>()
        .ok()
        .filter(|n| is_plain && (min..=max).contains(n));
    number
        .and_then(|n| T::try_from(n).ok())
        .ok_or_else(|| match max {
            u64::MAX => format!("must be a whole number from {min} on"),
            _ => format!("must be a whole number from {min} to {max}"),
        })
}

pub(super) fn parse_size(text: &str, kind: Kind) -> Result<u64, String> {
    let Kind::Size(min, max) = kind else {
        unreachable!("a size is asked for where the table of keys has one")
    };
    let size = text.parse::<ByteSize>().map(|size| size.as_u64()).ok();
    size.filter(|size| (min..=max).contains(size))
        .ok_or_else(|| {
            format!(
                "must be a size from {} to {}, such as `16MiB`",
                ByteSize(min),
                ByteSize(max)
            )
        })
}

/// Finds one of several choices by its name.
pub(super) fn choose<T: Copy>(
    text: &str,
    choices: &[T],
    name: impl Fn(T) -> &'static str,
) -> Result<T, String> {
    let found = choices.iter().copied().find(|choice| name(*choice) == text);
    let names = || {
        choices
            .iter()
            .map(|choice| name(*choice))
            .collect::<Vec<_>>()
    };
    found.ok_or_else(|| format!("must be {}", one_of(&names())))
}

/// Reads a length of time such as `90s`, `26h` or `2d` within limits; a day has 24 hours.
///
/// The error tells what is wrong, to stand behind a name for the text.
pub fn parse_duration(text: &str, limits: &RangeInclusive<Duration>) -> Result<Duration, String> {
    let wrong = || "must be a length of time such as `90s`, `10m`, `26h` or `30d`".to_owned();
    let span: Span = text.parse().map_err(|_| wrong())?;
    let signed = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| wrong())?;
    // A negative one is below any limit.
    let duration = Duration::try_from(signed).ok();
    duration
        .filter(|duration| limits.contains(duration))
        .ok_or_else(|| {
            format!(
                "must lie between {} and {}",
                show_duration(*limits.start()),
                show_duration(*limits.end())
            )
        })
}

/// Reads a length of time, or `0` or `off` for none.
pub fn parse_duration_or_off(
    text: &str,
    limits: &RangeInclusive<Duration>,
) -> Result<Option<Duration>, String> {
    match text {
        "0" | "off" => Ok(None),
        _ => parse_duration(text, limits).map(Some),
    }
}

pub(super) fn limits_of(kind: Kind) -> RangeInclusive<Duration> {
    let (Kind::Duration(min, max) | Kind::DurationOrOff(min, max)) = kind else {
        unreachable!("a duration is asked for where the table of keys has one")
    };
    Duration::from_secs(min)..=Duration::from_secs(max)
}

/// Reads a length of time on the calendar: positive and at most 1000 years.
///
/// The error tells what is wrong, to stand behind a name for the text.
pub fn parse_span(text: &str) -> Result<Span, String> {
    let wrong =
        || "must be a length of time such as `36h`, `30d`, `4 weeks` or `1 year`".to_owned();
    let span: Span = text.parse().map_err(|_| wrong())?;
    // Any date serves to tell the length; one longer than the calendar cannot be told.
    let length = span
        .to_duration(civil::date(2000, 1, 1))
        .map_err(|_| wrong())?;
    let days = length.as_hours() / 24;
    if length.is_positive() && days <= 366_000 {
        Ok(span)
    } else {
        Err("must be positive and at most 1000 years".into())
    }
}

/// Reads the name of a time zone.
///
/// Looked up in the zones built into the program: those of the machine would make the model read files, and an
/// image made from scratch has none. The error tells what is wrong, to stand behind a name for the text.
pub fn parse_timezone(text: &str) -> Result<TimeZone, String> {
    let zone = TimeZoneDatabase::bundled().get(text).ok();
    // Only a zone with a name can be written down again.
    zone.filter(|zone| zone.iana_name().is_some())
        .ok_or_else(|| "must be an IANA name such as `Europe/Berlin`".into())
}

/// Writes a duration as the config takes it.
pub(super) fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds, duration.subsec_nanos()) {
        (1.., 0) if seconds.is_multiple_of(86_400) => format!("{}d", seconds / 86_400),
        (1.., 0) if seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        (1.., 0) if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        (_, 0) => format!("{seconds}s"),
        (_, nanos) => format!("{seconds}s {nanos}ns"),
    }
}

/// Reads a name, and refuses a pattern: it would be the name of a table that is not there.
fn parse_name<T>(text: &str, parse: impl Fn(&str) -> Result<T, NameError>) -> Result<T, String> {
    if text.contains(['*', '?']) && !text.contains('"') {
        return Err(
            "must be an exact name, not a pattern; a real `*` or `?` goes in double quotes".into(),
        );
    }
    check_text(text)?;
    // The error's own words hold the text, which may come from the environment.
    parse(text).map_err(|error| match error {
        NameError::Empty(_) => "must be a name without empty parts".into(),
        NameError::Quote(_) => "must be a name with balanced double quotes".into(),
        NameError::Parts(_) => {
            "must have fewer parts; a name with a dot in it goes in double quotes".into()
        }
        NameError::Nul(_) => "must be a name without NUL".into(),
    })
}
