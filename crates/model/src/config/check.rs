//! What keys demand of one another: plain checks of what was read.

use secrecy::ExposeSecret;

use super::reader::{Fields, Reader, join};
use super::types::{
    Anomaly, Compression, Connection, DatabaseConfig, Encryption, LockConfig, Retention, Retries,
    ServerConfig, THIS_HOST,
};
use super::url;
use crate::encryption::recipient_kind;
use crate::name::TableName;
use crate::nearest::did_you_mean;

/// Keys that say where a server is and that `url` says too.
const PARTS_OF_URL: [&str; 5] = ["host", "port", "user", "database", "service"];

/// Rules that keep ordinary backups; `keep_pre_deploy` keeps none of those.
const RULES_OF_RETENTION: [&str; 7] = [
    "keep_last",
    "keep_hourly",
    "keep_daily",
    "keep_weekly",
    "keep_monthly",
    "keep_yearly",
    "keep_within",
];

/// For a group whose keys ask nothing of one another.
pub(super) fn nothing<T>(_: &mut T, _: &mut Reader, _: &Fields) {}

pub(super) fn level(compression: &mut Compression, reader: &mut Reader, fields: &Fields) {
    let (method, level) = (compression.method, compression.level);
    if level.is_some_and(|level| method.max_level().is_none_or(|max| level > max)) {
        let limit = method.max_level().map_or("has no levels".into(), |max| {
            format!("has levels from 1 to {max}")
        });
        let why = format!("does not fit: `{}` {limit}", method.as_str());
        reader.refuse_key(fields, "level", why);
    }
}

/// Somebody must be able to open the backups; whether a recipient is a valid one is seen when it is used.
pub(super) fn encryption(encryption: &mut Encryption, reader: &mut Reader, fields: &Fields) {
    if let Some(field) = fields.find("recipients") {
        for text in &encryption.recipients {
            if let Err(why) = recipient_kind(text) {
                // The text may be a private key, which no message shows.
                reader.refuse(field, format!("holds an entry that {why}"));
            }
        }
    }
    if encryption.recipients.is_empty() && encryption.recipients_file.is_none() {
        let why = "names nobody who can open the backups: give `recipients` or `recipients_file`; \
                   `pgkeep keys generate` makes a key";
        reader.refuse(&fields.here, why);
    }
}

pub(super) fn retries(retries: &mut Retries, reader: &mut Reader, fields: &Fields) {
    if retries.max_delay >= retries.delay {
        return;
    }
    if let Some(max_delay) = fields.find("max_delay") {
        reader.refuse(max_delay, "is shorter than `delay`");
    } else {
        // A long first wait alone moves the limit along.
        retries.max_delay = retries.delay;
    }
}

pub(super) fn retention(_: &mut Retention, reader: &mut Reader, fields: &Fields) {
    if !RULES_OF_RETENTION.iter().any(|rule| fields.has(rule)) {
        let advice =
            "give at least one rule such as `keep_daily: 7`, or leave `retention` out to keep all";
        reader.refuse(&fields.here, format!("keeps nothing; {advice}"));
    }
}

/// A warning comes before the failure, or never.
pub(super) fn anomaly(anomaly: &mut Anomaly, reader: &mut Reader, fields: &Fields) {
    if anomaly.warn_loss <= anomaly.max_loss {
        return;
    }
    if let Some(warn_loss) = fields.find("warn_loss") {
        reader.refuse(warn_loss, "is larger than `max_loss`");
    } else {
        // A low bar alone moves the other one along.
        anomaly.warn_loss = anomaly.max_loss;
    }
}

/// A lease lives in a storage of this file, or on this host.
pub(super) fn lock(lock: &mut LockConfig, reader: &mut Reader, fields: &Fields) {
    let (Some(name), Some(field)) = (&lock.storage, fields.find("storage")) else {
        return;
    };
    let known = &reader.storages;
    // Where the storages themselves are missing, that is the problem.
    if name == THIS_HOST || known.is_empty() || known.contains(name) {
        return;
    }
    let names = known.iter().map(String::as_str).chain([THIS_HOST]);
    let advice = did_you_mean(name, names);
    let why = format!("is neither a storage of this file nor `{THIS_HOST}`{advice}");
    reader.refuse(field, why);
}

