//! Foreign keys of a dump that come back as NOT VALID: the server checks new rows by them, and not those of the dump.

use std::io::{self, Read};

use super::held::Held;
use pgkeep_model::name::TableName;
use pgkeep_model::scan::Work;

/// What is added to such a key, in front of its semicolon.
const NOT_VALID: &[u8] = b" NOT VALID";

/// A dump whose foreign keys to some tables are not valid.
pub struct NotValid<D> {
    held: Held<D>,
    /// The tables that the keys refer to.
    tables: Vec<TableName>,
    /// How much of what is held can be passed on.
    ready: usize,
}

impl<D: Read> NotValid<D> {
    /// Makes the keys that refer to these tables not valid; with none of them, the dump stays as it is.
    pub fn new(dump: D, tables: Vec<TableName>) -> Self {
        Self {
            held: Held::new(dump),
            tables,
            ready: 0,
        }
    }

    fn look(&mut self) -> io::Result<()> {
        for statement in self.held.look()? {
            let Work::ForeignKey { other, .. } = &statement.work else {
                continue;
            };
            let end = self.held.at(statement.end);
            // Its semicolon ends it.
            let text = &self.held.bytes[self.held.at(statement.start)..end.saturating_sub(1)];
            if self.tables.contains(other) && !text.trim_ascii_end().ends_with(NOT_VALID) {
                self.held.insert(end.saturating_sub(1), NOT_VALID);
            }
        }
        self.ready = if self.held.is_over {
            self.held.bytes.len()
        } else {
            self.held.at(self.held.scanner.settled_until())
        };
        Ok(())
    }
}

impl<D: Read> Read for NotValid<D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.tables.is_empty() {
            return self.held.dump.read(buffer);
        }
        while self.ready == 0 {
            if self.held.is_over {
                return Ok(0);
            }
            self.look()?;
        }
        let count = self.held.pass_on(self.ready, buffer);
        self.ready -= count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::super::drip::Drip;
    use super::*;

    fn through(dump: &str, step: usize) -> String {
        let tables = vec![TableName::new("public", "a")];
        io::read_to_string(NotValid::new(Drip(dump.as_bytes(), step), tables)).unwrap()
    }

    #[test]
    fn keys_to_the_table_are_not_valid_and_nothing_else_changes() {
        let key = |name: &str, to: &str, end: &str| {
            format!(
                "ALTER TABLE ONLY public.c\n    ADD CONSTRAINT {name} FOREIGN KEY (x) REFERENCES public.{to}(id){end};\n\n"
            )
        };
        let rows = "COPY public.c (t) FROM stdin;\nALTER TABLE ONLY public.c ADD CONSTRAINT k FOREIGN KEY (x) REFERENCES public.a(id);\n\\.\n\n";
        let front = format!("CREATE TABLE public.a (id int);\n\n{rows}");
        let dump = format!(
            "{front}{}{}{}{}-- end\n",
            key("one", "a", ""),
            key("two", "b", ""),
            key("three", "a", " ON DELETE CASCADE"),
            key("four", "a", " NOT VALID"),
        );
        let expected = format!(
            "{front}{}{}{}{}-- end\n",
            key("one", "a", " NOT VALID"),
            key("two", "b", ""),
            key("three", "a", " ON DELETE CASCADE NOT VALID"),
            key("four", "a", " NOT VALID"),
        );
        for step in [1, 10, 97, 100_000] {
            assert_eq!(through(&dump, step), expected, "{step}");
        }
    }
}
