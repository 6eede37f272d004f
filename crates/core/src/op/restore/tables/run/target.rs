//! The target of single tables: what it is, what prevents them there, and the database that is made for them.

use std::collections::BTreeSet;

use super::{Run, UNTOUCHED, with_safe};
use crate::op::restore::create::{Creation, OTHER_LOCALE};
use crate::op::restore::feed::refused;
use crate::op::restore::leftover::{self, Names};
use crate::op::restore::preflight::{self, Needs, Problem, problem};
use crate::op::restore::restorer::{NoRestorer, Restorer, not_let_in, not_made};
use crate::postgres::databases::Databases;
use crate::postgres::error::{Error, Reason};
use crate::postgres::present;
use crate::postgres::psql::Psql;
use crate::postgres::target::TargetFacts;
use pgkeep_model::connection::Connection;
use pgkeep_model::failure::Result;
use pgkeep_model::name::TableName;
use pgkeep_model::restore::filter::{Filter, Freeze, Rules};
use pgkeep_model::scan::Scanner;
use pgkeep_model::single::{Plan, Refused, Selection, There};

/// The first major whose catalog tells all that is asked, and that knows partitions by today's grammar.
const MIN_MAJOR: u32 = 12;

/// What a role of somebody's own making needs in the target.
const RIGHTS: &str = "; `GRANT CREATE ON SCHEMA <each schema> TO restorer`";

/// Schemas of a database that is made out of `template0`.
const FRESH_SCHEMAS: [&str; 3] = ["public", "pg_catalog", "information_schema"];

/// Languages of such a database.
const FRESH_LANGUAGES: [&str; 4] = ["c", "internal", "plpgsql", "sql"];

/// The target as it was found.
pub(super) struct Site {
    pub name: String,
    pub exists: bool,
    pub facts: TargetFacts,
    pub needs: Needs,
    pub psql: Psql,
    /// Seen from another database, where the target is to be made.
    pub databases: Option<Databases>,
    /// Leads to that other database, or else to the target.
    pub way: Connection,
    pub missing_roles: Vec<String>,
    /// The plain role that restores for a superuser, and how it reaches the database.
    pub restorer: Option<(Restorer, Psql)>,
    /// Tablespaces that the tables' statements name.
    pub tablespaces: Vec<String>,
}

impl Site {
    /// Returns what carries the dump's statements out.
    pub fn restoring(&self) -> &Psql {
        self.restorer.as_ref().map_or(&self.psql, |(_, psql)| psql)
    }

    /// Returns a database to work from: another one where the target is made.
    pub fn home(&self) -> Databases {
        let own = || Databases::new(self.psql.clone());
        self.databases.clone().unwrap_or_else(own)
    }

    /// Returns the extensions of the dump's database, which may make what a table needs.
    pub fn extensions(&self) -> Vec<String> {
        let mut names = self.needs.extensions.clone();
        names.retain(|name| name != "plpgsql");
        names
    }
}

