//! The last part of a demo with `--serve`: its backups on the page of a server, until it is stopped.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde_json::json;

use super::{Demo, PAGILA_NAME, broken, browser};
use pgkeep_model::failure::Result;

impl Demo<'_> {
    /// Serves the sample database and its backups. It ends when it is stopped, which is no failure.
    pub(super) async fn serve(&self, folder: &Path, listen: &str) -> Result<()> {
        let path = folder.join("pgkeep.yaml");
        let made = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(self.config().as_bytes()));
        made.map_err(|error| broken("a configuration", &error))?;
        self.tell("\n11. the same on a page, with a backup every five minutes\n");
        let setup = self.setup.with_config(path);
        let options = pgkeep_serve::Options {
            listen: Some(listen.to_owned()),
            ..pgkeep_serve::Options::default()
        };
        let told = |address: &str| {
            self.output.say(&format!(
                "   open {address} in a browser; Ctrl-C ends it and removes everything"
            ));
            if !self.output.json {
                browser::open(address, self.setup);
            }
        };
        pgkeep_serve::run(&options, &setup, self.context, told).await
    }

    /// JSON is YAML, too.
    fn config(&self) -> String {
        let get = |name| self.connection.get(name).unwrap_or_default();
        let config = json!({
            "databases": {PAGILA_NAME: {
                "host": get("host"),
                "port": get("port").parse::<u16>().unwrap_or(5432),
                "user": get("user"),
                "database": PAGILA_NAME,
                "max_age": "1h",
                "schedule": "*/5 * * * *",
                "retention": {"keep_last": 12},
                "drill": {"recovery_target": "1m"},
            }},
            "storages": {"demo": {"url": self.folder.display().to_string()}},
        });
        config.to_string()
    }
}
