//! All sections of the file: where each belongs, and which groups of keys it has.
//!
//! The keys themselves are written once, in `types.rs`. The JSON Schema and the tests of `config.example.yaml` are made
//! from these tables.

use super::keys::{Key, Kind, Section, key, required};
use super::section::join;
use super::setting::Group;
use super::types::{
    ASSERTION, COMPRESSION, DRILL, DatabaseConfig, Hook, LogConfig, PostgresConfig, REQUIRED_TABLE,
    RETENTION, RETRIES, StorageConfig, Webhook,
};
use crate::notice::{EmailConfig, PingConfig};

pub(super) const EVENTS: &[&str] = &["failure", "success", "stale", "restore", "drill"];

/// All sections.
pub(super) const SECTIONS: [&Section; 17] = [
    &ROOT,
    &DATABASE,
    &REQUIRED_TABLE,
    &COMPRESSION,
    &RETRIES,
    &RETENTION,
    &DRILL,
    &ASSERTION,
    &STORAGE,
    &POSTGRES,
    &NOTIFIER,
    &EMAIL,
    &SLACK,
    &DISCORD,
    &WEBHOOK,
    &PING,
    &LOG,
];

/// What a notifier hears of, which a ping does not choose.
const ON: &[Key] = &[Key {
    default: Some("failure"),
    ..key(
        "on",
        Kind::Choices(EVENTS),
        "What is told: failure, success, stale, restore, drill.",
    )
}];

/// What every notifier has.
const SCOPE: &[Key] = &[
    key(
        "databases",
        Kind::Databases,
        "The databases that it is told of. Default: all.",
    ),
    key(
        "ca_certificate",
        Kind::Path,
        "Certificates to trust for the service, beside the usual ones.",
    ),
];

pub(super) static ROOT: Section = Section {
    name: "config",
    place: "at the top level",
    doc: "Configuration of pgkeep.",
    keys: &[
        key(
            "defaults",
            Kind::Section(&DATABASE),
            "Keys that every database has unless it gives them itself.",
        ),
        required(
            "databases",
            Kind::Named(&DATABASE),
            "The databases to back up, each under a name that its backups carry for ever.",
        ),
        required(
            "storages",
            Kind::Named(&STORAGE),
            "The places that backups are stored in, each under a name.",
        ),
        key(
            "postgres",
            Kind::Section(&POSTGRES),
            "The PostgreSQL client programs.",
        ),
        key(
            "notify",
            Kind::Sections(&NOTIFIER),
            "Who is told how runs ended.",
        ),
        key(
            "log",
            Kind::Section(&LOG),
            "A log file beside what is printed.",
        ),
    ],
};

pub(super) static DATABASE: Section = Section {
    name: "database",
    place: "in a database or under `defaults`",
    doc: "A database: how to reach it, what must be in its dump, where its backups go.",
    keys: DatabaseConfig::KEYS,
};

pub(super) static STORAGE: Section = Section {
    name: "storage",
    place: "in a storage",
    doc: "A place that backups are stored in. All keys but url are for s3:// alone.",
    keys: StorageConfig::KEYS,
};

pub(super) static POSTGRES: Section = Section {
    name: "postgres",
    place: "under `postgres`",
    doc: "The PostgreSQL client programs.",
    keys: PostgresConfig::KEYS,
};

pub(super) static LOG: Section = Section {
    name: "log",
    place: "under `log`",
    doc: "A log file beside what is printed; `--log-file` goes before it.",
    keys: LogConfig::KEYS,
};

pub(super) static NOTIFIER: Section = Section {
    name: "notifier",
    place: "in an entry of `notify`",
    doc: "Somebody who is told how runs ended: exactly one of the keys.",
    keys: &[
        key("email", Kind::Section(&EMAIL), "Tells by e-mail."),
        key(
            "slack",
            Kind::Section(&SLACK),
            "Tells a channel of Slack, or of what takes its messages.",
        ),
        key(
            "discord",
            Kind::Section(&DISCORD),
            "Tells a channel of Discord.",
        ),
        key(
            "webhook",
            Kind::Section(&WEBHOOK),
            "Sends a JSON document to any address.",
        ),
        key(
            "ping",
            Kind::Section(&PING),
            "Pings a service that alarms when no ping comes.",
        ),
    ],
};

pub(super) static EMAIL: Section = Section {
    name: "email",
    place: "under `email`",
    doc: "A mail server, and who gets mail by it.",
    keys: join!(EmailConfig::KEYS, ON, SCOPE),
};

pub(super) static SLACK: Section = Section {
    name: "slack",
    place: "under `slack`",
    doc: "An incoming webhook of Slack.",
    keys: join!(Hook::KEYS, ON, SCOPE),
};

pub(super) static DISCORD: Section = Section {
    name: "discord",
    place: "under `discord`",
    doc: "A webhook of Discord.",
    keys: join!(Hook::KEYS, ON, SCOPE),
};

pub(super) static WEBHOOK: Section = Section {
    name: "webhook",
    place: "under `webhook`",
    doc: "An address that takes a JSON document.",
    keys: join!(Webhook::KEYS, ON, SCOPE),
};

pub(super) static PING: Section = Section {
    name: "ping",
    place: "under `ping`",
    doc: "A service that alarms when no ping comes. It hears of backups alone.",
    keys: join!(PingConfig::KEYS, SCOPE),
};
