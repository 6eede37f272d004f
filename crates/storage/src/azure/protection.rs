//! What keeps blobs of a container, as far as the login may read it: its immutability policy, and the account's soft delete.
//!
//! The length of a policy, and whether the account keeps versions, are known to Azure's management API alone.
//! <https://learn.microsoft.com/en-us/rest/api/storageservices/get-container-properties>

use object_store::HeaderMap;
use serde::Deserialize;

use super::Azure;
use crate::cloud::fault::{root_name, without_mark};
use crate::{Answer, Lock, Period, Protection, Versions};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ServiceProperties {
    delete_retention_policy: Option<DeleteRetentionPolicy>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DeleteRetentionPolicy {
    enabled: bool,
    days: Option<u64>,
}

/// Asks a container and its account.
pub(super) async fn of_container(azure: &Azure) -> Protection {
    let store = &azure.client.store;
    let patience = azure.client.patience.brief();
    let container = patience.persist(|| store.container_properties());
    let service = patience.persist(|| store.service_properties());
    let (container, service) = tokio::join!(container, service);
    Protection {
        versions: match service {
            Ok(text) => versions(&text),
            Err(trouble) => Answer::Unknown(trouble.to_string()),
        },
        lock: match container {
            Ok(headers) => lock(&headers),
            Err(trouble) => Answer::Unknown(trouble.to_string()),
        },
    }
}

fn lock(headers: &HeaderMap) -> Answer<Lock> {
    let told = |name: &str| {
        Some(
            headers
                .get(name)?
                .to_str()
                .ok()?
                .eq_ignore_ascii_case("true"),
        )
    };
    let policy = told("x-ms-has-immutability-policy");
    let hold = told("x-ms-has-legal-hold");
    let each = told("x-ms-immutable-storage-with-versioning-enabled");
    if policy == Some(true) || hold == Some(true) {
        Answer::Is(Lock::Policy)
    } else if each == Some(true) {
        Answer::Is(Lock::NoDefault)
    } else if policy.is_some() {
        Answer::Is(Lock::Off)
    } else {
        Answer::Unknown(
            "the container does not tell whether it has an immutability policy".to_owned(),
        )
    }
}

fn versions(text: &str) -> Answer<Versions> {
    let text = without_mark(text);
    if root_name(text).as_deref() != Some("StorageServiceProperties") {
        return Answer::Unknown("the answer was not understood".to_owned());
    }
    match quick_xml::de::from_str::<ServiceProperties>(text) {
        Ok(found) => Answer::Is(match found.delete_retention_policy {
            Some(policy) if policy.enabled => {
                Versions::Restorable(Period::Days(policy.days.unwrap_or_default()))
            }
            _ => Versions::Off,
        }),
        Err(_) => Answer::Unknown("the answer was not understood".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::{HeaderName, HeaderValue};

    #[test]
    fn a_container_is_read() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            let headers = pairs.iter().map(|(name, value)| {
                let name = HeaderName::from_static(name);
                (name, HeaderValue::from_static(value))
            });
            lock(&headers.collect())
        };
        let policy = "x-ms-has-immutability-policy";
        let hold = "x-ms-has-legal-hold";
        let each = "x-ms-immutable-storage-with-versioning-enabled";
        assert_eq!(
            of(&[(policy, "false"), (hold, "false")]),
            Answer::Is(Lock::Off)
        );
        assert_eq!(
            of(&[(policy, "true"), (hold, "false")]),
            Answer::Is(Lock::Policy)
        );
        assert_eq!(
            of(&[(policy, "false"), (hold, "true")]),
            Answer::Is(Lock::Policy)
        );
        assert_eq!(
            of(&[(policy, "false"), (each, "true")]),
            Answer::Is(Lock::NoDefault)
        );
        assert!(of(&[]).known().is_none());
    }

    #[test]
    fn an_account_is_read() {
        let of = |policy: &str| {
            let xml = format!(
                "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><StorageServiceProperties>\
                 <DeleteRetentionPolicy>{policy}</DeleteRetentionPolicy></StorageServiceProperties>"
            );
            versions(&xml)
        };
        assert_eq!(of("<Enabled>false</Enabled>"), Answer::Is(Versions::Off));
        assert_eq!(
            of("<Enabled>true</Enabled><Days>14</Days>"),
            Answer::Is(Versions::Restorable(Period::Days(14)))
        );
        assert!(versions("<html/>").known().is_none());
    }
}
