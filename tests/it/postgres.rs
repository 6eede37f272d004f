//! `postgres/` against a real throw-away server; skipped with a note where no server programs are installed.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pgkeep_core::postgres::dump::{Dump, DumpRequest, Selection};
use pgkeep_core::postgres::environment::Environment;
use pgkeep_core::postgres::error::{Error, Reason};
use pgkeep_core::postgres::globals::Globals;
use pgkeep_core::postgres::process::Stop;
use pgkeep_core::postgres::programs::{Programs, Search};
use pgkeep_core::postgres::psql::Psql;
use pgkeep_core::postgres::scratch::{ScratchOptions, ScratchServer, sweep};
use pgkeep_core::postgres::server::{ServerFacts, TableKind};
use pgkeep_model::connection::Connection;
use pgkeep_model::name::TableName;
use tokio_util::sync::CancellationToken;

/// Names made to break quoting.
const NASTY: &[&str] = &[
    "a*",
    "a?",
    "a.b",
    "a$",
    "-Fc",
    "new\nline",
    "quo\"te",
    "a|b",
    "^ab$",
    "a(b)[c]{1}+\\d",
    "../x",
    "x;--",
    "sp  ace ",
    "😀",
    "sixty_three_bytes_sixty_three_bytes_sixty_three_bytes_sixty_thr",
];

struct Fixture {
    server: ScratchServer,
    programs: Programs,
    environment: Environment,
    cancel: CancellationToken,
}

fn search() -> Search {
    Search::new(None, std::env::var_os("PATH"))
}

impl Fixture {
    async fn start(change: impl FnOnce(&mut ScratchOptions)) -> Option<Self> {
        let environment = Environment::new(std::env::vars_os().filter(|(name, _)| name == "PATH"));
        let cancel = CancellationToken::new();
        let mut options = ScratchOptions::new(search());
        change(&mut options);
        let server = match ScratchServer::start(&options, &environment, &cancel).await {
            Ok(server) => server,
            Err(error) if matches!(error.reason, Reason::ProgramMissing { .. }) => {
                crate::support::skip(&error.to_string());
                return None;
            }
            Err(error) => panic!("{error}: {:?}", error.stderr),
        };
        let major = server.version().major;
        let found = search().find(&environment, &cancel).await;
        let programs = found.choose(Some(major), 0).unwrap().clone();
        Some(Self {
            server,
            programs,
            environment,
            cancel,
        })
    }

    async fn plain() -> Option<Self> {
        Self::start(|_| {}).await
    }

    fn psql(&self, connection: &Connection) -> Psql {
        Psql::new(&self.programs, &self.environment, connection)
    }

    async fn sql_in(&self, connection: &Connection, sql: &str) -> String {
        let psql = self.psql(connection);
        let answer = psql
            .query(
                &format!("RESET search_path;\n{sql}"),
                &self.cancel,
                Duration::from_secs(60),
            )
            .await
            .unwrap_or_else(|e| panic!("{sql}: {:?}", e.stderr));
        String::from_utf8(answer).unwrap()
    }

    async fn sql(&self, sql: &str) -> String {
        self.sql_in(self.server.connection(), sql).await
    }

    async fn try_facts(&self, connection: &Connection) -> Result<ServerFacts, Error> {
        ServerFacts::read(&self.programs, &self.environment, connection, &self.cancel).await
    }

    async fn facts(&self) -> ServerFacts {
        self.try_facts(self.server.connection()).await.unwrap()
    }

    fn start_dump(
        &self,
        connection: &Connection,
        facts: &ServerFacts,
        selection: &Selection,
    ) -> Dump {
        let request = DumpRequest {
            programs: &self.programs,
            environment: &self.environment,
            connection,
            server: facts,
            selection,
            lock_wait_timeout: Duration::from_millis(300),
            snapshot: None,
            read_by_others: &[],
            sections: &[],
        };
        request.start(&self.cancel).unwrap()
    }

