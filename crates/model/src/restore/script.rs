//! What one session of a restore carries out, in order: a plain value, made before anything is touched.
//!
//! Every restore is a list of these, whatever was asked for: a whole dump is one script, or several stages of them; single
//! tables and the rows of single tables are one each; a dry run is the same script with another ending.

use crate::name::TableName;
use crate::restore::filter::Rules;
use crate::scan::Block;
use crate::text_form::TextForm;

/// What one session carries out.
#[derive(Clone, Debug)]
pub struct Script {
    /// Whether all of it is one transaction.
    pub one_transaction: bool,
    /// What of the dump's text is left out.
    pub rules: Rules,
    /// SQL of our own at the beginning of the transaction, in UTF-8.
    pub before: String,
    /// What is carried out before anything is asked.
    pub steps: Vec<Step>,
    /// What is carried out once the answers were right: locks on tables in use, values that no rollback takes back.
    pub last: Vec<Step>,
    /// SQL of our own at the end of the transaction.
    pub behind: String,
    /// How the transaction ends.
    pub ending: Ending,
}

/// One step of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// SQL of our own, which nothing judges.
    Own(String),
    /// Statements of the dump.
    Text(Vec<u8>),
    /// The dump from its first byte to its last.
    Whole,
    /// A part of the dump.
    Part(Block),
    /// The rows of tables.
    Rows(Vec<Rows>),
    /// The dump's text so far is whole by itself: what it held is kept for the proof, and the next begins anew.
    End,
}

/// The rows of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    /// The table in the dump.
    pub of: TableName,
    /// The table that takes them.
    pub into: TableName,
    /// Where they lie in the dump.
    pub blocks: Vec<Block>,
}

/// What is asked of a session before its transaction ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asks {
    /// SQL whose answers are kept as lines.
    pub notes: String,
    /// Rows that are read back: the name they are known by, and what to copy.
    pub tables: Vec<(String, String)>,
    /// The text form that the dump's rows turned out to have; none where it was known before.
    pub form: Option<TextForm>,
    /// Encoding that they are read back in, where it was known only when the dump was read.
    pub encoding: Option<String>,
}

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All of it is kept.
    Commit,
    /// All of it is undone: a dry run.
    RollBack,
}

impl Script {
    /// Makes a script that ends in a COMMIT and has nothing around its steps.
    pub fn new(one_transaction: bool, rules: Rules, steps: Vec<Step>) -> Self {
        Self {
            one_transaction,
            rules,
            before: String::new(),
            steps,
            last: Vec::new(),
            behind: String::new(),
            ending: Ending::Commit,
        }
    }
}
