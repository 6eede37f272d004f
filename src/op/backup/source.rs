//! The first part of an attempt: which programs fit the server, what it holds, and whether the selection makes sense.

use super::Request;
use super::attempt::{Attempt, SAFE};
use crate::failure::{Failure, Kind, Result};
use crate::model::config::Preset;
use crate::model::name::TableName;
use crate::model::nearest::nearest;
use crate::model::scan::{Finding, Scanner};
use crate::model::supabase;
use crate::postgres::dump::Selection;
use crate::postgres::globals::Globals;
use crate::postgres::programs::Programs;
use crate::postgres::server::{ServerFacts, TableFacts, TableKind};

/// What the server said, and the programs that fit it.
pub(super) struct Source {
    pub programs: Programs,
    pub facts: ServerFacts,
    /// What is dumped: what was asked for, and what a preset leaves out.
    pub selection: Selection,
}

impl Attempt<'_> {
    pub(super) async fn connect(&self) -> Result<Source> {
        let Request {
            search,
            environment,
            connection,
            ..
        } = self.request;
        let found = search.find(environment, self.stop()).await;
        let newest = found.newest().map_err(|error| self.failed(&error))?;
        let facts = ServerFacts::read(newest, environment, connection, self.stop());
        let facts = facts.await.map_err(|error| self.failed(&error))?;
        let programs = found.choose(Some(facts.major()), connection.minimum_client_major());
        let programs = programs.map_err(|error| self.failed(&error))?.clone();
        let selection = self.selection(&facts);
        Ok(Source {
            programs,
            facts,
            selection,
        })
    }

    /// Refuses what would fail or be incomplete anyway: names that do not exist, rows that would be left out.
    pub(super) fn check_source(&self, facts: &ServerFacts) -> Result<()> {
        let unknown = self.unknown_names(facts);
        if !unknown.is_empty() {
            let message = format!(
                "{} failed: {} selected names do not exist; {SAFE}",
                self.what(),
                unknown.len()
            );
            return Err(Failure::new(Kind::Proof, "selected_table_missing", message)
                .with_details(unknown)
                .hint("names are literal: quote those with capital letters, as in `'public.\"AutoBook\"'`"));
        }
        self.check_rights(facts)
    }

    /// Names every table that the role may not read whole, where `pg_dump` would stop at the first.
    fn check_rights(&self, facts: &ServerFacts) -> Result<()> {
        let unreadable: Vec<_> = facts
            .unreadable()
            .filter(|table| self.is_read(table, facts))
            .collect();
        let Some(first) = unreadable.first() else {
            return Ok(());
        };
        let user = &facts.user;
        let details = unreadable.iter().map(|table| match table.can_read {
            true => format!(
                "`{}` has row-level security, which hides rows from `{user}`",
                table.table_name()
            ),
            false => format!("`{}` may not be read by `{user}`", table.table_name()),
        });
        let (id, hint) = match first.can_read {
            true => (
                "row_security",
                "dump as a role with BYPASSRLS, or leave the table out",
            ),
            false => (
                "permission_denied",
                "`GRANT pg_read_all_data TO …` (PostgreSQL 14 and later), or leave the table out",
            ),
        };
        let message = format!(
            "{} failed: {} tables cannot be read whole; {SAFE}",
            self.what(),
            unreadable.len()
        );
        Err(Failure::new(Kind::Source, id, message)
            .with_details(details)
            .hint(hint))
    }

    /// Tells whether `pg_dump` will read the table's rows. In doubt it says no, and leaves the word to `pg_dump`.
    fn is_read(&self, table: &TableFacts, facts: &ServerFacts) -> bool {
        let selection = self.selection(facts);
        let holds = |names: &[TableName]| {
            facts
                .with_children(names)
                .iter()
                .any(|name| name.schema_or_public() == table.schema && name.name == table.name)
        };
        let is_chosen = selection.tables.is_empty() && selection.schemas.is_empty()
            || holds(&selection.tables)
            || selection.schemas.contains(&table.schema);
        let is_left_out = holds(&selection.exclude_tables)
            || holds(&selection.structure_only)
            || selection.exclude_schemas.contains(&table.schema);
        matches!(table.kind, TableKind::Table) && is_chosen && !is_left_out
    }

    fn unknown_names(&self, facts: &ServerFacts) -> Vec<String> {
        let selection = &self.request.selection;
        let known: Vec<String> = facts
            .tables
            .iter()
            .map(|table| table.table_name().to_string())
            .collect();
        let missing = |name: &&TableName| {
            !facts
                .tables
                .iter()
                .any(|table| table.schema == name.schema_or_public() && table.name == name.name)
        };
        let tables = [
            &selection.tables,
            &selection.exclude_tables,
            &selection.structure_only,
        ];
        let tables = tables.into_iter().flatten().filter(missing).map(|name| {
            let full = TableName::new(name.schema_or_public(), name.name.clone()).to_string();
            (
                format!("table `{name}`"),
                nearest(&full, known.iter().map(String::as_str)).map(str::to_owned),
            )
        });
        let schemas = [&selection.schemas, &selection.exclude_schemas];
        let schemas = schemas
            .into_iter()
            .flatten()
            .filter(|name| !facts.schemas.contains(name))
            .map(|name| {
                let near =
                    nearest(name, facts.schemas.iter().map(String::as_str)).map(str::to_owned);
                (format!("schema `{name}`"), near)
            });
        tables
            .chain(schemas)
            .map(|(name, near)| match near {
                Some(near) => format!("{name} does not exist; did you mean `{near}`?"),
                None => format!("{name} does not exist"),
            })
            .collect()
    }

    /// A preset leaves schemas out beside what was asked for; with an explicit choice of tables or schemas it has no
    /// say.
    fn selection(&self, facts: &ServerFacts) -> Selection {
        let mut selection = self.request.selection.clone();
        let is_open = selection.tables.is_empty() && selection.schemas.is_empty();
        if self.request.preset == Some(Preset::Supabase) && is_open {
            selection
                .exclude_schemas
                .extend(supabase::managed(&facts.schemas));
            selection.exclude_schemas.sort();
            selection.exclude_schemas.dedup();
        }
        selection
    }

    pub(super) async fn read_globals(&mut self, source: &Source) -> Result<Option<Globals>> {
        if !self.request.globals {
            return Ok(None);
        }
        let Request {
            environment,
            connection,
            ..
        } = self.request;
        let globals = Globals::read(&source.programs, environment, connection, self.stop()).await;
        let globals = globals.map_err(|error| self.failed(&error))?;
        self.check_globals(&globals)?;
        let warnings = globals
            .warnings
            .iter()
            .map(|text| Finding::new("globals", text.clone(), None));
        self.report.warnings.extend(warnings);
        Ok(Some(globals))
    }

    /// Roles and tablespaces are proven as the dump is: by their end marker.
    fn check_globals(&self, globals: &Globals) -> Result<()> {
        let mut scanner = Scanner::new();
        scanner.push(&globals.sql);
        let scan = scanner.finish();
        match scan.problems.first() {
            None if scan.cluster => Ok(()),
            problem => {
                let why =
                    problem.map_or("it has no end marker", |problem| problem.message.as_str());
                let message = format!(
                    "{} failed: `pg_dumpall` ended well, but what it wrote is not whole: {why}; {SAFE}",
                    self.what()
                );
                Err(Failure::new(Kind::Proof, "globals_incomplete", message))
            }
        }
    }
}
