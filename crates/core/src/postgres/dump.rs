//! `pg_dump`: one database as SQL text, streamed.
//!
//! Names are always literal and every argument is free of secrets. The stream's end means that `pg_dump` exited
//! with 0; whether the text is whole is the scanner's business. Row-level security is never given way to.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::environment::Environment;
use super::error::Error;
use super::process::{Output, Program, Running, Stopper};
use super::programs::Programs;
use super::server::ServerFacts;
use pgkeep_model::connection::Connection;
use pgkeep_model::name::{TableName, quote};

/// The first version that selects partitions and children with their parent.
const KNOWS_CHILDREN: u32 = 16;

/// What of a database is dumped. Every name is literal; an unnamed schema is `public`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only these tables, views and sequences, with their partitions and children.
    pub tables: Vec<TableName>,
    /// Not these tables, nor their partitions and children.
    pub exclude_tables: Vec<TableName>,
    /// These tables, partitions and children without their rows.
    pub structure_only: Vec<TableName>,
    /// Only these schemas; beside `tables`, the relations of these schemas, too.
    pub schemas: Vec<String>,
    /// Not these schemas.
    pub exclude_schemas: Vec<String>,
}

/// A part of the dump, in `pg_dump`'s words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Definitions.
    PreData,
    /// Rows.
    Data,
    /// Indexes, constraints, triggers.
    PostData,
}

/// A dump that is about to run.
#[derive(Clone, Debug)]
pub struct DumpRequest<'a> {
    /// The programs chosen for this server.
    pub programs: &'a Programs,
    /// What programs may see of our environment.
    pub environment: &'a Environment,
    /// Where to.
    pub connection: &'a Connection,
    /// What the server said of itself.
    pub server: &'a ServerFacts,
    /// What is dumped.
    pub selection: &'a Selection,
    /// How long a lock is waited for.
    pub lock_wait_timeout: Duration,
    /// A snapshot that another session has exported.
    pub snapshot: Option<&'a str>,
    /// Tables whose rows others read in that snapshot: they are left out, and no partition or child with them.
    pub read_by_others: &'a [TableName],
    /// Only these parts; all of them where none is named.
    pub sections: &'a [Section],
}

/// A running `pg_dump`. Dropping it kills the program.
pub struct Dump {
    running: Running,
}

impl DumpRequest<'_> {
    /// Starts `pg_dump`.
    pub fn start(&self, cancel: &CancellationToken) -> Result<Dump, Error> {
        let of_connection = self.environment.for_connection(self.connection);
        let environment = if self.server.session_settings_applied {
            of_connection.with_session_settings()
        } else {
            of_connection.without_session_settings()
        };
        let running = Program::new(self.programs.pg_dump(), &environment)
            .args(self.arguments())
            .spawn(cancel)?;
        Ok(Dump { running })
    }

    /// Returns the arguments: no password, no host, no name that could be read as an option or a pattern.
    pub fn arguments(&self) -> Vec<String> {
        let encoding = self.server.dump_encoding();
        let mut arguments = vec![
            "--format=plain".to_owned(),
            "--no-password".to_owned(),
            format!("--encoding={encoding}"),
            format!("--lock-wait-timeout={}", self.lock_wait_timeout.as_millis()),
        ];
        arguments.extend(
            self.snapshot
                .map(|snapshot| format!("--snapshot={snapshot}")),
        );
        arguments.extend(
            self.sections
                .iter()
                .map(|section| section.argument().to_owned()),
        );
        arguments.extend(self.selected());
        arguments.extend(self.left_out());
        let conninfo = self.connection.conninfo();
        arguments.extend(conninfo.map(|conninfo| format!("--dbname={conninfo}")));
        arguments
    }

    fn selected(&self) -> Vec<String> {
        let Selection {
            tables, schemas, ..
        } = self.selection;
        let mut arguments = Vec::new();
        if !tables.is_empty() || !schemas.is_empty() {
            arguments.push("--strict-names".to_owned());
        }
        arguments.extend(self.table_arguments("table", tables));
        // Beside --table, pg_dump ignores --schema in silence.
        arguments.extend(schemas.iter().map(|schema| {
            if tables.is_empty() {
                format!("--schema={}", quote(schema))
            } else {
                format!("--table={}.*", quote(schema))
            }
        }));
        arguments
    }

    fn left_out(&self) -> Vec<String> {
        let selection = self.selection;
        let mut arguments = self.table_arguments("exclude-table", &selection.exclude_tables);
        arguments.extend(self.table_arguments("exclude-table-data", &selection.structure_only));
        let others = self.read_by_others.iter();
        arguments
            .extend(others.map(|name| format!("--exclude-table-data={}", exact_pattern(name))));
        // Beside --table, pg_dump ignores --exclude-schema, too.
        arguments.extend(selection.exclude_schemas.iter().map(|schema| {
            if selection.tables.is_empty() {
                format!("--exclude-schema={}", quote(schema))
            } else {
                format!("--exclude-table={}.*", quote(schema))
            }
        }));
        arguments
    }

    fn table_arguments(&self, option: &str, names: &[TableName]) -> Vec<String> {
        if self.programs.version.major >= KNOWS_CHILDREN {
            return names
                .iter()
                .map(|name| format!("--{option}-and-children={}", exact_pattern(name)))
                .collect();
        }
        let with_children = self.server.with_children(names);
        with_children
            .iter()
            .map(|name| format!("--{option}={}", exact_pattern(name)))
            .collect()
    }
}

