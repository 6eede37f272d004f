//! Typed values out of the tree, with every problem noted and none of them the end.
//!
//! A value that cannot be taken is noted once and then counts as not given. Messages show what stands in the
//! file, never what an environment variable or a secret file gave.

use std::collections::HashMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytesize::ByteSize;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Span, civil};
use secrecy::SecretString;

use super::expand::{Env, expand, read_placed_file};
use super::keys::{Key, Kind, Section};
use super::tree::{Entry, Node, Value};
use super::{Problem, Unset};
pub use crate::durations::parse_duration;
pub(super) use crate::durations::show_duration;
use crate::name::{NameError, TableName, parse_schema};
use crate::nearest::{did_you_mean, nearest};

/// Longest piece of the file that a message shows.
const MAX_SHOWN: usize = 60;

/// Reads values and collects problems.
pub(super) struct Reader<'a> {
    env: &'a dyn Env,
    sections: &'a [&'static Section],
    /// Keys that say where a server is, or how to log in.
    server_keys: &'static [Key],
    problems: Vec<Problem>,
    /// Values that are not there, which only whoever connects to a server needs.
    unset: Unset,
    /// Names of the storages that the file has, and then of its databases.
    pub storages: Vec<String>,
    pub databases: Vec<String>,
}

/// The known keys that one mapping gives, each once.
pub(super) struct Fields<'n> {
    section: &'static Section,
    /// Where the mapping stands.
    pub here: Field<'n>,
    given: Vec<Field<'n>>,
}

/// One given key, or one item of its list.
#[derive(Clone)]
pub(super) struct Field<'n> {
    /// What it may hold.
    pub key: &'static Key,
    /// The key as written: a known one, or a free name.
    pub name: &'n str,
    /// Where it stands, such as `databases.shop`; empty at the top.
    pub path: String,
    pub line: u64,
    pub node: &'n Node,
}

impl<'n> Field<'n> {
    /// The whole file, which `key` stands for.
    pub fn root(key: &'static Key, node: &'n Node) -> Self {
        Self {
            key,
            name: "",
            path: String::new(),
            line: node.line,
            node,
        }
    }

    fn item(&self, node: &'n Node) -> Self {
        Self {
            line: node.line,
            node,
            ..self.clone()
        }
    }

    fn entry(&self, entry: &'n Entry) -> Self {
        Self {
            key: self.key,
            name: &entry.key,
            path: join(&self.path, &entry.key),
            line: entry.line,
            node: &entry.node,
        }
    }
}

impl<'n> Fields<'n> {
    /// Finds a given key.
    pub fn find(&self, name: &str) -> Option<&Field<'n>> {
        debug_assert!(
            self.section.key(name).is_some(),
            "`{name}` is in the table of keys"
        );
        self.given.iter().find(|field| field.key.name == name)
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
    pub fn find_or_file(&self, name: &str) -> Option<&Field<'n>> {
        let is_given = |field: &&Field| {
            let given = field.key.name;
            given == name || given.strip_suffix("_file") == Some(name)
        };
        self.given.iter().find(is_given)
    }

    /// Returns what a key takes.
    pub fn kind_of(&self, name: &str) -> Kind {
        self.section.key(name).map_or(Kind::Text, |key| key.kind)
    }

    fn find_file(&self, name: &str) -> Option<&Field<'n>> {
        let is_file = |field: &&Field| field.key.name.strip_suffix("_file") == Some(name);
        self.given.iter().find(is_file)
    }

    fn path_of(&self, name: &str) -> String {
        join(&self.here.path, name)
    }
}

