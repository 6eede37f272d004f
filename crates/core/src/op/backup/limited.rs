//! Row limits of a run: planned within its snapshot, refused where a restore would fail, and recorded.

use std::collections::HashSet;

use super::start::{NotStarted, Start};
use crate::postgres::error::{Error, Reason};
use crate::postgres::rows::{Block, Copies, Extent, LimitedFacts, TableText};
use crate::postgres::snapshot::Snapshot;
use pgkeep_model::failure::{Failure, Kind};
use pgkeep_model::limits::{Held, Keep, Limit, LimitRecord, Plan, Refused, plan};
use pgkeep_model::name::TableName;
use pgkeep_model::scan::{Finding, Scan};
use pgkeep_model::words::count;

/// What is known of a run's limits before the rows came.
pub(super) struct Limited {
    /// The rows that they keep, as blocks of the dump.
    pub(super) blocks: Vec<Block>,
    /// What a manifest records, but how many rows were kept.
    pub(super) records: Vec<(LimitRecord, Vec<TableName>)>,
    /// What is to be warned of.
    pub(super) warnings: Vec<Finding>,
    /// Tables whose foreign keys come back as NOT VALID.
    pub(super) not_valid: Vec<TableName>,
    /// Every table that is read to find the rows.
    pub(super) reads: Vec<TableName>,
}

