//! Credentials that a program prints: fetched when they are needed, remembered until shortly before they end.
//!
//! Secrets live in types that do not print themselves, and no message here repeats what a program printed.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use object_store::CredentialProvider;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::fault::NoCredentials;

/// Credentials this close to their end are fetched anew, so that a request on its way does not outlive them.
const RENEW_BEFORE: SignedDuration = SignedDuration::from_mins(5);

/// How long a token is used whose end nobody tells: shorter than any service's, longer than a burst of requests.
const UNKNOWN_LIFE: SignedDuration = SignedDuration::from_mins(10);

/// Programs ask services over the network; longer than this means that nobody answers.
const FETCH_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs a credential program and returns what it printed.
///
/// `storage/` starts no programs: whoever opens the storage supplies this.
#[async_trait]
pub trait CredentialSource: fmt::Debug + Send + Sync {
    /// Returns standard output, or why there is none: for S3 in the shape of AWS `credential_process` (version 1), for GCS
    /// and Azure a bearer token, alone or in the JSON that `gcloud` and `az` print.
    ///
    /// The reason is shown to people, so it holds no secret. After a minute it is no longer waited
    /// for, and dropped.
    /// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html>
    async fn fetch(&self) -> std::result::Result<SecretString, String>;

    /// Says what it is, for people.
    fn words(&self) -> &'static str {
        "what `credential_command` prints"
    }
}

/// What a program may print, as requests are signed with it.
pub(crate) trait Printed: fmt::Debug + Send + Sync + Sized + 'static {
    /// Reads it, with the time of its end where that is told. The reason for a failure quotes nothing.
    fn parse(text: &str) -> std::result::Result<(Self, Option<Timestamp>), String>;
}

/// Asks a source and remembers the answer until shortly before it expires.
#[derive(Debug)]
pub(crate) struct SourceProvider<C> {
    source: Arc<dyn CredentialSource>,
    cached: Mutex<Option<Cached<C>>>,
}

#[derive(Debug)]
struct Cached<C> {
    credential: Arc<C>,
    expires_at: Option<Timestamp>,
}

impl<C: Printed> SourceProvider<C> {
    pub(crate) fn new(source: Arc<dyn CredentialSource>) -> Self {
        Self {
            source,
            cached: Mutex::new(None),
        }
    }

    fn still_good(&self, now: Timestamp) -> Option<Arc<C>> {
        let guard = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let cached = guard.as_ref()?;
        let is_good = cached
            .expires_at
            .is_none_or(|end| end.duration_since(now) > RENEW_BEFORE);
        is_good.then(|| Arc::clone(&cached.credential))
    }
}

#[async_trait]
impl<C: Printed> CredentialProvider for SourceProvider<C> {
    type Credential = C;

    async fn get_credential(&self) -> object_store::Result<Arc<C>> {
        if let Some(credential) = self.still_good(Timestamp::now()) {
            return Ok(credential);
        }
        // No lock over the await: two parts that come here at once start the program twice, which harms nobody.
        let printed = tokio::time::timeout(FETCH_TIMEOUT, self.source.fetch())
            .await
            .unwrap_or_else(|_| Err("it took longer than a minute".to_owned()));
        let (credential, expires_at) = printed
            .and_then(|text| C::parse(text.expose_secret()))
            .map_err(|why| object_store::Error::Generic {
                store: "credentials",
                source: Box::new(NoCredentials(format!(
                    "the credential command failed: {why}"
                ))),
            })?;
        let credential = Arc::new(credential);
        *self.cached.lock().unwrap_or_else(PoisonError::into_inner) = Some(Cached {
            credential: Arc::clone(&credential),
            expires_at,
        });
        Ok(credential)
    }
}

/// Reads a bearer token and its end: the token alone, as `gcloud auth print-access-token` prints it, or JSON as
/// `az account get-access-token` and `gcloud config config-helper` print it.
pub(crate) fn parse_token(
    text: &str,
    now: Timestamp,
) -> std::result::Result<(String, Option<Timestamp>), String> {
    let text = text.trim();
    let unknown = Some(now + UNKNOWN_LIFE);
    if !text.starts_with('{') {
        check_token(text)?;
        return Ok((text.to_owned(), unknown));
    }
    let json: Value = serde_json::from_str(text).map_err(|error| {
        format!(
            "its output is not JSON (line {}, column {})",
            error.line(),
            error.column()
        )
    })?;
    let holder = json.get("credential").unwrap_or(&json);
    let text_of = |names: &[&str]| {
        let found = names.iter().find_map(|name| holder.get(name));
        found.and_then(Value::as_str)
    };
    let token = text_of(&["accessToken", "access_token", "token"])
        .ok_or("its output has no `access_token`")?;
    check_token(token)?;
    let seconds = ["expires_on", "expiresOn"].iter().find_map(|name| {
        let value = holder.get(name)?;
        value.as_i64().or_else(|| value.as_str()?.parse().ok())
    });
    // `expiresOn` of `az` is in this machine's zone, which nobody tells here; old versions print nothing else.
    let end = seconds
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .or_else(|| {
            text_of(&["token_expiry", "expiry", "expireTime"])?
                .parse()
                .ok()
        });
    Ok((token.to_owned(), end.or(unknown)))
}

/// Refuses what cannot stand in a header, so that nothing else is sent as a token.
fn check_token(token: &str) -> std::result::Result<(), String> {
    let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    is_token
        .then_some(())
        .ok_or_else(|| "its output is not a token".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::aws::AwsCredential;
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

    fn scripted(output: &str) -> (Arc<Scripted>, SourceProvider<AwsCredential>) {
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

    #[test]
    fn a_token_is_read_as_the_clouds_own_programs_print_it() {
        let now: Timestamp = "2026-01-02T03:00:00Z".parse().unwrap();
        let later: Timestamp = "2026-01-02T04:00:00Z".parse().unwrap();
        let soon = now + UNKNOWN_LIFE;
        for (text, end) in [
            ("ya29.tok-en\n", soon),
            (
                r#"{"accessToken": "ya29.tok-en", "expires_on": 1767326400, "expiresOn": "2026-01-02 05:00:00.000000"}"#,
                later,
            ),
            (
                r#"{"accessToken": "ya29.tok-en", "expiresOn": "2026-01-02 05:00:00.000000"}"#,
                soon,
            ),
            (
                r#"{"credential": {"access_token": "ya29.tok-en", "token_expiry": "2026-01-02T04:00:00Z"}}"#,
                later,
            ),
            (
                r#"{"access_token": "ya29.tok-en", "expires_on": "1767326400"}"#,
                later,
            ),
        ] {
            let read = parse_token(text, now);
            assert_eq!(read, Ok(("ya29.tok-en".to_owned(), Some(end))), "{text}");
        }
        for text in [
            "",
            "two words",
            "{",
            r#"{"hunter2": "hunter2"}"#,
            r#"{"token": "hunter 2"}"#,
        ] {
            let why = parse_token(text, now).unwrap_err();
            assert!(!why.contains("hunter"), "{why}");
        }
    }
}
