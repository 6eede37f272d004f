//! `pgkeep deploy`: the files that the binary brings, and what it installs with nothing else at hand.
//!
//! crontab and systemctl are scripted; `scheduled.rs` lets the real cron run what is installed here.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::sandbox::Outcome;
use crate::support::{Sandbox, skip};

/// The folder of the repository that is part of the binary.
fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy"))
}

fn script(sandbox: &Sandbox, name: &str, text: &str) {
    let path = sandbox.bin().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
}

/// Every file below `deploy/` but its description, as a path from there.
fn on_disk() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                let name = entry
                    .path()
                    .strip_prefix(root())
                    .unwrap()
                    .display()
                    .to_string();
                names.insert(name);
            }
        }
    }
    assert!(names.remove("README.md"));
    names
}

#[test]
fn the_binary_brings_every_file() {
    let sandbox = Sandbox::new();
    let list = sandbox.pgkeep(["deploy", "list"]).run().expect(0);
    let json = sandbox
        .pgkeep(["--json", "deploy", "list"])
        .run()
        .expect(0)
        .json();
    let files = json["files"].as_array().unwrap();
    let names = files
        .iter()
        .map(|file| file["name"].as_str().unwrap().to_owned());
    assert_eq!(names.collect::<BTreeSet<_>>(), on_disk());
    for name in on_disk() {
        let text = fs::read_to_string(root().join(&name)).unwrap();
        assert!(list.stdout().contains(&name), "{list}");
        let printed = sandbox.pgkeep(["deploy", "print", &name]).run().expect(0);
        assert_eq!(printed.stdout(), text, "{name}");
        let document = sandbox
            .pgkeep(["--json", "deploy", "print", &name])
            .run()
            .expect(0)
            .json();
        assert_eq!(document["text"], text, "{name}");
    }
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for name in on_disk() {
        let (folder, file) = name.split_once('/').unwrap_or(("", &name));
        let is_told =
            readme.contains(file) || (folder != "cron" && readme.contains(&format!("`{folder}/`")));
        assert!(is_told, "deploy/README.md does not name {name}");
    }
    sandbox
        .pgkeep(["deploy", "print", "cron/no-such.sh"])
        .run()
        .expect(2);
}

/// A crontab that is a file, with the manners of the real one, and a `pgkeep` that writes down what it is called with.
struct Cron {
    sandbox: Sandbox,
}

impl Cron {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        script(
            &sandbox,
            "crontab",
            "#!/bin/sh\ncase $1 in\n  -l) [ ! -e refuse ] || { echo 'not allowed' >&2; exit 1; }\n\
             \x20     [ -e tab ] || { echo \"no crontab for $(id -un)\" >&2; exit 1; }; cat tab ;;\n  \
             *) cat \"$1\" >tab; echo x >>writes ;;\nesac\n",
        );
        script(
            &sandbox,
            "fake",
            "#!/bin/sh\nenv | cut -d= -f1 | sort >\"$OUT\"\npwd >>\"$OUT\"\necho \"$@\" >>\"$OUT\"\n\
             [ -z \"${CODE:-}\" ] || echo 'FAIL  login' \nexit ${CODE:-0}\n",
        );
        sandbox.write("pgkeep.yaml", "databases: {}\n");
        let cron = Self { sandbox };
        cron.env("");
        cron
    }

    /// Writes the file of variables, which names the scripted `pgkeep`.
    fn env(&self, more: &str) {
        let program = self.sandbox.bin().join("fake");
        let out = self.sandbox.path("out");
        let text = format!(
            "PGKEEP={}\nOUT={}\n{more}",
            program.display(),
            out.display()
        );
        self.sandbox.write("env", text);
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        let all = [&["deploy"], arguments].concat();
        self.sandbox.pgkeep(all).run()
    }

    fn install(&self, more: &[&str]) -> Outcome {
        let all = [&["install", "cron", "--env-file", "env"], more].concat();
        self.run(&all).expect(0)
    }

    fn tab(&self) -> Vec<u8> {
        fs::read(self.sandbox.path("tab")).unwrap()
    }
}

