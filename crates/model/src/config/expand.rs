//! `${NAME}` and `${NAME:-default}` in scalars, and `NAME_FILE` beside them.
//!
//! A name that is not set is a problem and never the empty string. Messages carry the name alone: neither the
//! value nor the text around it.

use std::io;
use std::path::{Path, PathBuf};

/// Longest value that references expand to.
const MAX_EXPANDED: usize = 1 << 20;

/// What the config may look up; the caller decides what it sees.
pub trait Env {
    /// Returns where a path of the config leads.
    fn place(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }

    /// Returns the value of an environment variable, `None` where it is not set or not UTF-8.
    fn var(&self, name: &str) -> Option<String>;

    /// Reads a small file, such as one that holds a secret.
    fn read_file(&self, path: &Path) -> io::Result<String>;
}

/// An environment with nothing in it.
pub struct NoEnv;

impl Env for NoEnv {
    fn var(&self, _: &str) -> Option<String> {
        None
    }

    fn read_file(&self, _: &Path) -> io::Result<String> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Replaces every `${..}`; `$${` stands for a literal `${`, and any other `$` for itself.
///
/// A value is taken as it is: it is not read as YAML and not expanded again.
pub(super) fn expand(text: &str, env: &dyn Env) -> Result<String, Vec<String>> {
    let mut expanded = String::with_capacity(text.len());
    let mut messages = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if let Some(before) = rest[..at].strip_suffix('$') {
            expanded.push_str(before);
            expanded.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        expanded.push_str(&rest[..at]);
        let (reference, behind) = split_reference(&rest[at + 2..]);
        match reference.and_then(|(name, default)| look_up(name, default, env)) {
            // A reference of four letters may stand for a hundred kilobytes.
            Ok(value) if expanded.len() + value.len() > MAX_EXPANDED => {
                return Err(vec![format!(
                    "a value becomes longer than {} KiB",
                    MAX_EXPANDED / 1024
                )]);
            }
            Ok(value) => expanded.push_str(&value),
            Err(message) => messages.push(message),
        }
        rest = behind;
    }
    expanded.push_str(rest);
    if messages.is_empty() {
        Ok(expanded)
    } else {
        Err(messages)
    }
}

/// Reads a file that a key of the config names, from where the config is.
pub(super) fn read_placed_file(path: &str, env: &dyn Env) -> Result<String, String> {
    let placed = env.place(Path::new(path));
    match placed.to_str() {
        Some(placed) => read_value_file(placed, env),
        None => Err(format!("`{path}` is in a folder whose name is not UTF-8")),
    }
}

/// Reads a file that holds one value: line ends at its end do not belong to the value.
fn read_value_file(path: &str, env: &dyn Env) -> Result<String, String> {
    let text = env
        .read_file(Path::new(path))
        .map_err(|error| format!("cannot read `{path}`: {error}"))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(format!("`{path}` is empty")),
        value => Ok(value.to_owned()),
    }
}

type Reference<'t> = (&'t str, Option<&'t str>);

/// Splits `NAME:-default}behind` after its closing brace.
fn split_reference(text: &str) -> (Result<Reference<'_>, String>, &str) {
    let Some((inside, behind)) = text.split_once('}') else {
        return (Err(malformed()), "");
    };
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let reference = if is_name(name) {
        Ok((name, default))
    } else {
        Err(malformed())
    };
    (reference, behind)
}

/// Says what is wrong without the text, which may be part of a password.
fn malformed() -> String {
    "`${` must be followed by the name of a variable and `}`; write `$${` for a literal `${`".into()
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Takes `NAME`, else the file that `NAME_FILE` names, else the default.
///
/// Empty counts as not set, because a CI system hands out a missing secret as the empty string.
fn look_up(name: &str, default: Option<&str>, env: &dyn Env) -> Result<String, String> {
    let value = env.var(name);
    if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
        return Ok(value.clone());
    }
    let file = format!("{name}_FILE");
    if let Some(path) = env.var(&file).filter(|path| !path.is_empty()) {
        return read_value_file(&path, env).map_err(|why| {
            format!("`${{{name}}}` is to come from the file that `{file}` names: {why}")
        });
    }
    match (default, value) {
        (Some(default), _) => Ok(default.to_owned()),
        (None, Some(_)) => Err(format!("`${{{name}}}` is empty in the environment")),
        (None, None) => Err(format!("`${{{name}}}` is not set in the environment")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Fake;
    use super::*;

    fn env() -> Fake {
        Fake::default()
            .var("NAME", "shop")
            .var("EMPTY", "")
            .var("ODD", "${NAME}: [*x")
            .var("SECRET_FILE", "/run/secret")
            .var("BOTH", "direct")
            .var("BOTH_FILE", "/run/secret")
            .var("GONE_FILE", "/run/gone")
            .var("BLANK_FILE", "/run/blank")
            .file("/run/secret", "s3cret\r\n")
            .file("/run/blank", "\n")
    }

    #[test]
    fn replaces_references() {
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("${NAME}", "shop"),
            ("a-${NAME}-${NAME}-b", "a-shop-shop-b"),
            ("${NOPE:-fallback}", "fallback"),
            ("${NAME:-fallback}", "shop"),
            ("${EMPTY:-fallback}", "fallback"),
            ("${NOPE:-}", ""),
            ("${NOPE:-a:-b}", "a:-b"),
            ("p$ss w$rd $", "p$ss w$rd $"),
            ("$NAME", "$NAME"),
            ("$${NAME}", "${NAME}"),
            ("a$${b", "a${b"),
            ("${ODD}", "${NAME}: [*x"),
            ("${SECRET}", "s3cret"),
            ("${SECRET:-fallback}", "s3cret"),
            ("${BOTH}", "direct"),
            ("ü${NAME}ü", "üshopü"),
        ] {
            assert_eq!(expand(text, &env()).as_deref(), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn what_references_expand_to_is_bounded() {
        let env = Fake::default().var("BIG", &"x".repeat(100_000));
        assert!(expand(&"${BIG}".repeat(10), &env).is_ok());
        let told = expand(&"${BIG}".repeat(11), &env).unwrap_err();
        assert_eq!(told, ["a value becomes longer than 1024 KiB"]);
    }

    #[test]
    fn names_what_is_missing_and_nothing_else() {
        let gone = "`${GONE}` is to come from the file that `GONE_FILE` names: cannot read `/run/gone`: no such file";
        let blank =
            "`${BLANK}` is to come from the file that `BLANK_FILE` names: `/run/blank` is empty";
        for (text, expected) in [
            (
                "secret ${NOPE}",
                vec!["`${NOPE}` is not set in the environment".to_owned()],
            ),
            (
                "${EMPTY}",
                vec!["`${EMPTY}` is empty in the environment".to_owned()],
            ),
            ("secret${", vec![malformed()]),
            ("secret${pa ss}word", vec![malformed()]),
            ("${}", vec![malformed()]),
            ("${1A}", vec![malformed()]),
            ("${A-b}", vec![malformed()]),
            ("${GONE}", vec![gone.to_owned()]),
            ("${BLANK}", vec![blank.to_owned()]),
            (
                "${A1} ${B1}",
                vec![
                    "`${A1}` is not set in the environment".to_owned(),
                    "`${B1}` is not set in the environment".to_owned(),
                ],
            ),
        ] {
            assert_eq!(expand(text, &env()), Err(expected), "{text:?}");
        }
    }
}
