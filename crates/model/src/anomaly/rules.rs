//! Which bars a table is judged by.

use crate::config::Anomaly;
use crate::name::TableName;
use crate::percent::Percent;

/// The bars of one table. A loss counts where both its share and its rows are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bars {
    /// A table that is gone counts from so many rows on.
    pub gone_min_rows: u64,
    /// A table that is empty counts from so many rows on.
    pub empty_min_rows: u64,
    pub max_loss: Percent,
    pub warn_loss: Percent,
    pub min_lost_rows: u64,
}

/// Returns the bars of a table; none where it is ignored. Of the entries that mean it the first one counts.
pub(super) fn bars(rules: &Anomaly, table: &TableName) -> Option<Bars> {
    if rules.ignore.iter().any(|pattern| pattern.matches(table)) {
        return None;
    }
    let own = rules.tables.iter().find(|own| own.name.matches(table));
    let count = |own: Option<u32>, all: u32| u64::from(own.unwrap_or(all));
    Some(Bars {
        gone_min_rows: count(own.and_then(|own| own.gone_min_rows), rules.gone_min_rows),
        empty_min_rows: count(own.and_then(|own| own.empty_min_rows), rules.empty_min_rows),
        min_lost_rows: count(own.and_then(|own| own.min_lost_rows), rules.min_lost_rows),
        max_loss: own.and_then(|own| own.max_loss).unwrap_or(rules.max_loss),
        warn_loss: own.and_then(|own| own.warn_loss).unwrap_or(rules.warn_loss),
    })
}
