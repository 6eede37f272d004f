//! `pgkeep demo`: the main job in front of the reader's eyes, on a throw-away server with a real sample database.

mod browser;
mod proofs;
mod serve;

use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use flate2::read::GzDecoder;
use serde::Serialize;

use crate::cli::output::{Output, bytes, number};
use crate::cli::progress::Shown;
use crate::cli::screen::Screen;
use crate::cli::table::Table;
use pgkeep_core::context::Context;
use pgkeep_core::lock::StateFolder;
use pgkeep_core::op::backup::{Report, Request, run as backup};
use pgkeep_core::op::inspect;
use pgkeep_core::op::lock::{Leases, LockSettings};
use pgkeep_core::postgres::environment::Environment;
use pgkeep_core::postgres::error::Error;
use pgkeep_core::postgres::process::Program;
use pgkeep_core::postgres::programs::{Programs, Search};
use pgkeep_core::postgres::psql::Psql;
use pgkeep_core::postgres::scratch::{ScratchOptions, ScratchServer};
use pgkeep_core::setup::Setup;
use pgkeep_core::setup::backup::defaults;
use pgkeep_core::tracker::Untracked;
use pgkeep_model::connection::Connection;
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::manifest::{Manifest, TableRecord};
use pgkeep_model::name::quote;

/// Flags of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Keep the backups of the demo in this folder [default: a temporary one, which is removed]
    #[arg(long, value_name = "FOLDER")]
    pub keep: Option<PathBuf>,
    /// Leave the sample database and its backups on the page of a server, until Ctrl-C
    #[arg(long)]
    pub serve: bool,
    /// Address and port of that server
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:8080",
        requires = "serve"
    )]
    pub listen: String,
}

/// Pagila, the sample database of a film rental, from neondatabase/postgres-sample-dbs; see `assets/README.md`.
const PAGILA: &[u8] = include_bytes!("../../../assets/pagila.sql.gz");

/// The sample database, on the server and in storage.
const PAGILA_NAME: &str = "pagila";

/// How far everything below a step's title is indented.
const INDENT: usize = 3;

/// Loading and restoring take seconds; a busy machine some more.
const TIMEOUT: Duration = Duration::from_secs(300);

pub(super) async fn run(
    args: &DemoArgs,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    // What the sample database goes through is no news.
    let context = &context.tracked_by(Arc::new(Untracked));
    let result = walk(args, setup, output, context).await;
    if result.is_err() && context.stop.is_requested() {
        return Err(stopped(args, context));
    }
    result
}

/// What a program said while it was made to end is of no interest.
fn stopped(args: &DemoArgs, context: &Context) -> Failure {
    let safe = match args.keep {
        Some(_) => "its server is gone",
        None => "nothing is left behind",
    };
    context.stop.failure("the demo").and_safe(safe)
}

async fn walk(args: &DemoArgs, setup: &Setup, output: &Output, context: &Context) -> Result<()> {
    let temporary = tempfile::Builder::new()
        .prefix("pgkeep-demo-")
        .tempdir()
        .map_err(|error| broken("a temporary folder", &error))?;
    let folder = args
        .keep
        .clone()
        .unwrap_or_else(|| temporary.path().to_owned());
    let search = Search::new(None, setup.path());
    let environment = setup.program_environment();
    let options = ScratchOptions::new(search.clone());
    let mut demo = Demo {
        setup,
        output,
        context,
        search,
        environment,
        folder,
        // Hidden from the storage that may be the same folder.
        state: temporary.path().join(".state"),
        connection: Connection::default(),
    };
    demo.tell("1. a throw-away PostgreSQL, without network, removed at the end\n");
    let server = ScratchServer::start(&options, &demo.environment, context.stop.token())
        .await
        .map_err(failed)?;
    demo.connection = server.connection().clone();
    let mut result = demo.walk(&server).await;
    if result.is_ok() && args.serve {
        result = demo.serve(temporary.path(), &args.listen).await;
    }
    server.stop().await.map_err(failed)?;
    if result.is_ok() && args.keep.is_some() {
        let folder = demo.folder.display();
        demo.tell(&format!(
            "\nthe backup is kept in {folder}\n   $ pgkeep list --storage {folder}\n"
        ));
    }
    result
}

struct Demo<'a> {
    setup: &'a Setup,
    output: &'a Output,
    context: &'a Context,
    search: Search,
    environment: Environment,
    folder: PathBuf,
    state: PathBuf,
    connection: Connection,
}

