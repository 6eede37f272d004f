//! What a restore does differently with the dump of a hosting platform's project: roles, extensions, stand-ins.

use super::preflight::{Needs, Plan};
use super::source::Opened;
use super::{Options, Request, Source};
use crate::postgres::target::TargetFacts;
use pgkeep_model::config::Preset;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::manifest::Manifest;
use pgkeep_model::scan::{Block, Scan, SectionName};
use pgkeep_model::supabase::{
    API_ROLES, Brought, Onto, PLATFORM_EXTENSIONS, Platform, Stubs, There, brought_as_own,
    is_managed, platform_schemas,
};

/// Triggers must not fire and keys not be looked at while rows come into the platform's tables, which are there with
/// all of them. The platform lets a project's `postgres` set it.
const AS_REPLICA: &str = "SET session_replication_role = replica;\n";

/// Around the rows the platform's event triggers do fire: they give rights, and tell the interfaces what is new.
const AS_ORIGIN: &str = "SET session_replication_role = origin;\n";

/// The interface for HTTP reads the schema anew, whatever the platform's event triggers told it.
const TELL: &str = "SET session_replication_role = origin;\nNOTIFY pgrst, 'reload schema';\n";

/// Extensions that a project has from its start, in the schema `extensions`: a dump of single schemas refers to them.
const USUAL_EXTENSIONS: &[&str] = &["pgcrypto", "uuid-ossp"];

/// The schema that `supabase db dump` names as the home of extensions and never makes.
const EXTENSIONS: &str = "extensions";

/// Adds what a preset means, whether it was asked for or stands in the manifest.
pub(super) fn widen(options: &mut Options, opened: &Opened) {
    if let Some(manifest) = opened.manifest()
        && manifest.preset.as_deref() == Some(Preset::Supabase.as_str())
    {
        options.preset = Some(Preset::Supabase);
    }
    if options.preset == Some(Preset::Supabase) {
        options.create_missing_roles = true;
        let names = PLATFORM_EXTENSIONS.iter().map(|&name| name.to_owned());
        options.dispensable_extensions.extend(names);
    }
}

/// What stands in for the platform's own is made in front of a dump, and which of it the dump brings itself is known
/// only when it was read.
pub(super) fn refuse_pipe(request: &Request) -> Result<()> {
    match (&request.source, request.options.preset) {
        (Source::Stdin, Some(Preset::Supabase)) => {
            let message = "the dump of a Supabase project cannot be restored from a pipe, because it is read twice; \
                nothing was changed";
            let failure = Failure::new(Kind::Usage, "pipe_is_read_once", message);
            Err(failure.hint("write the dump into a file and restore that"))
        }
        _ => Ok(()),
    }
}

/// Extensions of every project that nothing of the project's needs, and that only a superuser may make.
const OF_SUPERUSERS: &[&str] = &["pg_stat_statements"];

/// What the role may not make counts as what the server lacks.
pub(super) fn narrow(facts: &mut TargetFacts, options: &mut Options) {
    if options.preset == Some(Preset::Supabase) && !facts.is_superuser && !facts.is_supabase() {
        let is_out_of_reach = |name: &str| OF_SUPERUSERS.contains(&name);
        facts.extensions.retain(|name| !is_out_of_reach(name));
        let names = OF_SUPERUSERS.iter().map(|&name| name.to_owned());
        options.dispensable_extensions.extend(names);
    }
}

/// Functions and applications change to the interfaces' roles, also where the dump does not name them.
pub(super) fn add_roles(needs: &mut Needs, facts: &TargetFacts, options: &Options) {
    if options.preset == Some(Preset::Supabase) && facts.may_create_roles {
        let roles = API_ROLES.iter().map(|&role| role.to_owned());
        needs.roles.extend(roles);
        needs.roles.sort();
        needs.roles.dedup();
    }
}

/// Where a dump of a project lands, decided.
#[derive(Clone, Debug, Default)]
pub(super) struct Landing {
    rules: Option<Platform>,
    stubs: Stubs,
    /// Where the rows of the dump lie, where they go into tables that are there.
    rows: Option<Block>,
}

impl Landing {
    pub(super) fn of(options: &Options, opened: &Opened, plan: Plan, facts: &TargetFacts) -> Self {
        if options.preset != Some(Preset::Supabase) {
            return Self::default();
        }
        let has_users = facts.schemas.iter().any(|schema| schema.name == "auth");
        if plan == Plan::Fill && facts.is_supabase() && has_users {
            return Self::on_project(opened, facts);
        }
        let brought = match opened {
            Opened::Stored(stored) => brought_by_backup(&stored.manifest, facts),
            Opened::File { scan, schemas, .. } => brought_by_file(Some(scan), schemas, facts),
            Opened::Pipe => brought_by_file(None, &[], facts),
        };
        let there = match plan {
            Plan::Fill => There {
                schemas: facts.schema_names.clone(),
                routines: facts.platform_routines.clone(),
            },
            // A fresh database has nothing, whatever the one that was asked has.
            Plan::Create | Plan::Replace => There::default(),
        };
        let stubs = Stubs::new(&brought, &there);
        let rules = Platform {
            onto: Onto::Plain,
            own_schemas: match opened {
                Opened::Stored(_) => own_schemas(opened, facts),
                // Nobody wrote down what a file leaves out.
                Opened::File { .. } | Opened::Pipe => Vec::new(),
            },
            made_schemas: stubs.schemas.clone(),
            has_no_users: stubs.has_users,
            has_publication: stubs.has_publication,
            speaks_for: (options.no_owner && !facts.is_superuser).then(|| facts.acts_as.clone()),
            ..Platform::default()
        };
        Self {
            rules: Some(rules),
            stubs,
            rows: None,
        }
    }

