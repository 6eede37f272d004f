//! What rclone's exit codes and words mean.

use std::io;
use std::path::Path;

use crate::Error;

/// Exit codes for what is not there. <https://rclone.org/docs/#exit-code>
const NO_FOLDER: i32 = 3;
const NO_FILE: i32 = 4;

/// Words of a login or a right that was refused.
const DENIED: [&str; 9] = [
    "permission denied",
    "unable to authenticate",
    "AccessDenied",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "Unauthorized",
    "401",
    "403",
    "invalid_grant",
];

/// Words of a remote that is not set up.
const SETUP: [&str; 4] = [
    "didn't find section in config file",
    "didn't find backend called",
    "couldn't decrypt configuration",
    "unable to decrypt configuration",
];

/// Words of a version that does not know what we ask.
const OLD: [&str; 3] = ["unknown command", "unknown flag", "unknown shorthand flag"];

/// How much of the reason is told.
const LINES: usize = 3;

/// Tells whether a run ended because there is nothing of that name. Older versions tell it by words alone.
pub(super) fn is_absent(code: i32, words: &str) -> bool {
    matches!(code, NO_FOLDER | NO_FILE)
        || words.contains("is a directory or doesn't exist")
        || words.contains("object not found")
}

/// Makes an error of how a run ended.
pub(super) fn of_words(what: &str, code: i32, words: &str) -> Error {
    let reason = reason(words);
    let message = if reason.is_empty() {
        format!("{what} failed: rclone ended with {}", ending(code))
    } else {
        format!("{what} failed: {reason}")
    };
    let has = |any: &[&str]| any.iter().any(|part| words.contains(part));
    if has(&OLD) {
        return too_old(message);
    }
    if has(&SETUP) {
        return Error::setup(
            message,
            "`rclone listremotes` shows the remotes of rclone's configuration; `RCLONE_CONFIG` names another file",
        );
    }
    if has(&DENIED) {
        return Error::Denied {
            message,
            hint: Some("the same works by hand: `rclone lsf REMOTE:PATH`".to_owned()),
        };
    }
    Error::failed(message)
}

fn ending(code: i32) -> String {
    if code < 0 {
        "a signal".to_owned()
    } else {
        format!("exit code {code}")
    }
}

/// Makes the error of a version that lacks something.
pub(super) fn too_old(message: String) -> Error {
    Error::Program {
        message,
        hint: "this rclone is too old: version 1.60 and newer will do".to_owned(),
    }
}

/// Makes the error of a program that could not be started.
pub(super) fn not_started(program: &Path, error: &io::Error) -> Error {
    let name = program.display();
    let message = match error.kind() {
        io::ErrorKind::NotFound => format!("the program `{name}` is not installed, or not in PATH"),
        _ => format!("the program `{name}` cannot be started: {error}"),
    };
    Error::Program {
        message,
        hint: "install rclone: `apt-get install rclone`, `brew install rclone`, or <https://rclone.org/install/>".to_owned(),
    }
}

/// Returns what rclone said last, without time and level in front, and without what it always says.
fn reason(words: &str) -> String {
    let mut lines: Vec<&str> = words
        .lines()
        .map(without_time)
        .filter(|line| !line.is_empty() && !is_chatter(line))
        .collect();
    lines.dedup();
    let skipped = lines.len().saturating_sub(LINES);
    lines[skipped..].join("; ")
}

fn is_chatter(line: &str) -> bool {
    (line.starts_with("Config file ") && line.ends_with("using defaults"))
        || line.contains("No host key validation")
        || line.starts_with("Attempt ")
}

/// `2026/11/30 16:59:06 ERROR : words`
fn without_time(line: &str) -> &str {
    let is_stamp = |c: char| c.is_ascii_digit() || matches!(c, '/' | ':' | ' ');
    let is_stamped =
        line.len() > 20 && line.as_bytes()[4] == b'/' && line[..19].chars().all(is_stamp);
    let rest = if is_stamped { &line[19..] } else { line };
    let levels = ["NOTICE", "ERROR", "CRITICAL", "INFO"];
    let rest = rest.trim_start();
    let level = levels.iter().find_map(|level| rest.strip_prefix(level));
    let said = level.map_or(rest, |rest| rest.trim_start_matches([' ', ':']));
    said.trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_rclone_said() {
        let words = "2026/11/30 16:59:06 NOTICE: Config file \"/x/rclone.conf\" not found - using defaults\n\
            2026/11/30 16:59:06 ERROR : Attempt 1/3 failed with 1 errors and: it broke\n\
            2026/11/30 16:59:06 NOTICE: Failed to rcat: it broke\n";
        let error = of_words("writing `a`", 1, words);
        assert_eq!(
            error.to_string(),
            "writing `a` failed: Failed to rcat: it broke"
        );
        let silent = of_words("writing `a`", -1, "");
        assert_eq!(
            silent.to_string(),
            "writing `a` failed: rclone ended with a signal"
        );
    }

    #[test]
    fn tells_kinds_apart() {
        let kind = |words: &str| of_words("x", 1, words);
        for (words, is_it) in [
            (
                "ssh: unable to authenticate, attempted methods",
                matches!(kind("ssh: unable to authenticate"), Error::Denied { .. }),
            ),
            (
                "no section",
                matches!(
                    kind("didn't find section in config file (\"x\")"),
                    Error::Setup { .. }
                ),
            ),
            (
                "old",
                matches!(kind("Error: unknown flag: --stat"), Error::Program { .. }),
            ),
            (
                "else",
                matches!(kind("connection reset"), Error::Failed { .. }),
            ),
        ] {
            assert!(is_it, "{words}");
        }
        assert!(is_absent(3, "") && is_absent(4, ""));
        assert!(is_absent(
            1,
            ":local:d/none is a directory or doesn't exist"
        ));
        assert!(!is_absent(1, "connection reset"));
    }
}
