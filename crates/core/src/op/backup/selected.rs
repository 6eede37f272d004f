//! What a selection's names mean to `pg_dump` on this server: which do not exist, which it would pass over in silence,
//! which change nothing.
//!
//! `pg_dump` matches tables, views, materialized views, sequences and foreign tables by name, but never dumps what
//! belongs to an extension, except the rows of tables that the extension gave over to its users; and an identity's
//! sequence comes and goes with its table. Nothing here asks anybody: it compares names with facts.

use jiff::SignedDuration;

use crate::postgres::dump::Selection;
use crate::postgres::programs::Programs;
use crate::postgres::server::{OtherFacts, ServerFacts, TableFacts, TableKind};
use pgkeep_model::name::TableName;
use pgkeep_model::nearest::{nearest, nearest_table};

/// What the server said, and the programs that fit it.
pub(super) struct Source {
    pub programs: Programs,
    pub facts: ServerFacts,
    /// What is dumped: what was asked for, and what a preset leaves out.
    pub selection: Selection,
    /// How far the server's clock is ahead of ours.
    pub clock_ahead: Option<SignedDuration>,
}

impl Source {
    /// Returns the selection together with what it is about.
    pub(super) fn selected(&self) -> Selected<'_> {
        Selected {
            selection: &self.selection,
            facts: &self.facts,
        }
    }
}

/// A selection and the facts that it is about.
pub(crate) struct Selected<'a> {
    pub(crate) selection: &'a Selection,
    pub(crate) facts: &'a ServerFacts,
}

