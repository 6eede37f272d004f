//! Who signs: keys of the configuration, the environment, or a program that prints them.
//!
//! Secrets live in types that do not print themselves, and no message here repeats what a program printed.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::cloud::fault::NoCredentials;

/// Credentials this close to their end are fetched anew, so that a request on its way does not outlive them.
const RENEW_BEFORE: SignedDuration = SignedDuration::from_mins(5);

/// Programs ask services over the network; longer than this means that nobody answers.
const FETCH_TIMEOUT: Duration = Duration::from_secs(60);

/// Where the credentials of an S3 storage come from.
#[derive(Clone, Debug, Default)]
pub enum Credentials {
    /// `AWS_ACCESS_KEY_ID` and its relatives, a web identity token, or what ECS, EKS or EC2 hand out.
    #[default]
    Environment,
    /// Keys of the configuration.
    Keys {
        /// The key's id, which is not secret.
        access_key_id: String,
        /// The key itself.
        secret_access_key: SecretString,
        /// Goes with short-lived keys.
        session_token: Option<SecretString>,
    },
    /// Whatever this source prints.
    Source(Arc<dyn CredentialSource>),
}

/// Runs a credential program and returns what it printed.
///
/// `storage/` starts no programs: whoever opens the storage supplies this.
#[async_trait]
pub trait CredentialSource: fmt::Debug + Send + Sync {
    /// Returns standard output in the shape of AWS `credential_process` (version 1), or why there is none.
    ///
    /// The reason is shown to people, so it holds no secret. After a minute it is no longer waited
    /// for, and dropped.
    /// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html>
    async fn fetch(&self) -> std::result::Result<SecretString, String>;
}

/// Asks a source and remembers the answer until shortly before it expires.
#[derive(Debug)]
pub(super) struct SourceProvider {
    source: Arc<dyn CredentialSource>,
    cached: Mutex<Option<Cached>>,
}

#[derive(Clone, Debug)]
struct Cached {
    credential: Arc<AwsCredential>,
    expires_at: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Printed {
    version: u32,
    access_key_id: String,
    secret_access_key: SecretString,
    session_token: Option<SecretString>,
    expiration: Option<Timestamp>,
}

impl SourceProvider {
    pub(super) fn new(source: Arc<dyn CredentialSource>) -> Self {
        Self {
            source,
            cached: Mutex::new(None),
        }
    }

    fn still_good(&self, now: Timestamp) -> Option<Arc<AwsCredential>> {
        let guard = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let cached = guard.as_ref()?;
        let is_good = cached
            .expires_at
            .is_none_or(|end| end.duration_since(now) > RENEW_BEFORE);
        is_good.then(|| Arc::clone(&cached.credential))
    }
}

#[async_trait]
impl CredentialProvider for SourceProvider {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        if let Some(credential) = self.still_good(Timestamp::now()) {
            return Ok(credential);
        }
        // No lock over the await: two parts that come here at once start the program twice, which harms nobody.
        let printed = tokio::time::timeout(FETCH_TIMEOUT, self.source.fetch())
            .await
            .unwrap_or_else(|_| Err("it took longer than a minute".to_owned()));
        let fetched = printed
            .and_then(|text| parse(text.expose_secret()))
            .map_err(|why| object_store::Error::Generic {
                store: "S3",
                source: Box::new(NoCredentials(format!(
                    "the credential command failed: {why}"
                ))),
            })?;
        let credential = Arc::clone(&fetched.credential);
        *self.cached.lock().unwrap_or_else(PoisonError::into_inner) = Some(fetched);
        Ok(credential)
    }
}

fn parse(text: &str) -> std::result::Result<Cached, String> {
    // serde's own words may quote a value, so only the place is passed on.
    let printed: Printed = serde_json::from_str(text).map_err(|error| {
        format!(
            "its output is not the JSON of a `credential_process` (line {}, column {})",
            error.line(),
            error.column()
        )
    })?;
    if printed.version != 1 {
        return Err(format!("its output has version {}, not 1", printed.version));
    }
    let credential = Arc::new(AwsCredential {
        key_id: printed.access_key_id,
        secret_key: printed.secret_access_key.expose_secret().to_owned(),
        token: printed.session_token.map(|t| t.expose_secret().to_owned()),
    });
    Ok(Cached {
        credential,
        expires_at: printed.expiration,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[derive(Debug)]
    struct Scripted {
        output: String,
        calls: AtomicU32,
    }

    #[async_trait]
    impl CredentialSource for Scripted {
        async fn fetch(&self) -> std::result::Result<SecretString, String> {
            self.calls.fetch_add(1, Ordering::SeqCst);
            Ok(self.output.clone().into())
        }
    }

    fn scripted(output: &str) -> (Arc<Scripted>, SourceProvider) {
        let source = Arc::new(Scripted {
            output: output.to_owned(),
            calls: AtomicU32::new(0),
        });
        (Arc::clone(&source), SourceProvider::new(source))
    }

    fn printed(expires_in: SignedDuration) -> String {
        let end = Timestamp::now() + expires_in;
        format!(
            r#"{{"Version": 1, "AccessKeyId": "AK", "SecretAccessKey": "hunter2", "SessionToken": "tok", "Expiration": "{end}"}}"#
        )
    }

    #[tokio::test]
    async fn asks_once_while_the_answer_is_good() {
        let (source, provider) = scripted(&printed(SignedDuration::from_hours(1)));
        let first = provider.get_credential().await.unwrap();
        provider.get_credential().await.unwrap();
        assert_eq!(source.calls.load(Ordering::SeqCst), 1);
        assert_eq!(first.key_id, "AK");
        assert_eq!(first.secret_key, "hunter2");
        assert_eq!(first.token.as_deref(), Some("tok"));
    }

    #[tokio::test]
    async fn asks_again_shortly_before_the_end() {
        let (source, provider) = scripted(&printed(SignedDuration::from_mins(4)));
        provider.get_credential().await.unwrap();
        provider.get_credential().await.unwrap();
        assert_eq!(source.calls.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn says_what_is_wrong_without_repeating_secrets() {
        for output in [
            r#"{"Version": 2, "AccessKeyId": "AK", "SecretAccessKey": "hunter2"}"#,
            r#"{"Version": "hunter2"}"#,
            r#"{"SecretAccessKey": "hunter2"}"#,
            "hunter2",
            "",
        ] {
            let (_, provider) = scripted(output);
            let error = provider.get_credential().await.unwrap_err();
            assert!(!format!("{error:?} {error}").contains("hunter2"), "{error}");
        }
    }
}
