//! What a server cannot be without: where one of its tasks ends before it should, the server ends, too.

use futures_util::future::select_all;
use tokio::task::JoinHandle;

use pgkeep_model::failure::{Failure, Kind, Result};

/// A task and its name.
pub type Task = (&'static str, JoinHandle<Result<()>>);

/// Waits for the first of these tasks to end, which none does while the server is to go on, and says which one that was
/// and why.
pub async fn first_end(tasks: &mut [Task]) -> Failure {
    let (ended, at, _) = select_all(tasks.iter_mut().map(|(_, task)| task)).await;
    let name = tasks[at].0;
    let cause = match ended {
        Ok(Ok(())) => "it ended without a word".to_owned(),
        Ok(Err(failure)) => failure.message,
        Err(error) if error.is_panic() => "it panicked".to_owned(),
        Err(error) => error.to_string(),
    };
    let message = format!("the server ends, because {name} no longer runs: {cause}");
    Failure::new(Kind::Unexpected, "thread_ended", message)
        .hint("this is a defect of pgkeep; the log says where. A service manager starts it again")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    #[tokio::test]
    async fn a_task_that_panics_or_returns_ends_the_server() {
        let panics = tokio::spawn(async { panic!("on purpose") });
        let mut tasks = [
            ("the first", tokio::spawn(pending())),
            ("the second", panics),
        ];
        let failure = first_end(&mut tasks).await;
        assert_eq!(failure.kind.exit_code(), 1);
        assert!(failure.message.contains("the second"), "{failure:?}");
        let mut tasks = [("the third", tokio::spawn(async { Ok(()) }))];
        assert!(first_end(&mut tasks).await.message.contains("the third"));
    }
}
