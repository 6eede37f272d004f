//! The one session that merges rows: rows into temporary tables, counts, the merge, the comparison, the sequences.

use super::Plan;
use crate::restore::filter::Rules;
use crate::restore::script::{Asks, Ending, Rows, Script, Step};

/// What pg_dump sets in front of rows, in a session that takes them as they were written.
const SETTINGS: &str = "\
SET standard_conforming_strings = on;
SET search_path = '';
SET DateStyle = ISO;
SET IntervalStyle = postgres;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
SET CONSTRAINTS ALL DEFERRED;
";

const UTF8: &str = "SET client_encoding = 'UTF8';\n";

/// Returns what the session carries out: the `rows` of the plans, whose text is in `encoding`, a word.
///
/// A dry run counts and compares, and moves no sequence, because no rollback would move it back.
pub fn of(plans: &[Plan<'_>], rows: Vec<Rows>, encoding: &str, ending: Ending) -> Script {
    let prepare: String = plans.iter().map(Plan::prepare).collect();
    let analyze: String = plans
        .iter()
        .map(|plan| format!("ANALYZE {};\n", plan.rows_sql()))
        .collect();
    let steps = vec![
        Step::Own(format!("{UTF8}{SETTINGS}{prepare}")),
        Step::Text(format!("SET client_encoding = '{encoding}';\n").into_bytes()),
        Step::Rows(rows),
        Step::End,
        Step::Own(format!("{UTF8}{analyze}")),
    ];
    let sequences: String = plans.iter().map(Plan::sequences).collect();
    let mut script = Script::new(true, Rules::default(), steps);
    if ending == Ending::Commit {
        let sql = format!("{UTF8}SET search_path = '';\n{sequences}");
        script.last.push(Step::Own(sql));
    }
    script.ending = ending;
    script
}

/// Returns what is asked before the end: how many rows are new, changed and unchanged, the merge itself, and then the rows
/// as the tables have them, each under one of `names`.
pub fn asks(plans: &[Plan<'_>], names: &[String]) -> Asks {
    let mut notes: String = plans.iter().map(Plan::count).collect();
    // Checks, defaults and indexes of the tables are the target's own code, which finds things by the target's own path.
    // What we write has its schema everywhere.
    notes += "RESET search_path;\n";
    notes.extend(plans.iter().map(Plan::merge));
    // Constraints that wait are checked now; with events left no trigger can be enabled.
    notes += "SET CONSTRAINTS ALL IMMEDIATE;\n";
    notes.extend(plans.iter().map(Plan::enable_triggers));
    notes += "SET search_path = '';\n";
    let compared = names.iter().cloned().zip(plans.iter().map(Plan::compared));
    Asks {
        notes,
        tables: compared.collect(),
        form: None,
        encoding: None,
    }
}
