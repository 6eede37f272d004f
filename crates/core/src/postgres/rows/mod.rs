//! Rows that are read by COPYs of our own, several sessions at once, and come out as the blocks of a dump, in order.
//!
//! Every session sees the snapshot of one [`Snapshot`](super::snapshot::Snapshot). A large table is read in ranges of its
//! pages, and what is read ahead waits in windows of a fixed size, so memory does not grow with the table.

mod facts;
mod limited;
mod ordered;
mod sessions;

pub use facts::{Large, TableText};
pub use limited::{Extent, LimitedFacts};
pub use ordered::OwnRows;
pub use sessions::{ReadRequest, Readers};

/// Rows of one table, as a block of a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Which table.
    pub table: pgkeep_model::name::TableName,
    /// What stands in front of the rows: the comment, and the COPY that takes them in.
    pub head: String,
    /// The COPYs that give the rows, in their order.
    pub copies: Copies,
}

/// The COPYs that give the rows of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Copies {
    /// One, with all of them.
    One(String),
    /// One that the first session carries out, as all of its kind: what they say of the time of day must be the same.
    Alone(String),
    /// Several, each with the rows of so many pages.
    Ranges {
        /// What is selected, up to the condition on `ctid`: `SELECT a, b FROM ONLY t`.
        select: String,
        /// Pages of the table.
        pages: u64,
        /// Pages of one range.
        step: u64,
    },
}

/// What stands behind the rows of a block.
const TAIL: &[u8] = b"\\.\n\n\n";

impl Copies {
    fn count(&self) -> u64 {
        match self {
            Self::One(_) | Self::Alone(_) => 1,
            Self::Ranges { pages, step, .. } => pages.div_ceil(*step).max(1),
        }
    }

    /// Returns one of them. The last range has no end: a table may have grown by pages that hold nothing of the snapshot.
    fn copy(&self, at: u64) -> String {
        match self {
            Self::One(copy) | Self::Alone(copy) => copy.clone(),
            Self::Ranges { select, step, .. } => {
                let from = at * step;
                let to = from + step;
                let end = if at + 1 == self.count() {
                    String::new()
                } else {
                    format!(" AND ctid < '({to},0)'")
                };
                format!("COPY ({select} WHERE ctid >= '({from},0)'{end}) TO STDOUT")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_every_page_once_and_the_last_is_open() {
        let copies = |pages| Copies::Ranges {
            select: "SELECT a FROM ONLY t".to_owned(),
            pages,
            step: 10,
        };
        let all: Vec<String> = (0..3).map(|at| copies(25).copy(at)).collect();
        assert_eq!(copies(25).count(), 3);
        assert_eq!(
            all,
            [
                "COPY (SELECT a FROM ONLY t WHERE ctid >= '(0,0)' AND ctid < '(10,0)') TO STDOUT",
                "COPY (SELECT a FROM ONLY t WHERE ctid >= '(10,0)' AND ctid < '(20,0)') TO STDOUT",
                "COPY (SELECT a FROM ONLY t WHERE ctid >= '(20,0)') TO STDOUT",
            ]
        );
        assert_eq!(copies(0).count(), 1);
        assert_eq!(copies(30).count(), 3);
        assert_eq!(Copies::One("COPY t TO STDOUT".to_owned()).count(), 1);
    }
}