/// Who did something is told by the token's name, so each has its own.
pub(super) fn server(server: &mut ServerConfig, reader: &mut Reader, fields: &Fields) {
    let Some(field) = fields.find("tokens") else {
        return;
    };
    for (at, token) in server.tokens.iter().enumerate() {
        let before = &server.tokens[..at];
        if before.iter().any(|other| other.name == token.name) {
            let why = format!("holds two tokens that are called `{}`", token.name);
            reader.refuse(field, why);
        }
    }
}

/// Checks what only the finished database shows.
pub(super) fn database(reader: &mut Reader, fields: &Fields, database: &DatabaseConfig) {
    let c = &database.connection;
    let names_server =
        c.url.is_some() || c.host.is_some() || c.service.is_some() || c.database.is_some();
    let tried = ["url", "url_file", "host", "service", "database"]
        .iter()
        .any(|key| fields.has(key));
    if !names_server && !tried {
        let why = "names no server: give `url`, or `host` and `database`, or `service`";
        reader.refuse(&fields.here, why);
    }
    let storages = database.storages.len();
    if let Some(copies) = database.copies
        && (1..copies).contains(&storages)
    {
        let line = fields.find("copies").unwrap_or(&fields.here).line;
        let path = &fields.here.path;
        let message = format!("`{path}` asks for {copies} copies and has {storages} storages");
        reader.note(line, message);
    }
    for one in &database.required_tables {
        required(reader, fields, database, &one.table);
    }
}

/// A required table that the selection leaves out would fail every run, and only at the end of it.
fn required(reader: &mut Reader, fields: &Fields, database: &DatabaseConfig, table: &TableName) {
    let is_same = |other: &TableName| {
        other.name == table.name && other.schema_or_public() == table.schema_or_public()
    };
    let schema = table.schema_or_public();
    let left_out_by = if database.exclude_tables.iter().any(is_same) {
        "exclude_tables"
    } else if database.exclude_schemas.iter().any(|other| other == schema) {
        "exclude_schemas"
    } else {
        return;
    };
    // The names may come from the environment, which messages do not show.
    let path = join(&fields.here.path, "required_tables");
    let line = fields.find(left_out_by).unwrap_or(&fields.here).line;
    let message = format!("`{path}` holds a table that `{left_out_by}` leaves out");
    reader.note(line, message);
}

fn note_parts_beside_url(reader: &mut Reader, fields: &Fields) {
    for field in PARTS_OF_URL.iter().filter_map(|part| fields.find(part)) {
        reader.refuse(field, "cannot be combined with `url`");
    }
}

/// Prepares the connection of the defaults for that of a database. A URL hides the parts that the defaults give, and
/// parts hide their URL, so that the server is always the one that the database itself names.
pub(super) fn settle_connection(reader: &mut Reader, fields: &Fields, connection: &mut Connection) {
    if fields.has_or_file("url") {
        note_parts_beside_url(reader, fields);
        let base = std::mem::take(connection);
        *connection = Connection {
            password: base.password,
            passfile: base.passfile,
            sslmode: base.sslmode,
            sslrootcert: base.sslrootcert,
            ..Connection::default()
        };
    } else if PARTS_OF_URL.iter().any(|part| fields.has(part)) {
        connection.url = None;
    }
}

/// Leaves one password at most: two in one section are a problem, and the URL's hides that of the defaults.
pub(super) fn settle_password(reader: &mut Reader, fields: &Fields, connection: &mut Connection) {
    let url_has_one = connection
        .url
        .as_ref()
        .is_some_and(|url| url::has_password(url.expose_secret()));
    if !url_has_one {
        return;
    }
    match fields.find_or_file("password") {
        Some(field) => reader.refuse(field, "cannot be combined with a `url` that has a password"),
        None => connection.password = None,
    }
}
