//! Says what an ended statement means for the scan: tables that are made, rows that follow, settings that change how
//! names are read.

use super::RowCount;
use super::grammar::{Action, Alter, CreateTable, Made, Said, Setting, Target, Thing};
use super::tokens::{Kind, Path};

/// A table's name as the statement wrote it: real bytes, unquoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scan) struct RawName<'a> {
    pub schema: Option<&'a [u8]>,
    pub name: &'a [u8],
}

/// What an ended statement means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::scan) enum Meaning<'a> {
    CreateTable {
        name: RawName<'a>,
        made: Made,
        /// What it is a partition of.
        parent: Option<RawName<'a>>,
    },
    DropTables(Vec<RawName<'a>>),
    AttachPartition {
        name: RawName<'a>,
        parent: RawName<'a>,
    },
    /// `CREATE RULE "_RETURN" … ON SELECT TO x`: what was made as a table is a view (dumps of 9.6 and before).
    BecomesView(RawName<'a>),
    CopyFromStdin {
        name: RawName<'a>,
        columns: Vec<&'a [u8]>,
        /// Whether every name is quoted, needed or not.
        is_all_quoted: bool,
    },
    Insert(RawName<'a>, u64),
    /// The schemas of `search_path`, in order.
    SearchPath(Vec<Vec<u8>>),
    StandardStrings(bool),
    ClientEncoding(&'a [u8]),
    /// Sequence values and large objects: data that is no table.
    OtherData {
        large_object: bool,
    },
    /// `SELECT setval('name', value, is_called)` as pg_dump writes it; the name is quoted as SQL wants it.
    SequenceValue {
        name: &'a [u8],
        value: i64,
        is_called: bool,
    },
    Extension(&'a [u8]),
    /// What follows is put into this tablespace.
    Tablespace(&'a [u8]),
    /// Owners and grantees.
    Roles(Vec<&'a [u8]>),
    /// Indexes, constraints, triggers: what pg_dump writes behind the data.
    PostData,
    Other,
}

impl<'a> From<Path<'a>> for RawName<'a> {
    fn from(path: Path<'a>) -> Self {
        Self {
            schema: path.schema(),
            name: path.name(),
        }
    }
}

/// Says what a whole statement means; `rows` are those of an INSERT.
pub(super) fn meaning(said: Said<'_>, rows: RowCount) -> Meaning<'_> {
    match said {
        Said::CreateTable(CreateTable {
            name, made, parent, ..
        }) => Meaning::CreateTable {
            name: name.into(),
            made,
            parent: parent.map(RawName::from),
        },
        Said::CreateRule {
            name: b"_RETURN",
            table,
            is_on_select: true,
        } => Meaning::BecomesView(table.into()),
        Said::CreateExtension(name) => Meaning::Extension(name),
        Said::CreatePolicy {
            roles: Some(roles), ..
        } => Meaning::Roles(roles),
        Said::CreatePolicy { .. }
        | Said::CreateRule { .. }
        | Said::CreateIndex { .. }
        | Said::CreateTrigger { .. }
        | Said::CreateEventTrigger { .. }
        | Said::CreatePublication(_)
        | Said::PostData => Meaning::PostData,
        Said::Alter(alter) => altered(alter),
        Said::DefaultPrivileges(privileges) => Meaning::Roles(privileges.roles),
        Said::DropTables(names) => {
            Meaning::DropTables(names.into_iter().map(RawName::from).collect())
        }
        Said::Rights(rights) => rights.roles.map_or(Meaning::Other, Meaning::Roles),
        Said::Copy(copy) => match copy.table {
            Some(table) if copy.is_from_stdin => Meaning::CopyFromStdin {
                name: table.into(),
                columns: copy.columns,
                is_all_quoted: copy.is_all_quoted,
            },
            _ => Meaning::Other,
        },
        Said::Insert(name) => match rows {
            RowCount::Counting(0) | RowCount::Done(0) => Meaning::Insert(name.into(), 1), // DEFAULT VALUES
            RowCount::Counting(rows) | RowCount::Done(rows) => Meaning::Insert(name.into(), rows),
            RowCount::BeforeValues => Meaning::Other, // INSERT … SELECT: nobody can tell
        },
        Said::Set(setting) => set(&setting).unwrap_or(Meaning::Other),
        Said::Select {
            function,
            arguments,
            is_call_alone,
        } => select(function, &arguments, is_call_alone).unwrap_or(Meaning::Other),
        _ => Meaning::Other,
    }
}

fn altered(alter: Alter<'_>) -> Meaning<'_> {
    match (alter.on, alter.action) {
        (Some(Target::Thing(Thing::Table, parent)), Action::AttachPartition(name)) => {
            Meaning::AttachPartition {
                name: name.into(),
                parent: parent.into(),
            }
        }
        (_, Action::AddConstraint { .. }) => Meaning::PostData,
        _ if alter.has_owner => Meaning::Roles(alter.owners),
        _ => Meaning::Other,
    }
}

fn set<'a>(setting: &Setting<'a>) -> Option<Meaning<'a>> {
    let value = || setting.values.first().map(|(_, value)| *value);
    match setting.name {
        b"search_path" if setting.is_assigned => Some(Meaning::SearchPath(path(setting))),
        b"standard_conforming_strings" => {
            let is_off = matches!(value()?, b"off" | b"false" | b"no" | b"0");
            Some(Meaning::StandardStrings(!is_off))
        }
        b"default_tablespace" => {
            super::judged::tablespace(setting)?;
            value().map(Meaning::Tablespace)
        }
        b"client_encoding" | b"names" => value().map(Meaning::ClientEncoding),
        _ => None,
    }
}

/// The schemas of a `SET search_path = a, "B", 'c'`.
fn path(setting: &Setting<'_>) -> Vec<Vec<u8>> {
    let is_name = |kind: Kind, text: &[u8]| {
        !matches!(kind, Kind::Number | Kind::Punct(_)) && !text.is_empty()
    };
    let names = setting
        .values
        .iter()
        .filter(|(kind, text)| is_name(*kind, text));
    names.map(|(_, text)| text.to_vec()).collect()
}

fn select<'a>(
    function: &[u8],
    arguments: &[(Kind, &'a [u8])],
    is_call_alone: bool,
) -> Option<Meaning<'a>> {
    let data = |large_object| Some(Meaning::OtherData { large_object });
    match function {
        b"set_config" => {
            let mut literals = arguments.iter().filter(|(kind, _)| *kind == Kind::Literal);
            let (_, name) = literals.next()?;
            let (_, value) = literals.next()?;
            (*name == b"search_path").then(|| Meaning::SearchPath(split_path(value)))
        }
        b"setval" => match sequence_value(arguments) {
            Some(value) if is_call_alone => Some(value),
            _ => data(false),
        },
        b"lo_create" | b"lo_creat" => data(true),
        b"lo_open" | b"lowrite" | b"lo_close" | b"loread" => data(false),
        _ => None,
    }
}

/// `('name', 7, true)`, or without its last part; an expression instead of a value is known to the server alone.
fn sequence_value<'a>(arguments: &[(Kind, &'a [u8])]) -> Option<Meaning<'a>> {
    let (name, rest) = match arguments {
        [(Kind::Literal, name), (Kind::Punct(b','), _), rest @ ..] => (*name, rest),
        _ => return None,
    };
    let (sign, rest) = match rest {
        [(Kind::Punct(b'-'), _), rest @ ..] => ("-", rest),
        rest => ("", rest),
    };
    let (number, is_called) = match rest {
        [(Kind::Number, number)] => (number, true),
        [
            (Kind::Number, number),
            (Kind::Punct(b','), _),
            (Kind::Word, word),
        ] => (number, *word == b"true"),
        _ => return None,
    };
    let value = format!("{sign}{}", std::str::from_utf8(number).ok()?);
    Some(Meaning::SequenceValue {
        name,
        value: value.parse().ok()?,
        is_called,
    })
}

/// Splits the text of a search path: `public, "My Schema"`.
fn split_path(text: &[u8]) -> Vec<Vec<u8>> {
    text.split(|&b| b == b',')
        .map(|part| part.trim_ascii())
        .filter(|part| !part.is_empty())
        .map(|part| {
            match part
                .strip_prefix(b"\"")
                .and_then(|part| part.strip_suffix(b"\""))
            {
                Some(quoted) => quoted.to_vec(),
                None => part.to_ascii_lowercase(),
            }
        })
        .collect()
}
