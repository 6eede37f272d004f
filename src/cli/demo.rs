//! `pgkeep demo`: the main job in front of the reader's eyes, on a throw-away server with a real sample database.

use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use comfy_table::CellAlignment;
use flate2::read::GzDecoder;

use super::args::DemoArgs;
use super::backup::defaults;
use super::output::{Output, bytes, number, table};
use super::progress::Shown;
use super::settings::Settings;
use crate::context::Context;
use crate::failure::{Failure, Kind, Result};
use crate::model::connection::Connection;
use crate::model::manifest::Manifest;
use crate::model::name::quote;
use crate::op::backup::{Request, run as backup, search};
use crate::op::inspect;
use crate::op::stored::{NamedStorage, storage_failure};
use crate::postgres::environment::Environment;
use crate::postgres::error::Error;
use crate::postgres::process::Program;
use crate::postgres::programs::{Programs, Search};
use crate::postgres::psql::Psql;
use crate::postgres::scratch::{ScratchOptions, ScratchServer};
use crate::storage::Folder;

/// Pagila, the sample database of a film rental, from neondatabase/postgres-sample-dbs; see `assets/README.md`.
const PAGILA: &[u8] = include_bytes!("../../assets/pagila.sql.gz");

/// Loading and restoring take seconds; a busy machine some more.
const TIMEOUT: Duration = Duration::from_secs(300);

pub(super) async fn run(
    args: &DemoArgs,
    settings: &Settings<'_>,
    output: &Output,
    context: &Context,
) -> Result<()> {
    let temporary = tempfile::tempdir().map_err(|error| broken("a temporary folder", &error))?;
    let folder = args
        .keep
        .clone()
        .unwrap_or_else(|| temporary.path().join("backups"));
    let search = search(None, settings.path());
    let environment = settings.program_environment();
    let options = ScratchOptions::new(search.clone());
    output.data("1. a throw-away PostgreSQL, without network, gone at the end\n");
    let server = ScratchServer::start(&options, &environment, context.stop.token())
        .await
        .map_err(failed)?;
    let demo = Demo {
        settings,
        output,
        context,
        search,
        environment,
        folder,
        connection: server.connection().clone(),
    };
    let result = demo.walk(&server).await;
    server.stop().await.map_err(failed)?;
    if result.is_ok() && args.keep.is_some() {
        output.data(&format!(
            "\nthe backup stays in {}\n",
            demo.folder.display()
        ));
    }
    result
}

struct Demo<'a> {
    settings: &'a Settings<'a>,
    output: &'a Output,
    context: &'a Context,
    search: Search,
    environment: Environment,
    folder: PathBuf,
    connection: Connection,
}

