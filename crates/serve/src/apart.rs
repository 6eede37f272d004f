//! Operations on threads of their own: their futures stay where they began, as in a process that does one.

use std::future::Future;
use std::thread;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing::Span;

use pgkeep_model::failure::{Failure, Kind};

/// What the main thread of a process has on Linux, where the same operations run for a command.
const STACK_BYTES: usize = 8 << 20;

/// Carries out what `work` makes, on a thread of its own. A panic there is a failure.
pub(crate) async fn apart<T, F>(work: impl FnOnce() -> F + Send + 'static) -> Result<T, Failure>
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let (sender, receiver) = oneshot::channel();
    let (runtime, span) = (Handle::current(), Span::current());
    // It goes on when nobody waits for it any more; what stops it is the wish to stop.
    let carry_out = move || {
        let done = span.in_scope(|| runtime.block_on(work()));
        let _ = sender.send(done); // nobody may wait any more
    };
    let thread = thread::Builder::new()
        .name("operation".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(carry_out);
    thread.map_err(|error| {
        let message = format!("there is no thread for the operation: {error}");
        Failure::new(Kind::Unexpected, "no_thread", message)
    })?;
    receiver.await.map_err(|_| {
        let message = "an operation ended without a word";
        Failure::new(Kind::Unexpected, "operation_panicked", message)
            .hint("this is a defect of pgkeep; the log says where")
    })
}