    async fn dump_as(
        &self,
        connection: &Connection,
        selection: &Selection,
    ) -> Result<String, Error> {
        let facts = self.facts().await;
        let mut dump = self.start_dump(connection, &facts, selection);
        let mut output = dump.take_output();
        let reader = tokio::task::spawn_blocking(move || {
            let mut text = Vec::new();
            output.read_to_end(&mut text).map(|_| text)
        });
        let read = reader.await.unwrap();
        let ended = dump.wait().await;
        // The reader and the status never disagree.
        assert_eq!(read.is_ok(), ended.is_ok());
        ended.map(|_| String::from_utf8(read.unwrap()).unwrap())
    }

    async fn dump(&self, selection: &Selection) -> Result<String, Error> {
        self.dump_as(self.server.connection(), selection).await
    }

    fn with(&self, changes: &[(&str, &str)]) -> Connection {
        let own = self.server.connection();
        let base = ["host", "port", "user", "dbname"].map(|name| (name, own.get(name).unwrap()));
        let all = base.into_iter().chain(changes.iter().copied());
        Connection::from_parameters(all).unwrap()
    }
}

fn created(dump: &str) -> Vec<&str> {
    dump.split("\nCREATE TABLE ")
        .skip(1)
        .map(|rest| rest.split(" (\n").next().unwrap())
        .collect()
}

fn is_alive(needle: &Path) -> bool {
    let wanted = needle.display().to_string();
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .any(|process| {
            let bytes = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            let arguments = String::from_utf8_lossy(&bytes);
            arguments.starts_with('/') && arguments.contains(&wanted) && arguments.contains("-D\0")
        })
}

#[tokio::test]
async fn facts_are_the_catalogs() {
    let Some(fixture) = Fixture::plain().await else {
        return;
    };
    fixture
        .sql(
            r#"CREATE DATABASE "we=ird" CONNECTION LIMIT 7; COMMENT ON DATABASE "we=ird" IS E'two\nlines';
            ALTER DATABASE "we=ird" SET work_mem = '5MB'; CREATE ROLE app LOGIN;
            ALTER ROLE app IN DATABASE "we=ird" SET statement_timeout = '3s';
            GRANT CONNECT ON DATABASE "we=ird" TO app;"#,
        )
        .await;
    let weird = fixture.server.connection().with_database("we=ird").unwrap();
    fixture
        .sql_in(
            &weird,
            r#"CREATE SCHEMA "Odd S"; CREATE TABLE "Odd S"."new
line" (x int); CREATE UNLOGGED TABLE unlogged (x int); CREATE VIEW v AS SELECT 1; CREATE SEQUENCE seq;
            CREATE TABLE p (x int) PARTITION BY RANGE (x); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (9);
            INSERT INTO p SELECT generate_series(0, 8); CREATE MATERIALIZED VIEW mv AS SELECT * FROM p; ANALYZE;
            CREATE TABLE secret (x int); ALTER TABLE secret ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
            GRANT SELECT ON unlogged, secret TO app;"#,
        )
        .await;
    let facts = fixture.try_facts(&weird).await.unwrap();
    assert_eq!(facts.major(), fixture.server.version().major);
    assert!(facts.is_superuser && facts.bypasses_row_security && facts.session_settings_applied);
    assert!(!facts.is_standby && facts.system_identifier.is_some());
    assert_eq!(facts.user, "pgkeep");
    let database = &facts.database;
    assert_eq!(
        (database.name.as_str(), database.encoding.as_str()),
        ("we=ird", "UTF8")
    );
    assert_eq!(
        (database.connection_limit, database.comment.as_deref()),
        (7, Some("two\nlines"))
    );
    assert!(database.size_bytes > 1_000_000 && database.oid > 0);
    assert_eq!(database.collate.as_deref(), Some("C"));
    assert!(
        database
            .acl
            .as_ref()
            .unwrap()
            .iter()
            .any(|acl| acl == "app=c/pgkeep")
    );
    let settings: Vec<_> = database
        .settings
        .iter()
        .map(|s| (s.role.as_deref(), s.settings.concat()))
        .collect();
    assert!(
        settings.contains(&(None, "work_mem=5MB".into())),
        "{settings:?}"
    );
    assert!(
        settings.contains(&(Some("app"), "statement_timeout=3s".into())),
        "{settings:?}"
    );
    assert_eq!(facts.schemas, ["Odd S", "public"]);
    assert!(
        facts
            .extensions
            .iter()
            .any(|e| e.name == "plpgsql" && e.schema == "pg_catalog")
    );

    let table = |name: &str| facts.tables.iter().find(|t| t.name == name).unwrap();
    assert_eq!(table("new\nline").schema, "Odd S");
    assert!(table("unlogged").is_unlogged);
    assert_eq!(table("p").kind, TableKind::Partitioned);
    assert_eq!(table("p1").parents, [("public".to_owned(), "p".to_owned())]);
    assert_eq!(
        (table("p1").estimated_rows, table("p1").estimated_bytes),
        (Some(9), 8192)
    );
    assert_eq!(table("seq").kind, TableKind::Sequence);
    assert!(table("secret").row_security_forced && !table("secret").row_security_applies);
    assert!(facts.tables.iter().all(|t| t.name != "v" && t.can_read));

    let app = fixture.with(&[("user", "app"), ("dbname", "we=ird")]);
    let facts = fixture.try_facts(&app).await.unwrap();
    let mut unreadable: Vec<_> = facts.unreadable().map(|t| t.name.as_str()).collect();
    unreadable.sort_unstable();
    assert_eq!(unreadable, ["mv", "new\nline", "p", "p1", "secret", "seq"]);
}

