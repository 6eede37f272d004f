//! The second half of the demo: what pgkeep itself does with a backup that is stored.

use std::sync::Arc;

use super::{Demo, PAGILA_NAME, indent};
use crate::cli::commands::restore::text as restored;
use crate::cli::commands::{drill as drill_words, prune as prune_words, verify as verify_words};
use crate::cli::progress::Shown;
use pgkeep_core::op::event::Silent;
use pgkeep_core::op::stored::{NamedStorage, Wanted};
use pgkeep_core::op::{drill, prune, restore, verify};
use pgkeep_model::config::Retention;
use pgkeep_model::failure::Result;
use pgkeep_model::id::DatabaseName;
use pgkeep_model::origin::Origin;
use pgkeep_storage::Folder;

impl Demo<'_> {
    /// Verifies, drills, restores and prunes, with the commands that do it.
    pub(super) async fn prove(&self) -> Result<()> {
        self.verify().await?;
        self.drill().await?;
        self.restore_into().await?;
        self.prune().await
    }

    async fn verify(&self) -> Result<()> {
        let folder = self.folder.display();
        self.tell(&format!(
            "\n7. every stored byte read and compared with the manifest\n   $ pgkeep verify --storage {folder}\n"
        ));
        let request = verify::Request {
            storages: self.storages()?,
            database: Some(name()),
            which: verify::Which::One(Wanted::Latest),
            origin: Origin::default(),
            lock: None,
        };
        let report = verify::run(request, self.context, &Silent).await?;
        let lines: String = report.copies.iter().map(verify_words::line).collect();
        self.tell(&indent(&self.screen().fitted(&lines)));
        report.failure.map_or(Ok(()), Err)
    }

    async fn drill(&self) -> Result<()> {
        let folder = self.folder.display();
        self.tell(&format!(
            "\n8. a restore drill on another throw-away server, with every table compared\n   $ pgkeep drill --storage {folder}\n"
        ));
        let request = drill::Request {
            storages: self.storages()?,
            database: Some(name()),
            wanted: Wanted::Latest,
            server: None,
            allow_superuser: false,
            search: self.search.clone(),
            environment: self.environment.clone(),
            limits: restore::Limits::default(),
            skip_extensions: Vec::new(),
            assertions: Vec::new(),
            origin: Origin::default(),
            lock: None,
        };
        let shown = Shown::new(PAGILA_NAME, self.output);
        let report = drill::run(&request, self.context, &shown).await;
        shown.finish();
        self.tell(&indent(&self.screen().fitted(&drill_words::text(&report))));
        report.failure.map_or(Ok(()), Err)
    }

    async fn restore_into(&self) -> Result<()> {
        let folder = self.folder.display();
        self.tell(&format!(
            "\n9. restored by pgkeep, which compares the result\n   $ pgkeep restore --storage {folder} --into pagila_again\n"
        ));
        let request = restore::Request {
            identities: Arc::default(),
            source: restore::Source::Stored {
                storages: self.storages()?,
                database: Some(name()),
                wanted: Wanted::Latest,
            },
            into: self.database("pagila_again")?,
            search: self.search.clone(),
            environment: self.environment.clone(),
            goal: restore::Goal::Whole,
            options: restore::Options::default(),
        };
        let shown = Shown::new(PAGILA_NAME, self.output);
        let outcome = restore::run(&request, self.context, &shown).await;
        shown.finish();
        let failure = outcome.failure().cloned();
        if failure.is_none()
            && let Some(text) = restored::of(&outcome)
        {
            self.tell(&indent(&self.screen().fitted(&text)));
        }
        failure.map_or(Ok(()), Err)
    }

    async fn prune(&self) -> Result<()> {
        let folder = self.folder.display();
        self.tell(&format!(
            "\n10. two more backups, then prune: the backup that passed a drill is never removed\n   \
             $ pgkeep prune --storage {folder} --keep-last 1\n"
        ));
        for _ in 0..2 {
            self.make_backup().await?;
        }
        let request = prune::Request {
            database: name(),
            storages: self.storages()?,
            policy: Retention {
                keep_last: Some(1),
                ..Retention::default()
            },
            keep_runs: pgkeep_model::config::DatabaseConfig::default().keep_runs,
            allow_mass_delete: false,
            dry_run: false,
            must_exist: true,
        };
        let report = prune::run(&request, &self.lock()?, self.context).await;
        self.tell(&indent(&prune_words::text(&report, self.screen())));
        report.failure.map_or(Ok(()), Err)
    }

    pub(super) fn storages(&self) -> Result<Vec<NamedStorage>> {
        let storage = Folder::open(&self.folder).map_err(|error| {
            pgkeep_core::op::stored::storage_failure("cannot open the folder", &error)
        })?;
        Ok(vec![NamedStorage {
            identities: Arc::default(),
            name: "demo".to_owned(),
            storage: Arc::new(storage),
        }])
    }
}

/// The name of the demo's backups.
pub(super) fn name() -> DatabaseName {
    PAGILA_NAME
        .parse()
        .expect("letters alone are a database name")
}
