//! The meaning of the `drill` section: server, extensions that may lack, assertions.

use secrecy::SecretString;

use super::keys::{ASSERTION, DRILL};
use super::reader::{Fields, Reader, join};
use super::tree::{Node, Value};
use super::types::DrillConfig;
use super::url;
use crate::drill::{Assertion, Expect, Question};

pub(super) fn read(reader: &mut Reader, fields: &Fields) -> Option<DrillConfig> {
    let field = fields.find("drill")?;
    let fields = reader.open(field.node, field.line, &field.path, &DRILL)?;
    let url = reader.secret(&fields, "url", url::check_postgres);
    let allow_superuser = reader.flag(&fields, "allow_superuser");
    let skip_extensions = fields.find("skip_extensions");
    let skip_extensions = skip_extensions.and_then(|field| reader.texts(&field));
    let max_age = reader.duration_or_off(&fields, "max_age");
    let assertions = fields.find("assertions");
    let assertions = assertions.and_then(|field| {
        reader.list(&field, |reader, item| {
            read_assertion(reader, item, &field.path)
        })
    });
    Some(DrillConfig {
        url,
        allow_superuser: allow_superuser.unwrap_or_default(),
        skip_extensions: skip_extensions.unwrap_or_default(),
        assertions: assertions.unwrap_or_default(),
        max_age,
    })
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
    let field = fields.find("command")?;
    if fields.has("expect") {
        let message = format!(
            "`{}` stands beside `sql` only",
            join(&fields.path, "expect")
        );
        reader.note(fields.line_of("expect"), message);
    }
    match &field.node.value {
        Value::List(items) if !items.is_empty() => {
            let texts = reader.texts(&field)?;
            Some(Question::Command(
                texts.into_iter().map(SecretString::from).collect(),
            ))
        }
        _ => {
            let form = "a list of a program and its arguments; no shell reads it";
            reader.note(field.line, format!("`{}` must be {form}", field.path));
            None
        }
    }
}

fn required(reader: &mut Reader, fields: &Fields, name: &str) -> Option<String> {
    if !fields.has(name) {
        let path = join(&fields.path, name);
        reader.note(fields.line, format!("`{path}` is missing"));
    }
    reader.text(fields, name)
}