#[test]
fn only_our_own_block_of_the_crontab_is_touched() {
    let cron = Cron::new();
    // A first crontab, and away again.
    cron.install(&[]);
    let tab = String::from_utf8(cron.tab()).unwrap();
    for (times, name) in [
        ("15 3 * * *", "weekly-backup.sh"),
        ("15 5 * * 0", "weekly-verify.sh"),
        ("41 4 1 * *", "monthly-drill.sh"),
    ] {
        let is_entry = |line: &&str| {
            line.starts_with(&format!("{times} PGKEEP='")) && line.ends_with(&format!("/{name}'"))
        };
        let line = tab.lines().find(is_entry).unwrap();
        assert!(
            line.contains(&format!(
                "PGKEEP_CONFIG='{}'",
                cron.sandbox.path("pgkeep.yaml").display()
            )),
            "{line}"
        );
    }
    let scripts = cron.sandbox.root().join("home/.local/share/pgkeep/deploy");
    for entry in fs::read_dir(&scripts).unwrap().map(Result::unwrap) {
        let name = entry.file_name();
        let original = fs::read(root().join("cron").join(&name)).unwrap();
        assert_eq!(fs::read(entry.path()).unwrap(), original, "{name:?}");
        assert_eq!(
            entry.metadata().unwrap().permissions().mode() & 0o777,
            0o755
        );
    }
    cron.run(&["uninstall", "cron"]).expect(0);
    assert_eq!(cron.tab(), b"");
    assert!(!scripts.exists(), "the scripts and their folder are gone");
    // Foreign lines stay as they are, whatever bytes they hold, in front and behind.
    let before: &[u8] =
        b"# mine \xff\xfe\r\nMAILTO=\"\"\n\n  5 4 * * *  /bin/x 'a\\b' %y\\%z  \n# BEGIN other\n";
    let behind: &[u8] = b"\t\n@daily /bin/true\n\n\n";
    cron.sandbox.write("tab", before);
    let weekdays = [
        "--backup",
        "0 2 * * 1-5",
        "--verify",
        "none",
        "--drill",
        "none",
    ];
    let installed = cron.install(&weekdays);
    let first = cron.tab();
    assert_eq!(&first[..before.len()], before);
    assert!(first.ends_with(installed.stdout().as_bytes()));
    assert_eq!(installed.stdout().lines().count(), 3, "{installed}");
    assert!(
        installed.stdout().contains("\n0 2 * * 1-5 PGKEEP='"),
        "{installed}"
    );
    cron.sandbox.write("tab", [&first, behind].concat());
    let writes = || {
        fs::read_to_string(cron.sandbox.path("writes"))
            .unwrap()
            .len()
    };
    let so_far = writes();
    let again = cron.install(&weekdays);
    assert!(
        again.stderr().contains("already in your crontab"),
        "{again}"
    );
    assert_eq!((cron.tab(), writes()), ([&first, behind].concat(), so_far));
    cron.install(&[]);
    let count = String::from_utf8_lossy(&cron.tab())
        .matches("BEGIN pgkeep")
        .count();
    assert_eq!(count, 1);
    assert!(cron.tab().starts_with(before) && cron.tab().ends_with(behind));
    for _ in 0..2 {
        cron.run(&["uninstall", "cron"]).expect(0);
        assert_eq!(cron.tab(), [before, behind].concat());
    }
}