impl Demo<'_> {
    /// Prints what people read; with `--json` the summary at the end is all.
    fn tell(&self, text: &str) {
        if self.output.json {
            return;
        }
        let screen = self.output.screen;
        let lines = text.split_inclusive('\n').map(|line| {
            if line.trim_start().starts_with("$ ") {
                screen.command(line.trim(), INDENT)
            } else {
                screen.fitted(line)
            }
        });
        self.output.data(&lines.collect::<String>());
    }

    /// What is left of the terminal beside the indentation of all that is shown.
    fn screen(&self) -> Screen {
        self.output.screen.within(INDENT)
    }

    async fn walk(&self, server: &ScratchServer) -> Result<()> {
        self.tell(&format!(
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
        let counted = self.restore(&programs, &manifest, &file).await?;
        self.prove().await?;
        self.sum_up(&manifest, &counted);
        Ok(())
    }

    async fn load(&self, programs: &Programs) -> Result<()> {
        self.tell(
            "\n2. a sample database: Pagila, a film rental with partitions, triggers and views\n",
        );
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
        self.tell(&format!(
            "\n3. the backup, proven while it streams\n   $ {command}\n"
        ));
        let report = self.make_backup().await?;
        self.tell(&indent(&super::backup::text(&report, self.screen())));
        report
            .manifest
            .ok_or_else(|| unexpected("the backup left no manifest"))
    }

    /// How the demo's runs lock: nothing of it stays behind, its locks neither.
    fn lock(&self) -> Result<LockSettings> {
        let mut lock = self.setup.lock(Duration::ZERO)?;
        lock.folders = vec![StateFolder {
            path: self.state.clone(),
            is_shared: false,
        }];
        lock.leases = Leases::Each;
        Ok(lock)
    }

    fn database(&self, name: &str) -> Result<Connection> {
        self.connection
            .with_database(name)
            .map_err(|error| broken("the connection", &error))
    }

    async fn make_backup(&self) -> Result<Report> {
        let connection = self.database(PAGILA_NAME)?;
        let request = Request {
            connection,
            search: self.search.clone(),
            environment: self.environment.clone(),
            storages: self.storages()?,
            copies: NonZeroUsize::MIN,
            required: pgkeep_core::setup::flags::required_tables(&[
                "film".to_owned(),
                "payment".to_owned(),
            ])?,
            ..defaults(proofs::name(), self.setup, self.lock()?)
        };
        let shown = Shown::new(request.name.as_str(), self.output);
        let report = backup(&request, self.context, &shown).await;
        shown.finish();
        match report.failure {
            Some(failure) => Err(failure),
            None => Ok(report),
        }
    }

    fn inspect(&self, file: &Path) -> Result<()> {
        self.tell(&format!("\n4. the same checks of the file, which is an ordinary .sql.gz\n   $ pgkeep inspect {}\n", file.display()));
        let source = inspect::Source::File(file.to_owned());
        let report = inspect::run(&inspect::Request {
            identities: Arc::default(),
            source,
            required: Vec::new(),
        });
        self.tell(&indent(&super::inspect::text(&report, self.screen())));
        report.failure.map_or(Ok(()), Err)
    }

    /// The file without its second half must not pass for a backup.
    fn inspect_cut(&self, file: &Path) -> Result<()> {
        self.tell("\n5. and of its first half, which psql would take for a complete dump\n");
        let whole = std::fs::read(file).map_err(|error| broken("the backup", &error))?;
        let mut half =
            tempfile::NamedTempFile::new().map_err(|error| broken("a temporary file", &error))?;
        half.write_all(&whole[..whole.len() / 2])
            .map_err(|error| broken("a temporary file", &error))?;
        let source = inspect::Source::File(half.path().to_owned());
        let report = inspect::run(&inspect::Request {
            identities: Arc::default(),
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
        self.tell(&format!(
            "   refused with exit code {}: {why}\n",
            failure.kind.exit_code()
        ));
        Ok(())
    }

    async fn restore(
        &self,
        programs: &Programs,
        manifest: &Manifest,
        file: &Path,
    ) -> Result<Vec<Counted>> {
        self.tell(&format!(
            "\n6. restored without pgkeep, by the command in its manifest\n   $ {}\n",
            manifest.restore
        ));
        let folder = file.parent().unwrap_or(Path::new("."));
        let script = format!("cd \"$0\" && {}", manifest.restore);
        let shell = Program::new("sh", &self.restore_environment(programs)?);
        shell
            .args([Path::new("-c"), Path::new(&script), folder])
            .run(self.context.stop.token(), TIMEOUT, 1024 * 1024)
            .await
            .map_err(failed)?;
        self.compare(programs, manifest).await
    }

    /// What the line takes for granted: the programs in the PATH, the server in libpq's variables.
    fn restore_environment(&self, programs: &Programs) -> Result<Environment> {
        let mut environment = self.environment.for_connection(&self.connection);
        let own = programs.psql.parent().map(Path::to_owned);
        let usual = environment.get("PATH").unwrap_or_default().to_owned();
        let folders = own.into_iter().chain(std::env::split_paths(&usual));
        let path = std::env::join_paths(folders).map_err(|error| broken("the PATH", &error))?;
        environment.set("PATH", path);
        Ok(environment)
    }

    async fn compare(&self, programs: &Programs, manifest: &Manifest) -> Result<Vec<Counted>> {
        let tables: Vec<&TableRecord> = manifest
            .tables
            .iter()
            .filter(|table| table.rows.is_some())
            .collect();
        let source = self.counts(programs, "pagila", &tables).await?;
        let restored = self.counts(programs, "pagila_restored", &tables).await?;
        let counted: Vec<Counted> = tables
            .iter()
            .zip(source.into_iter().zip(restored))
            .map(|(table, (source, restored))| Counted {
                table: format!("{}.{}", table.schema, table.name),
                source,
                dumped: table.rows.unwrap_or_default(),
                restored,
            })
            .collect();
        self.show(manifest, &counted);
        match counted.iter().filter(|table| !table.is_same()).count() {
            0 => Ok(counted),
            count => {
                let message = format!("the demo failed: {count} restored tables differ");
                Err(Failure::new(Kind::Damaged, "demo_differs", message))
            }
        }
    }

    /// The last word of a demo that is read by a program.
    fn sum_up(&self, manifest: &Manifest, counted: &[Counted]) {
        if self.output.json {
            self.output.json_line(&serde_json::json!({
                "message_type": "summary",
                "backup_id": manifest.id,
                "rows": manifest.dump.rows,
                "size_bytes": manifest.object.size_bytes,
                "tables": counted,
            }));
        }
    }

    fn show(&self, manifest: &Manifest, counted: &[Counted]) {
        let headers = ["table", "database", "manifest", "restored", "result"];
        let mut shown = Table::new(&headers).right(&[1, 2, 3]);
        for table in counted {
            let mark = if table.is_same() { "same" } else { "DIFFERENT" };
            shown.add_row([
                table.table.clone(),
                number(table.source),
                number(table.dumped),
                number(table.restored),
                mark.to_owned(),
            ]);
        }
        self.tell(&format!("\n{}\n", indent(&shown.shown(self.screen()))));
        if counted.iter().all(Counted::is_same) {
            self.tell(&format!(
                "   every table is restored, all {} rows, from a file of {}\n",
                number(manifest.dump.rows),
                bytes(manifest.object.size_bytes)
            ));
        }
    }

    /// Counts the rows that a table has by itself, without those of its partitions.
    async fn counts(
        &self,
        programs: &Programs,
        database: &str,
        tables: &[&TableRecord],
    ) -> Result<Vec<u64>> {
        let count = |table: &&TableRecord| {
            let (schema, name) = (quote(&table.schema), quote(&table.name));
            format!("SELECT count(*) FROM ONLY {schema}.{name};")
        };
        let sql: String = tables.iter().map(count).collect();
        let answer = self.query(programs, database, &sql).await?;
        let parse = |line: &str| line.parse().map_err(|error| broken("a count", &error));
        let counts = answer.lines().map(parse).collect::<Result<Vec<u64>>>()?;
        if counts.len() == tables.len() {
            Ok(counts)
        } else {
            Err(unexpected("not every table was counted"))
        }
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

/// The rows of one table, counted three times.
#[derive(Serialize)]
struct Counted {
    table: String,
    #[serde(rename = "source_rows")]
    source: u64,
    #[serde(rename = "dumped_rows")]
    dumped: u64,
    #[serde(rename = "restored_rows")]
    restored: u64,
}

impl Counted {
    fn is_same(&self) -> bool {
        self.source == self.dumped && self.dumped == self.restored
    }
}

fn indent(text: &str) -> String {
    let lines = text.lines().map(str::trim_end);
    lines
        .map(|line| {
            if line.is_empty() {
                "\n".to_owned()
            } else {
                format!("{:INDENT$}{line}\n", "")
            }
        })
        .collect()
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
