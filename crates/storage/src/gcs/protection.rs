//! Versions and locks of a bucket of Google's, as far as the login may read them.
//!
//! The XML API tells nothing of a retention policy, so this one question goes to the JSON API of the same host.
//! <https://cloud.google.com/storage/docs/json_api/v1/buckets#resource>

use serde::Deserialize;

use super::Gcs;
use crate::{Answer, Lock, Period, Protection, Versions};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BucketResource {
    versioning: Option<Versioning>,
    retention_policy: Option<RetentionPolicy>,
    object_retention: Option<ObjectRetention>,
    soft_delete_policy: Option<SoftDeletePolicy>,
}

#[derive(Deserialize)]
struct Versioning {
    #[serde(default)]
    enabled: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RetentionPolicy {
    /// Google writes numbers of 64 bits as text.
    retention_period: String,
    #[serde(default)]
    is_locked: bool,
}

#[derive(Deserialize)]
struct ObjectRetention {
    #[serde(default)]
    mode: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SoftDeletePolicy {
    retention_duration_seconds: String,
}

/// Asks a bucket for its versions and its lock.
pub(super) async fn of_bucket(bucket: &Gcs) -> Protection {
    let patience = bucket.client.patience.brief();
    let unknown = |why: String| Protection {
        versions: Answer::Unknown(why.clone()),
        lock: Answer::Unknown(why),
    };
    match patience.persist(|| bucket.resource()).await {
        Ok(text) => match serde_json::from_str(&text) {
            Ok(found) => protection(&found),
            Err(_) => unknown("the answer was not understood".to_owned()),
        },
        Err(trouble) => unknown(trouble.to_string()),
    }
}

fn protection(found: &BucketResource) -> Protection {
    let policy = found.soft_delete_policy.as_ref();
    let soft = policy.and_then(|policy| policy.retention_duration_seconds.parse().ok());
    let versions = match (&found.versioning, soft) {
        (Some(Versioning { enabled: true }), _) => Versions::On,
        (_, Some(seconds)) if seconds > 0 => Versions::Restorable(Period::of_seconds(seconds)),
        _ => Versions::Off,
    };
    let lock = match (&found.retention_policy, &found.object_retention) {
        (Some(policy), _) => match policy.retention_period.parse() {
            Ok(seconds) => Answer::Is(Lock::Default {
                period: Period::of_seconds(seconds),
                can_be_lifted: !policy.is_locked,
            }),
            Err(_) => Answer::Unknown("the answer was not understood".to_owned()),
        },
        (None, Some(retention)) if retention.mode == "Enabled" => Answer::Is(Lock::NoDefault),
        _ => Answer::Is(Lock::Off),
    };
    Protection {
        versions: Answer::Is(versions),
        lock,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_read() {
        let of = |json: &str| {
            let found = protection(&serde_json::from_str(json).unwrap());
            (found.versions, found.lock)
        };
        let off = Answer::Is(Lock::Off);
        assert_eq!(of("{}"), (Answer::Is(Versions::Off), off.clone()));
        assert_eq!(
            of(
                r#"{"versioning": {"enabled": true}, "softDeletePolicy": {"retentionDurationSeconds": "604800"}}"#
            ),
            (Answer::Is(Versions::On), off.clone())
        );
        assert_eq!(
            of(
                r#"{"versioning": {"enabled": false}, "softDeletePolicy": {"retentionDurationSeconds": "604800"}}"#
            ),
            (
                Answer::Is(Versions::Restorable(Period::Days(7))),
                off.clone()
            )
        );
        assert_eq!(
            of(r#"{"softDeletePolicy": {"retentionDurationSeconds": "0"}}"#),
            (Answer::Is(Versions::Off), off)
        );
        let kept = |is_locked| {
            let json = format!(
                r#"{{"retentionPolicy": {{"retentionPeriod": "2592000", "isLocked": {is_locked}}}}}"#
            );
            of(&json).1
        };
        for is_locked in [true, false] {
            let lock = Lock::Default {
                period: Period::Days(30),
                can_be_lifted: !is_locked,
            };
            assert_eq!(kept(is_locked), Answer::Is(lock));
        }
        assert_eq!(
            of(r#"{"objectRetention": {"mode": "Enabled"}}"#).1,
            Answer::Is(Lock::NoDefault)
        );
    }
}
