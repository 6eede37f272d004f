//! The first part of an attempt: which programs fit the server, what it holds, and whether the selection makes sense.

use super::Request;
use super::attempt::{Attempt, SAFE};
use super::report::EXTENSION_ROWS;
use super::selected::{Selected, Source};
use crate::clock::ahead;
use crate::postgres::dump::Selection;
use crate::postgres::globals::Globals;
use crate::postgres::server::{ServerFacts, TableFacts};
use pgkeep_model::config::Preset;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::scan::{Finding, Scanner};
use pgkeep_model::supabase;
use pgkeep_model::words::count;

impl Request {
    /// Returns what is dumped of this database. A preset leaves schemas and tables out beside what was asked for; with
    /// an explicit choice of tables or schemas it has no say.
    pub(crate) fn selection_on(&self, facts: &ServerFacts) -> Selection {
        let mut selection = self.selection.clone();
        let is_open = selection.tables.is_empty() && selection.schemas.is_empty();
        if self.preset == Some(Preset::Supabase) && is_open {
            selection
                .exclude_schemas
                .extend(supabase::left_out(&facts.schema_owners));
            selection.exclude_schemas.sort();
            selection.exclude_schemas.dedup();
            let platforms = supabase::platform_schemas(&facts.schema_owners);
            let tables = facts
                .tables
                .iter()
                .filter(|table| table.is_table())
                .filter(|table| platforms.contains(&table.schema))
                .filter(|table| {
                    let is_readable = table.can_read && !table.row_security_applies;
                    supabase::leaves_table_out(&table.schema, &table.name, is_readable)
                });
            for name in tables.map(TableFacts::table_name) {
                if !selection.exclude_tables.contains(&name) {
                    selection.exclude_tables.push(name);
                }
            }
        }
        selection
    }

