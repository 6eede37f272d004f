//! Patience that ends from outside: while other storages have answered already, nobody waits minutes for one more.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// How long a request may take in haste. A store that lives answers one in far less.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(10);

tokio::task_local! {
    static HASTE: Haste;
}

/// The wish that what has not been answered yet is given up soon. Clones are the same wish.
#[derive(Clone, Debug)]
pub struct Haste(Arc<watch::Sender<bool>>);

impl Default for Haste {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Haste {
    /// From now on a request that fails is not sent again, and one that takes longer than [`ANSWER_LIMIT`] is given up. What
    /// a storage answers step by step goes on.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }

    /// Carries out what ends early once it [begins](Self::begin): each request of a storage tells why it had no answer.
    pub async fn within<T>(&self, work: impl Future<Output = T>) -> T {
        HASTE.scope(self.clone(), work).await
    }
}

/// Waits until haste begins around this work; for ever where nobody asks for any.
pub(crate) async fn begun() {
    let haste = HASTE.try_with(Haste::clone).ok();
    let Some(haste) = haste else {
        return std::future::pending().await;
    };
    let mut wish = haste.0.subscribe();
    // The sender lives as long as `haste` does.
    let _ = wish.wait_for(|is_begun| *is_begun).await;
}
