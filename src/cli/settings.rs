//! From the command line and the process's environment to the set-up that requests are made of. The only reader of the
//! environment.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;

use secrecy::SecretString;

use super::actions::Actions;
use super::args::Global;
use super::log::Log;
use super::output;
use super::screen::Screen;
use super::tracking::{self, Tracking};
use pgkeep_core::clock::Clock;
use pgkeep_core::log::Secrets;
use pgkeep_core::setup::{Door, Setup};
use pgkeep_core::stop::Stop;
use pgkeep_model::config::Config;
use pgkeep_model::failure::Failure;
use pgkeep_model::redact::Redactor;

/// The terminal: what it hides is hidden from its log.
struct Terminal {
    log: Log,
    is_quiet: bool,
    /// Whether this is `check`, which reports what is wrong with the configuration itself.
    is_check: bool,
    stop: Stop,
    tracking: Tracking,
}

impl Door for Terminal {
    fn hide(&self, secrets: &[SecretString]) {
        self.log.hide(secrets);
    }

    fn hide_guessed(&self, secrets: &[SecretString]) {
        self.log.hide_guessed(secrets);
    }

    fn stopped(&self) -> Option<Failure> {
        let failure = || self.stop.failure("reading a file");
        self.stop
            .is_requested()
            .then(|| failure().and_safe("nothing was begun"))
    }

    fn redactor(&self) -> Redactor {
        self.log.redactor()
    }

    fn configured(&self, config: &Config, warning: Option<&str>) {
        self.log.configure(&config.log);
        self.tracking.configure(config);
        if self.is_check {
            return;
        }
        let untracked = tracking::warning(self.tracking.tracker().as_ref(), config);
        for text in warning.into_iter().chain(untracked.as_deref()) {
            output::warning(&self.log, text, self.is_quiet);
        }
    }
}

/// Finds out who tracks the runs of this process, as far as the environment says.
pub(super) fn tracking(secrets: Secrets, clock: &Arc<dyn Clock>) -> Tracking {
    let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    Tracking::new(secrets, clock, var)
}

/// Makes the set-up of this process's run.
pub(super) fn setup(
    global: &Global,
    is_check: bool,
    log: &Log,
    stop: &Stop,
    tracking: &Tracking,
) -> Setup {
    let terminal = Terminal {
        log: log.clone(),
        is_quiet: global.quiet,
        is_check,
        stop: stop.clone(),
        tracking: tracking.clone(),
    };
    let mut setup = Setup::new(std::env::vars_os().collect(), Arc::new(terminal));
    setup.named_config.clone_from(&global.config);
    setup.database.clone_from(&global.database);
    setup.is_check = is_check;
    setup.program = program(setup.path().as_deref());
    setup
}

/// Returns our own path where `pgkeep` is another program, or none: a line to paste has to find us.
fn program(path: Option<&OsStr>) -> Option<PathBuf> {
    let own = std::env::current_exe().ok().filter(|own| own.is_file())?;
    let mut folders = std::env::split_paths(path?);
    let found = folders
        .find_map(|folder| Some(folder.join("pgkeep")).filter(|file| file.is_file()))
        .and_then(|found| found.canonicalize().ok());
    let is_found = found.is_some() && found == own.canonicalize().ok();
    (!is_found).then_some(own)
}

/// Looks at what standard output can show; where that belongs to another program, at standard error.
pub(super) fn screen(stdout_is_taken: bool) -> Screen {
    let size = if stdout_is_taken {
        rustix::termios::tcgetwinsize(std::io::stderr())
    } else {
        rustix::termios::tcgetwinsize(std::io::stdout())
    };
    let columns = size.ok().map(|size| usize::from(size.ws_col));
    Screen::new(columns, |name| std::env::var(name).ok())
}

/// Shows colours where `FORCE_COLOR` wants them. `NO_COLOR`, `CLICOLOR`, `CLICOLOR_FORCE` and `TERM` are read by anstream.
pub(super) fn force_colours() {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_zero = std::env::var_os("FORCE_COLOR").is_some_and(|value| value == "0");
    if is_set("FORCE_COLOR") && !is_zero && !is_set("NO_COLOR") {
        anstream::ColorChoice::Always.write_global();
    }
}

/// Looks whether GitHub's runner reads along.
pub(super) fn actions() -> Option<Actions> {
    Actions::find(|name| std::env::var_os(name))
}
