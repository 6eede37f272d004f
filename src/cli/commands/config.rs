//! `pgkeep config` on the terminal.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use jiff::{SignedDuration, Timestamp, Zoned};
use serde_json::{Value, json};

use crate::cli::output::Output;
use pgkeep_core::context::Context;
use pgkeep_core::setup::Setup;
use pgkeep_model::config::{Config, EXAMPLE, config_schema};
use pgkeep_model::due::{self, Plan};
use pgkeep_model::failure::{Failure, Kind, Result};
use pgkeep_model::words::span;

/// Commands about the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Write a configuration file with a comment for every key
    Init {
        /// File to write; - is standard output
        #[arg(value_name = "FILE", default_value = "pgkeep.yaml")]
        file: PathBuf,
        /// Replace an existing file
        #[arg(long)]
        force: bool,
    },
    /// Print the configuration in effect: with defaults, without secrets
    Show,
    /// Print the JSON Schema of the configuration, for editors
    Schema,
}

pub(super) fn run(
    command: &ConfigCommand,
    setup: &Setup,
    output: &Output,
    context: &Context,
) -> Result<()> {
    match command {
        ConfigCommand::Init { file, .. } if file.as_os_str() == "-" => output.data(EXAMPLE),
        ConfigCommand::Init { file, force } => {
            write(file, *force)?;
            let file = file.display().to_string();
            output.document(&serde_json::json!({ "file": file }), || {
                format!(
                    "{file} is written; fill in database and storage, then run `pgkeep check`\n"
                )
            });
        }
        ConfigCommand::Show => {
            let config = setup.config_or_fail()?;
            setup.check_servers()?;
            setup.check_drills()?;
            let next = next_runs(config, context.clock.now());
            let mut document = config.effective();
            if !next.is_empty() {
                document["next_runs"] = next.iter().map(NextRuns::json).collect();
            }
            output.document(&document, || {
                let lines: String = next.iter().map(NextRuns::comment).collect();
                config.effective_yaml() + &lines
            });
        }
        ConfigCommand::Schema => output.document(&config_schema(), || {
            serde_json::to_string_pretty(&config_schema())
                .expect("a schema holds only JSON's own types")
                + "\n"
        }),
    }
    Ok(())
}

/// How many of the next instants are told.
const NEXT_TOLD: usize = 5;

/// When a schedule of `pgkeep serve` runs next.
struct NextRuns {
    database: String,
    verb: &'static str,
    schedule: String,
    zone: String,
    /// How much later than its schedule the database's turn is.
    offset: SignedDuration,
    at: Vec<Zoned>,
}

fn next_runs(config: &Config, now: Timestamp) -> Vec<NextRuns> {
    let mut all = Vec::new();
    for (name, database) in &config.databases {
        let schedules = [
            ("backup", &database.schedule),
            ("drill", &database.drill.schedule),
            ("verify", &database.verify.schedule),
        ];
        let given = schedules
            .into_iter()
            .filter_map(|(verb, schedule)| Some((verb, schedule.as_ref()?)));
        for (verb, schedule) in given {
            let plan = Plan::of(name, database, schedule);
            let next = due::next(&plan, now).take(NEXT_TOLD);
            all.push(NextRuns {
                database: name.to_string(),
                verb,
                schedule: plan.schedule.to_string(),
                zone: plan.zone.iana_name().unwrap_or("UTC").to_owned(),
                offset: plan.offset,
                at: next.map(|at| at.to_zoned(plan.zone.clone())).collect(),
            });
        }
    }
    all
}

impl NextRuns {
    fn json(&self) -> Value {
        let at: Vec<Timestamp> = self.at.iter().map(Zoned::timestamp).collect();
        json!({
            "database": self.database,
            "verb": self.verb,
            "schedule": self.schedule,
            "timezone": self.zone,
            "offset_seconds": self.offset.as_secs(),
            "at": at,
        })
    }

    /// Tells it as comments, so that what is printed is still the configuration.
    fn comment(&self) -> String {
        let later = match self.offset.as_secs() {
            0 => String::new(),
            seconds => format!(", {} later", span(seconds.unsigned_abs())),
        };
        let head = format!(
            "# {} of {}: `{}` on the clock of {}{later}; next:\n",
            self.verb, self.database, self.schedule, self.zone
        );
        let line = |at: &Zoned| format!("#   {}\n", at.strftime("%a %Y-%m-%d %H:%M %:z"));
        let lines: String = self.at.iter().map(line).collect();
        head + &lines
    }
}

/// Writes the example for its owner alone: it is there to take secrets.
fn write(file: &Path, force: bool) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    if force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    let written = options
        .open(file)
        .and_then(|mut file| file.write_all(EXAMPLE.as_bytes()));
    written.map_err(|error| {
        let name = file.display();
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            let message = format!("will not replace `{name}`; nothing was written");
            return Failure::new(Kind::Refused, "file_exists", message)
                .hint("`--force` replaces it");
        }
        let message = format!("cannot write `{name}`: {error}");
        Failure::new(Kind::Usage, "cannot_write", message)
    })
}
