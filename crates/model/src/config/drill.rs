//! The assertions of a drill: a query with what it must answer, or a program.

use super::keys::Key;
use super::reader::{Fields, Reader, join};
use super::setting::Setting;
use super::shown::{Keys, Shown, hide_arguments};
use super::tree::Node;
use super::types::ASSERTION;
use crate::drill::{Assertion, Expect, Question};

impl Setting for Vec<Assertion> {
    fn unset(_: &Key) -> Self {
        Self::new()
    }

    fn read(&mut self, reader: &mut Reader, fields: &Fields, name: &str) {
        let Some(field) = fields.find(name) else {
            return;
        };
        let read = reader.list(&field, |reader, item| {
            read_assertion(reader, item, &field.path)
        });
        *self = read.unwrap_or_default();
    }

    fn put(&self, keys: &mut Keys, key: &Key) {
        keys.put_list(key.name, self, show_assertion);
    }
}

fn show_assertion(assertion: &Assertion) -> Shown {
    let mut keys = Keys::default();
    keys.put("name", assertion.name.clone());
    match &assertion.question {
        Question::Sql { sql, expect } => {
            keys.put("sql", sql.clone());
            keys.put("expect", expect.to_string());
        }
        Question::Command(command) => {
            let shown: Vec<&str> = command.iter().enumerate().map(hide_arguments).collect();
            keys.put_list("command", &shown, |text| (*text).to_owned().into());
        }
    }
    keys.into()
}

fn read_assertion(reader: &mut Reader, item: &Node, path: &str) -> Option<Assertion> {
    let fields = reader.open(item, item.line, path, &ASSERTION)?;
    let question = match (fields.has("sql"), fields.has("command")) {
        (true, false) => read_sql(reader, &fields),
        (false, true) => read_command(reader, &fields),
        _ => {
            let message = format!("`{path}` needs either `sql` with `expect`, or `command`");
            reader.note(item.line, message);
            None
        }
    };
    let name = required(reader, &fields, "name")?;
    Some(Assertion {
        name,
        question: question?,
    })
}

fn read_sql(reader: &mut Reader, fields: &Fields) -> Option<Question> {
    let sql = reader.text(fields, "sql");
    let expect = required(reader, fields, "expect")?;
    match expect.parse::<Expect>() {
        Ok(expect) => Some(Question::Sql { sql: sql?, expect }),
        Err(why) => {
            let path = join(&fields.path, "expect");
            reader.note(fields.line_of("expect"), format!("`{path}` {why}"));
            None
        }
    }
}

fn read_command(reader: &mut Reader, fields: &Fields) -> Option<Question> {
    if fields.has("expect") {
        let message = format!(
            "`{}` stands beside `sql` only",
            join(&fields.path, "expect")
        );
        reader.note(fields.line_of("expect"), message);
    }
    let command = reader.command(fields, "command", "a program and its arguments");
    command.map(Question::Command)
}

fn required(reader: &mut Reader, fields: &Fields, name: &str) -> Option<String> {
    if !fields.has(name) {
        let path = join(&fields.path, name);
        reader.note(fields.line, format!("`{path}` is missing"));
    }
    reader.text(fields, name)
}
