//! The flags that several commands share; a command's own are in its file.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};

use pgkeep_core::setup::StorageOverrides;
use pgkeep_core::setup::retention::PolicyOverrides;
use pgkeep_model::config::Preset;

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

/// Where backups live.
#[derive(Clone, Debug, Default, Args)]
pub struct StorageArgs {
    /// Storage: a folder or s3://bucket/prefix (repeatable) [default: those of the configuration]
    #[arg(long = "storage", value_name = "URL", help_heading = "Storage")]
    pub storages: Vec<String>,
    /// Endpoint of an S3-compatible service
    #[arg(
        long,
        value_name = "URL",
        help_heading = "Storage",
        env = "PGKEEP_S3_ENDPOINT"
    )]
    pub s3_endpoint: Option<String>,
    /// Region of the bucket [default: AWS_REGION, else us-east-1]
    #[arg(long, value_name = "REGION", help_heading = "Storage")]
    pub s3_region: Option<String>,
}

impl From<&StorageArgs> for StorageOverrides {
    fn from(args: &StorageArgs) -> Self {
        Self {
            storages: args.storages.clone(),
            s3_endpoint: args.s3_endpoint.clone(),
            s3_region: args.s3_region.clone(),
        }
    }
}

/// A retention policy on the command line.
#[derive(Debug, Args)]
#[command(next_help_heading = "Policy [default: the one of the configuration]")]
pub struct PolicyArgs {
    /// Keep the newest so many
    #[arg(long, value_name = "N")]
    pub keep_last: Option<u32>,
    /// Keep the newest of each of so many hours
    #[arg(long, value_name = "N")]
    pub keep_hourly: Option<u32>,
    /// Keep the newest of each of so many days
    #[arg(long, value_name = "N")]
    pub keep_daily: Option<u32>,
    /// Keep the newest of each of so many ISO weeks
    #[arg(long, value_name = "N")]
    pub keep_weekly: Option<u32>,
    /// Keep the newest of each of so many months
    #[arg(long, value_name = "N")]
    pub keep_monthly: Option<u32>,
    /// Keep the newest of each of so many years
    #[arg(long, value_name = "N")]
    pub keep_yearly: Option<u32>,
    /// Keep all that are younger, measured to the newest backup: 30d, 4 weeks, 1 year
    #[arg(long, value_name = "TIME")]
    pub keep_within: Option<String>,
    /// IANA name of the zone that days, weeks, months and years are counted in [default: UTC, or the configuration's]
    #[arg(long, value_name = "ZONE")]
    pub timezone: Option<String>,
}

impl From<&PolicyArgs> for PolicyOverrides {
    fn from(args: &PolicyArgs) -> Self {
        Self {
            keep_last: args.keep_last,
            keep_hourly: args.keep_hourly,
            keep_daily: args.keep_daily,
            keep_weekly: args.keep_weekly,
            keep_monthly: args.keep_monthly,
            keep_yearly: args.keep_yearly,
            keep_within: args.keep_within.clone(),
            timezone: args.timezone.clone(),
        }
    }
}

/// A hosting service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PresetArg {
    /// Supabase
    Supabase,
}

impl From<PresetArg> for Preset {
    fn from(preset: PresetArg) -> Self {
        match preset {
            PresetArg::Supabase => Self::Supabase,
        }
    }
}
