//! The flags that every command takes.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};

/// Flags of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Flags of every command")]
pub struct Global {
    /// Configuration file [default: ./pgkeep.yaml, then /etc/pgkeep/pgkeep.yaml]
    #[arg(short, long, global = true, value_name = "FILE", env = "PGKEEP_CONFIG")]
    pub config: Option<PathBuf>,
    /// Which database of the configuration is meant
    #[arg(short, long, global = true, value_name = "NAME")]
    pub database: Option<String>,
    /// Print JSON on standard output, and errors as one JSON object at the end of standard error
    #[arg(long, global = true)]
    pub json: bool,
    /// Say more; twice says everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Say only what went wrong
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// How log lines look
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Write a log into this file, too; it is rotated by size [default: `log.file` of the configuration]
    #[arg(long, global = true, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    /// When progress is shown: on a terminal as a bar, elsewhere as a line now and then
    #[arg(long, global = true, value_enum, default_value_t = When::Auto, value_name = "WHEN")]
    pub progress: When,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// When something is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// Where it makes sense.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}