    /// Tells what of the project's own lies in schemas that only the preset leaves out.
    fn lost_with_preset(&self, facts: &ServerFacts) -> Option<Finding> {
        let selection = self.selection_on(facts);
        let is_left_out = |schema: &String| {
            selection.exclude_schemas.contains(schema)
                && !self.selection.exclude_schemas.contains(schema)
        };
        let lodgers = facts.lodgers.iter().filter(|one| is_left_out(&one.schema));
        let lost: Vec<String> = lodgers.filter_map(supabase::Lodger::lost).collect();
        (!lost.is_empty()).then(|| {
            let text = format!(
                "the preset leaves out these objects of yours in the platform's schemas; save them in another way: {}",
                lost.join("; ")
            );
            Finding::new("preset", text, None)
        })
    }
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
        let before = self.context.clock.now();
        let mut facts = ServerFacts::read(newest, environment, connection, self.stop())
            .await
            .map_err(|error| self.failed(&error))?;
        let after = self.context.clock.now();
        let clock_ahead = facts.now.map(|theirs| ahead(before, after, theirs));
        facts.wanted_encoding = self.own_encoding.then(|| facts.database.encoding.clone());
        let programs = found
            .choose(Some(facts.major()), connection.minimum_client_major())
            .map_err(|error| self.failed(&error))?
            .clone();
        let selection = self.selection(&facts);
        Ok(Source {
            programs,
            facts,
            selection,
            clock_ahead,
        })
    }

    /// Refuses what would fail or be incomplete anyway: names that do not exist or are never dumped, rows that would be
    /// left out.
    pub(super) fn check_source(&mut self, facts: &ServerFacts) -> Result<()> {
        let selection = self.request.selection.clone();
        let selected = Selected {
            selection: &selection,
            facts,
        };
        let unknown = selected.missing();
        if !unknown.is_empty() {
            let message = format!(
                "{} failed: {} not found; {SAFE}",
                self.what(),
                count(unknown.len() as u64, "selected name")
            );
            return Err(Failure::new(Kind::Proof, "selected_table_missing", message)
                .with_details(unknown)
                .hint("names are literal: quote those with capital letters, as in `'public.\"AutoBook\"'`"));
        }
        let not_dumped = selected.not_dumped();
        if !not_dumped.is_empty() {
            let message = format!(
                "{} failed: `pg_dump` dumps nothing for {}; {SAFE}",
                self.what(),
                count(not_dumped.len() as u64, "selected name")
            );
            return Err(
                Failure::new(Kind::Proof, "selected_table_not_dumped", message)
                    .with_details(not_dumped)
                    .hint("leave these names out of the selected tables"),
            );
        }
        let remarks = selected
            .remarks()
            .into_iter()
            .map(|text| Finding::new("selection", text, None));
        self.report.warnings.extend(remarks);
        // What a preset leaves out stands in the target, and a choice of flags is for single tables.
        let dangling = if self.request.is_partial {
            Vec::new()
        } else {
            selected.dangling()
        };
        let told = dangling
            .into_iter()
            .map(|text| Finding::new("foreign_key", text, None));
        self.report.warnings.extend(told);
        self.remark_on_extensions(facts);
        self.remark_on_preset(facts);
        let lost = self.request.lost_with_preset(facts);
        self.report.warnings.extend(lost);
        self.check_rights(facts)
    }

    /// Tells which rows `pg_dump` leaves out in silence.
    fn remark_on_extensions(&mut self, facts: &ServerFacts) {
        let selection = self.selection(facts);
        let selected = Selected {
            selection: &selection,
            facts,
        };
        let lost = selected.lost_rows();
        if !lost.is_empty() {
            let text = format!(
                "rows are not in the backup, because `pg_dump` leaves out tables of extensions that are not marked \
                 by `pg_extension_config_dump`: {}",
                lost.join("; ")
            );
            let finding = Finding::new(EXTENSION_ROWS, text, None);
            self.report.warnings.push(finding);
        }
    }

    /// Tells what the preset leaves out only because it cannot be read: the platform's bookkeeping goes without saying.
    fn remark_on_preset(&mut self, facts: &ServerFacts) {
        let selection = self.selection(facts);
        let unreadable = facts.unreadable().map(TableFacts::table_name);
        let left_out = unreadable.filter(|name| {
            let known = (name.schema_or_public(), name.name.as_str());
            selection.exclude_tables.contains(name)
                && !self.request.selection.exclude_tables.contains(name)
                && !supabase::PLATFORM_TABLES.contains(&known)
        });
        let user = &facts.user;
        let remarks = left_out.map(|name| {
            let text = format!("`{name}` is left out: `{user}` cannot read all of it");
            Finding::new("preset", text, None)
        });
        self.report.warnings.extend(remarks);
    }

    /// Names every table that the role may not read whole, where `pg_dump` would stop at the first.
    fn check_rights(&self, facts: &ServerFacts) -> Result<()> {
        let selection = self.selection(facts);
        let selected = Selected {
            selection: &selection,
            facts,
        };
        // What a table without its rows needs differs between versions: `pg_dump` has the word there.
        let mut unreadable = selected.read();
        unreadable.retain(|read| read.has_rows && !read.is_whole());
        let Some(first) = unreadable.first() else {
            return Ok(());
        };
        let user = &facts.user;
        let details = unreadable.iter().map(|read| {
            let name = read.words();
            if read.can_read {
                format!("`{name}` has row-level security, which hides rows from `{user}`")
            } else {
                format!("`{name}` cannot be read by `{user}`")
            }
        });
        let (id, hint) = if first.can_read {
            (
                "row_security",
                "dump as a role with BYPASSRLS, or leave the table out",
            )
        } else {
            (
                "permission_denied",
                "`GRANT pg_read_all_data TO …` (PostgreSQL 14 and later), or leave the table out",
            )
        };
        let message = format!(
            "{} failed: not all rows of {} can be read; {SAFE}",
            self.what(),
            count(unreadable.len() as u64, "table")
        );
        Err(Failure::new(Kind::Source, id, message)
            .with_details(details)
            .hint(hint))
    }

    fn selection(&self, facts: &ServerFacts) -> Selection {
        self.request.selection_on(facts)
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
        let globals = Globals::read(&source.programs, environment, connection, self.stop())
            .await
            .map_err(|error| self.failed(&error))?;
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
                    "{} failed: `pg_dumpall` reported success, but its output is not complete: {why}; {SAFE}",
                    self.what()
                );
                Err(Failure::new(Kind::Proof, "globals_incomplete", message))
            }
        }
    }
}