impl Run<'_> {
    /// What of the tables' statements is left out.
    pub(super) fn rules(&self, facts: &TargetFacts) -> Rules {
        let options = &self.request.options;
        Rules {
            no_owner: options.no_owner,
            no_privileges: options.no_privileges,
            one_transaction: true,
            keeps_limits: true,
            is_divided: self.divides(facts),
            server_major: facts.major(),
            freeze: Freeze::Never,
            has_public: facts.has_public(),
            no_tablespaces: options.no_tablespaces,
            ..Rules::default()
        }
    }

    /// Tells whether a plain role restores.
    pub(super) fn divides(&self, facts: &TargetFacts) -> bool {
        facts.is_superuser && !self.request.options.allow_superuser
    }

    /// Makes that role, where one restores.
    pub(super) async fn find_restorer(&mut self, site: &mut Site) -> Result<()> {
        if !self.divides(&site.facts) {
            return Ok(());
        }
        let (into, environment) = (&self.request.into, &self.request.environment);
        let found = self.request.search.find(environment, self.stop()).await;
        let programs = found.newest().map_err(|error| self.of_error(&error))?;
        let asks = |connection: &Connection| Psql::new(programs, environment, connection);
        let (home, clock) = (site.home(), &*self.context.clock);
        if !self.request.options.dry_run {
            let swept = leftover::sweep_roles(&home, clock, self.stop()).await;
            self.report.warnings.extend(leftover::said_of_roles(swept));
        }
        let tag = leftover::tag(self.report.started_at);
        let made = Restorer::make((&home, &site.way), &asks, &tag, clock, self.stop()).await;
        match made {
            Ok(restorer) => {
                let connection = restorer
                    .connection(&site.name)
                    .map_err(|error| self.of_error(&error))?;
                site.restorer = Some((restorer, asks(&connection)));
                Ok(())
            }
            Err(NoRestorer::Failed(error, left)) => {
                let doing = "making a role without powers that restores";
                Err(not_made(error.to_failure(doing, UNTOUCHED), left))
            }
            Err(NoRestorer::NoLogin(error)) => {
                let problem = preflight::powers(
                    &Needs::default(),
                    &site.facts,
                    RIGHTS,
                    &self.request.options,
                );
                let problems = problem.into_iter().collect();
                let failure = preflight::failure(into, &site.name, site.exists, problems);
                Err(failure.with_details([not_let_in(&error)]))
            }
        }
    }

    /// Asks the target, or where it is not there a database beside it.
    pub(super) async fn site(&mut self, needs: Needs) -> Result<Site> {
        let (into, environment) = (&self.request.into, &self.request.environment);
        let found = self.request.search.find(environment, self.stop()).await;
        let programs = found.newest().map_err(|error| self.of_error(&error))?;
        let psql = |connection: &Connection| Psql::new(programs, environment, connection);
        let (name, facts, home) = match TargetFacts::read(&psql(into), self.stop()).await {
            Ok(facts) => (facts.database.clone(), facts, None),
            Err(error) if error.reason == Reason::DatabaseMissing => {
                let name = into.database_name().ok_or_else(|| self.of_error(&error))?;
                let first = self.request.options.home.as_deref();
                let (home, facts) = TargetFacts::read_beside(name, first, into, &psql, self.stop())
                    .await
                    .map_err(|error| self.of_error(&error))?;
                (name.to_owned(), facts, Some(home))
            }
            Err(error) => return Err(self.of_error(&error)),
        };
        self.report.server_version = Some(facts.version.clone());
        Ok(Site {
            name,
            exists: home.is_none(),
            facts,
            needs,
            psql: psql(into),
            databases: home.as_ref().map(|home| Databases::new(psql(home))),
            way: home.unwrap_or_else(|| into.clone()),
            missing_roles: Vec::new(),
            restorer: None,
            tablespaces: Vec::new(),
        })
    }

    /// Asks for all names that matter; a database that is still to be made has none.
    pub(super) async fn there(&self, selection: &Selection<'_>, site: &Site) -> Result<There> {
        if !site.exists {
            let schemas = FRESH_SCHEMAS.into_iter().map(str::to_owned);
            let mut there = There::new(schemas, Vec::new());
            there.languages = Some(FRESH_LANGUAGES.map(str::to_owned).into());
            return Ok(there);
        }
        let mut there = self
            .look(&selection.names_to_ask(), site)
            .await
            .map_err(|error| self.untouched(self.of_error(&error)))?;
        there.languages = Some(site.facts.languages.iter().cloned().collect());
        if !self.divides(&site.facts) {
            there.closed.clear();
        }
        Ok(there)
    }

    pub(super) async fn look(
        &self,
        names: &BTreeSet<TableName>,
        site: &Site,
    ) -> std::result::Result<There, Error> {
        present::read(&site.psql, names, self.stop()).await
    }

    /// Passes the plan through the filter once, so that what it refuses is reported before anything is touched, and
    /// takes note of the roles and tablespaces that what is left speaks of and the server lacks.
    pub(super) fn look_at_text(&self, plan: &Plan, site: &mut Site) -> Result<()> {
        let mut scanner = Scanner::new();
        for text in [&plan.before, &plan.behind, &plan.locking, &plan.last] {
            let rules = Rules {
                is_divided: false,
                ..self.rules(&site.facts)
            };
            let mut filter = Filter::new(rules);
            let pushed = filter.push(text, &mut |bytes| scanner.push(bytes));
            let passed = pushed.and_then(|()| filter.finish());
            passed.map_err(|refusal| self.untouched(refused(&self.what(), &refusal)))?;
        }
        let mut scan = scanner.finish();
        scan.roles.retain(|role| !site.facts.roles.contains(role));
        site.missing_roles = scan.roles;
        site.tablespaces = scan.tablespaces;
        Ok(())
    }

    /// Names all its problems at once.
    pub(super) fn refuse(
        &self,
        selection: &Selection<'_>,
        there: &There,
        site: &Site,
    ) -> Result<()> {
        let (facts, options) = (&site.facts, &self.request.options);
        let needs = Needs {
            roles: site.missing_roles.clone(),
            tablespaces: site.tablespaces.clone(),
            version: site.needs.version.clone(),
            ..Needs::default()
        };
        let mut problems = Vec::new();
        if facts.is_standby {
            let text = "its server is a standby, which accepts no writes";
            problems.push(problem("target_is_standby", text, None));
        }
        if facts.major() < MIN_MAJOR {
            let text = format!(
                "its server is PostgreSQL {}, and restoring single tables needs {MIN_MAJOR} or later",
                facts.version
            );
            problems.push(problem("server_too_old", text, None));
        }
        if !site.exists && !facts.may_create_databases {
            let text = format!("`{}` cannot create databases", facts.user);
            problems.push(problem("rights_missing", text, None));
        }
        if !self.divides(facts) {
            let rights = if site.exists { RIGHTS } else { "" };
            problems.extend(preflight::powers(&needs, facts, rights, options));
        }
        problems.extend(preflight::version(&needs, facts, options));
        problems.extend(preflight::roles(&needs, facts, options));
        problems.extend(preflight::tablespaces(&needs, facts, options));
        let refused = selection.problems(there);
        problems.extend(refused.iter().map(|refused| in_words(refused, selection)));
        if problems.is_empty() {
            Ok(())
        } else {
            Err(preflight::failure(
                &self.request.into,
                &site.name,
                site.exists,
                problems,
            ))
        }
    }

    /// Makes the database with the dump's encoding and locale.
    pub(super) async fn make_database(&mut self, site: &Site, application: &str) -> Result<()> {
        let Some(databases) = &site.databases else {
            return Ok(());
        };
        let options = &self.request.options;
        let creation = Creation {
            doing: self.doing(),
            databases,
            name: &site.name,
            making: &Names::new(&site.name, &*self.context.clock).making,
            properties: &site.needs.properties,
            encoding: &site.needs.encoding,
            server_major: site.facts.major(),
            force_locale: options.force_locale,
            application,
            limits: options.limits,
            pulse: &self.pulse,
            context: self.context,
        };
        let is_plain_locale = creation.carry_out().await.map_err(|not_made| {
            let safe = if not_made.is_left {
                "a database may be left behind"
            } else {
                UNTOUCHED
            };
            with_safe(not_made.failure, safe)
        })?;
        if is_plain_locale {
            self.report.warnings.push(OTHER_LOCALE.to_owned());
        }
        self.report.created = true;
        Ok(())
    }
}

fn in_words(refused: &Refused, selection: &Selection<'_>) -> Problem {
    match refused {
        Refused::Taken(names) => problem(
            "table_exists",
            match names.as_slice() {
                [name] => format!("`{name}` already exists"),
                names => format!("{} already exist", preflight::list(names)),
            },
            Some(
                "`--schema-map public=rescued` restores the table into another schema; `--upsert` merges its rows \
                 into the existing table",
            ),
        ),
        Refused::Needs {
            table,
            other,
            is_moved: true,
        } => problem(
            "needs_other_table",
            format!(
                "`{}` would belong to `{other}`, whose rows it would be among",
                selection.target(table)
            ),
            Some(&format!("`--table {other}` restores it as well")),
        ),
        Refused::Needs { table, other, .. } => problem(
            "needs_other_table",
            format!("`{table}` cannot be made without `{other}`"),
            Some(&format!("`--table {other}` restores it as well")),
        ),
        Refused::NoSchemas => problem(
            "names_without_schema",
            "the dump's names have no schema, as pg_dump wrote them before 2018, so `--schema-map` cannot be exact",
            Some("restore the whole dump into a new database, and copy the table from there"),
        ),
    }
}
