//! Check-ins: one monitor for each schedule of the configuration, which Sentry makes when it first hears of it.
//!
//! A check-in has no state here. Its id follows from the slot that the run is for, so that all servers that try a slot
//! speak of one check-in, and so does the second attempt after a run that died.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use sentry_types::Uuid;
use sentry_types::protocol::v7::{
    MonitorCheckIn, MonitorCheckInStatus, MonitorConfig, MonitorSchedule,
};
use sha2::{Digest, Sha256};

use pgkeep_model::config::{Config, DatabaseConfig};
use pgkeep_model::due::Plan;
use pgkeep_model::id::DatabaseName;
use pgkeep_model::schedule::Schedule;
use pgkeep_model::words::hex;

/// Sentry takes no longer slug. <https://develop.sentry.dev/sdk/telemetry/check-ins/>
const MAX_SLUG: usize = 50;

/// How many hex digits tell shortened names apart.
const MARK: usize = 8;

/// What cron's nicknames stand for; Sentry does not know all of them.
const NICKNAMES: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// Returns the monitors of all schedules, by database and verb.
pub(crate) fn all(config: &Config) -> HashMap<(String, &'static str), MonitorConfig> {
    let mut all = HashMap::new();
    for (name, database) in &config.databases {
        let schedules = [
            ("backup", &database.schedule),
            ("drill", &database.drill.schedule),
            ("verify", &database.verify.schedule),
        ];
        for (verb, schedule) in schedules {
            if let Some(schedule) = schedule {
                let monitor = monitor(config, name, database, schedule);
                all.insert((name.to_string(), verb), monitor);
            }
        }
    }
    all
}

fn monitor(
    config: &Config,
    name: &DatabaseName,
    database: &DatabaseConfig,
    schedule: &Schedule,
) -> MonitorConfig {
    let text = schedule.to_string();
    let plain = NICKNAMES
        .iter()
        .find(|(nickname, _)| text.eq_ignore_ascii_case(nickname));
    // `spread` moves the runs behind the instants that Sentry knows.
    let offset = Plan::offset_of(name.as_str(), database.spread).unsigned_abs();
    MonitorConfig {
        schedule: MonitorSchedule::Crontab {
            value: plain.map_or(text, |(_, fields)| (*fields).to_owned()),
        },
        checkin_margin: Some(minutes(config.sentry.checkin_margin + offset)),
        max_runtime: Some(minutes(config.sentry.max_runtime)),
        timezone: Some(database.timezone.iana_name().unwrap_or("UTC").to_owned()),
        failure_issue_threshold: None,
        recovery_threshold: None,
    }
}

/// Rounds up: a margin that is cut would alarm too early.
fn minutes(time: Duration) -> u64 {
    time.as_secs().div_ceil(60).max(1)
}

/// Names the monitor of a schedule: `pgkeep-<database>-<verb>`.
///
/// Sentry wants lower case and 50 characters at most. A name that does not fit is shortened, and gets some digits of its
/// hash, so that two databases never share a monitor.
pub(crate) fn slug(database: &str, verb: &str) -> String {
    let lower = database.to_ascii_lowercase();
    let slug = format!("pgkeep-{lower}-{verb}");
    if lower == database && slug.len() <= MAX_SLUG {
        return slug;
    }
    let mark: String = hex(&Sha256::digest(database)).chars().take(MARK).collect();
    let room = MAX_SLUG.saturating_sub(format!("pgkeep--{mark}-{verb}").len());
    let head: String = lower.chars().take(room).collect();
    format!("pgkeep-{head}-{mark}-{verb}")
}

/// Which run of a schedule a check-in is about.
pub(crate) enum Moment<'a> {
    /// That of a slot, wherever it runs.
    Slot(Timestamp),
    /// The only one of a process, by what is that process's alone.
    Process(&'a str),
}

/// Makes a check-in.
pub(crate) fn check_in(
    database: &str,
    verb: &str,
    moment: &Moment<'_>,
    status: MonitorCheckInStatus,
    environment: Option<&str>,
    monitor: &MonitorConfig,
) -> MonitorCheckIn {
    let slug = slug(database, verb);
    MonitorCheckIn {
        check_in_id: id(&slug, moment),
        monitor_slug: slug,
        status,
        environment: environment.map(str::to_owned),
        duration: None,
        monitor_config: Some(monitor.clone()),
    }
}

fn id(slug: &str, moment: &Moment<'_>) -> Uuid {
    let moment = match moment {
        Moment::Slot(slot) => slot.to_string(),
        Moment::Process(nonce) => (*nonce).to_owned(),
    };
    let digest = Sha256::digest(format!("{slug}\n{moment}"));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    // Version 8, what an application makes by itself: RFC 9562, section 5.8.
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Uuid::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgkeep_model::config::{self, NoEnv};

    #[test]
    fn a_slug_is_of_the_grammar_and_of_one_database() {
        assert_eq!(slug("shop", "backup"), "pgkeep-shop-backup");
        let long = |end: &str| format!("{}{end}", "a".repeat(100));
        let names = ["Shop", "SHOP", &long("b"), &long("c"), &"d".repeat(36)];
        let slugs: Vec<String> = names.iter().map(|name| slug(name, "backup")).collect();
        for (at, slug) in slugs.iter().enumerate() {
            let is_plain =
                |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
            assert!(slug.len() <= 50 && slug.chars().all(is_plain), "{slug}");
            assert!(!slugs[..at].contains(slug), "{slug} twice");
        }
        assert!(slugs[0].starts_with("pgkeep-shop-") && slugs[0].ends_with("-backup"));
    }

    #[test]
    fn one_slot_is_one_check_in() {
        let slot = |text: &str| id("pgkeep-shop-backup", &Moment::Slot(text.parse().unwrap()));
        let night = slot("2026-01-02T03:15:00Z");
        assert_eq!(night, slot("2026-01-02T03:15:00Z"));
        assert_ne!(night, slot("2026-01-03T03:15:00Z"));
        assert_ne!(night, id("pgkeep-shop-drill", &Moment::Process("x")));
        assert_eq!(night.get_version_num(), 8);
    }

    #[test]
    fn a_monitor_is_as_the_configuration_says() {
        let text = "databases:\n  shop: {url: 'postgres://h/d', schedule: '15 3 * * *', timezone: Europe/Berlin, \
                    drill: {schedule: '@Weekly'}}\nstorages: {here: {url: /b}}\nsentry: {max_runtime: 90m}\n";
        let config = config::parse(text, &NoEnv).unwrap();
        let all = all(&config);
        assert_eq!(all.len(), 2);
        let told = |verb| {
            let monitor = &all[&("shop".to_owned(), verb)];
            let MonitorSchedule::Crontab { value } = &monitor.schedule else {
                unreachable!("a schedule is one of cron")
            };
            let zone = monitor.timezone.clone().unwrap();
            (
                value.clone(),
                zone,
                monitor.checkin_margin,
                monitor.max_runtime,
            )
        };
        let berlin = || "Europe/Berlin".to_owned();
        assert_eq!(
            told("backup"),
            ("15 3 * * *".to_owned(), berlin(), Some(30), Some(90))
        );
        assert_eq!(told("drill").0, "0 0 * * 0");
        assert_eq!(minutes(Duration::from_secs(61)), 2);
    }
}
