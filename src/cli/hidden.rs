//! The secrets that this process knows, for every place that prints: what was hidden once is told nowhere.
//!
//! Whatever learns a secret hides it here before it prints anything else.

use std::borrow::Cow;
use std::sync::{LazyLock, Mutex, PoisonError};

use secrecy::SecretString;
use serde_json::Value;

use pgkeep_model::redact::Redactor;

static SECRETS: LazyLock<Mutex<Redactor>> = LazyLock::new(Mutex::default);

/// Adds secrets, or values that may be secrets by the names they stand under. No runner is told: it would blacken a whole
/// job's log for the sake of a variable called `AUTHOR`.
pub(super) fn hide_guessed<'a>(secrets: impl IntoIterator<Item = &'a SecretString>) {
    let more = Redactor::new(secrets);
    let mut known = SECRETS.lock().unwrap_or_else(PoisonError::into_inner);
    *known = std::mem::take(&mut *known).merge(&more);
}

/// Takes every known secret out of a text.
pub(super) fn redacted(text: &str) -> Cow<'_, str> {
    SECRETS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .redact(text)
}

/// Returns what takes every secret that is known by now out of a text.
pub(super) fn redactor() -> Redactor {
    SECRETS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

/// The same for a panic, which may have come while this very thread holds the lock; then there is no text.
pub(super) fn redacted_in_panic(text: &str) -> Option<String> {
    let secrets = SECRETS.try_lock().ok()?;
    Some(secrets.redact(text).into_owned())
}

/// Takes every known secret out of the texts of a JSON value. Its own text cannot be searched: what hides a piece of it
/// may take a quote along.
pub(super) fn redact_json(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(told) = redacted(text) {
                *text = told;
            }
        }
        Value::Array(values) => values.iter_mut().for_each(redact_json),
        Value::Object(fields) => fields.values_mut().for_each(redact_json),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