impl Start<'_> {
    /// Plans the limits within a snapshot.
    pub(super) async fn limited(&self, snapshot: &mut Snapshot) -> Result<Limited, NotStarted> {
        let limits = &self.request.limits;
        let tables: Vec<TableName> = limits.iter().map(full).collect();
        let with_rows = self.source.selected().names_with_rows();
        let incomplete = self.source.incomplete(&with_rows);
        self.check_names(&tables, &with_rows)?;
        let facts: LimitedFacts = snapshot.ask(&LimitedFacts::question(&tables)).await?;
        let (trees, version) = (facts.trees(), self.source.facts.version_num);
        if trees.len() != limits.len() {
            return Err(self.refuse("a limited table was dropped meanwhile".to_owned(), &[]));
        }
        let held = |table: &TableName| match with_rows.contains(table) {
            false => Held::Nothing,
            true if incomplete.contains(table) => Held::Some,
            true => Held::All,
        };
        let planned = plan(limits, &trees, &facts.keys(), &held, &facts.now, version);
        let plan = planned.map_err(|refused| self.explain(&refused))?;
        let mut limited = Limited {
            blocks: self.blocks(&plan, snapshot).await?,
            records: Vec::new(),
            warnings: Vec::new(),
            not_valid: plan.not_valid.clone(),
            reads: plan.reads().to_vec(),
        };
        for (at, limit) in limits.iter().enumerate() {
            let question = Extent::question(&trees[at], &limit.keep, &facts.now);
            let extent: Extent = match snapshot.ask(&question).await {
                Ok(extent) => extent,
                Err(error) => return Err(self.not_understood(limit, error)),
            };
            if let Some(name) = extent.volatile.first() {
                let why = format!(
                    "the condition for `{}` calls `{name}`, which may give another answer each time",
                    limit.table
                );
                return Err(self.refuse(why, &["a condition that goes by the row alone"]));
            }
            let record = LimitRecord {
                schema: limit.table.schema_or_public().to_owned(),
                name: limit.table.name.clone(),
                keep: limit.keep.to_string(),
                cutoff: extent.cutoff,
                references: limit.references,
                rows: 0,
                rows_total: extent.rows_total,
            };
            limited.records.push((record, trees[at].all.clone()));
            let missing = facts.missing_index(at, &limit.keep);
            limited.warnings.extend(missing.map(|sql| {
                let text = format!(
                    "`{}` is limited by a column without an index, so the server reads all of it; faster: `{sql}`",
                    limit.table
                );
                Finding::new("limit_without_index", text, None)
            }));
        }
        Ok(limited)
    }

    async fn blocks(&self, plan: &Plan, snapshot: &mut Snapshot) -> Result<Vec<Block>, NotStarted> {
        let version = self.source.facts.version_num;
        let question = TableText::question(&plan.tables(), version);
        let texts: Vec<TableText> = snapshot.ask(&question).await?;
        let block = |text: &TableText| {
            let table = text.table_name();
            let is_readable = text.is_heap && text.columns.is_some();
            if !is_readable {
                let why = format!(
                    "`{table}` is not stored as PostgreSQL itself stores tables, or has no columns"
                );
                return Err(self.refuse(why, &[]));
            }
            let query = plan.query(&table, &text.select()).unwrap_or_default();
            Ok(Block {
                head: text.head(),
                copies: Copies::Alone(format!("COPY ({query}) TO STDOUT")),
                table,
            })
        };
        if texts.len() != plan.tables().len() {
            return Err(self.refuse("a limited table was dropped meanwhile".to_owned(), &[]));
        }
        texts.iter().map(block).collect()
    }

    /// A limit that would change nothing is a mistake that somebody relies on.
    fn check_names(
        &self,
        tables: &[TableName],
        with_rows: &HashSet<TableName>,
    ) -> Result<(), NotStarted> {
        let unknown = tables.iter().filter(|table| !with_rows.contains(*table));
        let details: Vec<String> = unknown
            .map(|table| format!("`{table}` is not among the tables whose rows are dumped"))
            .collect();
        if details.is_empty() {
            return Ok(());
        }
        let message = format!(
            "{} failed: {} cannot be limited; nothing was stored",
            self.what(),
            count(details.len() as u64, "table")
        );
        Err(NotStarted::Refused(Box::new(
            Failure::new(Kind::Proof, "selected_table_missing", message)
                .with_details(details)
                .hint("names are literal: quote those with capital letters, as in `\"AutoBook\"`"),
        )))
    }

    fn explain(&self, refused: &Refused) -> NotStarted {
        const LESS: &str =
            "or limit fewer tables: a restore would fail at the foreign keys otherwise";
        match refused {
            Refused::Twice(table) => self.refuse(
                format!("`{table}` is limited twice, by itself or as a partition or child of another one"),
                &["limit one of them"],
            ),
            Refused::Partition { table, root } => self.refuse(
                format!("`{table}` is a partition of `{root}`"),
                &["limit the partitioned table, which limits all of its partitions together"],
            ),
            Refused::LeftOut { table, part } => self.refuse(
                format!("rows of `{part}`, which is a part of `{table}`, are left out of the backup"),
                &["leave out all of the table, or nothing of it"],
            ),
            Refused::OwnColumn { table, key, child } => self.refuse(
                format!("the foreign key `{key}` of or to `{child}`, a child of `{table}`, goes by a column that `{table}` lacks"),
                &["limit other tables"],
            ),
            Refused::NoColumn { table, column } => {
                self.refuse(format!("`{table}` has no column `{column}`"), &[])
            }
            Refused::NoTime { table, column } => self.refuse(
                format!("`{column}` of `{table}` is no time"),
                &["`last` needs a date or a timestamp; `newest` and `where` do not"],
            ),
            Refused::Circle(tables) => {
                let names: Vec<String> = tables.iter().map(|table| format!("`{table}`")).collect();
                self.refuse(
                    format!("the limited tables {} refer to each other in a circle", names.join(", ")),
                    &[
                        "`references: drop` for one of them leaves out rows that others refer to, and restores those \
                         foreign keys as NOT VALID",
                        LESS,
                    ],
                )
            }
            Refused::Unclosed { child, key, parent } => self.refuse(
                format!("rows of `{child}` refer by `{key}` to `{parent}`, whose rows are left out"),
                &["dump the rows of that table, or leave those of this one out", LESS],
            ),
            Refused::NeverValid { child, key, parent } => self.refuse(
                format!(
                    "`{child}` is partitioned, and its foreign key `{key}` to `{parent}` cannot be restored as NOT VALID"
                ),
                &["`references: keep` for that table", LESS],
            ),
        }
    }

    fn refuse(&self, why: String, hints: &[&str]) -> NotStarted {
        let message = format!(
            "{} failed: rows cannot be limited: {why}; nothing was stored",
            self.what()
        );
        let failure = Failure::new(Kind::Usage, "limit_refused", message);
        NotStarted::Refused(Box::new(
            hints
                .iter()
                .fold(failure, |failure, hint| failure.hint(*hint)),
        ))
    }

    /// A condition is the user's own SQL: what is wrong with it is not the server's fault.
    fn not_understood(&self, limit: &Limit, error: Error) -> NotStarted {
        match (&limit.keep, &error.reason) {
            (Keep::Where(_), Reason::Other { .. }) => {
                let said = error.messages().join("; ");
                let why = format!(
                    "the server does not take the condition for `{}`: {said}",
                    limit.table
                );
                self.refuse(
                    why,
                    &["functions, types and operators of extensions need their schema in front"],
                )
            }
            _ => NotStarted::Program(error),
        }
    }

    /// A name that is no UTF-8 cannot be said to the server.
    pub(super) fn not_said(&self) -> NotStarted {
        let why =
            "the name of a table is not UTF-8, and the database does not convert it".to_owned();
        self.refuse(why, &["leave the limits out"])
    }

    /// What is written by us is in UTF-8, whatever the dump is in.
    pub(super) fn not_in_utf8(&self, table: &TableName) -> NotStarted {
        let why = format!(
            "the dump is in the database's own encoding, and the name of `{table}`, of its owner or of a column is not ASCII"
        );
        self.refuse(why, &["leave the limit of that table out"])
    }

    fn what(&self) -> String {
        format!("backup of `{}`", self.request.name)
    }
}

impl Limited {
    /// Says what came of each limit.
    pub(super) fn outcome(self, scan: &Scan) -> Vec<LimitRecord> {
        let rows = |leaf: &TableName| {
            let is_it = |table: &&pgkeep_model::scan::Table| {
                table.name == leaf.name && table.schema == leaf.schema_or_public()
            };
            scan.tables.iter().find(is_it).and_then(|table| table.rows)
        };
        let records = self
            .records
            .into_iter()
            .map(|(record, leaves)| LimitRecord {
                rows: leaves.iter().filter_map(rows).sum(),
                ..record
            });
        records.collect()
    }
}

fn full(limit: &Limit) -> TableName {
    TableName::new(limit.table.schema_or_public(), &limit.table.name)
}
