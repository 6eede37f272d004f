//! Says what a statement is about: the schema it works in, and what else decides whether a hosting platform has it
//! already.
//!
//! Names that decide here are ASCII in any encoding.

use super::grammar::{Action, Alter, Constraint, Rights, Said, Target, Thing};
use super::tokens::{Cursor, Kind, Path, Tokens};
use crate::name::TableName;
use crate::scan::judged::{About, What};

/// Tells whether a statement under way may be one that is about something: it is held until its end.
pub(super) fn may_be_about(tokens: &Tokens) -> bool {
    let first = Cursor::new(tokens).next_word();
    matches!(
        first,
        Some(b"create" | b"comment" | b"security" | b"select")
    )
}

/// Says it of a whole statement.
pub(super) fn about(said: &Said<'_>) -> Option<About> {
    Some(About {
        what: what(said)?,
        owner: match said {
            Said::Alter(alter) => alter.owner.map(text),
            _ => None,
        },
        object: object(said),
    })
}

fn what(said: &Said<'_>) -> Option<What> {
    match said {
        Said::CreateSchema { name, .. } => Some(What::Schema {
            name: text(name),
            is_made: true,
        }),
        Said::CreateTable(made) => Some(lies_in(&made.name)),
        Said::CreateIndex { table, .. } | Said::CreateRule { table, .. } => Some(lies_in(table)),
        Said::CreateTrigger { table, calls, .. } => Some(What::Trigger {
            schema: schema(table),
            routine: calls.as_ref().map(schema).unwrap_or_default(),
            on: whole(table),
            calls: calls.as_ref().map(whole).unwrap_or_default(),
        }),
        Said::CreatePolicy { .. } => Some(What::Policy),
        Said::CreateEventTrigger { name, calls } => Some(What::EventTrigger {
            name: text(name),
            routine: calls.as_ref().map(schema),
        }),
        Said::CreateStatistics { name, .. } => Some(lies_in(name)),
        Said::CreatePublication(name) => Some(What::Publication {
            name: text(name),
            is_about_tables: false,
        }),
        Said::Create(thing, name) => (*thing != Thing::Operators).then(|| lies_in(name)),
        Said::Alter(alter) => altered(alter),
        Said::DefaultPrivileges(privileges) => Some(What::DefaultPrivileges {
            role: privileges.role.map(text).unwrap_or_default(),
            schema: privileges.schema.map(text).unwrap_or_default(),
        }),
        Said::Comment(target) => described(target),
        Said::Rights(Rights { on, .. }) => match described(on.as_ref()?)? {
            What::Object { schema } | What::Schema { name: schema, .. } => {
                Some(What::Right { schema })
            }
            other => Some(other),
        },
        Said::Authorization { .. } => Some(What::Authorization),
        Said::Select {
            function: b"setval",
            arguments,
            ..
        } => match arguments.first() {
            Some((Kind::Literal, name)) => Some(What::SequenceValue {
                schema: text(name).parse::<TableName>().ok()?.schema?,
            }),
            _ => None,
        },
        Said::Refresh(view) => Some(lies_in(view)),
        _ => None,
    }
}

fn altered(alter: &Alter<'_>) -> Option<What> {
    let on = alter.on.as_ref()?;
    match (on, &alter.action) {
        (
            Target::Thing(Thing::Table, table),
            Action::AddConstraint {
                constraint: Constraint::ForeignKey(other),
                ..
            },
        ) => Some(What::ForeignKey {
            schema: schema(table),
            to: schema(other),
            is_only: alter.is_only,
        }),
        (Target::Publication(name), Action::Add(_)) => Some(What::Publication {
            name: text(name),
            is_about_tables: true,
        }),
        _ => described(on),
    }
}

/// Says what the target of a statement is.
fn described(target: &Target<'_>) -> Option<What> {
    Some(match target {
        Target::Schema(name) => What::Schema {
            name: text(name),
            is_made: false,
        },
        Target::Thing(Thing::Operators, _) => return None,
        Target::Thing(_, path) => lies_in(path),
        Target::Column(column) => What::Object {
            schema: column.table().as_ref().map(schema).unwrap_or_default(),
        },
        Target::Part { kind: "policy", .. } => What::Policy,
        Target::Part { table, .. } => lies_in(table),
        Target::Extension(_) => What::Extension,
        Target::EventTrigger(name) => What::EventTrigger {
            name: text(name),
            routine: None,
        },
        Target::Publication(name) => What::Publication {
            name: text(name),
            is_about_tables: false,
        },
    })
}

/// Names what a statement makes, as the facts about a target name what is there.
fn object(said: &Said<'_>) -> Option<String> {
    let part = |kind: &str, name: &[u8], table: &Path<'_>| {
        Some(format!("{kind} {} on {}", text(name), whole(table)))
    };
    match said {
        Said::CreateTable(made) => Some(format!("table {}", whole(&made.name))),
        Said::CreateIndex {
            name: Some(name),
            table,
            ..
        } => part("index", name, table),
        Said::CreateTrigger { name, table, .. } => part("trigger", name, table),
        Said::CreateRule { name, table, .. } => part("rule", name, table),
        Said::Create(thing, name) => {
            let kind = match thing {
                Thing::Function => "function",
                Thing::View => "view",
                Thing::Sequence => "sequence",
                Thing::Type => "type",
                _ => return None,
            };
            Some(format!("{kind} {}", whole(name)))
        }
        Said::Alter(Alter {
            on: Some(Target::Thing(Thing::Table, table)),
            action: Action::AddConstraint { name, .. },
            ..
        }) => part("constraint", name, table),
        Said::Rights(Rights {
            on: Some(on),
            to: Some(role),
            ..
        }) => {
            let on = match on {
                Target::Schema(name) => text(name),
                Target::Thing(_, path) => whole(path),
                _ => return None,
            };
            Some(format!("right of {} on {on}", text(role)))
        }
        _ => None,
    }
}

fn lies_in(path: &Path<'_>) -> What {
    What::Object {
        schema: schema(path),
    }
}

/// Returns the schema of a name; empty where none is written.
fn schema(path: &Path<'_>) -> String {
    path.schema().map(text).unwrap_or_default()
}

fn whole(path: &Path<'_>) -> String {
    let parts: Vec<_> = path.parts().iter().map(|part| text(part)).collect();
    parts.join(".")
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
