//! Foreign keys of a dump that come back as NOT VALID: the server checks new rows by them, and not those of the dump.

use std::io::{self, Read};

use pgkeep_model::name::TableName;
use pgkeep_model::scan::{Notes, Scanner, Work};

const LOOK_BYTES: usize = 64 * 1024;

/// What is added to such a key, in front of its semicolon.
const NOT_VALID: &[u8] = b" NOT VALID";

/// A dump whose foreign keys to some tables are not valid.
pub struct NotValid<D> {
    dump: D,
    /// The tables that the keys refer to.
    tables: Vec<TableName>,
    scanner: Scanner,
    /// What was read and not passed on; the part in front of `ready` can be.
    held: Vec<u8>,
    ready: usize,
    /// Offset in the dump of the first held byte that is not ready.
    start: u64,
    is_over: bool,
}

impl<D: Read> NotValid<D> {
    /// Makes the keys that refer to these tables not valid; with none of them, the dump stays as it is.
    pub fn new(dump: D, tables: Vec<TableName>) -> Self {
        Self {
            dump,
            tables,
            scanner: Scanner::noting(Notes::Statements),
            held: Vec::new(),
            ready: 0,
            start: 0,
            is_over: false,
        }
    }

    fn look(&mut self) -> io::Result<()> {
        let kept = self.held.len();
        self.held.resize(kept + LOOK_BYTES, 0);
        let read = self.dump.read(&mut self.held[kept..]);
        self.held.truncate(kept + *read.as_ref().unwrap_or(&0));
        self.is_over = read? == 0;
        self.scanner.push(&self.held[kept..]);
        for statement in self.scanner.take_found().statements {
            if let Work::ForeignKey { other, .. } = &statement.work
                && self.tables.contains(other)
            {
                let (start, end) = (self.held_at(statement.start), self.held_at(statement.end));
                let text = self.held[start..end].trim_ascii_end();
                let is_so = text
                    .strip_suffix(b";")
                    .is_some_and(|text| text.trim_ascii_end().ends_with(NOT_VALID));
                if !is_so && end > start {
                    self.held
                        .splice(end - 1..end - 1, NOT_VALID.iter().copied());
                    self.start = statement.end;
                    self.ready = end + NOT_VALID.len();
                }
            }
        }
        let settled = if self.is_over {
            self.held.len()
        } else {
            self.held_at(self.scanner.settled_until())
        };
        self.start += (settled - self.ready) as u64;
        self.ready = settled;
        Ok(())
    }

    fn held_at(&self, offset: u64) -> usize {
        let behind = usize::try_from(offset.saturating_sub(self.start)).unwrap_or(usize::MAX);
        self.ready.saturating_add(behind).min(self.held.len())
    }
}

impl<D: Read> Read for NotValid<D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.tables.is_empty() {
            return self.dump.read(buffer);
        }
        while self.ready == 0 {
            if self.is_over {
                return Ok(0);
            }
            self.look()?;
        }
        let count = self.ready.min(buffer.len());
        buffer[..count].copy_from_slice(&self.held[..count]);
        self.held.drain(..count);
        self.ready -= count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(dump: &str, step: usize) -> String {
        struct Drip<'a>(&'a [u8], usize);
        impl Read for Drip<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let count = self.1.min(buffer.len()).min(self.0.len());
                buffer[..count].copy_from_slice(&self.0[..count]);
                self.0 = &self.0[count..];
                Ok(count)
            }
        }
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