#[tokio::test]
async fn facts_of_many_tables_come_fast() {
    let Some(fixture) =
        Fixture::start(|o| o.settings.push("max_locks_per_transaction=4096".into())).await
    else {
        return;
    };
    fixture
        .sql("DO $$ BEGIN FOR i IN 1..3000 LOOP EXECUTE format('CREATE TABLE t%s (x int)', i); END LOOP; END $$;")
        .await;
    let started = Instant::now();
    assert_eq!(fixture.facts().await.tables.len(), 3000);
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn names_are_literal_whatever_they_hold() {
    let Some(fixture) = Fixture::plain().await else {
        return;
    };
    let quote = pgkeep_model::name::quote;
    let tables: String = NASTY
        .iter()
        .map(|name| format!("CREATE TABLE {} (x int);", quote(name)))
        .collect();
    fixture
        .sql(&format!("CREATE TABLE ab (x int); {tables}"))
        .await;
    for name in NASTY {
        let tables = vec![TableName::new("public", *name)];
        let dump = fixture
            .dump(&Selection {
                tables,
                ..Selection::default()
            })
            .await
            .unwrap();
        assert_eq!(
            created(&dump),
            [format!(
                "public.{}",
                pgkeep_model::name::quote_if_needed(name)
            )]
        );
    }
    let exclude_tables = NASTY
        .iter()
        .map(|name| TableName::new("public", *name))
        .collect();
    let rest = fixture
        .dump(&Selection {
            exclude_tables,
            ..Selection::default()
        })
        .await
        .unwrap();
    assert_eq!(created(&rest), ["public.ab"]);

    let tables = vec![
        TableName::new("public", "ab"),
        TableName::new("public", "a_"),
    ];
    let missing = fixture
        .dump(&Selection {
            tables,
            ..Selection::default()
        })
        .await
        .unwrap_err();
    assert_eq!(
        missing.reason,
        Reason::NoMatchingTables {
            name: "table `\"public\".\"a_\"`".into()
        }
    );
    assert_eq!(missing.kind().exit_code(), 21);
}

#[tokio::test]
async fn partitions_go_with_their_parent() {
    let Some(fixture) = Fixture::plain().await else {
        return;
    };
    fixture
        .sql(
            "CREATE TABLE p (x int) PARTITION BY RANGE (x); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (9) PARTITION BY RANGE (x);
            CREATE TABLE p2 PARTITION OF p1 FOR VALUES FROM (0) TO (5); INSERT INTO p VALUES (4); CREATE TABLE other (x int); INSERT INTO other VALUES (77)",
        )
        .await;
    let p = || vec![TableName::new("public", "p")];
    let only = fixture
        .dump(&Selection {
            tables: p(),
            ..Selection::default()
        })
        .await
        .unwrap();
    assert_eq!(
        created(&only),
        ["public.p", "public.p1", "public.p2"].map(|t| t)
    );
    assert!(only.contains("FROM stdin;\n4\n\\.\n"));
    let without = fixture
        .dump(&Selection {
            exclude_tables: p(),
            ..Selection::default()
        })
        .await
        .unwrap();
    assert_eq!(created(&without), ["public.other"]);
    let empty = fixture
        .dump(&Selection {
            structure_only: p(),
            ..Selection::default()
        })
        .await
        .unwrap();
    assert_eq!(created(&empty).len(), 4);
    assert!(!empty.contains("\n4\n\\.\n") && empty.contains("\n77\n\\.\n"));
}

#[tokio::test]
async fn wrong_logins_are_told_and_not_retried() {
    let start = Fixture::start(|options| {
        options.tcp = true;
        options.password = Some("right-pw".to_owned().into());
    });
    let Some(fixture) = start.await else { return };
    assert_eq!(fixture.facts().await.user, "pgkeep");
    for changes in [
        &[("password", "wrong-pw")][..],
        &[("user", "nobody_here"), ("password", "wrong-pw")],
        &[],
    ] {
        let error = fixture.try_facts(&fixture.with(changes)).await.unwrap_err();
        assert_eq!(error.reason, Reason::LoginRefused, "{:?}", error.stderr);
        assert!(!error.is_retryable() && error.kind().exit_code() == 12);
        assert!(!format!("{error:?}").contains("wrong-pw"));
    }
    let missing = fixture.with(&[("password", "right-pw"), ("dbname", "missing")]);
    let error = fixture.try_facts(&missing).await.unwrap_err();
    assert_eq!(
        (error.reason.clone(), error.is_retryable()),
        (Reason::DatabaseMissing, false)
    );
    let nowhere = fixture.with(&[("port", "1")]);
    let error = fixture.try_facts(&nowhere).await.unwrap_err();
    assert_eq!(
        (error.reason.clone(), error.is_retryable()),
        (Reason::Unreachable { is_ipv6: false }, true)
    );
}

#[tokio::test]
async fn rights_and_locks_are_told() {
    let Some(fixture) = Fixture::plain().await else {
        return;
    };
    fixture
        .sql(
            "CREATE ROLE app LOGIN; CREATE TABLE open (x int); CREATE TABLE closed (x int); CREATE TABLE rls (x int);
            ALTER TABLE rls ENABLE ROW LEVEL SECURITY; GRANT SELECT ON open, rls TO app",
        )
        .await;
    let app = fixture.with(&[("user", "app")]);
    let dump = async |name: &str| {
        let tables = vec![TableName::new("public", name)];
        fixture
            .dump_as(
                &app,
                &Selection {
                    tables,
                    ..Selection::default()
                },
            )
            .await
    };
    assert!(dump("open").await.is_ok());
    let denied = dump("closed").await.unwrap_err();
    assert_eq!(
        denied.reason,
        Reason::PermissionDenied {
            object: "table closed".into()
        }
    );
    let secured = dump("rls").await.unwrap_err();
    assert_eq!(
        secured.reason,
        Reason::RowSecurity {
            table: "`rls`".into()
        }
    );

    let own = fixture.server.connection().clone();
    let psql = fixture.psql(&own);
    let cancel = fixture.cancel.clone();
    let holder = tokio::spawn(async move {
        let sql = "BEGIN; LOCK TABLE public.open IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(60);";
        psql.query(sql, &cancel, Duration::from_secs(90))
            .await
            .map(drop)
    });
    let held = "SELECT count(*) FROM pg_locks WHERE relation = 'public.open'::regclass AND granted";
    while fixture.sql(held).await.trim() == "0" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let locked = dump("open").await.unwrap_err();
    assert_eq!(
        locked.reason,
        Reason::LockTimeout {
            relations: "`public.open`".into()
        }
    );
    holder.abort();
}

/// A dump that has begun to stream a table larger than all buffers between.
async fn begin_large_dump(fixture: &Fixture) -> (Dump, pgkeep_core::postgres::process::Output) {
    fixture
        .sql("CREATE TABLE IF NOT EXISTS big AS SELECT g, repeat('x', 1000) FROM generate_series(1, 60000) g")
        .await;
    let facts = fixture.facts().await;
    let mut dump = fixture.start_dump(fixture.server.connection(), &facts, &Selection::default());
    let mut unread = dump.take_output();
    let output = tokio::task::spawn_blocking(move || {
        let mut first = [0; 4096];
        unread.read_exact(&mut first).unwrap();
        unread
    });
    (dump, output.await.unwrap())
}

#[tokio::test]
async fn a_dump_that_breaks_never_ends_well() {
    let Some(fixture) = Fixture::plain().await else {
        return;
    };
    let drain = |mut output: pgkeep_core::postgres::process::Output| {
        tokio::task::spawn_blocking(move || output.read_to_end(&mut Vec::new()))
    };
    let backend = "FROM pg_stat_activity WHERE query LIKE 'COPY public.big%'";

    let (dump, output) = begin_large_dump(&fixture).await;
    fixture
        .sql(&format!("SELECT pg_terminate_backend(pid) {backend}"))
        .await;
    assert!(drain(output).await.unwrap().is_err());
    let error = dump.wait().await.unwrap_err();
    assert_eq!(
        (error.reason.clone(), error.is_retryable()),
        (Reason::ConnectionLost, true),
        "{:?}",
        error.stderr
    );

    let (dump, output) = begin_large_dump(&fixture).await;
    dump.stopper().stop(Stop::Stalled).await;
    assert!(drain(output).await.unwrap().is_err());
    assert_eq!(
        dump.wait().await.unwrap_err().reason,
        Reason::Stopped(Stop::Stalled)
    );

    let (dump, output) = begin_large_dump(&fixture).await;
    fixture.cancel.cancel();
    assert!(drain(output).await.unwrap().is_err());
    let error = dump.wait().await.unwrap_err();
    assert_eq!(
        (error.kind().exit_code(), error.is_retryable()),
        (130, false)
    );
}

#[tokio::test]
async fn no_argument_holds_a_secret_and_no_variable_too_many() {
    let start = Fixture::start(|options| {
        options.tcp = true;
        options.password = Some("s3cret-canary".to_owned().into());
    });
    let Some(mut fixture) = start.await else {
        return;
    };
    let own = [
        ("PATH", "/usr/bin:/bin"),
        ("AWS_SECRET_ACCESS_KEY", "s3-canary"),
    ];
    fixture.environment = Environment::new(own.map(|(n, v)| (n.into(), v.into())));
    let (dump, _output) = begin_large_dump(&fixture).await;
    let mine = std::process::id().to_string();
    let mut seen = 0;
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let stat = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        let is_child = stat
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.split(' ').nth(2) == Some(&mine));
        let read = |name| {
            String::from_utf8_lossy(&std::fs::read(process.path().join(name)).unwrap_or_default())
                .into_owned()
        };
        if is_child
            && read("cmdline").contains("--format=plain")
            && read("environ").contains("s3cret-canary")
        {
            seen += 1;
            assert!(!read("cmdline").contains("canary"));
            assert!(!read("environ").contains("s3-canary"));
        }
    }
    assert_eq!(seen, 1);
    drop(dump);
}

