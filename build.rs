//! Says which commit a binary was built from, for `--version`.
//!
//! The same commit gives the same words whenever and wherever it is built: the date is the commit's own or the one of
//! `SOURCE_DATE_EPOCH`, never the time of the build. Debug builds carry no commit, because keeping it true would
//! build everything anew after each `git commit`. Without git (a source archive, a container) `PGKEEP_COMMIT` may
//! name the commit; without both the version stands alone.

use std::process::Command;

fn main() {
    for name in ["SOURCE_DATE_EPOCH", "PGKEEP_COMMIT"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    let var = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let build = if var("PROFILE").as_deref() == Some("debug") {
        Some("debug build".to_owned())
    } else {
        watch_git();
        let commit = var("PGKEEP_COMMIT").or_else(commit);
        let seconds = var("SOURCE_DATE_EPOCH").or_else(|| git(&["log", "-1", "--format=%ct"]));
        described(commit, seconds.and_then(|text| text.trim().parse().ok()))
    };
    let version = var("CARGO_PKG_VERSION").unwrap_or_default();
    let version = match build {
        Some(build) => format!("{version} ({build})"),
        None => version,
    };
    println!("cargo::rustc-env=PGKEEP_VERSION={version}");
}

/// Puts commit and date into the words behind the version; none where no commit is known.
pub fn described(commit: Option<String>, seconds: Option<i64>) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let commit = commit.filter(|commit| commit.chars().all(is_plain))?;
    Some(match seconds {
        Some(seconds) => format!("{commit} {}", date(seconds)),
        None => commit,
    })
}

/// Makes Cargo run this again when another commit is checked out, or the sources leave it.
fn watch_git() {
    // What is built from changed sources must not go by the name of the commit alone.
    for path in [
        "src",
        "crates",
        "Cargo.toml",
        "Cargo.lock",
        "deploy",
        "config.example.yaml",
    ] {
        println!("cargo::rerun-if-changed={path}");
    }
    let mut names = vec!["HEAD".to_owned(), "packed-refs".to_owned()];
    names.extend(git(&["symbolic-ref", "--quiet", "HEAD"]));
    for name in names {
        if let Some(path) = git(&["rev-parse", "--git-path", &name]) {
            // A path that is not there would make every build run this.
            if std::path::Path::new(&path).exists() {
                println!("cargo::rerun-if-changed={path}");
            }
        }
    }
}

/// Returns the commit of this very project, with a mark where tracked files differ from it.
fn commit() -> Option<String> {
    // Unpacked below some other repository, the sources have nothing to do with its commits.
    git(&["ls-files", "--error-unmatch", "build.rs"])?;
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let is_clean =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|s| s.is_empty());
    Some(if is_clean {
        commit
    } else {
        format!("{commit}-modified")
    })
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// Returns the day in UTC, by the civil calendar that Howard Hinnant describes.
/// <https://howardhinnant.github.io/date_algorithms.html#civil_from_days>
pub fn date(seconds: i64) -> String {
    let days = seconds.div_euclid(86_400) + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * shifted + 2) / 5 + 1, (shifted + 2) % 12 + 1);
    let year = year + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}
