//! README as a reader follows it: every `sh run` block runs, in order and in one folder; every `yaml` block is a config.
//!
//! What the text leaves to the reader (URLs, keys, the server to restore into) comes by environment, never by a change
//! of the text.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use pgkeep_model::config::{Env, parse};

use crate::support::sandbox::Outcome;
use crate::support::{CANARY, S3Server, Sandbox, Server, postgres};

const README: &str = include_str!("../../README.md");

/// Owner of the databases of the text, and whom it restores as: no superuser.
const APP: &str = "readme_app";

/// Databases that the text names.
const DATABASES: [&str; 3] = ["shop", "blog", "shop_restored"];

const SHOP: &str = r#"
    CREATE TABLE users (id int PRIMARY KEY, name text);
    INSERT INTO users SELECT n, 'user ' || n FROM generate_series(1, 500) n;
    CREATE TABLE orders (id int PRIMARY KEY, user_id int REFERENCES users);
    INSERT INTO orders SELECT n, n % 500 + 1 FROM generate_series(1, 1200) n;
    CREATE TABLE sessions (id int);
    CREATE TABLE audit_log (line text);
    CREATE SCHEMA billing;
    CREATE TABLE billing."Invoice Lines" (id int);
"#;

const BLOG: &str = "CREATE TABLE posts (id int); CREATE TABLE sessions (id int); CREATE TABLE audit_log (line text);";

/// A fenced block: what stands behind the fence, and the text.
struct Fenced {
    info: &'static str,
    text: String,
}

fn blocks() -> Vec<Fenced> {
    let mut blocks = Vec::new();
    let mut lines = README.lines();
    while let Some(line) = lines.next() {
        if let Some(info) = line.strip_prefix("```") {
            let text = lines
                .by_ref()
                .take_while(|line| !line.starts_with("```"))
                .map(|line| format!("{line}\n"))
                .collect();
            blocks.push(Fenced { info, text });
        }
    }
    blocks
}

#[test]
fn every_block_has_a_known_kind() {
    let kinds: BTreeSet<&str> = blocks().iter().map(|block| block.info).collect();
    let known = [
        "crontab",
        "json",
        "sh",
        "sh run",
        "sh run supabase",
        "text",
        "yaml",
        "yaml pgkeep.yaml",
        "yaml supabase.yaml",
    ];
    assert_eq!(kinds, BTreeSet::from(known));
}

/// Returns the text of the blocks with this behind the fence.
pub fn text_of(info: &str) -> String {
    let those = blocks().into_iter().filter(|block| block.info == info);
    those.map(|block| block.text).collect()
}

/// The commands that build or test the project itself cannot run inside its tests; their scripts must be there.
#[test]
fn blocks_that_do_not_run_name_scripts_only() {
    for block in blocks().iter().filter(|block| block.info == "sh") {
        for line in block.text.lines() {
            let script = line.split(' ').next().unwrap();
            assert!(script.starts_with("scripts/"), "{line}");
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
            let mode = path.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o111, 0o111, "{script} can be started");
        }
    }
}

/// An environment in which every variable is set.
struct AllSet;

impl Env for AllSet {
    fn var(&self, name: &str) -> Option<String> {
        let is_url = name.ends_with("_URL");
        Some(
            if is_url {
                "postgres://db/shop"
            } else {
                "https://x"
            }
            .to_owned(),
        )
    }

    fn read_file(&self, path: &Path) -> std::io::Result<String> {
        panic!("no file is named, and {} is read", path.display())
    }
}

#[test]
fn every_yaml_block_is_a_config() {
    for block in blocks() {
        if block.info.starts_with("yaml") {
            let config = parse(&block.text, &AllSet).unwrap();
            assert!(!config.databases.is_empty() && !config.storages.is_empty());
        }
    }
}

#[test]
fn every_command_of_the_help_is_in_the_text() {
    let sandbox = Sandbox::new();
    let help = sandbox.pgkeep(["-h"]).run().expect(0);
    let commands = help
        .stdout()
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty());
    // What a long line goes on with stands further right.
    let is_first = |line: &&str| line.starts_with("  ") && !line.starts_with("   ");
    let names: Vec<&str> = commands
        .filter(is_first)
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(names.contains(&"inspect"), "{names:?}");
    for name in names {
        assert!(
            README.contains(&format!("pgkeep {name}"))
                || README.contains(&format!("scripts/{name}")),
            "{name}"
        );
    }
}

/// The server with the databases of the text, which are dropped in the end.
struct Databases<'a>(&'a Server);

