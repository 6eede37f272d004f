//! How long a folder may be silent: a mount whose server is gone lets a system call wait for ever.
//!
//! The thread that waits there cannot be ended; it is left behind, and whoever asked goes on without it.

use std::time::Duration;

use crate::{Error, Result, haste};

/// A disk that sleeps takes half a minute to wake up, and a large write cache minutes to be flushed.
const LIMIT: Duration = Duration::from_secs(600);

/// The same while other storages have answered already. Listing a hundred thousand files over a network takes long.
const HASTY_LIMIT: Duration = Duration::from_secs(30);

/// How long somebody waits without a word.
const SILENCE: Duration = Duration::from_secs(3);

/// Waits for what a thread does in the folder.
pub(super) async fn wait<T>(label: &str, work: impl Future<Output = T>) -> Result<T> {
    let started = tokio::time::Instant::now();
    tokio::pin!(work);
    let in_haste = async {
        haste::begun().await;
        tokio::time::sleep_until(started + HASTY_LIMIT).await;
    };
    let quiet = async {
        tokio::time::sleep(SILENCE).await;
        let seconds = SILENCE.as_secs();
        tracing::warn!("`{label}` has not answered for {seconds} s");
        tokio::time::sleep_until(started + LIMIT).await;
    };
    tokio::select! {
        biased;
        done = &mut work => Ok(done),
        () = in_haste => Err(silent(label, HASTY_LIMIT)),
        () = quiet => Err(silent(label, LIMIT)),
    }
}

/// Waits the same way without a word: bytes on their way to a slow disk are no silence.
pub(super) async fn wait_for_bytes<T>(label: &str, work: impl Future<Output = T>) -> Result<T> {
    let waited = tokio::time::timeout(LIMIT, work).await;
    waited.map_err(|_| silent(label, LIMIT))
}

fn silent(label: &str, limit: Duration) -> Error {
    let seconds = limit.as_secs();
    Error::Failed {
        message: format!("`{label}` did not answer for {seconds} s"),
        hint: Some(format!(
            "look whether `ls {label}` answers: a network mount whose server is gone hangs"
        )),
        source: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Haste;

    #[tokio::test(start_paused = true)]
    async fn a_folder_that_hangs_is_given_up() {
        let hang = || std::future::pending::<()>();
        let started = tokio::time::Instant::now();
        let error = wait("/mnt/x", hang()).await.unwrap_err();
        assert_eq!(started.elapsed(), LIMIT);
        assert!(error.to_string().contains("did not answer"), "{error}");
        let haste = Haste::default();
        haste.begin();
        let started = tokio::time::Instant::now();
        assert!(haste.within(wait("/mnt/x", hang())).await.is_err());
        assert_eq!(started.elapsed(), HASTY_LIMIT);
        assert!(wait_for_bytes("/mnt/x", hang()).await.is_err());
        assert_eq!(wait("/mnt/x", async { 7 }).await.unwrap(), 7);
    }
}
