//! Rows of our own within the text of `pg_dump`: where its data begins, they come first.
//!
//! What stands in front is scanned, so that no text within a function or a string is taken for the place. The dump is
//! passed on unchanged.

use std::io::{self, Read};

use super::held::Held;
use pgkeep_model::name::TableName;

/// A dump with rows spliced in.
pub struct Spliced<D, R> {
    held: Held<D>,
    rows: R,
    /// The tables that the rows belong to; each must have been made in front of them.
    tables: Vec<TableName>,
    /// Offset behind the last statement that belongs in front of the rows.
    settled: u64,
    at: At,
}

/// How far it is.
enum At {
    /// In front of the place, or not sure yet.
    Front,
    /// The place is found: what is held in front of it comes first.
    Found(usize),
    Rows,
    Rest,
}

impl<D: Read, R: Read> Spliced<D, R> {
    /// Splices `rows` of these tables into a dump.
    pub fn new(dump: D, rows: R, tables: Vec<TableName>) -> Self {
        Self {
            held: Held::new(dump),
            rows,
            tables,
            settled: 0,
            at: At::Front,
        }
    }

    /// Reads on until something can be passed on, or the place is found.
    fn look(&mut self) -> io::Result<()> {
        let statements = self.held.look()?;
        let place = self.held.scanner.definitions_end();
        for statement in statements {
            if place.is_none_or(|place| statement.start < place) {
                self.settled = statement.end;
            }
        }
        let is_made = |table: &TableName| self.held.scanner.has_made(table);
        if self.held.is_over || place.is_some() {
            if let Some(missing) = self.tables.iter().find(|table| !is_made(table)) {
                let why = format!("the dump makes no table `{missing}` in front of its rows");
                return Err(io::Error::other(why));
            }
            let settled = self.held.at(self.settled);
            let blank = self.held.bytes[settled..]
                .iter()
                .take_while(|byte| **byte == b'\n');
            self.at = At::Found(settled + blank.count());
        }
        Ok(())
    }
}

impl<D: Read, R: Read> Read for Spliced<D, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.at {
                At::Front => {
                    let settled = self.held.at(self.settled);
                    if settled > 0 {
                        return Ok(self.held.pass_on(settled, buffer));
                    }
                    self.look()?;
                }
                At::Found(0) => self.at = At::Rows,
                At::Found(end) => {
                    let count = self.held.pass_on(end, buffer);
                    self.at = At::Found(end - count);
                    return Ok(count);
                }
                At::Rows => match self.rows.read(buffer)? {
                    0 => self.at = At::Rest,
                    count => return Ok(count),
                },
                At::Rest if self.held.bytes.is_empty() => return self.held.dump.read(buffer),
                At::Rest => return Ok(self.held.pass_on(self.held.bytes.len(), buffer)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::drip::Drip;
    use super::*;

    const HEAD: &str = "--\n-- PostgreSQL database dump\n--\n\nSET client_encoding = 'UTF8';\n\n";
    const TABLES: &str = "CREATE TABLE public.a (n int);\n\n\nCREATE TABLE public.b (n int);\n\n\n";
    const FUNCTION: &str = "CREATE FUNCTION public.f() RETURNS text LANGUAGE sql AS $$\n--\n-- Data for Name: b; Type: TABLE DATA\n\
        --\n\nCOPY public.b (n) FROM stdin;\n$$;\n\n\n";
    const ROWS: &str = "--\n-- Data for Name: a; Type: TABLE DATA\n--\n\nCOPY public.a (n) FROM stdin;\n1\n2\n\\.\n\n\n";
    const DATA: &str = "--\n-- Data for Name: b; Type: TABLE DATA\n--\n\nCOPY public.b (n) FROM stdin;\n7\n\\.\n\n\n";
    const SET: &str = "--\n-- Name: s; Type: SEQUENCE SET\n--\n\nSELECT pg_catalog.setval('public.s', 3, true);\n\n\n";
    const INDEX: &str =
        "--\n-- Name: i; Type: INDEX\n--\n\nCREATE INDEX i ON public.a USING btree (n);\n\n\n";
    const END: &str = "--\n-- PostgreSQL database dump complete\n--\n\n";

    fn splice(dump: &str, step: usize, tables: &[&str]) -> io::Result<String> {
        let tables = tables.iter().map(|name| name.parse().unwrap()).collect();
        let dump = Drip(dump.as_bytes(), step);
        io::read_to_string(Spliced::new(dump, ROWS.as_bytes(), tables))
    }

    #[test]
    fn rows_come_where_the_data_begins() {
        for rest in [
            vec![DATA, SET, INDEX, END],
            vec![SET, INDEX, END],
            vec![INDEX, END],
            vec![DATA, END],
            vec![END],
        ] {
            let front = [HEAD, TABLES, FUNCTION].concat();
            let dump = format!("{front}{}", rest.concat());
            for step in [1, 7, 100, 100_000] {
                let spliced = splice(&dump, step, &["a"]).unwrap();
                assert_eq!(spliced, format!("{front}{ROWS}{}", rest.concat()), "{step}");
            }
        }
    }

    #[test]
    fn rows_of_a_table_that_the_dump_does_not_make_are_no_dump() {
        let dump = [HEAD, TABLES, DATA, END].concat();
        let error = splice(&dump, 50, &["a", "c"]).unwrap_err();
        assert!(error.to_string().contains("`c`"), "{error}");
    }
}
