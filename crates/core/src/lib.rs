//! What both front doors of pgkeep call: one operation per verb, and what it works with.
//!
//! [`op`] takes requests and returns reports; [`copies`] reads what is stored; [`postgres`] runs programs, [`stream`] moves dumps, [`notify`] sends notices, [`tracker`] hears of whole runs,
//! [`lock`] keeps runs apart; [`setup`] makes requests out of configuration and overrides. Nothing here prints or reads the environment.

pub mod clock;
pub mod context;
pub mod copies;
pub mod encryption;
pub mod lock;
pub mod log;
pub mod notify;
pub mod op;
pub mod postgres;
pub mod setup;
pub mod stop;
pub mod stream;
pub mod tracker;
