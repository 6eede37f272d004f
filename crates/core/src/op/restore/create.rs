//! Makes the database that a dump goes into, under a random name first: what bears the wanted one by then may be somebody
//! else's.

use tokio_util::sync::CancellationToken;

use super::Limits;
use super::refusal::{is_about_locale, is_timed_out, lacks_locale};
use super::stall::{Pulse, Watchdog};
use crate::context::Context;
use crate::postgres::databases::{Databases, NotCreated, Why};
use crate::postgres::error::Error;
use pgkeep_model::failure::Failure;
use pgkeep_model::name::quote;
use pgkeep_model::restore::properties::Properties;

/// A database that is to be made.
pub(super) struct Creation<'a> {
    /// What is being done, such as "restore into `app@db/shop`".
    pub doing: String,
    /// Seen from another database.
    pub databases: &'a Databases,
    pub name: &'a str,
    /// What it is called until it is there.
    pub making: &'a str,
    pub properties: &'a Properties,
    pub encoding: &'a str,
    pub server_major: u32,
    /// Whether locale `C` will do where the server lacks the dump's.
    pub force_locale: bool,
    /// Name of our session on the server.
    pub application: &'a str,
    pub limits: Limits,
    pub pulse: &'a Pulse,
    pub context: &'a Context,
}

/// A database that was not made. The failure does not yet say what is safe.
pub(super) struct NotMade {
    pub failure: Failure,
    /// Whether one of our own may be left behind, which the failure names.
    pub is_left: bool,
}

/// What to say of a database that sorts text otherwise than the dump's did.
pub(super) const OTHER_LOCALE: &str =
    "the server lacks the dump's locale, so the database sorts text as locale `C` does";

impl Creation<'_> {
    /// Makes the database; tells whether it has locale `C` because the server lacks the dump's. Where others stand in its
    /// way for too long, or somebody wants to stop, nothing is left.
    pub(super) async fn carry_out(&self) -> Result<bool, NotMade> {
        let mut created = self.create(self.making, false).await;
        let is_plain_locale = self.force_locale && created.as_ref().is_err_and(lacks_locale);
        if is_plain_locale {
            created = self.create(self.making, true).await;
        }
        match created {
            Ok(()) => Ok(is_plain_locale),
            Err(not_created) => Err(self.explain(not_created)),
        }
    }

    async fn create(&self, making: &str, any_locale: bool) -> Result<(), NotCreated<Failure>> {
        let (properties, major) = (self.properties, self.server_major);
        let sql = properties.create(making, self.encoding, any_locale, major);
        let watchdog = Watchdog {
            psql: self.databases.psql(),
            application: self.application,
            // Making a database has a limit of its own.
            limits: Limits {
                stall: None,
                ..self.limits
            },
            pulse: self.pulse,
            clock: &*self.context.clock,
        };
        let (what, no_stop) = (self.what(), CancellationToken::new());
        let until = async {
            tokio::select! {
                failure = watchdog.stands_still(&what, &no_stop) => failure,
                () = self.context.stop.token().cancelled() => self.context.stop.failure(&self.doing),
            }
        };
        self.databases
            .create(making, &sql, self.name, self.application, until)
            .await
    }

    fn what(&self) -> String {
        format!("{} failed", self.doing)
    }

    fn explain(&self, not_created: NotCreated<Failure>) -> NotMade {
        let failure = match not_created.why {
            Why::GivenUp(failure) => failure,
            Why::Failed(error) => self.failed(&error),
        };
        match not_created.left {
            None => NotMade {
                failure,
                is_left: false,
            },
            Some((name, error)) => NotMade {
                failure: failure
                    .with_details([format!("`{name}` may be left behind: {error}")])
                    .hint(format!("`DROP DATABASE {}` removes it", quote(&name))),
                is_left: true,
            },
        }
    }

    fn failed(&self, error: &Error) -> Failure {
        let mut failure = error.to_failure(&self.doing, "");
        failure.message = failure.message.trim_end_matches("; ").to_owned();
        if is_about_locale(error) {
            return failure
                .hint("create the locale on the server, or `--force-locale` takes locale `C`");
        }
        if is_timed_out(error) {
            failure.message = format!("{}: making the database took too long", self.what());
            return failure.hint(
                "the server's disk may be slow, or a checkpoint under way: look at `pg_stat_activity`; an empty database \
                 that you make yourself is filled as well",
            );
        }
        failure
    }
}
