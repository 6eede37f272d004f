//! Keeps one lease alive, proves on demand that it is still ours, and gives it back.
//!
//! One task owns the lease, so that renewals and proofs never meet. It takes nothing: a lease that is somebody else's
//! is lost for good and left alone.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::Place;
use crate::clock::Clock;
use crate::op::stored::NamedStorage;
use pgkeep_model::lease::{Lease, MAX_LEASE_BYTES, RENEWALS_PER_TTL};
use pgkeep_storage::{Error, Result, Storage, Version};

/// How often a renewal looks again when the storage says that the lease changed and shows that it did not: a store may
/// answer a conflict with nobody.
const LOOKS: usize = 3;

/// A lease that is ours, with what it takes to keep it.
pub(super) struct Owned {
    pub storage: Arc<dyn Storage>,
    pub key: String,
    pub lease: Lease,
    pub version: Version,
    pub clock: Arc<dyn Clock>,
}

/// What a proof came to.
#[derive(Debug)]
pub(super) enum Fenced {
    /// It is ours, and renewed.
    Held,
    /// It is not.
    Lost,
    /// It is not known.
    Failed(Error),
}

enum Order {
    Fence(oneshot::Sender<Fenced>),
    Release(oneshot::Sender<Result<()>>),
}

/// Speaks to the task that keeps a lease. The task ends with it.
pub(super) struct Keeper {
    orders: mpsc::Sender<Order>,
    loss: Arc<Loss>,
}

/// Tells everybody that the lease is lost.
struct Loss {
    lost: CancellationToken,
    ended: CancellationToken,
    /// Who has it, in words.
    taken_by: OnceLock<String>,
}

impl Keeper {
    /// Starts to keep a lease. Its loss cancels both tokens.
    pub(super) fn start(owned: Owned, lost: CancellationToken, ended: CancellationToken) -> Self {
        let loss = Arc::new(Loss {
            lost,
            ended,
            taken_by: OnceLock::new(),
        });
        let (orders, incoming) = mpsc::channel(1);
        // Awaited by nobody: it ends when the keeper is dropped, or when the lease is given back.
        tokio::spawn(keep(owned, incoming, Arc::clone(&loss)).in_current_span());
        Self { orders, loss }
    }

