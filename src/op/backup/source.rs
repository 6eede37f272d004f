//! The first part of an attempt: which programs fit the server, what it holds, and whether the selection makes sense.

use super::Request;
use super::attempt::{Attempt, SAFE};
use crate::failure::{Failure, Kind, Result};
use crate::model::config::Preset;
use crate::model::name::TableName;
use crate::model::nearest::nearest;
use crate::model::scan::Finding;
use crate::model::supabase;
use crate::postgres::dump::Selection;
use crate::postgres::globals::Globals;
use crate::postgres::programs::Programs;
use crate::postgres::server::ServerFacts;

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
        Ok(())
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
        let warnings = globals
            .warnings
            .iter()
            .map(|text| Finding::new("globals", text.clone(), None));
        self.report.warnings.extend(warnings);
        Ok(Some(globals))
    }
}
