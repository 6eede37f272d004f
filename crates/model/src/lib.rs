//! The pure model: what pgkeep knows and decides, without files, processes, clock, environment or logging.
//!
//! Time and randomness are arguments. Everything here is tested with tables of input and expected output.

pub mod anomaly;
pub mod chunks;
pub mod config;
pub mod connection;
pub mod copy;
pub mod damage;
pub mod diff;
pub mod drill;
pub mod due;
pub mod durations;
pub mod encryption;
pub mod failure;
pub mod format;
pub mod freshness;
pub mod id;
pub mod key_sets;
pub mod keys;
pub mod lease;
pub mod limits;
pub mod manifest;
pub mod merge;
pub mod name;
pub mod nearest;
pub mod notice;
pub mod origin;
pub mod part_sizes;
pub mod pattern;
pub mod percent;
pub mod pin;
pub mod proof;
pub mod redact;
pub mod remote;
pub mod required;
pub mod restore;
pub mod retention;
pub mod rows;
pub mod runs;
pub mod scan;
pub mod schedule;
pub mod shell;
pub mod single;
pub mod supabase;
pub mod text_form;
pub mod words;
