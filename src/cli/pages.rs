//! `pgkeep completions` and `pgkeep man`: what a package installs beside the binary, made from the command line itself.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;

use super::output::Output;
use pgkeep_model::failure::{Failure, Kind, Result};

/// Flags of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    pub shell: Shell,
}

/// Flags of `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write a page for each command into this folder [default: print the main page]
    #[arg(long, value_name = "FOLDER")]
    pub dir: Option<PathBuf>,
}

pub(super) fn completions(args: &CompletionsArgs, mut command: Command, output: &Output) {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "pgkeep", &mut script);
    output.raw(&script);
}

pub(super) fn man(args: &ManArgs, command: Command, output: &Output) -> Result<()> {
    match &args.dir {
        Some(folder) => write_pages(folder, command).map_err(|error| {
            let message = format!("cannot write the manual to `{}`: {error}", folder.display());
            Failure::new(Kind::Usage, "cannot_write", message)
        }),
        None => {
            let mut page = Vec::new();
            let man = clap_mangen::Man::new(command.disable_help_flag(false));
            man.render(&mut page).map_err(|error| {
                let message = format!("cannot write the manual: {error}");
                Failure::new(Kind::Unexpected, "cannot_write", message)
            })?;
            output.raw(&page);
            Ok(())
        }
    }
}

fn write_pages(folder: &Path, command: Command) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    clap_mangen::generate_to(command, folder)
}
