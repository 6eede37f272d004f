//! Required tables: what a dump must create, and what to say when it does not.

use serde::Serialize;

use super::name::TableName;
use super::scan::{Scan, Table};

/// A table that must have its CREATE TABLE in the dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequiredTable {
    /// Its name; `public` is meant where no schema is written.
    pub table: TableName,
    /// Least number of rows that must be in the dump.
    pub min_rows: Option<u64>,
}

/// What was found of a required table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RequiredOutcome {
    /// Its name as SQL writes it.
    pub table: String,
    /// Least number of rows asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_rows: Option<u64>,
    /// Whether the dump creates it.
    pub found: bool,
    /// Rows found; none where the dump holds no data of it.
    pub rows: Option<u64>,
    /// Why it does not fulfil what is required, with the nearest table; none when it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl RequiredTable {
    /// Makes a requirement without a number of rows.
    pub fn new(table: TableName) -> Self {
        Self {
            table,
            min_rows: None,
        }
    }

    /// Looks for the table in what a scan found.
    pub fn look_up(&self, scan: &Scan) -> RequiredOutcome {
        let found = scan.table(&self.table);
        let problem = match found {
            None => Some(self.missing(scan)),
            Some(table) => self.too_few(table),
        };
        let rows = found.and_then(|table| table.rows);
        RequiredOutcome {
            table: self.table.to_string(),
            min_rows: self.min_rows,
            found: found.is_some(),
            rows,
            problem,
        }
    }

    fn too_few(&self, table: &Table) -> Option<String> {
        let min_rows = self.min_rows?;
        match table.rows {
            Some(rows) if rows >= min_rows => None,
            Some(rows) => Some(format!(
                "has {rows} rows, and at least {min_rows} are required"
            )),
            None => Some(format!(
                "has no data in the dump, and at least {min_rows} rows are required"
            )),
        }
    }

    fn missing(&self, scan: &Scan) -> String {
        let wanted = self.table.name.to_lowercase();
        let near = scan
            .tables
            .iter()
            .filter(|table| table.kind.is_some())
            .find(|table| {
                let is_same_name = table.name.to_lowercase() == wanted;
                is_same_name
                    || strsim::damerau_levenshtein(&table.name.to_lowercase(), &wanted) == 1
            });
        match near {
            Some(table) => format!("is not in the dump; there is `{}`", table.full_name()),
            None => "is not in the dump".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::scan::Scanner;

    fn scan() -> Scan {
        let mut scanner = Scanner::new();
        scanner.push(
            b"CREATE TABLE public.\"AutoBook\" (a int);\nCREATE TABLE app.users (a int);\nCREATE VIEW public.v AS SELECT 1;\n\
              COPY public.\"AutoBook\" (a) FROM stdin;\n1\n2\n\\.\nCOPY public.bare (a) FROM stdin;\n\\.\n",
        );
        scanner.finish()
    }

    fn problem(name: &str, min_rows: Option<u64>) -> Option<String> {
        RequiredTable {
            table: name.parse().unwrap(),
            min_rows,
        }
        .look_up(&scan())
        .problem
    }

    #[test]
    fn finds_by_schema_and_name() {
        assert_eq!(problem("\"AutoBook\"", None), None);
        assert_eq!(problem("public.\"AutoBook\"", Some(2)), None);
        assert_eq!(problem("app.users", None), None);
    }

    #[test]
    fn says_what_is_wrong_and_what_is_near() {
        let text = |name, rows| problem(name, rows).unwrap();
        assert_eq!(
            text("AutoBook", None),
            "is not in the dump; there is `public.\"AutoBook\"`"
        );
        assert_eq!(
            text("users", None),
            "is not in the dump; there is `app.users`"
        );
        assert_eq!(text("v", None), "is not in the dump");
        assert_eq!(text("bare", None), "is not in the dump");
        assert_eq!(
            text("\"AutoBook\"", Some(3)),
            "has 2 rows, and at least 3 are required"
        );
        assert_eq!(
            text("app.users", Some(1)),
            "has no data in the dump, and at least 1 rows are required"
        );
    }
}
