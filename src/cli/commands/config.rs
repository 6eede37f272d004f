//! `pgkeep config` on the terminal.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Subcommand;

use crate::cli::output::Output;
use pgkeep_core::setup::Setup;
use pgkeep_model::config::{EXAMPLE, config_schema};
use pgkeep_model::failure::{Failure, Kind, Result};

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

pub(super) fn run(command: &ConfigCommand, setup: &Setup, output: &Output) -> Result<()> {
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
            output.document(&config.effective(), || config.effective_yaml());
        }
        ConfigCommand::Schema => output.document(&config_schema(), || {
            serde_json::to_string_pretty(&config_schema())
                .expect("a schema holds only JSON's own types")
                + "\n"
        }),
    }
    Ok(())
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