impl<'a> Databases<'a> {
    fn create(server: &'a Server) -> Self {
        let databases = Self(server);
        databases.drop_all();
        let role = format!("CREATE ROLE {APP} LOGIN CREATEDB PASSWORD '{CANARY}'");
        server.sql("template1", &role);
        for (name, sql) in [("shop", SHOP), ("blog", BLOG)] {
            server.sql(
                "template1",
                &format!("CREATE DATABASE {name} OWNER {APP} TEMPLATE template0"),
            );
            server.sql(
                name,
                &format!("GRANT ALL ON SCHEMA public TO {APP}; SET ROLE {APP}; {sql}"),
            );
        }
        databases
    }

    fn drop_all(&self) {
        // What the text restores into is made by it, and kept under other names by `--replace`.
        let query = "SELECT datname FROM pg_database WHERE datname LIKE 'shop\\_%'";
        let made = self.0.sql("template1", query);
        for name in DATABASES.into_iter().chain(made.lines()) {
            self.0.sql(
                "template1",
                &format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)"),
            );
        }
        self.0
            .sql("template1", &format!("DROP ROLE IF EXISTS {APP}"));
    }
}

impl Drop for Databases<'_> {
    fn drop(&mut self) {
        self.drop_all();
    }
}

fn sandbox(server: &Server, s3: &S3Server) -> Sandbox {
    let mut sandbox = Sandbox::new();
    let built = Path::new(env!("CARGO_BIN_EXE_pgkeep"))
        .parent()
        .unwrap()
        .to_owned();
    let own = std::env::var_os("PATH").unwrap();
    let path = [built, server.bin().to_owned()]
        .into_iter()
        .chain(std::env::split_paths(&own));
    sandbox.set("PATH", std::env::join_paths(path).unwrap());
    sandbox.set("HOME", sandbox.path(""));
    let socket = server.socket_dir().display().to_string();
    let entry = format!(
        "[shop]\nhost={socket}\nport={}\nuser={APP}\ndbname=shop\n",
        server.port()
    );
    let service = sandbox.write("pg_service.conf", entry);
    sandbox.set("PGSERVICEFILE", service);
    for (key, value) in [
        ("CHECKOUT", env!("CARGO_MANIFEST_DIR").to_owned()),
        ("PGHOST", socket),
        ("PGPORT", server.port().to_string()),
        ("PGUSER", APP.to_owned()),
        ("DATABASE_URL", server.url_as(APP, CANARY, "shop")),
        ("BLOG_URL", server.url_as(APP, CANARY, "blog")),
        ("S3_ENDPOINT", s3.endpoint.clone()),
        ("S3_ACCESS_KEY_ID", s3.access_key.clone()),
        ("S3_SECRET_ACCESS_KEY", s3.secret_key.clone()),
    ] {
        sandbox.set(key, value);
    }
    for (key, value) in s3.environment() {
        sandbox.set(key, value);
    }
    sandbox
}

#[test]
fn every_command_runs() {
    let Some(server) = postgres() else { return };
    let s3 = S3Server::start();
    let databases = Databases::create(server);
    let sandbox = sandbox(server, &s3);
    let shell = |script: &str| -> Outcome {
        let run = sandbox.program("sh", ["-euc", script]).run();
        run.expect(0)
    };
    for block in blocks() {
        match block.info {
            "sh run" => drop(shell(&block.text)),
            "crontab" => cron_commands(&block.text).for_each(|line| assert_quiet(&shell(&line))),
            info => {
                if let Some(file) = info.strip_prefix("yaml ") {
                    sandbox.write(file, &block.text);
                }
            }
        }
    }
    for table in ["users", "orders"] {
        let count = format!("SELECT count(*) FROM {table}");
        assert_eq!(
            server.sql("shop_restored", &count),
            server.sql("shop", &count)
        );
    }
    let keys = s3.keys();
    assert!(
        keys.iter()
            .any(|key| key.starts_with("pg/blog/blog-") && key.ends_with(".manifest.json")),
        "{keys:?}"
    );
    drop(databases);
}

/// The commands of a crontab, without times, comments and variables.
fn cron_commands(text: &str) -> impl Iterator<Item = String> {
    let entries = text
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_digit() || c == '*'));
    entries.map(|line| line.splitn(6, ' ').nth(5).unwrap().trim().to_owned())
}

/// cron sends a mail for whatever is printed.
fn assert_quiet(run: &Outcome) {
    assert_eq!((run.stdout(), run.stderr()), ("", ""));
}
