//! The secrets that runs of this process know, for every place that prints: what was hidden once is told nowhere.
//!
//! Whatever learns a secret hides it here before it prints anything else. Runs side by side hide what they know beside
//! each other: each text is searched for the secrets of all of them, and those of a run go when nobody holds it any more.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use secrecy::SecretString;
use serde_json::Value;

use pgkeep_model::redact::Redactor;

/// What one run knows, and through it what all of them know. Clones are the same run's.
#[derive(Clone, Default)]
pub struct Secrets(Arc<Owner>);

#[derive(Default)]
struct Owner {
    number: u64,
    known: Arc<Mutex<Known>>,
}

/// What is known in all, and by whom.
#[derive(Default)]
struct Known {
    next: u64,
    by_owner: BTreeMap<u64, Redactor>,
    all: Redactor,
}

impl Secrets {
    /// Returns the place for the secrets of another run, beside these.
    pub fn beside(&self) -> Self {
        let number = {
            let mut known = self.known();
            known.next += 1;
            known.next
        };
        Self(Arc::new(Owner {
            number,
            known: Arc::clone(&self.0.known),
        }))
    }

    /// Adds secrets, or values that may be secrets by the names they stand under.
    pub fn hide<'a>(&self, secrets: impl IntoIterator<Item = &'a SecretString>) {
        let more = Redactor::new(secrets);
        let mut known = self.known();
        let own = known.by_owner.remove(&self.0.number).unwrap_or_default();
        known.by_owner.insert(self.0.number, own.merge(&more));
        known.all = std::mem::take(&mut known.all).merge(&more);
    }

    /// Takes every known secret out of a text.
    pub fn redacted<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.known().all.redact(text)
    }

    /// Returns what takes every secret that is known by now out of a text.
    pub fn redactor(&self) -> Redactor {
        self.known().all.clone()
    }

    /// Takes every known secret out of the text of a panic, which may have come while this very thread holds the lock;
    /// then there is no text.
    pub fn redacted_in_panic(&self, text: &str) -> Option<String> {
        let known = self.0.known.try_lock().ok()?;
        Some(known.all.redact(text).into_owned())
    }

    /// Takes every known secret out of the texts of a JSON value. Its own text cannot be searched: what hides a piece of
    /// it may take a quote along.
    pub fn redact_json(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Cow::Owned(told) = self.redacted(text) {
                    *text = told;
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.redact_json(value)),
            Value::Object(fields) => fields
                .values_mut()
                .for_each(|value| self.redact_json(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.by_owner.remove(&self.number).is_some() {
            let left = known.by_owner.values();
            known.all = left.fold(Redactor::default(), Redactor::merge);
        }
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_hides_what_any_of_them_knows_until_it_is_gone() {
        let first = Secrets::default();
        let second = first.beside();
        first.hide([&"first-secret".into()]);
        second.hide([&"shared-secret".into(), &"second-secret".into()]);
        first.beside().hide([&"gone-secret".into()]);
        first.hide([&"shared-secret".into()]);
        let text = "first-secret second-secret shared-secret gone-secret";
        for secrets in [&first, &second, &first.clone()] {
            assert_eq!(secrets.redacted(text), "*** *** *** gone-secret");
        }
        drop(second);
        assert_eq!(
            first.redactor().redact(text),
            "*** second-secret *** gone-secret"
        );
    }
}
