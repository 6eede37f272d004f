//! What of a dump may be restored side by side, and in which order: structure, rows, indexes, keys, the rest.
//!
//! It decides and never does. Every byte of the data section is in exactly one task, every statement behind it too, and
//! whatever is not known for sure stays where the dump has it: behind all before it, in front of all that follows.

use std::collections::{HashMap, HashSet};

use crate::name::TableName;
use crate::restore::filter::holds_rows;
use crate::restore::script::Step;
use crate::scan::{
    Block, LexemeKind, Listed, Notes, Scan, Scanner, SectionName, Table, TableKind, TextEncoding,
    Work, lexemes,
};

/// Most text in front of and behind the data that is held in memory. 100,000 tables have about 150 MiB.
const MAX_STRUCTURE: u64 = 256 << 20;

/// Least rows that are worth a session of their own: starting one takes as long as bringing these in.
const LEAST_BYTES: u64 = 1 << 20;

/// Tasks for each worker, so that they end at about the same time.
const TASKS_PER_JOB: u64 = 8;

/// Most tables of one transaction, each of which takes locks.
const MAX_TABLES: usize = 200;

/// Most tables that are made in one transaction: the server has 6,400 locks by default, and each table takes a few.
const MAX_TABLES_MADE: usize = 1000;

/// How much text is read at once for its statements.
const PIECE_BYTES: usize = 1 << 20;

/// Most large objects whose owners and comments are set in one transaction.
const MAX_LARGE_OBJECTS: u64 = 1000;

/// What one session carries out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Settings that are in force at its beginning, as SQL.
    pub settings: Vec<u8>,
    /// What comes behind them.
    pub what: What,
    /// Whether it is one transaction.
    pub one_transaction: bool,
    /// How much work it is, in bytes of rows.
    pub weight: u64,
    /// Tables that no other task may work on meanwhile.
    pub locks: Vec<TableName>,
    /// Tables whose rows it brings, all or some of them.
    pub fills: Vec<TableName>,
    /// Tables whose rows must all be there before it begins.
    pub needs: Vec<TableName>,
}

impl Task {
    /// Returns what its session carries out.
    pub fn into_steps(self) -> Vec<Step> {
        let what = match self.what {
            What::Text(text) => Step::Text(text),
            What::Part(block) => Step::Part(block),
        };
        vec![Step::Text(self.settings), what, Step::End]
    }
}

/// SQL of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// This text.
    Text(Vec<u8>),
    /// A part of the dump.
    Part(Block),
}

/// Tasks of which any may run beside any other that shares no lock with it, in the order in which to begin them; those
/// that need rows wait for them.
pub type Stage = Vec<Task>;

/// What a row costs beside its bytes, in bytes: parsing and storing many short rows takes longer than a few long ones.
const ROW_COST: u64 = 64;

/// What share of the cost of bringing rows in it takes to build an index over them: one part in so many.
const INDEX_SHARE: u64 = 4;

/// Where the three sections of a dump lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sections {
    pre: Block,
    data: Block,
    post: Block,
}

impl Sections {
    /// Finds them in a list of sections; none where the dump is not made of these three, one behind the other.
    pub fn of(sections: &[crate::scan::Section]) -> Option<Self> {
        let [pre, data, post] = sections else {
            return None;
        };
        let end = |block: Block| block.offset.checked_add(block.length);
        let names = (pre.name, data.name, post.name);
        let is_so = names
            == (
                SectionName::PreData,
                SectionName::Data,
                SectionName::PostData,
            )
            && pre.block.offset == 0
            && end(pre.block) == Some(data.block.offset)
            && end(data.block) == Some(post.block.offset)
            && end(post.block).is_some()
            && pre.block.length.saturating_add(post.block.length) <= MAX_STRUCTURE;
        is_so.then_some(Self {
            pre: pre.block,
            data: data.block,
            post: post.block,
        })
    }
}

impl Sections {
    /// Returns the parts in front of and behind the data.
    pub fn around(&self) -> [Block; 2] {
        [self.pre, self.post]
    }

    /// Returns the length of the data.
    pub fn data_bytes(&self) -> u64 {
        self.data.length
    }
}

