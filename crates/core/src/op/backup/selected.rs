//! What a selection's names mean to `pg_dump` on this server: which do not exist, which it would pass over in silence,
//! which change nothing.
//!
//! `pg_dump` matches tables, views, materialized views, sequences and foreign tables by name, but never dumps what
//! belongs to an extension, except the rows of tables that the extension gave over to its users; and an identity's
//! sequence comes and goes with its table. Nothing here asks anybody: it compares names with facts.

use std::collections::{BTreeMap, HashSet};

use jiff::SignedDuration;

use crate::postgres::dump::Selection;
use crate::postgres::programs::Programs;
use crate::postgres::server::{OtherFacts, SequenceOwner, ServerFacts, TableFacts, TableKind};
use pgkeep_model::name::TableName;
use pgkeep_model::nearest::{nearest, nearest_table};
use pgkeep_model::words::count;

/// Most foreign keys that one remark names.
const MAX_KEYS: usize = 5;

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
    /// Returns the tables of which the dump lacks the rows of a partition or child; `with_rows` are those that it has rows of.
    pub(super) fn incomplete(&self, with_rows: &HashSet<TableName>) -> HashSet<TableName> {
        let parents: BTreeMap<(&str, &str), &[(String, String)]> = (self.facts.tables.iter())
            .map(|table| {
                (
                    (table.schema.as_str(), table.name.as_str()),
                    table.parents.as_slice(),
                )
            })
            .collect();
        let is_left_out = |table: &&TableFacts| {
            table.kind == TableKind::Table && !with_rows.contains(&table.table_name())
        };
        let mut incomplete = HashSet::new();
        let mut left: Vec<&(String, String)> = (self.facts.tables.iter())
            .filter(is_left_out)
            .flat_map(|table| &table.parents)
            .collect();
        while let Some((schema, name)) = left.pop() {
            if incomplete.insert(TableName::new(schema, name)) {
                let above = parents.get(&(schema.as_str(), name.as_str()));
                left.extend(above.into_iter().copied().flatten());
            }
        }
        incomplete
    }

    /// Returns the selection together with what it is about.
    pub(super) fn selected(&self) -> Selected<'_> {
        Selected {
            selection: &self.selection,
            facts: &self.facts,
        }
    }
}

/// A relation that `pg_dump` reads.
pub(crate) struct Read {
    pub(crate) name: TableName,
    pub(crate) kind: TableKind,
    /// The extension that it belongs to.
    pub(crate) extension: Option<String>,
    /// Whether its rows are read too.
    pub(crate) has_rows: bool,
    pub(crate) can_read: bool,
    /// Whether row-level security hides rows of it, which ends `pg_dump`.
    pub(crate) hides_rows: bool,
}

impl Read {
    /// Tells whether `pg_dump` reads it to its end.
    pub(crate) fn is_whole(&self) -> bool {
        self.can_read && !self.hides_rows
    }

    /// Tells whether it is a table, or a partitioned one.
    fn is_table(&self) -> bool {
        matches!(self.kind, TableKind::Table | TableKind::Partitioned)
    }

