//! What a package installs beside the binary: completions, manual, and which commit it is from.

use crate::support::{Sandbox, skip};

/// The build script's own words, tested where they stand.
#[path = "../../build.rs"]
#[allow(dead_code, reason = "Cargo calls its `main`")]
mod build_script;

const SHELLS: [&str; 5] = ["bash", "elvish", "fish", "powershell", "zsh"];

#[test]
fn every_shell_is_offered_every_command() {
    let sandbox = Sandbox::new();
    for shell in SHELLS {
        let script = sandbox.pgkeep(["completions", shell]).run().expect(0);
        for word in ["backup", "retention", "log-file", "keep-daily"] {
            assert!(script.stdout().contains(word), "{shell}: {word}");
        }
    }
    sandbox.pgkeep(["completions", "tcsh"]).run().expect(2);
}

#[test]
fn bash_completes_a_command_and_a_flag() {
    let sandbox = Sandbox::new();
    let printed = sandbox.pgkeep(["completions", "bash"]).run().expect(0);
    let script = sandbox.write("pgkeep.bash", &printed.stdout);
    // As readline calls it: the words, the one under the cursor, and the one in front of it.
    let ask = "set -eu; source \"$1\"; COMP_WORDS=(pgkeep $2); COMP_CWORD=${#COMP_WORDS[@]}; ((COMP_CWORD--)); \
               _pgkeep pgkeep \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD-1]}\"; echo \"${COMPREPLY[*]}\"";
    for (words, reply) in [
        ("ret", "retention"),
        ("backup --strict", "--strict-warnings"),
    ] {
        let arguments = ["-c", ask, "bash", script.to_str().unwrap(), words];
        let outcome = sandbox.program("bash", arguments).run().expect(0);
        assert_eq!(outcome.stdout().trim(), reply, "{outcome}");
    }
}

#[test]
fn the_manual_has_a_page_for_each_command() {
    let sandbox = Sandbox::new();
    let page = sandbox.pgkeep(["man"]).run().expect(0);
    assert!(page.stdout().contains(".TH pgkeep 1"), "{page}");
    sandbox.pgkeep(["man", "--dir", "pages"]).run().expect(0);
    let help = sandbox.pgkeep(["-h"]).run().expect(0);
    let commands = help
        .stdout()
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty());
    let names: Vec<&str> = commands
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|name| !name.is_empty())
        .collect();
    assert!(names.len() > 15, "{names:?}");
    for name in names {
        let page = std::fs::read_to_string(sandbox.path(format!("pages/pgkeep-{name}.1"))).unwrap();
        assert!(
            page.contains(".SH SYNOPSIS") && page.contains(".SH OPTIONS"),
            "{name}"
        );
    }
    let outcome = sandbox
        .pgkeep(["man", "--dir", "/dev/null/x"])
        .run()
        .expect(2);
    assert!(
        outcome
            .stderr()
            .contains("cannot write the manual to `/dev/null/x`"),
        "{outcome}"
    );
}

/// The pages are troff that a reader of manuals takes without a complaint.
#[test]
fn the_manual_is_good_troff() {
    let sandbox = Sandbox::new();
    if which::which("groff").is_err() {
        skip("groff is not installed");
        return;
    }
    sandbox.pgkeep(["man", "--dir", "pages"]).run().expect(0);
    for page in std::fs::read_dir(sandbox.path("pages")).unwrap() {
        let page = page.unwrap().path();
        let arguments = [
            "-k",
            "-man",
            "-Tutf8",
            "-P-cbou",
            "-ww",
            page.to_str().unwrap(),
        ];
        let outcome = sandbox.program("groff", arguments).run().expect(0);
        assert_eq!(outcome.stderr(), "", "{}", page.display());
        assert!(outcome.stdout().contains("OPTIONS"), "{outcome}");
    }
}

#[test]
fn the_version_tells_where_it_is_from() {
    let sandbox = Sandbox::new();
    for flag in ["--version", "-V"] {
        let outcome = sandbox.pgkeep([flag]).run().expect(0);
        let version = outcome.stdout().trim_end();
        let package = format!("pgkeep {}", env!("CARGO_PKG_VERSION"));
        if cfg!(debug_assertions) {
            assert_eq!(version, format!("{package} (debug build)"));
        } else {
            assert!(version.starts_with(&package), "{version}");
        }
    }
}

#[test]
fn the_same_commit_gives_the_same_words() {
    let described =
        |commit: Option<&str>, seconds| build_script::described(commit.map(str::to_owned), seconds);
    let words = described(Some("0123456789ab"), Some(1_767_323_045));
    assert_eq!(words.as_deref(), Some("0123456789ab 2026-01-02"));
    assert_eq!(
        described(Some("v1.2-modified"), None).as_deref(),
        Some("v1.2-modified")
    );
    // Without git nothing is made up, and nothing odd gets into the binary.
    assert_eq!(described(None, Some(0)), None);
    assert_eq!(described(Some("a b\nc"), Some(0)), None);
}

#[test]
fn days_are_those_of_the_calendar() {
    for seconds in (-2_000_000_000..4_000_000_000_i64).step_by(7_777_777) {
        let time = jiff::Timestamp::from_second(seconds).unwrap();
        let day = time.strftime("%Y-%m-%d").to_string();
        assert_eq!(build_script::date(seconds), day);
    }
}