/// Takes a dump's text and keeps what stands in front of and behind the data.
pub struct Gathering {
    sections: Sections,
    position: u64,
    text: Vec<u8>,
}

impl Gathering {
    /// Starts with the first byte of the dump.
    pub fn new(sections: Sections) -> Self {
        Self {
            sections,
            position: 0,
            text: Vec::new(),
        }
    }

    /// Passes over so many bytes, which must lie in the data.
    pub fn skip(&mut self, bytes: u64) {
        self.position += bytes;
    }

    /// Takes the next piece.
    pub fn push(&mut self, bytes: &[u8]) {
        let data = self.sections.data;
        let in_piece = |offset: u64| {
            let at = usize::try_from(offset.saturating_sub(self.position));
            at.unwrap_or(usize::MAX).min(bytes.len())
        };
        let (start, end) = (in_piece(data.offset), in_piece(data.offset + data.length));
        self.text.extend_from_slice(&bytes[..start]);
        self.text.extend_from_slice(&bytes[end..]);
        self.position += bytes.len() as u64;
    }

    /// Plans the restore of the whole dump that was pushed, of which `scan` tells the tables, for so many workers.
    pub fn plan(self, scan: &Scan, jobs: usize) -> Vec<Stage> {
        let pre_bytes = usize::try_from(self.sections.pre.length).unwrap_or(usize::MAX);
        let mut scanner = Scanner::noting(Notes::Statements);
        let (mut session, mut listed) = (Session::new(&self.text), Vec::new());
        for piece in self.text.chunks(PIECE_BYTES) {
            scanner.push(piece);
            for statement in scanner.take_found().statements {
                // In front of the data only settings count, among two or three statements for each table.
                if statement.start < pre_bytes as u64 {
                    session.note(&statement);
                } else {
                    listed.push(statement);
                }
            }
        }
        drop(scanner);
        let structure = Task {
            settings: Vec::new(),
            what: What::Text(self.text[..pre_bytes.min(self.text.len())].to_vec()),
            one_transaction: scan.tables.len() <= MAX_TABLES_MADE,
            weight: 0,
            locks: Vec::new(),
            fills: Vec::new(),
            needs: Vec::new(),
        };
        let mut stages = vec![vec![structure]];
        stages.extend(data_stages(
            self.sections.data,
            scan,
            &session.settings(),
            jobs,
        ));
        let mut behind = post_stages(&listed, session, scan, jobs);
        // An index waits only for its own table's rows.
        if let (Some((Run::Indexes, _)), Some(rows)) = (behind.first(), stages.last_mut()) {
            rows.append(&mut behind.remove(0).1);
            rows.sort_by_key(|task| std::cmp::Reverse(task.weight));
        }
        stages.extend(behind.into_iter().map(|(_, stage)| stage));
        stages
    }
}

/// Settings in force while statements are walked over.
struct Session<'a> {
    text: &'a [u8],
    in_force: Vec<(String, &'a [u8])>,
}

impl<'a> Session<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            in_force: Vec::new(),
        }
    }

    fn sql(&self, listed: &Listed) -> &'a [u8] {
        let at = |offset: u64| {
            usize::try_from(offset)
                .unwrap_or(usize::MAX)
                .min(self.text.len())
        };
        &self.text[at(listed.start)..at(listed.end)]
    }

    fn note(&mut self, listed: &Listed) {
        if let Work::Setting(name) = &listed.work {
            self.in_force.retain(|(known, _)| known != name);
            self.in_force.push((name.clone(), self.sql(listed)));
        }
    }

    fn settings(&self) -> Vec<u8> {
        let mut sql = Vec::new();
        for (_, setting) in &self.in_force {
            sql.extend_from_slice(setting);
            sql.push(b'\n');
        }
        sql
    }
}

