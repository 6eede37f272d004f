//! The structure of two sides as unified SQL, an object after the other.

use similar::TextDiff;

use super::{Key, Objects};
use crate::name::is_deceptive;

/// Objects with more lines than this are printed whole on both sides: to align two long texts that have nothing in common
/// takes a time that grows with the product of their lengths.
const MAX_LINES: usize = 20_000;

/// Lines that are shown around a change.
const CONTEXT: usize = 3;

/// Returns what differs between two structures, as `diff -u` prints it; empty where nothing does. `from` and `to` name the
/// sides. `is_compared` says which objects count.
///
/// Control characters are escaped, so it is for reading, and `\r` at the end of a line can be seen.
pub fn unified(
    (from, before): (&str, &Objects),
    (to, after): (&str, &Objects),
    is_compared: impl Fn(&Key) -> bool,
) -> String {
    let mut keys: Vec<&Key> = before.by_key.keys().chain(after.by_key.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut out = String::new();
    for key in keys.into_iter().filter(|key| is_compared(key)) {
        let sql = |side: &Objects| {
            let object = side.by_key.get(key);
            object.map(|object| harmless(&object.sql))
        };
        let (old, new) = (sql(before), sql(after));
        if old == new {
            continue;
        }
        let label = |side: &str, is_there: bool| {
            if is_there {
                format!(
                    "{side}: {}",
                    harmless(&key.to_string()).replace(['\n', '\t'], " ")
                )
            } else {
                "/dev/null".to_owned()
            }
        };
        let labels = (label(from, old.is_some()), label(to, new.is_some()));
        let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
        out += &one((&labels.0, &old), (&labels.1, &new));
    }
    out
}

fn one((from, old): (&str, &str), (to, new): (&str, &str)) -> String {
    let lines = |text: &str| text.lines().count();
    if lines(old).max(lines(new)) > MAX_LINES {
        let all = |sign: char, text: &str| -> String {
            text.lines().map(|line| format!("{sign}{line}\n")).collect()
        };
        let (before, after) = (lines(old), lines(new));
        return format!(
            "--- {from}\n+++ {to}\n@@ -1,{before} +1,{after} @@\n{}{}",
            all('-', old),
            all('+', new)
        );
    }
    let diff = TextDiff::from_lines(old, new);
    diff.unified_diff()
        .context_radius(CONTEXT)
        .header(from, to)
        .to_string()
}

fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_deceptive(c) || c.is_control() && !matches!(c, '\n' | '\t') {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}
