//! README and the book as a reader follows them: every `sh run` block runs, every `yaml` block is a configuration.
//!
//! Each page is followed in a sandbox of its own, its blocks in order. What the text leaves to the reader (URLs, keys,
//! the server) comes by environment, never by a change of the text. A new page is followed without being named here.
//!
//! | info string | the block |
//! | --- | --- |
//! | `sh run` | runs, in a shell of its own |
//! | `sh run supabase` | runs in the tests of Supabase (`supabase/onto.rs`), which have such a server |
//! | `sql run` | runs in the database `shop`, as superuser |
//! | `sh`, `sh by-hand` | cannot run here; pgkeep must know its commands, and the files must exist |
//! | `yaml NAME` | is a configuration, and written into the sandbox as NAME |
//! | `yaml` | is a configuration |
//! | `yaml part` | is one when the sections that it lacks are those of the book's configuration |
//! | `crontab` | its commands run and print nothing |

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::thread;

use pgkeep_model::config::{Env, parse};

use crate::support::postgres::USER;
use crate::support::sandbox::Outcome;
use crate::support::{CANARY, S3Server, Sandbox, Server};

/// The page that the others build on: its configuration and its roles are what a reader has.
const FIRST: &str = "docs/src/getting-started.md";

/// Pages that begin with nothing.
const FROM_NOTHING: [&str; 3] = ["README.md", "docs/src/introduction.md", FIRST];

/// Pages that take the role to back up with; the other pages of the book restore, too.
const READ_ONLY: [&str; 2] = [FIRST, "docs/src/backup.md"];

const BACKUP_ROLE: &str = "pgkeep_backup";
const RESTORE_ROLE: &str = "pgkeep_restore";

/// Owner of everything in the databases. README's reader has no other role yet.
const OWNER: &str = "shop_owner";

/// The role that the reader of a page logs in as.
fn role_of(page: &str) -> &'static str {
    match page {
        "README.md" => OWNER,
        page if READ_ONLY.contains(&page) => BACKUP_ROLE,
        _ => RESTORE_ROLE,
    }
}

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

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README, and all pages of the book, by their path from the root.
fn pages() -> BTreeSet<String> {
    let mut pages = BTreeSet::from(["README.md".to_owned()]);
    let mut folders = vec![root().join("docs/src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let relative = path.strip_prefix(root()).unwrap();
                pages.insert(relative.to_str().unwrap().to_owned());
            }
        }
    }
    pages
}

/// A fenced block.
struct Fenced {
    /// What is behind the fence.
    info: String,
    text: String,
    line: usize,
}

impl Fenced {
    /// Whether it runs when its page is followed.
    fn runs(&self) -> bool {
        ["sh run", "sql run", "crontab"].contains(&self.info.as_str())
    }
}

/// Returns the blocks of a page; those in a list are indented. Files are included as mdBook does it.
fn blocks(page: &str) -> Vec<Fenced> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let indent = line.len() - line.trim_start().len();
        let Some(info) = line.trim_start().strip_prefix("```") else {
            continue;
        };
        let inside = lines.by_ref().map(|(_, line)| line);
        let text: String = inside
            .take_while(|line| !line.trim_start().starts_with("```"))
            .map(|line| included(page, line.get(indent..).unwrap_or_default()) + "\n")
            .collect();
        blocks.push(Fenced {
            info: info.to_owned(),
            text,
            line: number + 1,
        });
    }
    blocks
}

fn included(page: &str, line: &str) -> String {
    let file = line
        .strip_prefix("{{#include ")
        .and_then(|rest| rest.strip_suffix("}}"));
    file.map_or_else(
        || line.to_owned(),
        |file| fs::read_to_string(root().join(page).with_file_name(file)).unwrap(),
    )
}

/// Returns the text of a page's blocks with this behind the fence.
pub fn text_of(page: &str, info: &str) -> String {
    let those = blocks(page).into_iter().filter(|block| block.info == info);
    those.map(|block| block.text).collect()
}

/// Every block of every page, with where it is.
fn all_blocks() -> Vec<(String, Fenced)> {
    let of = |page: String| {
        let found = blocks(&page).into_iter();
        found.map(move |block| (format!("{page}:{}", block.line), block))
    };
    pages().into_iter().flat_map(of).collect()
}

#[test]
fn every_block_has_a_known_kind() {
    let known = [
        "crontab",
        "ini",
        "json",
        "rust",
        "sh",
        "sh by-hand",
        "sh run",
        "sh run supabase",
        "sql",
        "sql run",
        "text",
        "toml",
        "yaml",
        "yaml part",
    ];
    let mut runs = 0;
    for (place, block) in all_blocks() {
        let is_file = block.info.starts_with("yaml ") && block.info.ends_with(".yaml");
        assert!(
            is_file || known.contains(&block.info.as_str()),
            "{place}: `{}` is no kind of block",
            block.info
        );
        runs += usize::from(block.runs());
    }
    assert!(runs > 40, "only {runs} blocks run");
}

