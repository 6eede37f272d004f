//! What comes behind the rows: statistics, and the database's own properties.
//!
//! Nothing here takes rows back. What fails is a warning; what was stopped is reported as not done.

use super::{Run, Site};
use crate::op::restore::preflight::Plan;
use crate::op::restore::session::limit_of_server;
use crate::postgres::databases::{self, Databases};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::name::quote;
use pgkeep_model::restore::properties::PutBack;

impl Run<'_> {
    /// Does for a database that is in its place what can still be stopped, and tells truly how far it came.
    pub(super) async fn follow_up(&mut self, site: &Site) -> Result<()> {
        // A plain role did it before it gave its tables away.
        if site.plan == Plan::Fill && site.restorer.is_none() {
            self.analyze(site).await;
        }
        self.put_back_properties(site).await;
        if !self.context.stop.is_requested() {
            return Ok(());
        }
        let proof = if self.report.compared {
            "every row is in its place and compared"
        } else {
            "every row is in its place, and nothing was compared"
        };
        let failure = self.context.stop.failure(&format!(
            "restore into `{}`: {proof}, but not all that follows was done",
            self.report.target
        ));
        let warnings = self.report.warnings.iter();
        let left = warnings.filter(|warning| warning.starts_with(NOT_DONE));
        Err(
            Failure::new(Kind::AfterGood, "stopped_after_restore", failure.message)
                .with_details(left.cloned())
                .hint("carry out in the database the steps that are named here"),
        )
    }

    /// Fills the materialized views, each by itself: one whose source is gone takes no row with it.
    pub(super) async fn fill_views(&mut self, site: &Site, statements: &[String]) {
        // Others may work in a database that was there.
        let limit = match site.plan {
            Plan::Fill => limit_of_server(self.options.limits),
            Plan::Create | Plan::Replace => 0,
        };
        for statement in statements {
            let view = statement
                .trim_start_matches("REFRESH MATERIALIZED VIEW ")
                .trim_end_matches(';');
            if self.context.stop.is_requested() {
                self.warn(format!("{NOT_DONE}: `{statement}`"));
                continue;
            }
            // As pg_dump sets it for the whole dump.
            let sql = format!(
                "SET lock_timeout = {limit};\nSET search_path = '';\nSET row_security = off;\n{statement}"
            );
            match databases::fill(site.restoring(), &sql, self.stop()).await {
                Ok(()) => {}
                Err(_) if self.context.stop.is_requested() => {
                    self.warn(format!("{NOT_DONE}: `{statement}`"));
                }
                Err(error) => {
                    let said = error
                        .stderr
                        .iter()
                        .find(|line| line.contains("ERROR:"))
                        .map_or_else(|| error.to_string(), |line| line.trim().to_owned());
                    self.unfilled.push(format!("{view}: {said}"));
                }
            }
        }
        self.report.unfilled_views.clone_from(&self.unfilled);
    }

    /// Every table is there; what is computed of them is not.
    pub(super) fn after_views(&self, what: &str) -> Result<()> {
        if self.unfilled.is_empty() {
            return Ok(());
        }
        let message = match self.unfilled.len() {
            1 => format!("{what}, but a materialized view could not be filled and is empty"),
            count => {
                format!("{what}, but {count} materialized views could not be filled and are empty")
            }
        };
        let failure = Failure::new(Kind::AfterGood, "views_not_filled", message);
        Err(failure
            .with_details(self.unfilled.iter().cloned())
            .hint("`REFRESH MATERIALIZED VIEW` fills a view once what it reads is there"))
    }

    /// From here on row-level security holds for the owners of tables, too, and nobody but those who bypass it can
    /// compare their rows; and event triggers fire.
    pub(super) async fn carry_out_behind(&self, site: &Site, statements: &[String]) -> Result<()> {
        if statements.is_empty() {
            return Ok(());
        }
        let sql = format!("BEGIN;\n{}\nCOMMIT", statements.join("\n"));
        let databases = Databases::new(site.psql.clone());
        let done = databases.execute(&sql, self.stop()).await;
        done.map_err(|error| self.psql_failed(&error))
    }

    /// Tells the rows that go with extensions that are left out.
    pub(super) fn tell_without(&mut self, site: &Site) {
        for table in &site.without.tables {
            self.warn(format!(
                "the rows of `{table}` are left out with its extension"
            ));
        }
    }

    /// Reads every table for the planner's statistics.
    pub(super) async fn analyze(&mut self, site: &Site) {
        let analyzed = databases::analyze(site.restoring(), self.report.jobs, self.stop()).await;
        match analyzed {
            Ok(()) => {}
            Err(_) if self.context.stop.is_requested() => {
                self.warn(format!(
                    "{NOT_DONE}: ANALYZE, so queries may be slow until it ran"
                ));
            }
            Err(error) => self.warn(format!(
                "ANALYZE failed, so queries may be slow until it ran: {error}"
            )),
        }
    }

    /// What cannot be put back is reported: it is no row that is missing.
    pub(super) async fn put_back_properties(&mut self, site: &Site) {
        let back = self.properties_of(site);
        self.report.warnings.extend(back.warnings);
        // From another database: a setting or a limit that is back holds for each new session of this one.
        let databases = site
            .databases
            .clone()
            .unwrap_or_else(|| Databases::new(site.psql.clone()));
        for statement in back.statements {
            if self.context.stop.is_requested() {
                self.warn(format!("{NOT_DONE}: `{statement}`"));
                continue;
            }
            match databases.execute(&statement, self.stop()).await {
                Ok(()) => {
                    // It gets the wanted name last.
                    let (name, wanted) = (quote(&site.name), quote(&site.target.name));
                    let told = statement.replacen(&name, &wanted, 1);
                    self.report.properties_set.push(told);
                }
                Err(_) if self.context.stop.is_requested() => {
                    self.warn(format!("{NOT_DONE}: `{statement}`"));
                }
                Err(error) => {
                    let first_line = error.stderr.first().cloned();
                    let said = first_line.unwrap_or_else(|| error.to_string());
                    self.warn(format!(
                        "a property of the database was not restored: `{statement}`: {said}"
                    ));
                }
            }
        }
    }

    fn properties_of(&self, site: &Site) -> PutBack {
        let options = &self.options;
        let needs = &site.needs;
        // A fresh one has its name by then.
        let name = match site.plan {
            Plan::Create => &site.target.name,
            Plan::Fill | Plan::Replace => &site.name,
        };
        if needs.keeps_properties {
            // The flags are about what the dump says.
            return needs.properties.put_back(name, false, false);
        }
        if options.no_database_settings {
            return PutBack::default();
        }
        // What a database that was there has already is not told as a change.
        let (dumped, here) = (&needs.properties, &site.target.facts.properties);
        let is_there = site.plan == Plan::Fill;
        let has_owner = is_there && dumped.owner == here.owner;
        let has_rights = has_owner && dumped.acl == here.acl;
        dumped.put_back(
            name,
            options.no_owner || has_owner,
            options.no_privileges || has_rights,
        )
    }
}

/// How a warning begins about what a stop left undone.
const NOT_DONE: &str = "stopped before it was done";
