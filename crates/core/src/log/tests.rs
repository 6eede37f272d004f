//! Two runs in one process: each line is of one of them, and no secret of either is told.

use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::sync::Barrier;
use tracing::Instrument as _;
use tracing::instrument::WithSubscriber as _;

use super::*;

/// Keeps what it is shown.
#[derive(Default)]
struct Kept(Mutex<Vec<String>>);

impl Sink for Kept {
    fn text(&self, text: &str) {
        self.json(text.to_owned());
    }

    fn json(&self, text: String) {
        self.0.lock().unwrap().push(text);
    }
}

const SECRETS: [&str; 2] = ["first-pass-word", "second-pass-word"];

/// What a run does: it learns its secret, then tells both, once the other run has learnt the other.
async fn work(run: Run, own: usize, barrier: Arc<Barrier>) {
    run.secrets().hide([&SECRETS[own].into()]);
    barrier.wait().await;
    for step in 0..20 {
        tracing::info!(target: "pgkeep", own, step, "event {SECRETS:?}");
        let task = async move {
            tokio::task::yield_now().await;
            tracing::warn!(own, step, why = ?SECRETS, "event of a task");
        };
        tokio::spawn(task.in_current_span().with_current_subscriber())
            .await
            .unwrap();
        let text = format!("told by {own}: {SECRETS:?}");
        run.log().tell(&text, &run.line(Level::INFO, text.clone()));
        barrier.wait().await;
    }
    let other = "elsewhere";
    tracing::info!(target: "pgkeep", own, database = other, "about another database");
}

fn about(own: usize) -> About {
    About {
        id: Some(format!("run-{own}")),
        verb: Some(["backup", "verify"][own]),
        database: Some(format!("db-{own}")),
    }
}

async fn two_runs(format: Format, filter: &str) -> (Vec<String>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let kept = Arc::new(Kept::default());
    let sink: Arc<dyn Sink> = Arc::<Kept>::clone(&kept);
    let secrets = Secrets::default();
    let log = Log::new(format, Some(path.clone()), sink, secrets.clone());
    let subscriber = Arc::new(log.subscriber(EnvFilter::new(filter), EnvFilter::new("info")));
    let barrier = Arc::new(Barrier::new(2));
    let runs = [0, 1].map(|own| {
        let run = log.run(about(own), secrets.beside());
        let _guard = tracing::subscriber::set_default(Arc::clone(&subscriber));
        let work = work(run.clone(), own, Arc::clone(&barrier)).instrument(run.span());
        tokio::spawn(work.with_subscriber(Arc::clone(&subscriber)))
    });
    for run in runs {
        run.await.unwrap();
    }
    let shown = kept.0.lock().unwrap().clone();
    let written = std::fs::read_to_string(&path).unwrap();
    (shown, written.lines().map(str::to_owned).collect())
}

fn assert_no_secret(lines: &[String]) {
    for line in lines {
        assert!(
            !SECRETS.iter().any(|secret| line.contains(secret)),
            "{line}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_side_by_side_do_not_mix_and_tell_no_secret() {
    let (shown, written) = two_runs(Format::Json, "info").await;
    assert_eq!((shown.len(), written.len()), (122, 122));
    for lines in [&shown, &written] {
        assert_no_secret(lines);
        let mut of = [0, 0];
        for line in lines {
            let line: Value = serde_json::from_str(line).unwrap();
            let message = line["message"].as_str().unwrap();
            let own = match line["own"].as_u64() {
                Some(own) => usize::try_from(own).unwrap(),
                None => usize::from(message.starts_with("told by 1")),
            };
            of[own] += 1;
            let wanted = about(own);
            assert_eq!(line["run"].as_str(), wanted.id.as_deref(), "{line}");
            assert_eq!(line["verb"].as_str(), wanted.verb, "{line}");
            let database = match message {
                "about another database" => Some("elsewhere"),
                _ => wanted.database.as_deref(),
            };
            assert_eq!(line["database"].as_str(), database, "{line}");
        }
        assert_eq!(of, [61, 61], "every line is of one run");
    }
}

/// Where nothing but errors is shown, the run's own fields still stand in the file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_filter_takes_a_run_from_its_lines() {
    let (shown, written) = two_runs(Format::Text, "off").await;
    assert_eq!((shown.len(), written.len()), (40, 122));
    assert_no_secret(&shown);
    assert_no_secret(&written);
    for line in &written {
        let runs = ["run=run-0", "run=run-1"].map(|run| line.contains(run));
        assert!(runs[0] != runs[1], "{line}");
    }
}

/// A run that is over takes its secrets along, but not before the last task within its span.
#[test]
fn a_secret_is_known_as_long_as_its_run_is_under_way() {
    let secrets = Secrets::default();
    let log = Log::new(
        Format::Text,
        None,
        Arc::new(Kept::default()),
        secrets.clone(),
    );
    let subscriber = log.subscriber(EnvFilter::new("info"), EnvFilter::new("info"));
    tracing::subscriber::with_default(subscriber, || {
        let run = log.run(about(0), secrets.beside());
        run.secrets().hide([&SECRETS[0].into()]);
        let span = run.span();
        drop(run);
        assert_eq!(secrets.redacted(SECRETS[0]), "***");
        drop(span);
        assert_eq!(secrets.redacted(SECRETS[0]), SECRETS[0]);
    });
}