/// Blocks that would change the machine, or need one that is not here: what they name must be there all the same.
#[test]
fn blocks_by_hand_name_what_there_is() {
    let sandbox = Sandbox::new();
    let mut known = 0;
    for (place, block) in all_blocks() {
        if !["sh", "sh by-hand"].contains(&block.info.as_str()) {
            continue;
        }
        for written in block.text.lines() {
            let command = written.split(" #").next().unwrap_or_default();
            let line = command.strip_prefix("sudo ").unwrap_or(command);
            for word in line.split_whitespace() {
                assert_file_is_there(&place, word);
            }
            if line.starts_with("pgkeep ") {
                // The shell takes the quotes away; `--help` is read behind all the others.
                let script = format!("pgkeep() {{ \"$PGKEEP\" \"$@\" --help; }}\n{line}");
                let program = sandbox.program("sh", ["-euc", &script]);
                let run = program.env("PGKEEP", env!("CARGO_BIN_EXE_pgkeep")).run();
                assert_eq!(run.code(), 0, "{place}: {run}");
                known += 1;
            }
        }
    }
    assert!(known > 2, "only {known} commands were tried");
}

fn assert_file_is_there(place: &str, word: &str) {
    let is_script = word.starts_with("scripts/");
    if is_script || word.starts_with("deploy/") {
        let found = root().join(word).metadata();
        let metadata = found.unwrap_or_else(|error| panic!("{place}: {word}: {error}"));
        let can_be_started = metadata.permissions().mode() & 0o111 == 0o111;
        assert!(
            can_be_started || !is_script,
            "{place}: {word} cannot be started"
        );
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
    let whole = text_of(FIRST, "yaml pgkeep.yaml");
    for (place, block) in all_blocks() {
        if !block.info.starts_with("yaml") {
            continue;
        }
        let mut text = block.text;
        if block.info == "yaml part" {
            let own: BTreeSet<String> = sections(&text).into_keys().collect();
            let lacking = sections(&whole)
                .into_iter()
                .filter(|(name, _)| !own.contains(name));
            let rest: String = lacking.map(|(_, section)| section).collect();
            assert!(!rest.is_empty(), "{place} is a whole configuration");
            text += &rest;
        }
        let config = parse(&text, &AllSet).unwrap_or_else(|error| panic!("{place}: {error:?}"));
        assert!(!config.databases.is_empty() && !config.storages.is_empty());
    }
}

/// The sections of a configuration by name.
fn sections(text: &str) -> BTreeMap<String, String> {
    let mut sections: BTreeMap<String, String> = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines() {
        if line.starts_with(char::is_alphabetic) {
            name = line.split(':').next().unwrap_or_default().to_owned();
        }
        *sections.entry(name.clone()).or_default() += &format!("{line}\n");
    }
    sections
}

#[test]
fn every_command_of_the_help_is_in_the_text() {
    let texts = pages().into_iter().map(|page| root().join(page));
    let text: String = texts
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
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
        assert!(text.contains(&format!("pgkeep {name}")), "{name}");
    }
}

/// A server of this test's own, with what the text starts from.
struct World {
    server: Server,
    s3: S3Server,
}

impl World {
    fn start() -> Option<Self> {
        Some(Self {
            server: Server::private()?,
            s3: S3Server::start(),
        })
    }

    /// Makes the databases of the text, and nothing else is there.
    fn reset(&self) {
        let server = &self.server;
        let databases =
            "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'";
        for name in server.sql("template1", databases).lines() {
            server.sql(
                "template1",
                &format!("DROP DATABASE \"{name}\" WITH (FORCE)"),
            );
        }
        let roles = format!(
            "SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' AND rolname NOT IN ('{USER}', 'postgres')"
        );
        for name in server.sql("template1", &roles).lines() {
            server.sql("template1", &format!("DROP ROLE \"{name}\""));
        }
        let owner = format!("CREATE ROLE {OWNER} LOGIN CREATEDB PASSWORD '{CANARY}'");
        server.sql("template1", &owner);
        for (name, sql) in [("shop", SHOP), ("blog", BLOG)] {
            let create = format!("CREATE DATABASE {name} OWNER {OWNER} TEMPLATE template0");
            server.sql("template1", &create);
            let load = format!("GRANT ALL ON SCHEMA public TO {OWNER}; SET ROLE {OWNER}; {sql}");
            server.sql(name, &load);
        }
    }

    /// Runs SQL of the text; the passwords are the reader's own.
    fn run_sql(&self, sql: &str) {
        self.server.sql("shop", sql);
        for role in [BACKUP_ROLE, RESTORE_ROLE] {
            let exists = format!("SELECT count(*) FROM pg_roles WHERE rolname = '{role}'");
            if self.server.sql("shop", &exists) == "1" {
                let alter = format!("ALTER ROLE {role} PASSWORD '{CANARY}'");
                self.server.sql("shop", &alter);
            }
        }
    }

