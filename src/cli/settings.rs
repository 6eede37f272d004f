//! From the command line and the process's environment to the set-up that requests are made of. The only reader of the
//! environment.

use std::sync::Arc;

use secrecy::SecretString;

use super::actions::Actions;
use super::args::Global;
use super::log::Log;
use super::output;
use pgkeep_core::setup::{Door, Setup};
use pgkeep_model::config::Config;
use pgkeep_model::redact::Redactor;

/// The terminal: what it hides is hidden from its log.
struct Terminal {
    log: Log,
    is_quiet: bool,
    /// Whether `check` tells in its report what is wrong with the configuration.
    is_check: bool,
}

impl Door for Terminal {
    fn hide(&self, secrets: &[SecretString]) {
        self.log.hide(secrets);
    }

    fn hide_guessed(&self, secrets: &[SecretString]) {
        self.log.hide_guessed(secrets);
    }

    fn redactor(&self) -> Redactor {
        self.log.redactor()
    }

    fn configured(&self, config: &Config, warning: Option<&str>) {
        self.log.configure(&config.log);
        if let Some(text) = warning.filter(|_| !self.is_check) {
            output::warning(&self.log, text, self.is_quiet);
        }
    }
}

/// Makes the set-up of this process's run.
pub(super) fn setup(global: &Global, is_check: bool, log: &Log) -> Setup {
    let terminal = Terminal {
        log: log.clone(),
        is_quiet: global.quiet,
        is_check,
    };
    let mut setup = Setup::new(std::env::vars_os().collect(), Arc::new(terminal));
    setup.named_config.clone_from(&global.config);
    setup.database.clone_from(&global.database);
    setup.is_check = is_check;
    setup
}

/// Looks whether GitHub's runner reads along.
pub(super) fn actions() -> Option<Actions> {
    Actions::find(|name| std::env::var_os(name))
}
