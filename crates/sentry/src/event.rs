//! The event of a run that failed: the words of its failure, without a secret, and what to search and to group by.

use std::borrow::Cow;
use std::time::SystemTime;

use jiff::Timestamp;
use sentry_types::protocol::v7::{ClientSdkInfo, Context, Event, Exception, Level, Map, Value};

use crate::target::Target;
use pgkeep_core::log::Secrets;
use pgkeep_core::tracker::Tracked;
use pgkeep_model::failure::{Failure, Kind};

/// The id of a failure that was a panic ends like this.
const PANICKED: &str = "panicked";

/// Makes the event of a failure. Of one kind of failure of one verb and database Sentry makes one issue.
pub(crate) fn of(
    run: &Tracked<'_>,
    failure: &Failure,
    target: &Target,
    host: &str,
    secrets: &Secrets,
    now: Timestamp,
) -> Event<'static> {
    let plain = |text: &str| secrets.redacted(text).into_owned();
    let list =
        |texts: &[String]| Value::Array(texts.iter().map(|text| plain(text).into()).collect());
    let exception = Exception {
        ty: failure.id.to_owned(),
        value: Some(plain(&failure.message)),
        ..Exception::default()
    };
    let database = run.database.unwrap_or_default();
    let fingerprint = ["pgkeep", run.verb, failure.id, database];
    let code = failure.kind.exit_code().to_string();
    let trigger = if run.is_scheduled {
        "schedule"
    } else {
        "manual"
    };
    let tags = [
        ("verb", run.verb),
        ("database", database),
        ("failure", failure.id),
        ("exit_code", &code),
        ("trigger", trigger),
    ];
    let mut more = Map::from([("next_moves".to_owned(), list(&failure.hints))]);
    more.insert("details".to_owned(), list(&failure.details));
    more.insert("causes".to_owned(), list(&failure.causes));
    let backup = run.backup_id.map(|id| ("backup", id.to_owned()));
    let slot = run.slot.map(|slot| ("slot", slot.to_string()));
    for (name, value) in backup.into_iter().chain(slot) {
        more.insert(name.to_owned(), value.into());
    }
    let told = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    Event {
        level: level(failure),
        exception: vec![exception].into(),
        fingerprint: fingerprint
            .map(|part| Cow::from(part.to_owned()))
            .to_vec()
            .into(),
        transaction: Some(format!("pgkeep {}", run.verb)),
        tags: tags
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(told)
            .collect(),
        contexts: Map::from([("run".to_owned(), Context::Other(more))]),
        ..about(target, host, now)
    }
}

/// Makes the event that tries the way.
pub(crate) fn test(target: &Target, host: &str, now: Timestamp) -> Event<'static> {
    Event {
        level: Level::Info,
        message: Some("a test of pgkeep: events arrive here".to_owned()),
        ..about(target, host, now)
    }
}

/// What every event says.
fn about(target: &Target, host: &str, now: Timestamp) -> Event<'static> {
    Event {
        timestamp: SystemTime::from(now),
        server_name: Some(host.to_owned().into()),
        release: Some(target.release.clone().into()),
        environment: target.environment.clone().map(Cow::from),
        sdk: Some(Cow::Owned(ClientSdkInfo {
            name: "pgkeep".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            integrations: Vec::new(),
            packages: Vec::new(),
        })),
        ..Event::default()
    }
}

fn level(failure: &Failure) -> Level {
    match failure.kind {
        Kind::AfterGood => Level::Warning,
        Kind::Unexpected if failure.id.ends_with(PANICKED) => Level::Fatal,
        _ => Level::Error,
    }
}
