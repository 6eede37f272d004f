//! Words and numbers of the pages: ages with their moment, codes in words, names in links.

use std::fmt::Write;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use maud::{Markup, html};

use pgkeep_model::freshness::age;

/// Encodes a name for a part of a path or a query: all but letters, digits and `-._~`.
pub fn encoded(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => write!(out, "%{byte:02X}").expect("a string takes all"),
        }
    }
    out
}

/// Writes a moment to the second, with its zone.
pub fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Writes a moment to the minute, with its zone.
pub fn minute(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// Says how long ago a moment is, or how soon it comes.
pub fn relative(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second() - at.as_second();
    match seconds {
        0 => "now".to_owned(),
        1.. => format!("{} ago", age(seconds)),
        _ => format!("in {}", age(-seconds)),
    }
}

/// Shows a moment by how long ago it is; the moment itself stands in the title.
pub fn ago(at: Timestamp, now: Timestamp) -> Markup {
    html! { time datetime=(at.strftime("%Y-%m-%dT%H:%M:%SZ")) title=(moment(at)) { (relative(at, now)) } }
}

/// Shows a moment to the minute, and in the title how long ago it is.
pub fn when(at: Timestamp, now: Timestamp) -> Markup {
    html! { time datetime=(at.strftime("%Y-%m-%dT%H:%M:%SZ")) title=(relative(at, now)) { (minute(at)) } }
}

/// Shows a moment on the clock of a zone, and how soon it comes.
pub fn zoned(at: Timestamp, zone: &str, now: Timestamp) -> Markup {
    html! { (clock(at, zone)) " " span.quiet { (relative(at, now)) } }
}

/// Shows a moment on the clock of a zone, which is named, with its distance from UTC; in UTC where nobody knows the zone.
pub fn clock(at: Timestamp, zone: &str) -> Markup {
    let text = match TimeZone::get(zone) {
        Ok(known) => {
            let local = at.to_zoned(known);
            let offset = local.strftime("%:z");
            format!("{} {zone} ({offset})", local.strftime("%a %Y-%m-%d %H:%M"))
        }
        Err(_) => minute(at),
    };
    html! { time.clock datetime=(at.strftime("%Y-%m-%dT%H:%M:%SZ")) title=(moment(at)) { (text) } }
}

/// Writes a length of time that somebody set: whole seconds, and no zeros.
pub fn took_at_most(ms: u64) -> String {
    pgkeep_model::words::span(ms / 1000)
}

/// Says what an exit code means.
pub fn exit_words(code: u8) -> &'static str {
    match code {
        0 => "good",
        1 => "unexpected error",
        2 => "wrong configuration",
        3 => "good, but something after it failed",
        10 => "not found",
        11 => "gave way to another run",
        12 => "login or key refused",
        20 => "the source failed",
        21 => "the dump failed its proof",
        22 => "the storage failed",
        23 => "stored data is damaged",
        24 => "stale",
        25 => "refused by a safety rule",
        26 => "a program is missing or too old",
        126 | 127 => "the command could not be started",
        130 => "stopped by Ctrl-C",
        137 => "killed; nothing was stored",
        143 => "stopped",
        _ => "ended with an unknown code",
    }
}

/// Says what to do about an exit code, where there is something that mostly helps.
pub fn exit_hint(code: u8, database: &str) -> Option<String> {
    let hint = match code {
        1 => format!("run `pgkeep backup -d {database} -vv` and read its log"),
        2 => "`pgkeep config check` names the key".to_owned(),
        3 => format!("the backup is good; `pgkeep sync -d {database}` repairs missing copies"),
        12 => "`pgkeep check` tries each login and key".to_owned(),
        20 | 22 | 26 => "`pgkeep check` says what is out of reach".to_owned(),
        21 => "nothing bad was stored; the next run proves a new dump".to_owned(),
        23 => format!("`pgkeep verify --all -d {database}` finds the damaged copies"),
        24 => format!("`pgkeep backup -d {database}` makes a new backup"),
        137 => "the host or its memory ended it; look at the host's log".to_owned(),
        _ => return None,
    };
    Some(hint)
}

/// Writes a rate in bytes a second.
pub fn rate(bytes_per_second: u64) -> String {
    format!("{}/s", pgkeep_model::words::bytes(bytes_per_second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_for_links() {
        assert_eq!(
            encoded("public.\"Invoice Lines\""),
            "public.%22Invoice%20Lines%22"
        );
        assert_eq!(encoded("a/b?c#d%ü"), "a%2Fb%3Fc%23d%25%C3%BC");
    }

    #[test]
    fn no_hour_stands_without_its_zone() {
        let at: Timestamp = "2026-07-01T01:15:00Z".parse().unwrap();
        let now: Timestamp = "2026-07-01T00:00:00Z".parse().unwrap();
        let text = zoned(at, "Europe/Berlin", now).into_string();
        assert!(text.contains("03:15 Europe/Berlin (+02:00)"), "{text}");
        assert!(
            text.contains("in 1 h") || text.contains("in 75 min"),
            "{text}"
        );
        assert!(
            zoned(at, "<nowhere>", now)
                .into_string()
                .contains("01:15 UTC")
        );
    }
}