#[tokio::test]
async fn globals_come_without_passwords_where_they_must() {
    let Some(fixture) = Fixture::plain().await else {
        return;
    };
    fixture
        .sql("CREATE ROLE app LOGIN PASSWORD 'x'; CREATE DATABASE \"o'dd=\"; REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC")
        .await;
    let read = async |connection: &Connection| {
        let read = Globals::read(
            &fixture.programs,
            &fixture.environment,
            connection,
            &fixture.cancel,
        );
        let globals = read.await.unwrap();
        (
            String::from_utf8(globals.sql).unwrap(),
            globals.has_passwords,
        )
    };
    let (sql, has_passwords) = read(fixture.server.connection()).await;
    assert!(has_passwords && sql.contains("CREATE ROLE app;") && sql.contains("PASSWORD 'SCRAM"));
    let app = fixture.with(&[("user", "app"), ("dbname", "o'dd=")]);
    let (sql, has_passwords) = read(&app).await;
    assert!(!has_passwords && sql.contains("CREATE ROLE app;") && !sql.contains("PASSWORD"));
}

#[tokio::test]
async fn parameters_without_a_variable_reach_libpq() {
    let Some(fixture) = Fixture::plain().await else {
        return;
    };
    fixture.sql("CREATE DATABASE \"postgres://x/y\"").await;
    let odd = fixture.with(&[("dbname", "postgres://x/y"), ("keepalives_idle", "9")]);
    assert_eq!(
        fixture.sql_in(&odd, "SELECT current_database()").await,
        "postgres://x/y\n"
    );
    let psql = fixture.psql(&odd).with_session_settings();
    let sql = "SHOW bytea_output; SHOW lc_monetary; SHOW TimeZone; SHOW application_name; SHOW statement_timeout";
    let shown = psql
        .query(sql, &fixture.cancel, Duration::from_secs(10))
        .await
        .unwrap();
    assert_eq!(
        String::from_utf8(shown).unwrap(),
        "hex\nC\nUTC\npgkeep\n0\n"
    );
    let bad = fixture.with(&[("tcp_user_timeout", "no number"), ("host", "127.0.0.1")]);
    let error = fixture.try_facts(&bad).await.unwrap_err();
    assert_eq!(error.reason, Reason::BadParameter, "{:?}", error.stderr);
}