impl Selected<'_> {
    /// Says which names do not exist, each with the nearest that does.
    pub(crate) fn missing(&self) -> Vec<String> {
        let Selection {
            tables,
            exclude_tables,
            structure_only,
            schemas,
            exclude_schemas,
        } = self.selection;
        let tables = [tables, exclude_tables, structure_only]
            .into_iter()
            .flatten()
            .filter(|name| self.table(name).is_none() && self.other(name).is_none())
            .map(|name| does_not_exist("table", &name.to_string(), self.near_table(name)));
        let known = || self.facts.schemas.iter().map(String::as_str);
        let schemas = [schemas, exclude_schemas]
            .into_iter()
            .flatten()
            .filter(|name| !self.facts.schemas.contains(name))
            .map(|name| {
                let near = nearest(name, known()).map(str::to_owned);
                does_not_exist("schema", name, near)
            });
        tables.chain(schemas).collect()
    }

    /// Says which selected names `pg_dump` takes and then dumps nothing of: each would be a silent gap.
    pub(crate) fn not_dumped(&self) -> Vec<String> {
        let say = |name: &TableName| {
            if let Some(other) = self.other(name) {
                let extension = other.extension.as_ref().filter(|_| !other.has_own_rows)?;
                return Some(format!(
                    "`{name}` belongs to the extension `{extension}`, of which a dump holds `CREATE EXTENSION` only"
                ));
            }
            let owner = self.table(name)?.owner.as_ref()?;
            let owner_name = owner.table_name();
            let comes_along = self.is_chosen(&owner.schema, &owner.name);
            (owner.is_identity && !comes_along).then(|| {
                format!("`{name}` is the identity of `{owner_name}`, and is dumped only with it")
            })
        };
        self.selection.tables.iter().filter_map(say).collect()
    }

    /// Says of a required table why no dump holds its CREATE TABLE, where that is an extension's doing.
    pub(crate) fn why_not_dumped(&self, name: &TableName) -> Option<String> {
        let extension = self.other(name)?.extension.as_ref()?;
        Some(format!(
            "it belongs to the extension `{extension}`, of which a dump holds `CREATE EXTENSION` only"
        ))
    }

    /// Says which tables in scope have rows that `pg_dump` passes over in silence, because they belong to an extension
    /// that does not leave them to its users: what `CREATE EXTENSION` does not bring is in no dump. Unlogged ones are
    /// made to be lost.
    pub(crate) fn lost_rows(&self) -> Vec<String> {
        let lost = |other: &OtherFacts| {
            let extension = other.extension.as_ref()?;
            let is_lost = other.holds_rows
                && !other.has_own_rows
                && self.is_dumped(&other.schema, &other.name);
            let rows = match other.estimated_rows {
                Some(rows) => format!("about {rows} rows"),
                None => "rows that nobody has counted".to_owned(),
            };
            let name = TableName::new(&other.schema, &other.name);
            is_lost.then(|| format!("`{name}` of the extension `{extension}`, {rows}"))
        };
        self.facts.others.iter().filter_map(lost).collect()
    }

    /// Says which names change nothing, or less than they seem to; leaving them in does no harm.
    pub(crate) fn remarks(&self) -> Vec<String> {
        let Selection {
            tables,
            exclude_tables,
            structure_only,
            ..
        } = self.selection;
        let chosen = tables.iter().filter_map(|name| {
            let extension = self.other(name)?.extension.as_ref()?;
            Some(format!(
                "of `{name}` only the rows are dumped that the extension `{extension}` leaves to its users; a restore \
                 needs the extension first"
            ))
        });
        let left_out = exclude_tables.iter().filter_map(|name| {
            let why = self.comes_anyway(name)?;
            Some(format!("leaving out `{name}` changes nothing: {why}"))
        });
        let without_rows = structure_only.iter().filter_map(|name| {
            let why = self.has_no_rows(name)?;
            Some(format!(
                "leaving out the rows of `{name}` changes nothing: {why}"
            ))
        });
        chosen.chain(left_out).chain(without_rows).collect()
    }

    /// Tells whether a dump of this selection holds a table at all: one of views or sequences alone does not.
    pub(crate) fn holds_tables(&self) -> bool {
        let Selection {
            tables, schemas, ..
        } = self.selection;
        let is_table = |name: &TableName| self.table(name).is_some_and(TableFacts::is_table);
        tables.is_empty() || !schemas.is_empty() || tables.iter().any(is_table)
    }

    /// Tells whether the selection takes a table in, and leaves it in.
    pub(crate) fn is_dumped(&self, schema: &str, name: &str) -> bool {
        let Selection {
            exclude_tables,
            exclude_schemas,
            ..
        } = self.selection;
        self.is_chosen(schema, name)
            && !self.holds(exclude_tables, schema, name)
            && !exclude_schemas.iter().any(|other| other == schema)
    }

    /// Tells whether the rows of a dumped table are left out.
    pub(crate) fn is_structure_only(&self, schema: &str, name: &str) -> bool {
        self.holds(&self.selection.structure_only, schema, name)
    }

    fn is_chosen(&self, schema: &str, name: &str) -> bool {
        let Selection {
            tables, schemas, ..
        } = self.selection;
        tables.is_empty() && schemas.is_empty()
            || self.holds(tables, schema, name)
            || schemas.iter().any(|other| other == schema)
    }

    fn holds(&self, names: &[TableName], schema: &str, name: &str) -> bool {
        self.facts
            .with_children(names)
            .iter()
            .any(|found| found.schema_or_public() == schema && found.name == name)
    }

    fn comes_anyway(&self, name: &TableName) -> Option<String> {
        if let Some(other) = self.other(name) {
            return of_extension(other);
        }
        let owner = self.table(name)?.owner.as_ref()?;
        self.is_dumped(&owner.schema, &owner.name).then(|| {
            format!(
                "it is a sequence of `{}`, and comes with it",
                owner.table_name()
            )
        })
    }

    fn has_no_rows(&self, name: &TableName) -> Option<String> {
        let kind = match (self.other(name), self.table(name)) {
            (Some(other), _) if other.extension.is_some() => return of_extension(other),
            (Some(other), _) => other.kind,
            (None, table) => table?.kind,
        };
        match kind {
            TableKind::View => Some("it is a view, which has none".to_owned()),
            TableKind::Foreign => Some("a foreign table's are never dumped".to_owned()),
            _ => None,
        }
    }

    fn table(&self, name: &TableName) -> Option<&TableFacts> {
        let is_it = |table: &&TableFacts| {
            table.name == name.name && table.schema == name.schema_or_public()
        };
        self.facts.tables.iter().find(is_it)
    }

    fn other(&self, name: &TableName) -> Option<&OtherFacts> {
        let is_it = |other: &&OtherFacts| {
            other.name == name.name && other.schema == name.schema_or_public()
        };
        self.facts.others.iter().find(is_it)
    }

    /// The schema is not compared letter by letter: its length would hide that two short names have nothing in common.
    fn near_table(&self, name: &TableName) -> Option<String> {
        let tables = self
            .facts
            .tables
            .iter()
            .map(|table| (table.schema.as_str(), table.name.as_str()));
        let others = self.facts.others.iter();
        let known = tables.chain(others.map(|other| (other.schema.as_str(), other.name.as_str())));
        nearest_table(name, known).map(|near| near.to_string())
    }
}

fn of_extension(other: &OtherFacts) -> Option<String> {
    let extension = other.extension.as_ref().filter(|_| !other.has_own_rows)?;
    Some(format!(
        "it belongs to the extension `{extension}`, of which a dump holds `CREATE EXTENSION` only"
    ))
}

