//! What the stages of a dump share with whoever watches them: how far it has come, and that nobody takes any more.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use thiserror::Error;

use pgkeep_model::scan::Scanner;

/// How far a dump has come, for whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    raw_bytes: AtomicU64,
    stored_bytes: AtomicU64,
    tables_done: AtomicU64,
    is_waiting: AtomicBool,
    current_table: Mutex<Option<String>>,
}

impl Progress {
    /// Returns how many bytes of the dump were read.
    pub fn raw_bytes(&self) -> u64 {
        self.raw_bytes.load(Ordering::Relaxed)
    }

    /// Returns how many compressed bytes were handed over.
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes.load(Ordering::Relaxed)
    }

    /// Takes note of so many bytes and tables more, for several readers at once.
    pub fn note_more(&self, bytes: u64, tables: u64) {
        self.raw_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.tables_done.fetch_add(tables, Ordering::Relaxed);
    }

    /// Returns how many tables had rows so far.
    pub fn tables_done(&self) -> u64 {
        self.tables_done.load(Ordering::Relaxed)
    }

    /// Tells whether the reader waits for the source, and not for a consumer.
    pub fn is_waiting(&self) -> bool {
        self.is_waiting.load(Ordering::Relaxed)
    }

    /// Returns the table whose rows are being read.
    pub fn current_table(&self) -> Option<String> {
        self.current_table
            .lock()
            .map_or(None, |table| table.clone())
    }

    /// Takes note of whether the reader waits for the source.
    pub(super) fn note_waiting(&self, is_waiting: bool) {
        self.is_waiting.store(is_waiting, Ordering::Relaxed);
    }

    /// Takes note of how many stored bytes were read.
    pub fn note_stored(&self, bytes: u64) {
        self.stored_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Takes note of how far a scanner has come.
    pub fn note_scan(&self, scanner: &Scanner) {
        self.raw_bytes.store(scanner.position(), Ordering::Relaxed);
        let done = scanner.tables_with_rows() as u64;
        self.tables_done.store(done, Ordering::Relaxed);
        self.note_table(scanner);
    }

    /// Takes note of the table whose rows are under way.
    pub fn note_table(&self, scanner: &Scanner) {
        let current = scanner
            .current_table()
            .map(|table| table.full_name().to_string());
        if let Ok(mut table) = self.current_table.lock() {
            *table = current;
        }
    }
}

/// The consumer is gone.
#[derive(Debug, Error)]
#[error("nobody takes it any more")]
pub struct Closed;