    fn on_project(opened: &Opened, facts: &TargetFacts) -> Self {
        let rules = Platform {
            onto: Onto::Project,
            own_schemas: own_schemas(opened, facts),
            there: facts.there.clone(),
            ..Platform::default()
        };
        let sections = match opened {
            Opened::Stored(stored) => stored.manifest.sections.as_slice(),
            Opened::File { scan, .. } => scan.sections.as_slice(),
            Opened::Pipe => &[],
        };
        let data = sections
            .iter()
            .find(|section| section.name == SectionName::Data);
        // Where nobody knows what lies where, rows may be anywhere.
        let anywhere = if sections.is_empty() { AS_REPLICA } else { "" };
        Self {
            rules: Some(rules),
            stubs: Stubs {
                sql: anywhere.to_owned(),
                ..Stubs::default()
            },
            rows: data.map(|section| section.block),
        }
    }

    pub(super) fn rules(&self) -> Option<Platform> {
        self.rules.clone()
    }

    /// Returns what is made before the dump comes.
    pub(super) fn sql(&self) -> &str {
        &self.stubs.sql
    }

    /// Returns what stands in front of the dump in its own transaction; a fresh database has it already.
    pub(super) fn prelude(&self, plan: Plan) -> &str {
        match plan {
            Plan::Fill => self.sql(),
            Plan::Create | Plan::Replace => "",
        }
    }

    /// Returns what stands at places of the dump, by offset.
    pub(super) fn insertions(&self) -> Vec<(u64, &'static str)> {
        let around = |rows: &Block| {
            let end = rows.offset.saturating_add(rows.length);
            [(rows.offset, AS_REPLICA), (end, AS_ORIGIN)]
        };
        self.rows.iter().flat_map(around).collect()
    }

    /// Returns what stands behind the dump in its own transaction.
    pub(super) fn ending(&self) -> &'static str {
        if self.is_project() { TELL } else { "" }
    }

    pub(super) fn told(&self) -> Vec<String> {
        self.stubs.told.clone()
    }

    pub(super) fn made_schemas(&self) -> &[String] {
        &self.stubs.schemas
    }

    /// Tells whether the platform's tables are there already.
    pub(super) fn is_project(&self) -> bool {
        let rules = self.rules.as_ref();
        rules.is_some_and(|rules| rules.onto == Onto::Project)
    }
}

/// Returns the schemas in the dump that only their names would make the platform's.
fn own_schemas(opened: &Opened, facts: &TargetFacts) -> Vec<String> {
    let mut names = match opened {
        Opened::Stored(stored) => {
            let selection = stored.manifest.selection.as_ref();
            brought_as_own(selection.map_or(&[][..], |selection| &selection.exclude_schemas))
        }
        // Nobody wrote down what it leaves out, and rights on that may be in it.
        Opened::File { scan, .. } => {
            let mut names = brought_as_own(&[]);
            names.retain(|name| scan.tables.iter().any(|table| table.schema == *name));
            names
        }
        Opened::Pipe => Vec::new(),
    };
    if facts.is_supabase() {
        let there = platform_schemas(&facts.schema_owners);
        names.retain(|name| !there.contains(name));
    }
    names
}

fn brought_by_backup(manifest: &Manifest, facts: &TargetFacts) -> Brought {
    let selection = manifest.selection.as_ref();
    let is_chosen = selection
        .is_some_and(|selection| !selection.tables.is_empty() || !selection.schemas.is_empty());
    let left_out =
        || selection.map_or_else(Vec::new, |selection| selection.exclude_schemas.clone());
    let tables = manifest.tables.iter().filter(|table| table.kind.is_some());
    let extensions = manifest.server.extensions.iter();
    Brought {
        schemas: tables.map(|table| table.schema.clone()).collect(),
        made: Vec::new(),
        // A dump of everything says in its own words what lies in the schemas that it does not leave out.
        left_out: (!is_chosen).then(left_out),
        extensions: extensions
            .filter(|extension| facts.extensions.contains(&extension.name))
            .map(|extension| (extension.name.clone(), extension.schema.clone()))
            .filter(|(_, schema)| is_managed(schema))
            .collect(),
        makes_extensions: !is_chosen,
        lacks_publication: false,
    }
}

/// What a file leaves to the platform nobody wrote down.
fn brought_by_file(scan: Option<&Scan>, made: &[String], facts: &TargetFacts) -> Brought {
    let makes = |name: &str| scan.is_some_and(|scan| scan.extensions.iter().any(|one| one == name));
    let usual = USUAL_EXTENSIONS
        .iter()
        .filter(|name| facts.extensions.iter().any(|there| there == *name))
        .map(|name| ((*name).to_owned(), EXTENSIONS.to_owned()));
    let tables = scan
        .into_iter()
        .flat_map(|scan| &scan.tables)
        .filter(|table| table.kind.is_some());
    Brought {
        schemas: tables.map(|table| table.schema.clone()).collect(),
        made: made.to_vec(),
        left_out: None,
        extensions: usual.collect(),
        makes_extensions: USUAL_EXTENSIONS.iter().any(|name| makes(name)),
        lacks_publication: true,
    }
}