#[tokio::test]
async fn debians_wrapper_is_the_last_choice_and_ends_like_the_rest() {
    let wrapper = Path::new("/usr/bin/pg_dump");
    let is_wrapper = wrapper
        .canonicalize()
        .is_ok_and(|real| real.ends_with("pg_wrapper"));
    if !is_wrapper {
        crate::support::skip("no pg_wrapper");
        return;
    }
    let Some(mut fixture) = Fixture::plain().await else {
        return;
    };
    assert_ne!(fixture.programs.folder, Path::new("/usr/bin"));
    let only = Search::new(Some("/usr/bin".into()), None);
    let found = only.find(&fixture.environment, &fixture.cancel).await;
    fixture.programs = found.newest().unwrap().clone();
    let (dump, output) = begin_large_dump(&fixture).await;
    dump.stopper().stop(Stop::Stalled).await;
    drop(output);
    let left = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY public.big%'";
    let give_up_at = Instant::now() + Duration::from_secs(5);
    while fixture.sql(left).await.trim() != "0" {
        assert!(Instant::now() < give_up_at, "its session lives on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn scratch_servers_leave_nothing() {
    let Some(fixture) = Fixture::plain().await else {
        return;
    };
    let folder = fixture.server.folder().to_owned();
    assert!(is_alive(&folder));
    fixture.server.stop().await.unwrap();
    assert!(!folder.exists() && !is_alive(&folder));

    let Some(fixture) = Fixture::plain().await else {
        return;
    };
    let folder = fixture.server.folder().to_owned();
    assert!(
        sweep(Path::new("/tmp"))
            .iter()
            .all(|swept| *swept != folder),
        "a live one was swept"
    );
    drop(fixture);
    assert!(!folder.exists() && !is_alive(&folder));
}

#[tokio::test]
async fn leftovers_of_dead_owners_are_swept() {
    let parent = tempfile::tempdir().unwrap();
    let folder = |name: &str| {
        let folder = parent.path().join(name);
        std::fs::create_dir_all(folder.join("data")).unwrap();
        std::fs::write(folder.join("owner.lock"), "").unwrap();
        folder
    };
    // One process looks like the folder's server, the other only has the number that the folder names.
    let start = |folder: &Path, data: &str| {
        let process = Command::new("sh")
            .args(["-c", "read line", "-D", data])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = format!("{}\n", process.id());
        std::fs::write(folder.join("data/postmaster.pid"), pid).unwrap();
        process
    };
    let (one, other) = (folder("pgkeep-scratch-one"), folder("pgkeep-scratch-other"));
    let mut server = start(&one, one.join("data").to_str().unwrap());
    let mut bystander = start(&other, "/elsewhere");
    let young = parent.path().join("pgkeep-scratch-young");
    std::fs::create_dir_all(&young).unwrap();
    let foreign = folder("something-else");

    let mut swept = sweep(parent.path());
    swept.sort();
    assert_eq!(swept, [one.clone(), other.clone()]);
    assert!(!one.exists() && !other.exists() && young.exists() && foreign.exists());
    assert!(!server.wait().unwrap().success());
    assert!(bystander.try_wait().unwrap().is_none());
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let environment = Environment::new([("PATH".into(), "/usr/bin:/bin".into())]);
    let mut options = ScratchOptions::new(search());
    options.settings.push("no_such_setting=1".into());
    let cancel = CancellationToken::new();
    let error = ScratchServer::start(&options, &environment, &cancel)
        .await
        .err()
        .unwrap();
    if matches!(error.reason, Reason::ProgramMissing { .. }) {
        crate::support::skip(&error.to_string());
        return;
    }
    assert!(
        error
            .stderr
            .iter()
            .any(|line| line.contains("no_such_setting")),
        "{error:?}"
    );
    options.search = Search {
        bin_dir: Some("/no/such".into()),
        path: None,
        folders: Vec::new(),
    };
    let error = ScratchServer::start(&options, &environment, &cancel)
        .await
        .err()
        .unwrap();
    assert!(
        error.hints()[0].contains("apt install postgresql"),
        "{error:?}"
    );
    assert_eq!(error.kind().exit_code(), 26);
}

#[tokio::test]
async fn sql_ascii_is_dumped_in_its_own_bytes() {
    let Some(fixture) = Fixture::start(|options| options.encoding = "SQL_ASCII".into()).await
    else {
        return;
    };
    fixture
        .sql(r"CREATE TABLE t (x text); INSERT INTO t VALUES (E'\xff\xfe')")
        .await;
    let facts = fixture.facts().await;
    assert!(facts.is_sql_ascii());
    let mut dump = fixture.start_dump(fixture.server.connection(), &facts, &Selection::default());
    let mut output = dump.take_output();
    let reader = tokio::task::spawn_blocking(move || {
        let mut text = Vec::new();
        output.read_to_end(&mut text).map(|_| text)
    });
    let text = reader.await.unwrap().unwrap();
    assert!(text.windows(4).any(|bytes| bytes == b"\n\xff\xfe\n"));
    dump.wait().await.unwrap();
}
