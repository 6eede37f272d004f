//! The assertions of a drill: a query with what it must answer, or a program.

use super::reader::{Field, Fields, Reader};
use super::setting::Item;
use super::shown::{Keys, Shown};
use crate::drill::{Assertion, Expect, Question};

impl Item for Assertion {
    fn read(reader: &mut Reader, item: &Field) -> Option<Self> {
        let fields = reader.open(item)?;
        let question = match (fields.find("sql"), fields.find("command")) {
            (Some(sql), None) => read_sql(reader, &fields, sql),
            (None, Some(command)) => read_command(reader, &fields, command),
            _ => {
                reader.refuse(item, "needs either `sql` with `expect`, or `command`");
                None
            }
        };
        let name = required(reader, &fields, "name")?;
        Some(Self {
            name,
            question: question?,
        })
    }

    fn show(&self) -> Shown {
        let mut keys = Keys::default();
        keys.put("name", self.name.clone());
        match &self.question {
            Question::Sql { sql, expect } => {
                keys.put("sql", sql.clone());
                keys.put("expect", expect.to_string());
            }
            Question::Command(command) => keys.put_command("command", command),
        }
        keys.into()
    }
}

fn read_sql(reader: &mut Reader, fields: &Fields, sql: &Field) -> Option<Question> {
    let sql = reader.text(sql);
    let expect = required(reader, fields, "expect")?
        .parse::<Expect>()
        .map_err(|why| reader.refuse_key(fields, "expect", why));
    Some(Question::Sql {
        sql: sql?,
        expect: expect.ok()?,
    })
}

fn read_command(reader: &mut Reader, fields: &Fields, command: &Field) -> Option<Question> {
    if let Some(expect) = fields.find("expect") {
        reader.refuse(expect, "can only be combined with `sql`");
    }
    let command = reader.command(command, "a program and its arguments");
    command.map(Question::Command)
}

fn required(reader: &mut Reader, fields: &Fields, name: &str) -> Option<String> {
    let Some(field) = fields.find(name) else {
        reader.note_missing(fields, name);
        return None;
    };
    reader.text(field)
}
