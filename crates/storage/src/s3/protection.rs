//! Versions and locks of a bucket, and the retention of one object, as far as the key may read them.
//!
//! Nothing depends on the answers but words: who may not ask is told that.
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html>

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::ask;
use super::bucket::Bucket;
use crate::cloud::codes;
use crate::cloud::fault::{Trouble, root_name};
use crate::{Answer, Error, Lock, Period, Protection, Versions};

/// AWS's name of the document, and that of stores which name it after the request.
const VERSIONING: [&str; 2] = ["VersioningConfiguration", "GetBucketVersioningResponse"];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct VersioningConfiguration {
    status: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ObjectLockConfiguration {
    object_lock_enabled: Option<String>,
    rule: Option<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Rule {
    default_retention: Option<DefaultRetention>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DefaultRetention {
    #[serde(default)]
    mode: String,
    days: Option<u64>,
    years: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Retention {
    retain_until_date: Option<Timestamp>,
}

/// What came of a question.
enum Told<T> {
    Known(T),
    /// There is no such thing on this bucket or object.
    Nothing,
    Unknown(String),
}

/// Asks a bucket for its versions and its lock.
pub(super) async fn of_bucket(bucket: &Bucket) -> Protection {
    let versioning = ask(bucket, None, "versioning", &VERSIONING);
    let lock = ask(bucket, None, "object-lock", &["ObjectLockConfiguration"]);
    let (versioning, lock) = tokio::join!(versioning, lock);
    Protection {
        versions: match versioning {
            Told::Known(found) => Answer::Is(versions(&found)),
            Told::Nothing => Answer::Is(Versions::Off),
            Told::Unknown(why) => Answer::Unknown(why),
        },
        lock: match lock {
            Told::Known(found) => Answer::Is(lock_of(&found)),
            Told::Nothing => Answer::Is(Lock::Off),
            Told::Unknown(why) => Answer::Unknown(why),
        },
    }
}

/// Finds out why an object could not be removed: a lock keeps it, or the key lacks the right.
///
/// Its current version is asked about, which is what a removal without a version's id is about.
pub(super) async fn why_kept(bucket: &Bucket, key: &str, refused: Error) -> Error {
    let what = format!("removing `{key}` in `{}` failed", bucket.client.label);
    let told = ask::<Retention>(bucket, Some(key), "retention", &["Retention"]).await;
    let until = match &told {
        Told::Known(found) => found.retain_until_date,
        _ => None,
    };
    match (refused, told) {
        (Error::Retained { message, hint, .. }, _) => Error::Retained {
            message,
            until,
            hint,
        },
        (_, Told::Known(_)) if until.is_some_and(|until| until > Timestamp::now()) => {
            Error::Retained {
                message: format!("{what}: it is retained"),
                until,
                hint: Some(codes::RETAINED.to_owned()),
            }
        }
        (Error::Denied { message, hint }, Told::Known(_) | Told::Nothing) => Error::Denied {
            hint,
            message: format!("{message}; no lock is on it, so this key may not delete"),
        },
        (Error::Denied { message, hint }, Told::Unknown(_)) => Error::Denied {
            hint,
            message: format!(
                "{message}; the store refuses deletes (a writer without that right, or a lock)"
            ),
        },
        (other, _) => other,
    }
}

fn versions(found: &VersioningConfiguration) -> Versions {
    match found.status.as_deref() {
        Some("Enabled") => Versions::On,
        Some("Suspended") => Versions::Suspended,
        _ => Versions::Off,
    }
}

fn lock_of(found: &ObjectLockConfiguration) -> Lock {
    if found.object_lock_enabled.as_deref() != Some("Enabled") {
        return Lock::Off;
    }
    let default = found
        .rule
        .as_ref()
        .and_then(|rule| rule.default_retention.as_ref());
    let period = default.and_then(|default| match (default.days, default.years) {
        (Some(days), _) => Some(Period::Days(days)),
        (None, Some(years)) => Some(Period::Years(years)),
        (None, None) => None,
    });
    match (period, default) {
        (Some(period), Some(default)) => Lock::Default {
            period,
            can_be_lifted: default.mode == "GOVERNANCE",
        },
        _ => Lock::NoDefault,
    }
}

/// Asks one question, whose answer is a document with one of these names.
async fn ask<T: DeserializeOwned>(
    bucket: &Bucket,
    key: Option<&str>,
    question: &str,
    roots: &[&str],
) -> Told<T> {
    let query = [(question, "")];
    let patience = bucket.client.patience.brief();
    let answer = patience.persist(|| ask::get(bucket, key, &query)).await;
    match answer {
        Ok(text) if root_name(&text).is_some_and(|root| roots.contains(&root.as_str())) => {
            match quick_xml::de::from_str(&text) {
                Ok(found) => Told::Known(found),
                Err(_) => Told::Unknown("the answer was not understood".to_owned()),
            }
        }
        Ok(_) => Told::Unknown("the answer was not understood".to_owned()),
        Err(trouble) if is_nothing(&trouble) => Told::Nothing,
        Err(trouble) if trouble.is_unknown_request() => {
            Told::Unknown("the store knows no such question".to_owned())
        }
        Err(trouble) => Told::Unknown(trouble.to_string()),
    }
}

/// Tells whether the store says that there is no lock. AWS answers so for a bucket that never had one, and for an object
/// without retention.
fn is_nothing(trouble: &Trouble) -> bool {
    let Trouble::Refused(refusal) = trouble else {
        return false;
    };
    let is_unlocked_bucket = refusal.code == "InvalidRequest"
        && refusal
            .message
            .contains("missing Object Lock Configuration");
    is_unlocked_bucket
        || matches!(
            refusal.code.as_str(),
            "ObjectLockConfigurationNotFoundError" | "NoSuchObjectLockConfiguration"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_read() {
        let versions_of = |xml: &str| versions(&quick_xml::de::from_str(xml).unwrap());
        let empty = r#"<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"/>"#;
        assert_eq!(versions_of(empty), Versions::Off);
        let on = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
        assert_eq!(versions_of(on), Versions::On);
        let suspended = on.replace("Enabled", "Suspended");
        assert_eq!(versions_of(&suspended), Versions::Suspended);

        let lock = |rule: &str| {
            let xml = format!(
                "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled>{rule}\
                 </ObjectLockConfiguration>"
            );
            lock_of(&quick_xml::de::from_str(&xml).unwrap())
        };
        let rule = |mode: &str, period: &str| {
            format!("<Rule><DefaultRetention><Mode>{mode}</Mode>{period}</DefaultRetention></Rule>")
        };
        assert_eq!(lock(""), Lock::NoDefault);
        assert_eq!(
            lock(&rule("COMPLIANCE", "<Days>30</Days>")),
            Lock::Default {
                period: Period::Days(30),
                can_be_lifted: false
            }
        );
        assert_eq!(
            lock(&rule("GOVERNANCE", "<Years>1</Years>")),
            Lock::Default {
                period: Period::Years(1),
                can_be_lifted: true
            }
        );
    }
}
