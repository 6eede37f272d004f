//! Says what a statement works on: the session, a table's indexes, two tables and the key between them.

use super::grammar::{Action, Alter, Constraint, Said, Setting, Target, Thing};
use super::meaning::RawName;
use crate::name::TableName;
use crate::scan::listed::Work;

/// Says it of a whole statement. What is not known for sure is [`Work::Other`].
pub(super) fn work(said: &Said<'_>, table: &dyn Fn(RawName<'_>) -> TableName) -> Work {
    match said {
        Said::Authorization { is_reset: false } => {
            Work::Setting("session authorization".to_owned())
        }
        Said::Set(setting) => setting.lasting().map_or(Work::Other, Work::Setting),
        // The one call of it that pg_dump writes.
        Said::Select {
            function: b"set_config",
            ..
        } => Work::Setting("search_path".to_owned()),
        Said::CreateIndex {
            table: on,
            is_only,
            is_concurrent: false,
            ..
        } => Work::Index {
            table: table((*on).into()),
            is_only: *is_only,
        },
        Said::Alter(alter) => constraint(alter, table).unwrap_or(Work::Other),
        _ => Work::Other,
    }
}

impl Setting<'_> {
    /// Returns its name; none where it ends with its transaction.
    pub(crate) fn lasting(&self) -> Option<String> {
        let is_lasting = !self.is_local && !matches!(self.name, b"constraints" | b"transaction");
        is_lasting.then(|| String::from_utf8_lossy(self.name).into_owned())
    }
}

fn constraint(alter: &Alter<'_>, table: &dyn Fn(RawName<'_>) -> TableName) -> Option<Work> {
    let (on, constraint) = match (&alter.on, &alter.action) {
        (
            Some(Target::Thing(Thing::Table, on)),
            Action::AddConstraint {
                constraint,
                is_alone: true,
                ..
            },
        ) => (table((*on).into()), constraint),
        _ => return None,
    };
    match constraint {
        Constraint::Indexed => Some(Work::Index {
            table: on,
            is_only: alter.is_only,
        }),
        Constraint::ForeignKey(other) => Some(Work::ForeignKey {
            table: on,
            other: table((*other).into()),
        }),
        Constraint::Other => None,
    }
}
