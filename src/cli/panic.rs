//! What happens when pgkeep itself breaks: the panic is reported at once and without secrets, the programs it started are
//! killed, and the run ends as a failure like any other, with exit code 1.
//!
//! A hook is of the whole process by nature, and so is the last panic that it reports.
//! It never prints a panic's text before every known secret was taken out of it.

use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::{Mutex, PoisonError};

use super::output::say_in_panic;
use pgkeep_core::log::Secrets;
use pgkeep_core::postgres::process::kill_all;
use pgkeep_model::failure::{Failure, Kind};

/// The last panic, as it was reported.
static LAST: Mutex<Option<String>> = Mutex::new(None);

/// Reports every later panic of this process in one line, on whichever thread it happens.
pub(super) fn install(secrets: Secrets) {
    std::panic::set_hook(Box::new(move |info| {
        let words = words(info, &secrets);
        say_in_panic(&format!("pgkeep panicked {words}"));
        *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some(words);
    }));
}

/// Runs a part of the program; its panic becomes a failure.
pub(super) fn caught(run: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    // What the panic left half done is not used again: the process ends.
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        kill_all();
        Err(failure())
    })
}

fn failure() -> Failure {
    let last = LAST.lock().unwrap_or_else(PoisonError::into_inner).take();
    let words = last.unwrap_or_else(|| "for an unknown reason".to_owned());
    let message = format!(
        "pgkeep panicked {words}; this is a defect of pgkeep; a dump without manifest is not a backup"
    );
    Failure::new(Kind::Unexpected, "panicked", message)
        .hint("`pgkeep list` shows what is stored; please report the defect with this message")
}

fn words(info: &PanicHookInfo<'_>, secrets: &Secrets) -> String {
    let place = info
        .location()
        .map_or_else(|| "somewhere".to_owned(), |place| format!("at {place}"));
    let payload = info.payload();
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    // The panic may have come while this very thread held the lock; then its text is left out.
    match text.and_then(|text| secrets.redacted_in_panic(text)) {
        Some(text) => format!("{place}: {text}"),
        None => place,
    }
}

/// Panics in the middle of a run, on a thread of its own, when `PGKEEP_TEST_PANIC` says with which words. It stands in
/// debug builds only, for the test that no secret is printed.
#[cfg(debug_assertions)]
pub(super) async fn provoke(words: Option<String>) {
    let Some(words) = words else { return };
    let end: Result<(), _> = tokio::task::spawn_blocking(move || panic!("{words}")).await;
    if let Err(error) = end {
        std::panic::resume_unwind(error.into_panic());
    }
}
