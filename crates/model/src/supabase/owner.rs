//! Whose a schema is: its name alone says nothing, for anybody may call a schema `auth` or `etl`.

use serde::Deserialize;

use super::is_managed;

/// Roles that the platform keeps for itself, which own what it manages; sorted.
const PLATFORM_ROLES: &[&str] = &[
    "pgbouncer",
    "supabase_admin",
    "supabase_auth_admin",
    "supabase_etl_admin",
    "supabase_functions_admin",
    "supabase_realtime_admin",
    "supabase_replication_admin",
    "supabase_storage_admin",
];

/// The role of a project that is no superuser and has everything of the project's own.
const PROJECT_ROLE: &str = "postgres";

/// Schemas that the platform made and gave to [`PROJECT_ROLE`], as the dumps of its own databases have them; sorted.
const GIVEN_TO_PROJECT: &[&str] = &["_analytics", "_realtime", "extensions", "pgsodium"];

/// Services' own among these schemas: of the rows there nothing is the project's; sorted.
const SERVICES_OWN: &[&str] = &["_analytics", "_realtime", "_supavisor", "pgsodium"];

/// A schema and whom it belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct SchemaOwner {
    /// The schema.
    pub name: String,
    /// Its owner.
    pub owner: String,
    /// Whether the owner can log in, as the platform's services do; a restore makes such roles without login.
    pub can_login: bool,
    /// Whether an extension made it, or lives in it and cannot be moved.
    pub is_of_extension: bool,
}

impl SchemaOwner {
    /// Tells whether the platform manages it.
    pub fn is_of_platform(&self) -> bool {
        let is_given = self.owner == PROJECT_ROLE && GIVEN_TO_PROJECT.contains(&self.name.as_str());
        is_managed(&self.name) && (self.is_of_extension || is_given || owns_platform(&self.owner))
    }
}

/// Returns the platform's schemas among these.
pub fn platform_schemas(owners: &[SchemaOwner]) -> Vec<String> {
    let of_platform = owners.iter().filter(|schema| schema.is_of_platform());
    of_platform.map(|schema| schema.name.clone()).collect()
}

/// Tells whether a database is one that the platform's services hold: they own `auth` and `storage`, and log in.
pub fn is_platform_database(owners: &[SchemaOwner]) -> bool {
    ["auth", "storage"].iter().all(|name| {
        owners
            .iter()
            .any(|schema| schema.name == *name && schema.can_login && owns_platform(&schema.owner))
    })
}

/// A relation in a schema of the platform that may hold rows of the project.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Lodger {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its owner.
    pub owner: String,
    /// Whether it is an extension's, which leaves its rows to users.
    pub is_of_extension: bool,
    /// Whether it has rows, or had some.
    pub has_rows: bool,
    /// Rows as last estimated.
    pub estimated_rows: Option<u64>,
    /// Names of its policies.
    pub policies: Vec<String>,
}

impl Lodger {
    /// Tells whether rows are the project's: its own table's, or an extension's that it leaves to its users.
    pub fn has_own_rows(&self) -> bool {
        let is_service = SERVICES_OWN.contains(&self.schema.as_str());
        self.has_rows && !is_service && (self.is_of_extension || !owns_platform(&self.owner))
    }

    /// Says what a backup lacks that leaves its schema out; `None` where nothing of the project's is in it.
    pub fn lost(&self) -> Option<String> {
        let table = format!("`{}.{}`", self.schema, self.name);
        let rows = self.has_own_rows().then(|| match self.estimated_rows {
            Some(1) => "about 1 row".to_owned(),
            Some(rows) => format!("about {rows} rows"),
            None => "its rows".to_owned(),
        });
        let names: Vec<String> = self
            .policies
            .iter()
            .map(|name| format!("`{name}`"))
            .collect();
        let listed = match names.len() {
            0 => None,
            1 => Some(format!("policy {}", names[0])),
            _ => Some(format!("policies {}", names.join(", "))),
        };
        let policies = listed.filter(|_| !self.is_of_extension);
        let parts: Vec<String> = rows.into_iter().chain(policies).collect();
        (!parts.is_empty()).then(|| format!("{table}: {}", parts.join(", ")))
    }
}

fn owns_platform(role: &str) -> bool {
    PLATFORM_ROLES.binary_search(&role).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(name: &str, owner: &str) -> SchemaOwner {
        SchemaOwner {
            name: name.into(),
            owner: owner.into(),
            can_login: true,
            is_of_extension: false,
        }
    }

    #[test]
    fn a_name_alone_makes_no_schema_the_platforms() {
        assert!(PLATFORM_ROLES.is_sorted());
        for (name, owner, expected) in [
            ("auth", "supabase_admin", true),
            ("auth", "app", false),
            ("auth", "postgres", false),
            ("pgbouncer", "pgbouncer", true),
            ("extensions", "postgres", true),
            ("extensions", "app", false),
            ("etl", "postgres", false),
            ("public", "supabase_admin", false),
        ] {
            let found = schema(name, owner).is_of_platform();
            assert_eq!(found, expected, "{name} of {owner}");
        }
        let of_extension = SchemaOwner {
            is_of_extension: true,
            ..schema("cron", "keeper")
        };
        assert!(of_extension.is_of_platform());
    }

    #[test]
    fn services_that_log_in_hold_a_database() {
        let both = [
            schema("auth", "supabase_admin"),
            schema("storage", "supabase_admin"),
        ];
        assert!(is_platform_database(&both));
        assert!(!is_platform_database(&both[..1]));
        let own = [schema("auth", "app"), schema("storage", "supabase_admin")];
        assert!(!is_platform_database(&own));
        let restored = both.map(|schema| SchemaOwner {
            can_login: false,
            ..schema
        });
        assert!(!is_platform_database(&restored));
    }

    #[test]
    fn tells_what_of_the_project_is_lost() {
        let queue = Lodger {
            schema: "pgmq".into(),
            name: "q_mail".into(),
            owner: "postgres".into(),
            is_of_extension: false,
            has_rows: true,
            estimated_rows: Some(7),
            policies: Vec::new(),
        };
        assert_eq!(queue.lost().unwrap(), "`pgmq.q_mail`: about 7 rows");
        let messages = Lodger {
            schema: "realtime".into(),
            name: "messages".into(),
            owner: "supabase_realtime_admin".into(),
            policies: vec!["own".into()],
            ..queue.clone()
        };
        assert_eq!(
            messages.lost().unwrap(),
            "`realtime.messages`: policy `own`"
        );
        let empty = Lodger {
            has_rows: false,
            ..queue.clone()
        };
        assert_eq!(empty.lost(), None);
        let jobs = Lodger {
            schema: "cron".into(),
            name: "job".into(),
            owner: "supabase_admin".into(),
            is_of_extension: true,
            estimated_rows: None,
            policies: vec!["cron_job_policy".into()],
            ..queue.clone()
        };
        assert_eq!(jobs.lost().unwrap(), "`cron.job`: its rows");
        let tenants = Lodger {
            schema: "_realtime".into(),
            ..queue
        };
        assert_eq!(tenants.lost(), None);
    }
}
