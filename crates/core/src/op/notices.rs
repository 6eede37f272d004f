//! Sending a notice, and what becomes of one that did not arrive; the words that every notice shares.
//!
//! Each operation makes its own notice in its own folder, from its report alone, so that it cannot disagree with the
//! exit code. One that did not arrive is a warning and turns exit code 0 into 3; no other code changes.

use crate::context::Context;
use crate::notify::Delivery;
use pgkeep_model::failure::{Failure, Kind};
use pgkeep_model::id::BackupId;
use pgkeep_model::notice::{Notice, Outcome, Trouble};

/// Tells everybody who wants to hear of it.
pub(super) async fn tell(notice: &Notice, context: &Context) -> Vec<Delivery> {
    context.notices.tell(notice, &context.stop).await
}

/// Says what did not arrive.
pub fn undelivered(deliveries: &[Delivery]) -> Vec<String> {
    let words = deliveries.iter().filter_map(|delivery| {
        let notifier = &delivery.notifier;
        match (delivery.delivered, delivery.error.as_deref()) {
            (true, None) => None,
            (true, Some(why)) => Some(format!(
                "the notice to {notifier} was not delivered to all: {why}"
            )),
            (false, why) => Some(format!(
                "the notice to {notifier} was not delivered: {}",
                why.unwrap_or("the cause is not known")
            )),
        }
    });
    words.collect()
}

/// Makes a failure out of notices that did not arrive, where nothing else failed. `good` says what is good. A run that
/// was asked to stop meanwhile ends as one.
pub(super) fn settle(
    failure: &mut Option<Failure>,
    deliveries: &[Delivery],
    good: &str,
    context: &Context,
) {
    let words = undelivered(deliveries);
    let (Some(first), None) = (words.first(), &failure) else {
        return;
    };
    if context.stop.is_requested() {
        *failure = Some(context.stop.failure(good).and_safe(first));
        return;
    }
    let made = Failure::new(
        Kind::AfterGood,
        "notice_failed",
        format!("{good}, but {first}"),
    )
    .with_details(words[1..].to_vec());
    *failure = Some(made.hint("`notify` in the configuration sets where notices go"));
}

/// Says how a run ended; `is_good` tells that what it was for is done, whatever failed behind it.
pub(super) fn outcome(failure: Option<&Failure>, is_good: bool) -> Outcome {
    match (failure, is_good) {
        (None, _) => Outcome::Good,
        (Some(_), true) => Outcome::GoodBut,
        (Some(_), false) => Outcome::Failed,
    }
}

/// Takes over what a failure says: the same words, code and next moves as on the terminal.
pub(super) fn note_failure(notice: &mut Notice, failure: Option<&Failure>) {
    let Some(failure) = failure else { return };
    notice.exit_code = failure.kind.exit_code();
    notice.next.clone_from(&failure.hints);
    notice.failure = Some(Trouble {
        id: failure.id.to_owned(),
        message: failure.message.clone(),
        details: failure.details.clone(),
        causes: failure.causes.clone(),
    });
}

pub(super) fn verdict(outcome: Outcome, good: &str) -> String {
    match outcome {
        Outcome::Good => good.to_owned(),
        Outcome::GoodBut => format!("{good}, but something after it failed"),
        Outcome::Failed => "FAILED".to_owned(),
    }
}

/// Returns a failure's message without its beginning, which the subject says already.
pub(super) fn why(failure: Option<&Failure>) -> &str {
    let message = failure.map_or("", |failure| failure.message.as_str());
    let is_beginning = |before: &str| {
        let verbs = ["backup of `", "drill of `", "backup `"];
        let is_verb = verbs.iter().any(|verb| before.starts_with(verb));
        is_verb && before.matches('`').count() == 2
    };
    for mark in [" failed: ", " is good, but "] {
        if let Some((before, rest)) = message.split_once(mark)
            && is_beginning(before)
        {
            return rest;
        }
    }
    message
}

pub(super) fn database_of(id: Option<&str>) -> Option<String> {
    let id: BackupId = id?.parse().ok()?;
    Some(id.database().to_string())
}