    /// Says its name for people, and whose it is.
    pub(crate) fn words(&self) -> String {
        match &self.extension {
            None => self.name.to_string(),
            Some(extension) => format!("{} (rows of the extension {extension})", self.name),
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
                    "`{name}` belongs to the extension `{extension}`, and a dump holds only its `CREATE EXTENSION`"
                ));
            }
            let owner = self.table(name)?.owner.as_ref()?;
            let owner_name = owner.table_name();
            let comes_along = self.chosen().is_chosen(&owner.schema, &owner.name);
            (owner.is_identity && !comes_along).then(|| {
                format!("`{name}` is the identity sequence of `{owner_name}`, and is dumped only with it")
            })
        };
        self.selection.tables.iter().filter_map(say).collect()
    }

    /// Says of a required table why no dump holds its CREATE TABLE, where that is an extension's doing.
    pub(crate) fn why_not_dumped(&self, name: &TableName) -> Option<String> {
        let extension = self.other(name)?.extension.as_ref()?;
        Some(format!(
            "it belongs to the extension `{extension}`, and a dump holds only its `CREATE EXTENSION`"
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
                Some(rows) => format!("about {}", count(rows, "row")),
                None => "an unknown number of rows".to_owned(),
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
                "only those rows of `{name}` are dumped that the extension `{extension}` leaves to its users; a \
                 restore needs the extension first"
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

    /// Says which foreign keys refer to what the dump leaves out: a restore of the whole ends there.
    pub(crate) fn dangling(&self) -> Vec<String> {
        let chosen = self.chosen();
        let mut found: BTreeMap<(&str, &str), (bool, Vec<String>)> = BTreeMap::new();
        for key in &self.facts.foreign_keys {
            let ((schema, table), to) = (key.table(), key.refers_to());
            let is_gone = !chosen.is_dumped(to.0, to.1);
            let lacks_rows =
                chosen.is_structure_only(to.0, to.1) && !chosen.is_structure_only(schema, table);
            if chosen.is_dumped(schema, table) && (is_gone || lacks_rows) {
                let entry = found.entry(to).or_insert((is_gone, Vec::new()));
                let of = TableName::new(schema, table);
                entry.1.push(format!("`{}` of `{of}`", key.name()));
            }
        }
        let say = |((schema, table), (is_gone, mut keys)): ((&str, &str), (bool, Vec<String>))| {
            let to = TableName::new(schema, table);
            let what = if is_gone { "is" } else { "has its rows" };
            let more = keys.len().saturating_sub(MAX_KEYS);
            keys.truncate(MAX_KEYS);
            keys.extend((more > 0).then(|| format!("{more} more")));
            format!(
                "`{to}` {what} left out, and foreign keys refer to it: {}; a restore of the whole dump fails at them, \
                 and only single tables can be restored (`restore --table`)",
                keys.join(", ")
            )
        };
        found.into_iter().map(say).collect()
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
        self.chosen().is_dumped(schema, name)
    }

    /// Looks up once what the names stand for, partitions and children included.
    fn chosen(&self) -> Chosen<'_> {
        let Selection {
            tables,
            exclude_tables,
            structure_only,
            ..
        } = self.selection;
        let with_children = |names: &[TableName]| {
            if names.is_empty() {
                HashSet::new()
            } else {
                let all = self.facts.with_children(names).into_iter();
                all.map(|name| (name.schema_or_public().to_owned(), name.name))
                    .collect()
            }
        };
        Chosen {
            selection: self.selection,
            tables: with_children(tables),
            exclude_tables: with_children(exclude_tables),
            structure_only: with_children(structure_only),
        }
    }

    /// Returns everything that `pg_dump` reads by this selection, as `getTables`, `getSequences` and
    /// `processExtensionTables` of its `pg_dump.c` choose: what it may not read whole ends it.
    ///
    /// A table without its rows is locked, which needs the same right.
    pub(crate) fn read(&self) -> Vec<Read> {
        let chosen = self.chosen();
        let tables = self.facts.tables.iter().filter_map(|table| {
            let is_dumped = chosen.is_dumped(&table.schema, &table.name);
            let comes_with = |owner: &SequenceOwner| chosen.is_dumped(&owner.schema, &owner.name);
            let has_rows = !chosen.is_structure_only(&table.schema, &table.name);
            let is_read = match table.kind {
                TableKind::Table | TableKind::Partitioned => is_dumped,
                TableKind::Sequence => is_dumped || table.owner.as_ref().is_some_and(comes_with),
                TableKind::Foreign | TableKind::MaterializedView | TableKind::View => false,
            };
            is_read.then(|| Read {
                name: table.table_name(),
                kind: table.kind,
                extension: None,
                has_rows,
                can_read: table.can_read,
                hides_rows: has_rows && table.row_security_applies,
            })
        });
        // Of an extension's own tables the rows that it leaves to its users are read, and nothing else.
        let left_to_users = self.facts.others.iter().filter(|other| {
            other.has_own_rows
                && matches!(other.kind, TableKind::Table | TableKind::Sequence)
                && chosen.is_dumped(&other.schema, &other.name)
                && !chosen.is_structure_only(&other.schema, &other.name)
        });
        let others = left_to_users.map(|other| Read {
            name: other.table_name(),
            kind: other.kind,
            extension: other.extension.clone(),
            has_rows: true,
            can_read: other.can_read,
            hides_rows: other.row_security_applies,
        });
        tables.chain(others).collect()
    }

    /// Returns the tables whose rows are in a dump of this selection, partitioned ones among them; not those that an
    /// extension leaves to its users, of which a dump has what the extension says.
    pub(crate) fn names_with_rows(&self) -> HashSet<TableName> {
        let read = self.read().into_iter();
        read.filter(|read| read.has_rows && read.is_table() && read.extension.is_none())
            .map(|read| read.name)
            .collect()
    }

    /// Returns the tables that `pg_dump` locks by this selection.
    pub(crate) fn locked(&self) -> Vec<TableName> {
        let read = self.read().into_iter().filter(Read::is_table);
        read.map(|read| read.name).collect()
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
            TableKind::View => Some("it is a view, which has no rows".to_owned()),
            TableKind::Foreign => Some("the rows of a foreign table are never dumped".to_owned()),
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

/// What the names of a selection stand for on this server.
struct Chosen<'a> {
    selection: &'a Selection,
    tables: HashSet<(String, String)>,
    exclude_tables: HashSet<(String, String)>,
    structure_only: HashSet<(String, String)>,
}

impl Chosen<'_> {
    fn is_dumped(&self, schema: &str, name: &str) -> bool {
        let mut left_out = self.selection.exclude_schemas.iter();
        self.is_chosen(schema, name)
            && !holds(&self.exclude_tables, schema, name)
            && !left_out.any(|other| other == schema)
    }

    /// Tells whether the rows of a dumped table are left out.
    fn is_structure_only(&self, schema: &str, name: &str) -> bool {
        holds(&self.structure_only, schema, name)
    }

    fn is_chosen(&self, schema: &str, name: &str) -> bool {
        let Selection {
            tables, schemas, ..
        } = self.selection;
        tables.is_empty() && schemas.is_empty()
            || holds(&self.tables, schema, name)
            || schemas.iter().any(|other| other == schema)
    }
}

fn holds(names: &HashSet<(String, String)>, schema: &str, name: &str) -> bool {
    !names.is_empty() && names.contains(&(schema.to_owned(), name.to_owned()))
}

fn of_extension(other: &OtherFacts) -> Option<String> {
    let extension = other.extension.as_ref().filter(|_| !other.has_own_rows)?;
    Some(format!(
        "it belongs to the extension `{extension}`, and a dump holds only its `CREATE EXTENSION`"
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
        let foreign_keys = json!([
            ["public", "orders", "orders_user", "public", "users"],
            ["public", "users", "users_far", "public", "far"]
        ]);
        ServerFacts {
            foreign_keys: serde_json::from_value(foreign_keys).unwrap(),
            tables: serde_json::from_value(tables).unwrap(),
            others: serde_json::from_value(others).unwrap(),
            schemas: vec!["public".into()],
            ..ServerFacts::default()
        }
    }

    fn names(names: &[&str]) -> Vec<TableName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn foreign_keys_into_what_is_left_out_are_told() {
        let facts = facts();
        let dangling = |selection: &Selection| {
            let selected = Selected {
                selection,
                facts: &facts,
            };
            selected.dangling()
        };
        let without = |exclude_tables: &[&str], structure_only: &[&str]| Selection {
            exclude_tables: names(exclude_tables),
            structure_only: names(structure_only),
            ..Selection::default()
        };
        assert_eq!(dangling(&Selection::default()), [""; 0]);
        let told = dangling(&without(&["users"], &[]));
        assert!(
            told[0].starts_with("`public.users` is left out") && told[0].contains("`orders_user`"),
            "{told:?}"
        );
        let told = dangling(&without(&[], &["users"]));
        assert!(told[0].contains("has its rows left out"), "{told:?}");
        // No rows refer to nothing, and what is not dumped has no keys.
        assert_eq!(dangling(&without(&[], &["users", "orders"])), [""; 0]);
        assert_eq!(dangling(&without(&["users", "orders"], &[])), [""; 0]);
    }

    /// What `pg_dump` stumbles over: rows that an extension leaves to its users too, and nothing that it does not read.
    #[test]
    fn rows_of_extensions_are_read_as_pg_dump_reads_them() {
        let facts = facts();
        let read = |selection: &Selection| -> Vec<String> {
            let selected = Selected {
                selection,
                facts: &facts,
            };
            let read = selected.read();
            read.iter().map(Read::words).collect()
        };
        let extension = "public.spatial_ref_sys (rows of the extension postgis)".to_owned();
        let all = read(&Selection::default());
        assert!(all.contains(&extension), "{all:?}");
        assert!(
            !all.iter()
                .any(|name| name.contains("topology") || name.contains("far")),
            "{all:?}"
        );
        let users = read(&Selection {
            tables: names(&["users"]),
            ..Selection::default()
        });
        assert_eq!(
            users,
            ["public.users", "public.users_id_seq", "public.users_no_seq"]
        );
        let without = read(&Selection {
            structure_only: names(&["spatial_ref_sys"]),
            ..Selection::default()
        });
        assert!(!without.contains(&extension), "{without:?}");
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
        assert!(
            told.contains("the identity sequence of `public.users`"),
            "{told}"
        );
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