    /// A sandbox with everything that the text takes from the reader.
    fn sandbox(&self, page: &str) -> Sandbox {
        let (server, s3) = (&self.server, &self.s3);
        let role = role_of(page);
        let mut sandbox = Sandbox::new();
        let built = Path::new(env!("CARGO_BIN_EXE_pgkeep")).parent().unwrap();
        let own = std::env::var_os("PATH").unwrap();
        let path = [built.to_owned(), server.bin().to_owned()]
            .into_iter()
            .chain(std::env::split_paths(&own));
        sandbox.set("PATH", std::env::join_paths(path).unwrap());
        sandbox.set("HOME", sandbox.path(""));
        let socket = server.socket_dir().display().to_string();
        let entry = format!(
            "[shop]\nhost={socket}\nport={}\nuser={role}\ndbname=shop\n",
            server.port()
        );
        let service = sandbox.write("pg_service.conf", entry);
        sandbox.set("PGSERVICEFILE", service);
        for (key, value) in [
            ("CHECKOUT", root().display().to_string()),
            ("PGHOST", socket),
            ("PGPORT", server.port().to_string()),
            ("PGUSER", role.to_owned()),
            ("DATABASE_URL", server.url_as(role, CANARY, "shop")),
            ("BLOG_URL", server.url_as(role, CANARY, "blog")),
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

    fn follow(&self, page: &str) {
        self.reset();
        let sandbox = self.sandbox(page);
        let shell = |place: &str, script: &str| -> Outcome {
            let run = sandbox.program("sh", ["-euc", script]).run();
            assert!(run.status.success(), "{place}: {run}");
            run
        };
        if page != FIRST {
            self.run_sql(&text_of(FIRST, "sql run"));
        }
        if !FROM_NOTHING.contains(&page) {
            sandbox.write("pgkeep.yaml", text_of(FIRST, "yaml pgkeep.yaml"));
            shell(page, "pgkeep backup");
        }
        for block in blocks(page) {
            let place = format!("{page}:{}", block.line);
            match block.info.as_str() {
                "sql run" => self.run_sql(&block.text),
                "sh run" => drop(shell(&place, &block.text)),
                "crontab" => {
                    for line in cron_commands(&block.text) {
                        let run = shell(&place, &line);
                        // cron sends a mail for whatever is printed.
                        assert_eq!((run.stdout(), run.stderr()), ("", ""), "{place}: {line}");
                    }
                }
                info => {
                    let file = info.strip_prefix("yaml ");
                    if let Some(file) = file.filter(|file| file.ends_with(".yaml")) {
                        sandbox.write(file, &block.text);
                    }
                }
            }
        }
        self.assert_copies_are_whole(page);
    }

    /// Whatever the text made of `shop` has all users.
    fn assert_copies_are_whole(&self, page: &str) {
        let query = "SELECT datname FROM pg_database WHERE datname ~ '^shop'";
        let names = self.server.sql("template1", query);
        let copies: Vec<&str> = names.lines().collect();
        for name in &copies {
            let users = self.server.sql(name, "SELECT count(*) FROM users");
            assert_eq!(users, "500", "{page}: {name}");
        }
        // The page's own copies, the one that was swapped in, and the one that it replaced.
        assert!(
            page != "docs/src/restore.md" || copies.len() > 6,
            "{copies:?}"
        );
    }
}

#[test]
fn every_page_can_be_followed() {
    let is_followed = |page: &String| blocks(page).iter().any(Fenced::runs);
    let followed: Vec<String> = pages().into_iter().filter(is_followed).collect();
    assert!(followed.len() > 8, "{followed:?}");
    let left = Mutex::new(followed);
    let next = || left.lock().unwrap().pop();
    let work = || -> Vec<String> {
        let mut failed = Vec::new();
        let Some(world) = World::start() else {
            return failed;
        };
        while let Some(page) = next() {
            // One page that fails does not hide another.
            if catch_unwind(AssertUnwindSafe(|| world.follow(&page))).is_err() {
                failed.push(page);
            }
        }
        failed
    };
    let failed = thread::scope(|scope| {
        let workers = [scope.spawn(work), scope.spawn(work)];
        workers.map(|worker| worker.join().unwrap()).concat()
    });
    assert!(failed.is_empty(), "cannot be followed: {failed:?}");
}

/// The commands of a crontab, without times, comments and variables.
fn cron_commands(text: &str) -> impl Iterator<Item = String> {
    let entries = text
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_digit() || c == '*'));
    entries.map(|line| line.splitn(6, ' ').nth(5).unwrap().trim().to_owned())
}