/// Cuts the data section into runs of whole COPY blocks with what stands between them, the longest first.
///
/// What stands in front of the first block makes the large objects whose content follows behind the rows, so it is a
/// stage of its own. Blocks begin and end with chunks of the stored object, so no chunk is read twice for them.
fn data_stages(data: Block, scan: &Scan, settings: &[u8], jobs: usize) -> Vec<Stage> {
    let least = share(data.length, jobs).max(LEAST_BYTES);
    let blocks_of = |table: &'_ Table| table.blocks.clone();
    let mut blocks: Vec<(Block, &Table)> = scan
        .tables
        .iter()
        .flat_map(|table| {
            blocks_of(table)
                .into_iter()
                .map(move |block| (block, table))
        })
        .collect();
    blocks.sort_unstable_by_key(|(block, _)| block.offset);
    let end = data.offset + data.length;
    let last = blocks
        .last()
        .map_or(end, |(block, _)| block.offset + block.length);
    let mut start = blocks.first().map_or(end, |(block, _)| block.offset);
    let part = |offset, end, tables: &[&Table]| Task {
        settings: settings.to_vec(),
        what: What::Part(Block {
            offset,
            length: end - offset,
        }),
        // Owners and comments of large objects take locks until the transaction ends.
        one_transaction: !tables.is_empty() || scan.large_objects <= MAX_LARGE_OBJECTS,
        weight: end - offset + tables.iter().map(|table| row_cost(table)).sum::<u64>(),
        locks: names(tables),
        fills: names(tables),
        needs: Vec::new(),
    };
    let lead = (start > data.offset).then(|| vec![part(data.offset, start, &[])]);
    let (mut stage, mut taken) = (Stage::new(), Vec::new());
    for (block, table) in blocks {
        // A long block does not take along what stands in front of it.
        for (cut, is_behind) in [(block.offset, false), (block.offset + block.length, true)] {
            if is_behind {
                taken.push(table);
            }
            let is_due = cut - start >= least
                || taken.len() >= MAX_TABLES
                || cut == last
                || (!is_behind && block.length >= least);
            if is_due && cut > start {
                stage.push(part(start, cut, &std::mem::take(&mut taken)));
                start = cut;
            }
        }
    }
    if start < end {
        stage.push(part(start, end, &[]));
    }
    stage.sort_by_key(|task| std::cmp::Reverse(task.weight));
    lead.into_iter().chain([stage]).collect()
}

fn names(tables: &[&Table]) -> Vec<TableName> {
    let mut names: Vec<TableName> = tables.iter().map(|table| table.full_name()).collect();
    names.sort();
    names.dedup();
    names
}

fn row_cost(table: &Table) -> u64 {
    table.rows.unwrap_or(0).saturating_mul(ROW_COST)
}

fn share(total: u64, jobs: usize) -> u64 {
    total / (jobs.max(1) as u64 * TASKS_PER_JOB)
}

/// Returns the tables whose rows may be written as frozen by a session that empties them before: those that the dump
/// makes and fills by one COPY that names them, and that nothing else can fill.
pub fn can_be_emptied(tables: &[Table]) -> HashSet<TableName> {
    let facts = Facts::new(tables);
    let filled: HashSet<TableName> = tables
        .iter()
        .filter(|table| !table.blocks.is_empty())
        .map(Table::full_name)
        .collect();
    let is_fit = |table: &&Table| {
        let root = facts.roots.get(&table.full_name());
        table.blocks.len() == 1
            && table.kind.is_some_and(holds_rows)
            && root.is_none_or(|root| !filled.contains(root))
    };
    tables.iter().filter(is_fit).map(Table::full_name).collect()
}

/// What kind of stage a statement belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    Indexes,
    Keys,
    Rest,
}

/// A statement that waits for its stage to be whole.
struct Waiting {
    tables: Vec<TableName>,
    settings: usize,
    sql: Vec<u8>,
}

/// Cuts what stands behind the data into stages: statements of one kind that follow one another are one.
fn post_stages(
    listed: &[Listed],
    mut session: Session<'_>,
    scan: &Scan,
    jobs: usize,
) -> Vec<(Run, Stage)> {
    let facts = Facts::new(&scan.tables);
    let mut versions = vec![session.settings()];
    let (mut stages, mut run, mut waiting) = (Vec::new(), Run::Rest, Vec::new());
    for statement in listed {
        if matches!(statement.work, Work::Setting(_)) {
            session.note(statement);
            versions.push(session.settings());
            continue;
        }
        let (kind, tables) = facts.place(&statement.work);
        if kind != run && !waiting.is_empty() {
            let waiting = std::mem::take(&mut waiting);
            stages.push((run, facts.stage(run, waiting, &versions, jobs)));
        }
        run = kind;
        waiting.push(Waiting {
            tables,
            settings: versions.len() - 1,
            sql: session.sql(statement).to_vec(),
        });
    }
    if !waiting.is_empty() {
        stages.push((run, facts.stage(run, waiting, &versions, jobs)));
    }
    stages
}