#[test]
fn a_dry_run_prints_what_the_real_one_writes() {
    let cron = Cron::new();
    let dry = cron.install(&["--dry-run", "--dir", "scripts"]);
    assert!(dry.stderr().contains("nothing was changed"), "{dry}");
    for path in ["tab", "scripts", "out"] {
        assert!(!cron.sandbox.path(path).exists(), "{path}");
    }
    let real = cron.install(&["--dir", "scripts"]);
    assert_eq!(real.stdout(), dry.stdout());
    assert_eq!(cron.tab(), dry.stdout().as_bytes());
    let would = cron
        .run(&["uninstall", "cron", "--dir", "scripts", "--dry-run"])
        .expect(0);
    assert!(would.stdout().contains("would be removed"), "{would}");
    assert_eq!(cron.tab(), dry.stdout().as_bytes());
    // What was edited is the user's own now.
    cron.sandbox
        .write("scripts/weekly-backup.sh", "# pgkeep, mine\n");
    cron.run(&["uninstall", "cron", "--dir", "scripts"])
        .expect(0);
    let left: Vec<_> = fs::read_dir(cron.sandbox.path("scripts"))
        .unwrap()
        .collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

/// What works in a terminal may not in cron, which gives few variables.
#[test]
fn installing_tries_once_in_the_environment_of_cron() {
    let mut cron = Cron::new();
    cron.sandbox.set("DATABASE_URL", "postgres://h/d");
    let good = cron.install(&[]);
    assert!(good.stderr().contains("a backup would work"), "{good}");
    let seen = fs::read_to_string(cron.sandbox.path("out")).unwrap();
    let home = cron.sandbox.root().join("home").display().to_string();
    assert!(seen.ends_with(&format!("{home}\ncheck\n")), "{seen}");
    for name in ["PGKEEP_ENV_FILE", "PGKEEP_CONFIG"] {
        assert!(seen.contains(name), "{seen}");
    }
    assert!(!seen.contains("DATABASE_URL"), "{seen}");
    cron.env("CODE=12\n");
    let bad = cron.install(&[]);
    assert!(
        bad.stderr()
            .contains("a backup would fail\n  FAIL  login\nhint: "),
        "{bad}"
    );
    let json = cron
        .run(&["--json", "install", "cron", "--env-file", "env"])
        .expect(0)
        .json();
    assert_eq!(json["would_work"], false, "{json}");
    assert_eq!(json["said"][0], "FAIL  login", "{json}");
}

#[test]
fn what_is_not_understood_changes_nothing() {
    let cron = Cron::new();
    for wrong in [
        &["install", "cron", "--backup", "daily"][..],
        &["install", "cron", "--backup"],
        &["install", "cron", "--when", "x"],
        &["install", "cron", "--drill", "1 2 3 4 5;x"],
        &["install", "cron", "--env-file", "no-such-file"],
        &["install", "cron", "-d", "shop"],
        &["install"],
    ] {
        cron.run(wrong).expect(2);
        assert!(!cron.sandbox.path("tab").exists(), "{wrong:?}");
    }
    // A file of somebody else where a script should be.
    cron.sandbox
        .write("mine/weekly-backup.sh", "#!/bin/sh\nrm -rf /srv/old\n");
    let taken = cron.run(&["install", "cron", "--dir", "mine"]).expect(25);
    assert!(taken.stderr().contains("not a file of pgkeep"), "{taken}");
    assert!(!cron.sandbox.path("tab").exists());
    cron.install(&[]);
    let cut = String::from_utf8(cron.tab())
        .unwrap()
        .replace("# END pgkeep\n", "1 1 * * * /bin/mine\n");
    for wrong in [format!("# END pgkeep\n{cut}"), cut] {
        cron.sandbox.write("tab", &wrong);
        for verb in ["install", "uninstall"] {
            let outcome = cron.run(&[verb, "cron"]).expect(25);
            assert!(outcome.stderr().contains("do not pair"), "{outcome}");
        }
        assert_eq!(cron.tab(), wrong.as_bytes());
    }
    cron.sandbox.write("refuse", "");
    let before = cron.tab();
    let outcome = cron.run(&["install", "cron"]).expect(1);
    assert!(outcome.stderr().contains("not allowed"), "{outcome}");
    assert_eq!(cron.tab(), before);
}

/// Neither cron nor systemd, and no configuration: each says what to do.
#[test]
fn what_is_missing_is_named_with_the_next_move() {
    let sandbox = Sandbox::new();
    let run = |words: &[&str]| {
        let run = sandbox.pgkeep(words).env("PATH", sandbox.bin());
        run.run()
    };
    let none = run(&["deploy", "install", "cron"]).expect(2);
    assert!(none.stderr().contains("pgkeep config init"), "{none}");
    sandbox.write("pgkeep.yaml", "databases: {}\n");
    let none = run(&["deploy", "install", "cron"]).expect(26);
    assert!(none.stderr().contains("apt-get install cron"), "{none}");
    let units = sandbox.path("units").display().to_string();
    let install = ["deploy", "install", "systemd", "--dir", &units];
    let none = run(&[&install[..], &["--program", "/bin/sh"]].concat()).expect(26);
    assert!(
        none.stderr().contains("pgkeep deploy install cron"),
        "{none}"
    );
    let asleep = "#!/bin/sh\necho 'System has not been booted with systemd' >&2\nexit 1\n";
    script(&sandbox, "systemctl", asleep);
    let none = run(&[&install[..], &["--program", "/bin/sh"]].concat()).expect(26);
    let why = "systemd does not answer; nothing was changed\n  System has not been booted";
    assert!(none.stderr().contains(why), "{none}");
    let hidden = sandbox.write("pgkeep", "").display().to_string();
    let none = run(&[&install[..], &["--program", &hidden]].concat()).expect(25);
    assert!(none.stderr().contains("they do not see /tmp"), "{none}");
    let none = run(&[&install[..], &["--program", "/no/such/pgkeep"]].concat()).expect(25);
    assert!(none.stderr().contains("no such file"), "{none}");
    assert!(!sandbox.root().join("home/.local").exists() && !sandbox.path("units").exists());
}

#[test]
fn units_are_written_started_and_taken_out() {
    let sandbox = Sandbox::new();
    script(&sandbox, "systemctl", "#!/bin/sh\necho \"$@\" >>calls\n");
    let units = sandbox.path("units");
    let folder = units.display().to_string();
    let calls = || {
        let calls = fs::read_to_string(sandbox.path("calls")).unwrap_or_default();
        let _ = fs::remove_file(sandbox.path("calls"));
        calls
    };
    let run = |words: &[&str]| {
        let all = [&["deploy"], words, &["--dir", &folder]].concat();
        sandbox.pgkeep(all).run().expect(0)
    };
    let install = ["install", "systemd", "--program", "/bin/sh"];
    let dry = run(&[&install[..], &["--dry-run"]].concat());
    assert!(
        dry.stdout().contains("would write") && !units.exists(),
        "{dry}"
    );
    assert_eq!(calls(), "");
    let real = run(&install);
    assert_eq!(
        real.stdout()
            .replace("wrote", "would write")
            .replace("started", "would start"),
        dry.stdout()
    );
    let timers = "pgkeep-backup.timer pgkeep-verify.timer pgkeep-drill.timer";
    assert_eq!(
        calls(),
        format!("show --property=Version\ndaemon-reload\nenable --now {timers}\n")
    );
    let names = || {
        fs::read_dir(&units)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect::<Vec<_>>()
    };
    assert_eq!(names().len(), 6);
    let service = units.join("pgkeep-backup.service");
    let text = fs::read_to_string(&service).unwrap();
    assert!(
        text.contains("\nExecStart=\"/bin/sh\" -c ${CREDENTIALS_DIRECTORY}/pgkeep.yaml "),
        "{text}"
    );
    assert_eq!(
        fs::metadata(&service).unwrap().permissions().mode() & 0o777,
        0o644
    );
    if which::which("systemd-analyze").is_ok() {
        let path = service.display().to_string();
        let checked = sandbox
            .program("systemd-analyze", ["verify", "--man=no", &path])
            .run();
        assert_eq!(checked.expect(0).stderr(), "");
    } else {
        skip("systemd-analyze is not installed; scripts/test does it");
    }
    // Again, and after an edit: what was lost comes back.
    assert!(
        run(&install)
            .stdout()
            .contains("the units are there already")
    );
    fs::write(
        &service,
        text.replace("TimeoutStartSec=12h", "TimeoutStartSec=1h"),
    )
    .unwrap();
    let mended = run(&install);
    assert_eq!(mended.stdout().matches("wrote ").count(), 1, "{mended}");
    // Somebody's own unit of such a name stays.
    fs::write(
        units.join("pgkeep-drill.timer"),
        "# Starts my own script, and pgkeep behind it.\n[Timer]\nOnCalendar=daily\n",
    )
    .unwrap();
    let again = [&["deploy"], &install[..], &["--dir", &folder]].concat();
    let refused = sandbox.pgkeep(again).run().expect(25);
    assert!(refused.stderr().contains("pgkeep-drill.timer"), "{refused}");
    calls();
    let would = run(&["uninstall", "systemd", "--dry-run"]);
    assert_eq!(
        (
            would.stdout().matches("would remove").count(),
            names().len()
        ),
        (5, 6),
        "{would}"
    );
    run(&["uninstall", "systemd"]);
    assert_eq!(names(), ["pgkeep-drill.timer"]);
    assert_eq!(
        calls(),
        format!("show --property=Version\ndisable --now {timers}\ndaemon-reload\n")
    );
}