impl Demo<'_> {
    async fn walk(&self, server: &ScratchServer) -> Result<()> {
        self.output.data(&format!(
            "   PostgreSQL {} in {}\n",
            server.version(),
            server.folder().display()
        ));
        let found = self
            .search
            .find(&self.environment, self.context.stop.token())
            .await;
        let programs = found
            .choose(Some(server.version().major), 0)
            .map_err(failed)?
            .clone();
        self.load(&programs).await?;
        let manifest = self.backup().await?;
        let file = self.folder.join(&manifest.object.key);
        self.inspect(&file)?;
        self.inspect_cut(&file)?;
        self.restore(&programs, &manifest, &file).await
    }

    async fn load(&self, programs: &Programs) -> Result<()> {
        self.output.data("\n2. a real sample database: Pagila, a film rental with partitions, triggers and views\n");
        self.query(
            programs,
            "postgres",
            "CREATE DATABASE pagila TEMPLATE template0",
        )
        .await?;
        let mut sql = Vec::new();
        GzDecoder::new(PAGILA)
            .read_to_end(&mut sql)
            .map_err(|error| broken("the sample database", &error))?;
        let connection = self
            .connection
            .with_database("pagila")
            .map_err(|error| broken("the connection", &error))?;
        let psql = Psql::new(programs, &self.environment, &connection)
            .program()
            .input(sql);
        psql.run(self.context.stop.token(), TIMEOUT, 1024 * 1024)
            .await
            .map_err(failed)?;
        Ok(())
    }

    async fn backup(&self) -> Result<Manifest> {
        let folder = self.folder.display();
        let command = format!(
            "pgkeep backup --url postgresql:///pagila --storage {folder} --require film --require payment"
        );
        self.output.data(&format!(
            "\n3. the backup, proven while it streams\n   $ {command}\n"
        ));
        let storage = Folder::open(&self.folder)
            .map_err(|error| storage_failure("cannot open the folder", &error))?;
        let connection = self
            .connection
            .with_database("pagila")
            .map_err(|error| broken("the connection", &error))?;
        let request = Request {
            connection,
            search: self.search.clone(),
            environment: self.environment.clone(),
            storages: vec![NamedStorage {
                name: "demo".to_owned(),
                storage: Arc::new(storage),
            }],
            copies: NonZeroUsize::MIN,
            required: super::inspect::required_tables(&["film".to_owned(), "payment".to_owned()])?,
            ..defaults(
                "pagila".parse().expect("`pagila` is a database name"),
                self.settings,
            )
        };
        let shown = Shown::new(&request.name, self.output);
        let report = backup(&request, self.context, &shown).await;
        shown.finish();
        self.output.data(&indent(&super::backup::text(&report)));
        match (report.failure, report.manifest) {
            (None, Some(manifest)) => Ok(manifest),
            (failure, _) => {
                Err(failure.unwrap_or_else(|| unexpected("the backup left no manifest")))
            }
        }
    }

    fn inspect(&self, file: &Path) -> Result<()> {
        self.output.data(&format!("\n4. the same proof over the file, which is an ordinary .sql.gz\n   $ pgkeep inspect {}\n", file.display()));
        let source = inspect::Source::File(file.to_owned());
        let report = inspect::run(&inspect::Request {
            source,
            required: Vec::new(),
        });
        self.output.data(&indent(&super::inspect::text(&report)));
        report.failure.map_or(Ok(()), Err)
    }

    /// The file without its second half must not pass for a backup.
    fn inspect_cut(&self, file: &Path) -> Result<()> {
        self.output
            .data("\n5. and over its first half, which psql would restore without a word\n");
        let whole = std::fs::read(file).map_err(|error| broken("the backup", &error))?;
        let mut half =
            tempfile::NamedTempFile::new().map_err(|error| broken("a temporary file", &error))?;
        half.write_all(&whole[..whole.len() / 2])
            .map_err(|error| broken("a temporary file", &error))?;
        let source = inspect::Source::File(half.path().to_owned());
        let report = inspect::run(&inspect::Request {
            source,
            required: Vec::new(),
        });
        let failure = report
            .failure
            .ok_or_else(|| unexpected("half a dump passed for a whole one"))?;
        let why = report
            .scan
            .problems
            .first()
            .map(|problem| problem.message.clone())
            .unwrap_or_default();
        self.output.data(&format!(
            "   refused with exit code {}: {why}\n",
            failure.kind.exit_code()
        ));
        Ok(())
    }

    async fn restore(&self, programs: &Programs, manifest: &Manifest, file: &Path) -> Result<()> {
        let text = format!(
            "\n6. restored without pgkeep, by the line in its manifest\n   $ {}\n",
            manifest.restore
        );
        self.output.data(&text);
        self.query(
            programs,
            "postgres",
            "CREATE DATABASE pagila_restored TEMPLATE template0 ENCODING 'UTF8'",
        )
        .await?;
        self.gunzip_into(programs, file, "pagila_restored").await?;
        self.compare(programs, manifest).await
    }

    /// `gunzip -c FILE | psql`, with the real programs.
    async fn gunzip_into(&self, programs: &Programs, file: &Path, database: &str) -> Result<()> {
        let connection = self
            .connection
            .with_database(database)
            .map_err(|error| broken("the connection", &error))?;
        let stop = self.context.stop.token();
        let gunzip = Program::new("gunzip", &self.environment).args([Path::new("-c"), file]);
        let mut gunzip = gunzip.spawn(stop).map_err(failed)?;
        let psql = Psql::new(programs, &self.environment, &connection)
            .program()
            .piped_input();
        let mut psql = psql.spawn(stop).map_err(failed)?;
        let (mut sql, input) = (gunzip.take_output(), psql.take_input());
        let mut results = psql.take_output();
        // Both end with their programs, which end with their handles.
        let fed = tokio::task::spawn_blocking(move || {
            input.map(|mut input| std::io::copy(&mut sql, &mut input))
        });
        let drained =
            tokio::task::spawn_blocking(move || std::io::copy(&mut results, &mut std::io::sink()));
        gunzip.wait().await.into_result().map_err(failed)?;
        drop(fed.await);
        psql.wait().await.into_result().map_err(failed)?;
        drop(drained.await);
        Ok(())
    }

    async fn compare(&self, programs: &Programs, manifest: &Manifest) -> Result<()> {
        let mut shown = table(&["table", "in the database", "in the manifest", "restored"]);
        for at in 1..4 {
            if let Some(column) = shown.column_mut(at) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let mut different = 0;
        for record in manifest.tables.iter().filter(|table| table.rows.is_some()) {
            let sql = format!(
                "SELECT count(*) FROM ONLY {}.{};",
                quote(&record.schema),
                quote(&record.name)
            );
            let source = self.query(programs, "pagila", &sql).await?;
            let restored = self.query(programs, "pagila_restored", &sql).await?;
            let dumped = record.rows.unwrap_or_default().to_string();
            different += u32::from(source != restored || source != dumped);
            shown.add_row([
                format!("{}.{}", record.schema, record.name),
                source,
                dumped,
                restored,
            ]);
        }
        self.output
            .data(&format!("\n{}\n", indent(&format!("{shown}\n"))));
        if different > 0 {
            return Err(Failure::new(
                Kind::Damaged,
                "demo_differs",
                format!("{different} tables differ"),
            ));
        }
        let (rows, size) = (
            number(manifest.dump.rows),
            bytes(manifest.object.size_bytes),
        );
        self.output.data(&format!(
            "   every table is there, all {rows} rows of it, out of {size}\n"
        ));
        Ok(())
    }

    async fn query(&self, programs: &Programs, database: &str, sql: &str) -> Result<String> {
        let connection = self
            .connection
            .with_database(database)
            .map_err(|error| broken("the connection", &error))?;
        let psql = Psql::new(programs, &self.environment, &connection);
        let answer = psql
            .query(&format!("{sql};"), self.context.stop.token(), TIMEOUT)
            .await
            .map_err(failed)?;
        Ok(String::from_utf8_lossy(&answer).trim().to_owned())
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("   {line}\n")).collect()
}

fn failed(error: Error) -> Failure {
    error.to_failure("the demo", "nothing is left behind")
}

fn broken(what: &str, error: &dyn std::fmt::Display) -> Failure {
    unexpected(&format!("{what}: {error}"))
}

fn unexpected(what: &str) -> Failure {
    Failure::new(
        Kind::Unexpected,
        "demo_failed",
        format!("the demo failed: {what}"),
    )
}