/// What is known of tables.
struct Facts {
    roots: HashMap<TableName, TableName>,
    partitioned: HashSet<TableName>,
    /// What bringing a table's rows in costs, and of a partitioned one those of all its partitions.
    costs: HashMap<TableName, u64>,
}

impl Facts {
    fn new(tables: &[Table]) -> Self {
        let parents: HashMap<TableName, TableName> = tables
            .iter()
            .filter_map(|table| {
                let above = table.parent.as_ref()?;
                let parent = TableName::new(&*above.schema, &*above.name);
                Some((table.full_name(), parent))
            })
            .collect();
        let mut roots = HashMap::new();
        let mut costs: HashMap<TableName, u64> = HashMap::new();
        for table in tables {
            let name = table.full_name();
            let mut root = &name;
            // A dump that says that tables are partitions of one another must not hold us here.
            for _ in 0..parents.len() {
                match parents.get(root) {
                    Some(parent) => root = parent,
                    None => break,
                }
            }
            let cost = table.bytes.saturating_add(row_cost(table));
            *costs.entry(name.clone()).or_default() += cost;
            if *root != name {
                *costs.entry(root.clone()).or_default() += cost;
                roots.insert(name.clone(), root.clone());
            }
        }
        let partitioned = tables
            .iter()
            .filter(|table| table.kind == Some(TableKind::Partitioned))
            .map(Table::full_name)
            .collect();
        Self {
            roots,
            partitioned,
            costs,
        }
    }

    fn cost(&self, tables: &[TableName]) -> u64 {
        let costs = tables.iter().filter_map(|table| self.costs.get(table));
        costs.sum()
    }

    /// Rows of a partition may come by a COPY that names the table it belongs to.
    fn with_roots(&self, tables: &[TableName]) -> Vec<TableName> {
        let roots = tables.iter().filter_map(|table| self.roots.get(table));
        tables.iter().chain(roots).cloned().collect()
    }

    /// Says with what a statement may run, and what it locks. A foreign key locks the partitions of both its tables.
    fn place(&self, work: &Work) -> (Run, Vec<TableName>) {
        let root = |table: &TableName| self.roots.get(table).unwrap_or(table).clone();
        match work {
            Work::Index { table, is_only } if *is_only || !self.partitioned.contains(table) => {
                (Run::Indexes, vec![table.clone()])
            }
            Work::ForeignKey { table, other } => {
                let mut tables = vec![root(table), root(other)];
                tables.sort();
                tables.dedup();
                (Run::Keys, tables)
            }
            Work::Index { .. } | Work::Setting(_) | Work::Other => (Run::Rest, Vec::new()),
        }
    }

    /// Makes tasks of statements: those that lock the same tables are in one, in the dump's order, and small ones
    /// share a session.
    fn stage(&self, run: Run, waiting: Vec<Waiting>, versions: &[Vec<u8>], jobs: usize) -> Stage {
        if run == Run::Rest {
            return vec![task(&waiting, versions, 0)];
        }
        if run == Run::Keys {
            return self.batches(waiting, versions, jobs);
        }
        // A function in an index may read any table, whatever it says of itself.
        let (plain, others): (Vec<Waiting>, Vec<Waiting>) = waiting
            .into_iter()
            .partition(|waiting| is_of_columns(&waiting.sql));
        let mut stage = self.batches(plain, versions, jobs);
        for task in &mut stage {
            task.needs = self.with_roots(&task.locks);
        }
        let all: Vec<TableName> = self.costs.keys().cloned().collect();
        let others = self.batches(others, versions, jobs).into_iter();
        stage.extend(others.map(|task| Task {
            needs: all.clone(),
            ..task
        }));
        stage
    }

