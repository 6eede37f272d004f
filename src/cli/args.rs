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
    /// Use only this database of the configuration
    #[arg(short, long, global = true, value_name = "NAME")]
    pub database: Option<String>,
    /// Print JSON; an error is one JSON object at the end of standard error
    #[arg(long, global = true)]
    pub json: bool,
    /// Log more; -vv logs even more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Print only what went wrong
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Format of log lines
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT", hide_short_help = true)]
    pub log_format: LogFormat,
    /// Also write a log to this file, rotated by size [default: `log.file` of the configuration]
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub log_file: Option<PathBuf>,
    /// When to show progress: a bar on a terminal, elsewhere a line now and then
    #[arg(long, global = true, value_enum, default_value_t = When::Auto, value_name = "WHEN", hide_short_help = true)]
    pub progress: When,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object per line
    Json,
}

/// When something is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// Unless --quiet is given
    Auto,
    /// Even with --quiet
    Always,
    /// Not at all
    Never,
}

/// Where backups live.
#[derive(Clone, Debug, Default, Args)]
pub struct StorageArgs {
    /// Storage: a folder, or a bucket as s3://NAME/PREFIX, gs:// or az://, or rclone:REMOTE:PATH (repeatable) [default: those of the configuration]
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
    /// File of private keys of age that open encrypted backups (repeatable) [default: PGKEEP_IDENTITY_FILE, then `encryption.identity_file` of the configuration]
    #[arg(
        short = 'i',
        long = "identity",
        value_name = "FILE",
        help_heading = "Storage",
        hide_short_help = true
    )]
    pub identities: Vec<PathBuf>,
}

impl From<&StorageArgs> for StorageOverrides {
    fn from(args: &StorageArgs) -> Self {
        Self {
            storages: args.storages.clone(),
            s3_endpoint: args.s3_endpoint.clone(),
            s3_region: args.s3_region.clone(),
            identities: args.identities.clone(),
        }
    }
}

/// A retention policy on the command line.
#[derive(Debug, Args)]
#[command(next_help_heading = "Policy [default: that of the configuration]")]
pub struct PolicyArgs {
    /// Keep the N newest backups
    #[arg(long, value_name = "N")]
    pub keep_last: Option<u32>,
    /// Keep the newest backup of each of N hours
    #[arg(long, value_name = "N")]
    pub keep_hourly: Option<u32>,
    /// Keep the newest backup of each of N days
    #[arg(long, value_name = "N")]
    pub keep_daily: Option<u32>,
    /// Keep the newest backup of each of N ISO weeks
    #[arg(long, value_name = "N")]
    pub keep_weekly: Option<u32>,
    /// Keep the newest backup of each of N months
    #[arg(long, value_name = "N")]
    pub keep_monthly: Option<u32>,
    /// Keep the newest backup of each of N years
    #[arg(long, value_name = "N")]
    pub keep_yearly: Option<u32>,
    /// Keep all backups of this length of time before the newest one: 30d, 4 weeks, 1 year
    #[arg(long, value_name = "TIME")]
    pub keep_within: Option<String>,
    /// Time zone for counting days, weeks, months and years, such as Europe/Berlin [default: that of the configuration, else UTC]
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