impl Section {
    fn argument(self) -> &'static str {
        match self {
            Self::PreData => "--section=pre-data",
            Self::Data => "--section=data",
            Self::PostData => "--section=post-data",
        }
    }
}

/// Returns the pattern that matches this table and nothing else.
///
/// `pg_dump` (`processSQLNamePattern`) takes everything between double quotes letter for letter: tested with
/// `* ? . $ | ^ ( ) [ ] { } + \`, a newline, a leading `-` and a doubled quote.
fn exact_pattern(name: &TableName) -> String {
    format!("{}.{}", quote(name.schema_or_public()), quote(&name.name))
}

impl Dump {
    /// Returns the dump's text, once, for a plain thread. `Ok(0)` means that `pg_dump` exited with 0.
    pub fn take_output(&mut self) -> Output {
        self.running.take_output()
    }

    /// Returns a handle that ends `pg_dump` from elsewhere.
    pub fn stopper(&self) -> Stopper {
        self.running.stopper()
    }

    /// Waits for the end of `pg_dump` and returns its warnings.
    pub async fn wait(&self) -> Result<Vec<String>, Error> {
        self.running.wait().await.into_result()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::programs::Search;
    use crate::postgres::server::{DatabaseFacts, TableFacts, TableKind};
    use std::os::unix::fs::PermissionsExt;

    fn facts(encoding: &str) -> ServerFacts {
        ServerFacts {
            database: DatabaseFacts {
                encoding: encoding.into(),
                ..DatabaseFacts::default()
            },
            tables: vec![TableFacts {
                schema: "public".into(),
                name: "p1".into(),
                kind: TableKind::Table,
                is_unlogged: false,
                estimated_rows: None,
                estimated_bytes: 0,
                row_security: false,
                row_security_forced: false,
                row_security_applies: false,
                can_read: true,
                parents: vec![("public".into(), "p".into())],
                owner: None,
            }],
            ..ServerFacts::default()
        }
    }

    async fn arguments(version: &str, server: &ServerFacts, selection: &Selection) -> Vec<String> {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("pg_dump");
        std::fs::write(
            &path,
            format!("#!/bin/sh\necho 'pg_dump (PostgreSQL) {version}'\n"),
        )
        .unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let environment = Environment::new([]);
        let found = Search::new(Some(root.path().to_owned()), None)
            .find(&environment, &CancellationToken::new())
            .await;
        DumpRequest {
            programs: found.newest().unwrap(),
            environment: &environment,
            connection: &"postgres://u:s3cretpw@h/d?keepalives_idle=9"
                .parse()
                .unwrap(),
            server,
            selection,
            lock_wait_timeout: Duration::from_secs(3),
            snapshot: None,
            read_by_others: &[],
            sections: &[],
        }
        .arguments()
    }

    fn names(texts: &[&str]) -> Vec<TableName> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn says_no_more_than_needed() {
        let plain = arguments("15.18", &facts("UTF8"), &Selection::default()).await;
        let expected = [
            "--format=plain",
            "--no-password",
            "--encoding=UTF8",
            "--lock-wait-timeout=3000",
            "--dbname=keepalives_idle='9'",
        ];
        assert_eq!(plain, expected);
        let ascii = arguments("15.18", &facts("SQL_ASCII"), &Selection::default()).await;
        assert!(ascii.contains(&"--encoding=SQL_ASCII".to_owned()));
    }

    #[tokio::test]
    async fn names_are_quoted_and_bring_their_partitions() {
        let selection = Selection {
            tables: names(&["p", "\"a\"\"b*\""]),
            exclude_tables: names(&["-x"]),
            structure_only: names(&["p"]),
            schemas: vec!["S*".into()],
            exclude_schemas: vec!["old".into()],
        };
        let old = arguments("15.18", &facts("UTF8"), &selection).await;
        let expected = [
            "--strict-names",
            "--table=\"public\".\"p\"",
            "--table=\"public\".\"a\"\"b*\"",
            "--table=\"public\".\"p1\"",
            "--table=\"S*\".*",
            "--exclude-table=\"public\".\"-x\"",
            "--exclude-table-data=\"public\".\"p\"",
            "--exclude-table-data=\"public\".\"p1\"",
            "--exclude-table=\"old\".*",
        ];
        assert_eq!(old[4..13], expected);
        let new = arguments("17.6", &facts("UTF8"), &selection).await;
        assert_eq!(new[5], "--table-and-children=\"public\".\"p\"");
        assert!(new.contains(&"--exclude-table-data-and-children=\"public\".\"p\"".to_owned()));
        assert!(!new.iter().any(|argument| argument.contains("p1")));
    }

    #[tokio::test]
    async fn schemas_alone_stay_schemas() {
        let selection = Selection {
            schemas: vec!["a\"b".into()],
            exclude_schemas: vec!["old".into()],
            ..Selection::default()
        };
        let arguments = arguments("15.18", &facts("UTF8"), &selection).await;
        assert_eq!(
            arguments[4..7],
            [
                "--strict-names",
                "--schema=\"a\"\"b\"",
                "--exclude-schema=\"old\""
            ]
        );
    }
}