fn does_not_exist(what: &str, name: &str, near: Option<String>) -> String {
    let near = near.map(|near| format!("; did you mean `{near}`?"));
    format!("{what} `{name}` does not exist{}", near.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn facts() -> ServerFacts {
        let table = |name: &str, kind: &str, owner: Value| {
            json!({
                "schema": "public", "name": name, "kind": kind, "is_unlogged": false, "estimated_rows": null,
                "estimated_bytes": 0, "row_security": false, "row_security_forced": false,
                "row_security_applies": false, "can_read": true, "parents": [], "owner": owner,
            })
        };
        let owner = |is_identity| json!({ "schema": "public", "name": "users", "is_identity": is_identity });
        let tables = json!([
            table("users", "r", Value::Null),
            table("far", "f", Value::Null),
            table("counted", "m", Value::Null),
            table("users_id_seq", "S", owner(true)),
            table("users_no_seq", "S", owner(false)),
            table("free_seq", "S", Value::Null),
        ]);
        let other = |name: &str, kind: &str, extension: Value, has_own_rows| json!({ "schema": "public", "name": name, "kind": kind, "extension": extension, "has_own_rows": has_own_rows });
        let others = json!([
            other("shown", "v", Value::Null, false),
            other("spatial_ref_sys", "r", json!("postgis"), true),
            other("topology", "r", json!("postgis"), false),
            other("geometry_columns", "v", json!("postgis"), false),
        ]);
        ServerFacts {
            tables: serde_json::from_value(tables).unwrap(),
            others: serde_json::from_value(others).unwrap(),
            schemas: vec!["public".into()],
            ..ServerFacts::default()
        }
    }

    fn names(names: &[&str]) -> Vec<TableName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    /// Missing names, names that are not dumped, and remarks.
    fn check(selection: &Selection) -> [Vec<String>; 3] {
        let facts = facts();
        let selected = Selected {
            selection,
            facts: &facts,
        };
        [
            selected.missing(),
            selected.not_dumped(),
            selected.remarks(),
        ]
    }

    #[test]
    fn what_pg_dump_can_name_is_known() {
        let all = names(&["users", "far", "counted", "free_seq", "shown"]);
        for selection in [
            Selection {
                tables: all.clone(),
                ..Selection::default()
            },
            Selection {
                exclude_tables: all,
                ..Selection::default()
            },
        ] {
            assert_eq!(check(&selection), [vec![], vec![], Vec::<String>::new()]);
        }
        let [missing, ..] = check(&Selection {
            tables: names(&["user", "x"]),
            exclude_tables: names(&["SHOW", "\"Shown\""]),
            schemas: vec!["publik".into()],
            ..Selection::default()
        });
        assert_eq!(
            missing,
            [
                "table `user` does not exist; did you mean `public.users`?",
                "table `x` does not exist",
                "table `show` does not exist; did you mean `public.shown`?",
                "table `\"Shown\"` does not exist; did you mean `public.shown`?",
                "schema `publik` does not exist; did you mean `public`?",
            ]
        );
    }

    #[test]
    fn a_silent_gap_is_told() {
        let gaps = |selected: &[&str]| {
            let [missing, not_dumped, _] = check(&Selection {
                tables: names(selected),
                ..Selection::default()
            });
            assert_eq!(missing, Vec::<String>::new());
            not_dumped.join("; ")
        };
        let told = gaps(&["users", "topology", "geometry_columns"]);
        assert!(
            told.contains("`topology` belongs to the extension `postgis`"),
            "{told}"
        );
        assert!(told.contains("`geometry_columns` belongs"), "{told}");
        let told = gaps(&["users_id_seq"]);
        assert!(told.contains("the identity of `public.users`"), "{told}");
        for dumped in [
            &["users_id_seq", "users"][..],
            &["users_no_seq"],
            &["spatial_ref_sys"],
        ] {
            assert_eq!(gaps(dumped), "", "{dumped:?}");
        }
    }

    #[test]
    fn what_changes_nothing_is_told() {
        let [_, _, remarks] = check(&Selection {
            exclude_tables: names(&["topology", "spatial_ref_sys", "users_id_seq", "shown"]),
            structure_only: names(&["users", "shown", "far", "geometry_columns", "counted"]),
            ..Selection::default()
        });
        let about = |name: &str| {
            let start = format!("`{name}` changes nothing");
            remarks
                .iter()
                .filter(|remark| remark.contains(&start))
                .count()
        };
        let told = [
            "topology",
            "users_id_seq",
            "shown",
            "far",
            "geometry_columns",
        ];
        assert_eq!(told.map(about), [1; 5], "{remarks:?}");
        assert_eq!(remarks.len(), 5, "{remarks:?}");
        let [_, _, remarks] = check(&Selection {
            exclude_tables: names(&["users", "users_id_seq"]),
            ..Selection::default()
        });
        assert_eq!(remarks, Vec::<String>::new(), "both are left out");
        let [_, _, remarks] = check(&Selection {
            tables: names(&["spatial_ref_sys"]),
            ..Selection::default()
        });
        assert!(
            remarks[0].contains("needs the extension first"),
            "{remarks:?}"
        );
    }

    #[test]
    fn a_dump_of_views_and_sequences_holds_no_table() {
        let facts = facts();
        let holds = |selected: &[&str], schemas: &[&str]| {
            let selection = &Selection {
                tables: names(selected),
                schemas: schemas.iter().map(|&schema| schema.to_owned()).collect(),
                ..Selection::default()
            };
            let facts = &facts;
            Selected { selection, facts }.holds_tables()
        };
        assert!(holds(&[], &[]));
        assert!(holds(&["shown", "users"], &[]));
        assert!(holds(&["shown"], &["public"]));
        assert!(!holds(&["shown", "free_seq", "counted"], &[]));
    }
}