    fn batches(&self, waiting: Vec<Waiting>, versions: &[Vec<u8>], jobs: usize) -> Stage {
        let mut groups: Vec<Vec<Waiting>> = Vec::new();
        let mut index: HashMap<Vec<TableName>, usize> = HashMap::new();
        for statement in waiting {
            let at = *index.entry(statement.tables.clone()).or_insert_with(|| {
                groups.push(Vec::new());
                groups.len() - 1
            });
            groups[at].push(statement);
        }
        let weight = |group: &Vec<Waiting>| {
            (self.cost(&group[0].tables) / INDEX_SHARE).saturating_mul(group.len() as u64)
        };
        let least = share(groups.iter().map(weight).sum(), jobs).max(LEAST_BYTES / INDEX_SHARE);
        groups.sort_by_key(|group| std::cmp::Reverse(weight(group)));
        let mut stage = Stage::new();
        let (mut batch, mut batch_weight) = (Vec::new(), 0);
        for group in groups {
            batch_weight += weight(&group);
            batch.extend(group);
            if batch_weight >= least {
                stage.push(task(&batch, versions, batch_weight));
                (batch, batch_weight) = (Vec::new(), 0);
            }
        }
        if !batch.is_empty() {
            stage.push(task(&batch, versions, batch_weight));
        }
        stage
    }
}

/// Tells whether an index is one of columns alone: no expression, and no condition on its rows.
fn is_of_columns(sql: &[u8]) -> bool {
    let mut depth = 0;
    lexemes(sql, true, TextEncoding::Utf8)
        .iter()
        .all(|lexeme| match lexeme.kind {
            LexemeKind::Punct(b'(') => {
                depth += 1;
                depth < 2
            }
            LexemeKind::Punct(b')') => {
                depth -= 1;
                true
            }
            LexemeKind::Word => lexeme.text != b"where",
            _ => true,
        })
}

/// Statements of one session. Each is a transaction of its own: an index that is built frees its locks.
fn task(statements: &[Waiting], versions: &[Vec<u8>], weight: u64) -> Task {
    let mut text = Vec::new();
    let first = statements.first().map_or(0, |statement| statement.settings);
    let mut current = first;
    let mut locks: Vec<TableName> = Vec::new();
    for statement in statements {
        if statement.settings != current {
            current = statement.settings;
            text.extend_from_slice(&versions[current]);
        }
        text.extend_from_slice(&statement.sql);
        text.push(b'\n');
        locks.extend(statement.tables.iter().cloned());
    }
    locks.sort();
    locks.dedup();
    Task {
        settings: versions[first].clone(),
        what: What::Text(text),
        one_transaction: false,
        weight,
        locks,
        fills: Vec::new(),
        needs: Vec::new(),
    }
}

/// The tasks of a stage that wait, and what has to be known of those under way.
pub struct Queue {
    waiting: Stage,
    busy: Vec<TableName>,
    /// How many tasks that bring rows of a table are not at their end.
    unfilled: HashMap<TableName, usize>,
}

impl Queue {
    /// Starts a stage.
    pub fn new(stage: Stage) -> Self {
        let mut unfilled: HashMap<TableName, usize> = HashMap::new();
        for table in stage.iter().flat_map(|task| &task.fills) {
            *unfilled.entry(table.clone()).or_default() += 1;
        }
        Self {
            waiting: stage,
            busy: Vec::new(),
            unfilled,
        }
    }

    /// Takes the first task that shares no lock with those under way and needs no row that is not there yet; none where
    /// all have to wait.
    pub fn take(&mut self) -> Option<Task> {
        let is_free = |task: &Task| {
            task.locks.iter().all(|lock| !self.busy.contains(lock))
                && task
                    .needs
                    .iter()
                    .all(|table| !self.unfilled.contains_key(table))
        };
        let at = self.waiting.iter().position(is_free)?;
        let task = self.waiting.remove(at);
        self.busy.extend(task.locks.iter().cloned());
        Some(task)
    }

    /// Takes note that a task is done, of which these were the locks and the rows.
    pub fn done(&mut self, locks: &[TableName], fills: &[TableName]) {
        self.busy.retain(|table| !locks.contains(table));
        for table in fills {
            if let Some(tasks) = self.unfilled.get_mut(table) {
                *tasks -= 1;
                if *tasks == 0 {
                    self.unfilled.remove(table);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