    /// Proves that the lease is ours by renewing it; none if the task is gone.
    pub(super) async fn fence(&self) -> Option<Fenced> {
        let (reply, answer) = oneshot::channel();
        self.orders.send(Order::Fence(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Returns who took the lease, in words; none while it is not known to be lost.
    pub(super) fn taken_by(&self) -> Option<String> {
        self.loss.taken_by.get().cloned()
    }

    async fn release(self) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        let sent = self.orders.send(Order::Release(reply)).await;
        match sent {
            Ok(()) => answer.await.unwrap_or_else(|_| Err(gone())),
            Err(_) => Err(gone()),
        }
    }
}

fn gone() -> Error {
    Error::failed("the task that keeps it is gone")
}

impl Place {
    /// Gives back what is there of a lease.
    pub(super) async fn release(self, named: &NamedStorage, key: &str) -> Result<()> {
        match self {
            Self::Without | Self::Shared(_) => Ok(()),
            Self::Kept(keeper) => keeper.release().await,
            Self::Asked(lease) => {
                // The storage has failed already, and has been told of.
                if let Err(error) = give_back(named.storage.as_ref(), key, *lease, None).await {
                    tracing::info!(storage = named.name, %error, "a lease of this run may be left");
                }
                Ok(())
            }
        }
    }
}

async fn keep(mut owned: Owned, mut orders: mpsc::Receiver<Order>, loss: Arc<Loss>) {
    let pause = owned.lease.ttl() / RENEWALS_PER_TTL;
    let mut next = Instant::now() + pause;
    loop {
        // An order ends a renewal under way; whether that one came through is found out by the next.
        let order = tokio::select! {
            order = orders.recv() => order,
            fenced = renew_at(next, pause, &mut owned, &loss), if !loss.is_declared() => {
                // A renewal that failed is tried again soon: the lease may have little life left.
                let is_held = matches!(fenced, Fenced::Held);
                next = Instant::now() + if is_held { pause } else { pause / 4 };
                continue;
            }
        };
        match order {
            None => return,
            Some(Order::Fence(reply)) => {
                let fenced = fence(&mut owned, &loss).await;
                next = Instant::now() + pause;
                let _ = reply.send(fenced); // whoever asked may have given up
            }
            Some(Order::Release(reply)) => {
                let released = if loss.is_declared() {
                    Ok(())
                } else {
                    owned.release().await
                };
                let _ = reply.send(released);
                return;
            }
        }
    }
}

/// Waits for the moment, then renews within `limit`.
async fn renew_at(next: Instant, limit: Duration, owned: &mut Owned, loss: &Loss) -> Fenced {
    sleep_until(next).await;
    let fenced = timeout(limit, fence(owned, loss))
        .await
        .unwrap_or_else(|_| Fenced::Failed(Error::failed("it did not answer")));
    if let Fenced::Failed(error) = &fenced {
        tracing::info!(key = owned.key, %error, "a lease was not renewed");
    }
    fenced
}

/// Renews the lease and declares its loss where it is somebody else's.
async fn fence(owned: &mut Owned, loss: &Loss) -> Fenced {
    if loss.is_declared() {
        return Fenced::Lost;
    }
    match owned.renew().await {
        Ok(Renewed::Held) => Fenced::Held,
        Ok(Renewed::Lost(who)) => {
            loss.declare(who);
            Fenced::Lost
        }
        Err(error) => Fenced::Failed(error),
    }
}

impl Loss {
    fn is_declared(&self) -> bool {
        self.taken_by.get().is_some()
    }

    fn declare(&self, who: String) {
        let _ = self.taken_by.set(who); // lost twice is lost
        self.lost.cancel();
        self.ended.cancel();
    }
}

enum Renewed {
    Held,
    Lost(String),
}

impl Owned {
    /// Writes a sign of life over the lease as we know it.
    async fn renew(&mut self) -> Result<Renewed> {
        for _ in 0..LOOKS {
            self.lease.renew(self.clock.now());
            let bytes = Bytes::from(self.lease.to_json());
            match self.storage.replace(&self.key, bytes, &self.version).await {
                Ok(version) => {
                    self.version = version;
                    return Ok(Renewed::Held);
                }
                Err(Error::Changed(_)) => {}
                Err(error) => return Err(error),
            }
            // Somebody took it, or the answer to an earlier renewal of ours never came.
            match self.storage.get_versioned(&self.key, MAX_LEASE_BYTES).await {
                Ok((bytes, version)) => match Lease::read(&bytes) {
                    Ok(found) if found.holder == self.lease.holder => self.version = version,
                    Ok(found) => {
                        return Ok(Renewed::Lost(format!("the lease is now held by {found}")));
                    }
                    Err(_) => {
                        return Ok(Renewed::Lost(
                            "another program overwrote the lease".to_owned(),
                        ));
                    }
                },
                Err(Error::NotFound(_)) => {
                    // Anyone who took it over may be done already.
                    return Ok(Renewed::Lost(
                        "another program removed the lease".to_owned(),
                    ));
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::Changed(self.key.clone()))
    }

    async fn release(self) -> Result<()> {
        let (storage, version) = (self.storage, self.version);
        give_back(storage.as_ref(), &self.key, self.lease, Some(version)).await
    }
}

/// Takes the lease away if it is still ours. Who may not remove objects leaves word in it that it is free.
pub(super) async fn give_back(
    storage: &dyn Storage,
    key: &str,
    mut lease: Lease,
    known: Option<Version>,
) -> Result<()> {
    let denied = match storage.get_versioned(key, MAX_LEASE_BYTES).await {
        Ok((bytes, version)) => {
            let is_ours = Lease::read(&bytes).is_ok_and(|found| found.holder == lease.holder);
            if !is_ours {
                return Ok(());
            }
            match storage.remove(key).await {
                Err(error @ (Error::Denied { .. } | Error::Retained { .. })) => {
                    (error, Some(version))
                }
                removed => return removed.map(drop),
            }
        }
        Err(Error::NotFound(_)) => return Ok(()),
        // Who may write but not read knows the version from the last write.
        Err(error @ Error::Denied { .. }) => (error, known),
        Err(error) => return Err(error),
    };
    let (error, Some(version)) = denied else {
        return Err(denied.0);
    };
    lease.released_at = Some(lease.renewed_at);
    let word = storage.replace(key, lease.to_json().into(), &version).await;
    word.map(drop).map_err(|_| error)
}