impl<'a> Reader<'a> {
    /// Starts without problems.
    pub fn new(
        env: &'a dyn Env,
        sections: &'a [&'static Section],
        server_keys: &'static [Key],
    ) -> Self {
        Self {
            env,
            sections,
            server_keys,
            problems: Vec::new(),
            unset: Unset::default(),
            storages: Vec::new(),
            databases: Vec::new(),
        }
    }

    /// Returns all problems in the order of their lines, the same one once; beside them what only servers need.
    pub fn finish(self) -> (Vec<Problem>, Unset) {
        let Unset { servers, drills } = self.unset;
        let unset = Unset {
            servers: in_order(servers),
            drills: in_order(drills),
        };
        (in_order(self.problems), unset)
    }

    /// Notes that a value is not there.
    fn note_unset(&mut self, field: &Field, message: String) {
        let problem = Problem {
            line: field.line,
            message,
        };
        match self.place_of_server(&field.path) {
            Some(Place::Database) => self.unset.servers.push(problem),
            Some(Place::Drill) => self.unset.drills.push(problem),
            None => self.problems.push(problem),
        }
    }

    /// Tells whether a key says where a server is, or how to log in.
    fn place_of_server(&self, path: &str) -> Option<Place> {
        let parts: Vec<&str> = path.split('.').collect();
        let in_section = match parts.as_slice() {
            ["databases", _, rest @ ..] | ["defaults", rest @ ..] => rest,
            _ => return None,
        };
        let is_of_connection = |key: &str| {
            let key = key.strip_suffix("_file").unwrap_or(key);
            self.server_keys.iter().any(|known| known.name == key)
        };
        match in_section {
            [key] if is_of_connection(key) => Some(Place::Database),
            ["drill", "url" | "url_file"] => Some(Place::Drill),
            _ => None,
        }
    }

    /// Notes a problem.
    pub fn note(&mut self, line: u64, message: impl Into<String>) {
        let message = message.into();
        self.problems.push(Problem { line, message });
    }

    /// Notes what is wrong with a value, in words that go behind its path.
    pub fn refuse(&mut self, field: &Field, why: impl Display) {
        self.note(field.line, format!("`{}` {why}", field.path));
    }

    /// The same of a key that may have been left out: its mapping then has the line.
    pub fn refuse_key(&mut self, fields: &Fields, name: &str, why: impl Display) {
        let line = fields.find(name).unwrap_or(&fields.here).line;
        self.note(line, format!("`{}` {why}", fields.path_of(name)));
    }

    /// Notes a key that must be given.
    pub fn note_missing(&mut self, fields: &Fields, name: &str) {
        let message = format!("`{}` is missing", fields.path_of(name));
        self.note(fields.here.line, message);
    }

    /// Opens a mapping as the section that its key holds: notes unknown keys and keys written twice. A null is an empty
    /// mapping.
    pub fn open<'n>(&mut self, field: &Field<'n>) -> Option<Fields<'n>> {
        let Some(section) = field.key.kind.section() else {
            unreachable!("`{}` holds a section in the table of keys", field.key.name)
        };
        let mut given = Vec::new();
        for entry in self.entries(field)? {
            match section.key(entry.name) {
                Some(key) => given.push(Field { key, ..entry }),
                None => self.note_unknown(&entry, section),
            }
        }
        Some(Fields {
            section,
            here: field.clone(),
            given,
        })
    }

    /// Opens a mapping: notes keys written twice and returns the first of each.
    pub fn entries<'n>(&mut self, field: &Field<'n>) -> Option<Vec<Field<'n>>> {
        let entries = match &field.node.value {
            Value::Map(entries) => entries.as_slice(),
            Value::Null => &[],
            Value::Text(_) | Value::List(_) => {
                let wrong = format!("must hold keys, not {}", kind_of(field.node));
                if field.path.is_empty() {
                    self.note(field.line, format!("the file {wrong}"));
                } else {
                    self.refuse(field, wrong);
                }
                return None;
            }
        };
        let mut first: HashMap<&str, u64> = HashMap::new();
        let mut kept = Vec::new();
        for entry in entries.iter().map(|entry| field.entry(entry)) {
            match first.get(entry.name) {
                Some(at) => self.refuse(&entry, format!("is given twice, first in line {at}")),
                None => {
                    first.insert(entry.name, entry.line);
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

    fn note_unknown(&mut self, entry: &Field, section: &'static Section) {
        if section.name == "encryption" && entry.name.starts_with("pass") {
            let why = "is refused for backups: a passphrase would lie on every host that makes them, and whoever takes \
                       such a host could read them all; a host with `recipients` can write them and read none";
            return self.refuse(entry, why);
        }
        let near = nearest(entry.name, section.keys.iter().map(|key| key.name));
        let advice = match (near, self.home_of(entry.name)) {
            (Some(near), _) => format!("; did you mean `{near}`?"),
            (None, Some(home)) => format!("; it belongs {}", home.place),
            (None, None) => String::new(),
        };
        self.refuse(entry, format!("is not a known key{advice}"));
    }

    /// Notes the required keys of a section that are not given.
    pub fn note_all_missing(&mut self, fields: &Fields) {
        for key in fields.section.keys {
            if key.is_required && !fields.has_or_file(key.name) {
                self.note_missing(fields, key.name);
            }
        }
    }

    /// Reads a list of names out of those of the file, each once.
    pub fn names(&mut self, field: &Field) -> Option<Vec<String>> {
        let (known, what) = match field.key.kind {
            Kind::Storages => (self.storages.clone(), "storage"),
            _ => (self.databases.clone(), "database"),
        };
        if what == "storage" {
            self.refuse_empty(field, "names no storage");
        }
        let check = |name: &str| {
            // Where the storages themselves are missing, that is the problem, and not each name.
            if known.is_empty() || known.iter().any(|known| known == name) {
                return Ok(name.to_owned());
            }
            let advice = did_you_mean(name, known.iter().map(String::as_str));
            Err(format!("is not a {what} of this file{advice}"))
        };
        let named = self.list(field, |reader, item| {
            let name = reader.value(item, check)?;
            Some((name, item.clone()))
        })?;
        let mut names: Vec<String> = Vec::new();
        for (name, item) in named {
            if what == "storage" && names.contains(&name) {
                self.refuse(&item, format!("names `{}` twice", shown(&name)));
            } else {
                names.push(name);
            }
        }
        Some(names)
    }

    /// Reads a program and its arguments; `form` tells what they look like.
    pub fn command(&mut self, field: &Field, form: &str) -> Option<Vec<SecretString>> {
        if !matches!(&field.node.value, Value::List(items) if !items.is_empty()) {
            self.refuse(
                field,
                format!("must be a list of {form}; no shell reads it"),
            );
            return None;
        }
        let texts = self.list(field, Self::text)?;
        Some(texts.into_iter().map(SecretString::from).collect())
    }

    /// Notes a list that is there and empty.
    pub fn refuse_empty(&mut self, field: &Field, why: &str) {
        if matches!(&field.node.value, Value::List(items) if items.is_empty()) {
            self.refuse(field, why);
        }
    }

    /// Reads text on one line.
    pub fn text(&mut self, field: &Field) -> Option<String> {
        self.value(field, |text| check_text(text).map(str::to_owned))
    }

    /// Reads the name of a table.
    pub fn table(&mut self, field: &Field) -> Option<TableName> {
        self.value(field, |text| parse_name(text, str::parse))
    }

    /// Reads the name of a schema.
    pub fn schema(&mut self, field: &Field) -> Option<String> {
        self.value(field, |text| parse_name(text, parse_schema))
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
        let checked = |text: &str| {
            check_text(text)?;
            check(text)?;
            Ok(SecretString::from(text.to_owned()))
        };
        let env = self.env;
        match (fields.find(name), fields.find_file(name)) {
            (Some(_), Some(file)) => {
                self.refuse(file, format!("cannot be combined with `{name}`"));
                None
            }
            (None, Some(file)) => self.value(file, |text| {
                let value = read_placed_file(text, env)
                    .map_err(|why| format!("does not give a value: {why}"))?;
                checked(&value).map_err(|why: String| format!("names a file whose value {why}"))
            }),
            (given, None) => self.value(given?, checked),
        }
    }

    /// Reads each item of a list; a single value is a list of one. Items that fail are left out.
    pub fn list<'n, T>(
        &mut self,
        field: &Field<'n>,
        read: impl Fn(&mut Self, &Field<'n>) -> Option<T>,
    ) -> Option<Vec<T>> {
        match &field.node.value {
            Value::List(items) => {
                let items = items.iter().map(|item| field.item(item));
                Some(items.filter_map(|item| read(self, &item)).collect())
            }
            Value::Null => {
                self.refuse(field, "has no value");
                None
            }
            Value::Text(_) | Value::Map(_) => {
                read(self, &field.item(field.node)).map(|item| vec![item])
            }
        }
    }

    /// Reads one scalar. `parse` tells what the value must be, in words that go behind its path.
    pub fn value<T>(
        &mut self,
        field: &Field,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let written = match &field.node.value {
            Value::Text(written) => written,
            Value::Null => {
                self.refuse(field, "has no value");
                return None;
            }
            Value::List(_) | Value::Map(_) => {
                let kind = kind_of(field.node);
                self.refuse(field, format!("must be a single value, not {kind}"));
                return None;
            }
        };
        let text = match expand(written, self.env) {
            Ok(text) => text,
            Err(messages) => {
                messages
                    .into_iter()
                    .for_each(|message| self.note_unset(field, message));
                return None;
            }
        };
        if text.is_empty() {
            self.note_unset(field, format!("`{}` is empty", field.path));
            return None;
        }
        let path = &field.path;
        let what = if field.key.kind.is_secret() {
            format!("`{path}`")
        } else {
            format!("`{path}: {}`", shown(written))
        };
        let note = |why| {
            let message = format!("{what} {why}");
            // The value of a file is not there where the file is not, or gives none.
            if path.ends_with("_file") {
                self.note_unset(field, message);
            } else {
                self.note(field.line, message);
            }
        };
        parse(&text).map_err(note).ok()
    }

    /// Reads the scalar of a key.
    pub fn scalar<T>(
        &mut self,
        field: &Field,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        if !matches!(field.key.kind, Kind::StorageUrl | Kind::Endpoint) {
            return self.value(field, parse);
        }
        // An address may hold a password; it is not shown for what is wrong with it.
        let text = self.text(field)?;
        parse(&text).map_err(|why| self.refuse(field, why)).ok()
    }
}

/// Which server a key is about.
enum Place {
    Database,
    Drill,
}

fn in_order(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by_key(|problem| problem.line);
    // What an alias repeats is noted again under the same words at times.
    let mut seen = std::collections::HashSet::new();
    problems.retain(|problem| seen.insert((problem.line, problem.message.clone())));
    problems
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

/// Reads a name, and refuses a pattern: it would be the name of a table that is not there.
fn parse_name<T>(text: &str, parse: impl Fn(&str) -> Result<T, NameError>) -> Result<T, String> {
    if text.contains(['*', '?']) && !text.contains('"') {
        return Err(
            "must be an exact name, not a pattern; a real `*` or `?` goes in double quotes".into(),
        );
    }
    check_text(text)?;
    parse(text).map_err(name_error)
}

/// Says what is wrong with a name. The error's own words hold the text, which may come from the environment.
pub(super) fn name_error(error: NameError) -> String {
    let wrong = match error {
        NameError::Empty(_) => "must be a name without empty parts",
        NameError::Quote(_) => "must be a name with balanced double quotes",
        NameError::Parts(_) => {
            "must have fewer parts; a name with a dot in it goes in double quotes"
        }
        NameError::Nul(_) => "must be a name without NUL",
    };
    wrong.to_owned()
}
