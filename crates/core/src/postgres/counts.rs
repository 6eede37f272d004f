//! How many rows tables have, and what sequences say, in the state of the database that a snapshot holds.

use super::error::{Error, Reason};
use super::snapshot::Snapshot;
use pgkeep_model::name::TableName;
use pgkeep_model::scan::SequenceValue;

/// Tables or sequences that one question is about: each is a round trip, and of tens of thousands most are small.
const ASKED_AT_ONCE: usize = 100;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Tables, each counted without those that inherit from it.
    pub tables: Vec<TableName>,
    /// Sequences.
    pub sequences: Vec<TableName>,
}

/// What was found, in the order in which it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Rows of each table.
    pub rows: Vec<u64>,
    /// What each sequence says. No snapshot holds that, in a dump neither.
    pub sequences: Vec<SequenceValue>,
    /// Large objects of the database.
    pub large_objects: u64,
}

/// Counts in a snapshot, whose session locks the tables.
pub async fn count(snapshot: &mut Snapshot, asked: &Asked) -> Result<Counted, Error> {
    let mut counted = Counted::default();
    for names in asked.sequences.chunks(ASKED_AT_ONCE) {
        let what = "SELECT jsonb_build_array(last_value, is_called) FROM";
        let found: Vec<(i64, bool)> = snapshot.ask(&one_of_each(what, names)).await?;
        all_answered(names, found.len())?;
        let values = names.iter().zip(found);
        counted
            .sequences
            .extend(values.map(|(name, (value, is_called))| SequenceValue {
                name: name.clone(),
                value,
                is_called,
            }));
    }
    let large_objects = "SELECT to_jsonb(count(*)) FROM pg_largeobject_metadata";
    counted.large_objects = snapshot.ask(large_objects).await?;
    for names in asked.tables.chunks(ASKED_AT_ONCE) {
        let rows: Vec<u64> = snapshot
            .ask(&one_of_each("SELECT count(*) FROM ONLY", names))
            .await?;
        all_answered(names, rows.len())?;
        counted.rows.extend(rows);
    }
    Ok(counted)
}

/// Asks the same of each relation, for one answer in their order.
fn one_of_each(what: &str, names: &[TableName]) -> String {
    let questions: Vec<String> = names
        .iter()
        .map(|name| format!("({what} {})", name.quoted()))
        .collect();
    format!("SELECT to_jsonb(ARRAY[{}])", questions.join(", "))
}

fn all_answered(names: &[TableName], answers: usize) -> Result<(), Error> {
    if names.len() == answers {
        return Ok(());
    }
    let what = format!("{answers} answers instead of {}", names.len());
    Err(Error {
        program: "psql".into(),
        ..Error::new(Reason::Unreadable(what))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_relation_is_asked_for_by_its_whole_name() {
        let names = [
            TableName::new("public", "users"),
            TableName::new("a", "B\"c"),
        ];
        assert_eq!(
            one_of_each("SELECT count(*) FROM ONLY", &names),
            "SELECT to_jsonb(ARRAY[(SELECT count(*) FROM ONLY \"public\".\"users\"), (SELECT count(*) FROM ONLY \"a\".\"B\"\"c\")])"
        );
        assert!(all_answered(&names, 2).is_ok());
        assert!(all_answered(&names, 1).is_err());
    }
}
