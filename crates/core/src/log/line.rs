//! One line of the log, as text or as JSON. It never leaves without the known secrets taken out of it.

use std::fmt;
use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use super::Fields;
use super::secrets::Secrets;
use pgkeep_model::name::{harmless_json, printable};

/// One line.
pub struct Line {
    at: Timestamp,
    level: Level,
    message: String,
    fields: Fields,
}

impl Line {
    pub(super) fn new(level: Level, message: String, fields: Fields) -> Self {
        Self {
            at: Timestamp::now(),
            level,
            message,
            fields,
        }
    }

    /// Takes an event of the code, with its own fields and those of the run around it; of one name its own.
    pub(super) fn of_event(event: &Event<'_>, run: Fields) -> Self {
        let mut line = Self::new(*event.metadata().level(), String::new(), run);
        event.record(&mut line);
        line
    }

    /// Renders one JSON object without a line break.
    pub(super) fn json(&self, secrets: &Secrets) -> String {
        let mut object = Value::Object(self.fields.clone());
        secrets.redact_json(&mut object);
        object["timestamp"] = json!(self.time());
        object["level"] = json!(self.level.as_str());
        object["message"] = json!(secrets.redacted(&self.message));
        harmless_json(&object.to_string()).into_owned()
    }

    /// Renders text: time, level, message, `name=value`. What follows a line break is indented.
    pub(super) fn text(&self, has_colours: bool, secrets: &Secrets) -> String {
        let style = match (has_colours, self.level) {
            (false, _) => Style::new(),
            (true, Level::ERROR) => AnsiColor::Red.on_default(),
            (true, Level::WARN) => AnsiColor::Yellow.on_default(),
            (true, _) => AnsiColor::Green.on_default(),
        };
        let mut text = format!(
            "{} {style}{:>5}{style:#} {}",
            self.time(),
            self.level.as_str(),
            self.message
        );
        for (name, value) in &self.fields {
            let value = match value {
                Value::String(text) if !text.contains([' ', '"', '\n']) => text.clone(),
                other => other.to_string(),
            };
            write!(text, " {name}={value}").expect("writing to a string cannot fail");
        }
        let lines: Vec<String> = secrets.redacted(&text).lines().map(shown).collect();
        lines.join("\n    ")
    }

    fn time(&self) -> String {
        format!("{:.3}", self.at)
    }
}

/// Makes control characters harmless, but for the escapes of our own colours.
fn shown(line: &str) -> String {
    let parts = line.split('\u{1b}').map(printable);
    parts.collect::<Vec<_>>().join("\u{1b}")
}

impl Visit for Line {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.insert(field.name().to_owned(), json!(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.insert(field.name().to_owned(), json!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.insert(field.name().to_owned(), json!(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.fields.insert(field.name().to_owned(), json!(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.message = text,
            name => {
                self.fields.insert(name.to_owned(), json!(text));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str, fields: Value) -> Line {
        let fields = fields.as_object().unwrap().clone();
        let mut line = Line::new(Level::WARN, message.to_owned(), fields);
        line.at = "2026-01-02T03:04:05.678Z".parse().unwrap();
        line
    }

    #[test]
    fn a_line_has_its_fields_behind_the_message() {
        let line = line(
            "trying again\nlater",
            json!({"key": "a/b", "why": "no \"x\"", "tries": 2}),
        );
        assert_eq!(
            line.text(false, &Secrets::default()),
            "2026-01-02T03:04:05.678Z  WARN trying again\n    later key=a/b tries=2 why=\"no \\\"x\\\"\""
        );
        let object: Value = serde_json::from_str(&line.json(&Secrets::default())).unwrap();
        let wanted = json!({
            "timestamp": "2026-01-02T03:04:05.678Z", "level": "WARN", "message": "trying again\nlater",
            "key": "a/b", "why": "no \"x\"", "tries": 2,
        });
        assert_eq!(object, wanted);
    }

    #[test]
    fn no_secret_and_no_control_character_passes() {
        let secrets = Secrets::default();
        secrets.hide([&"s\"cr3t-of-line".into()]);
        let line = line(
            "it is s\"cr3t-of-line\u{7}",
            json!({"url": "x://u:s%22cr3t-of-line@h", "deep": ["password=\"pw\""]}),
        );
        let text = line.text(false, &secrets);
        assert!(
            text.contains("it is ***\\u{7}") && !text.contains("cr3t"),
            "{text}"
        );
        let json: Value = serde_json::from_str(&line.json(&secrets)).unwrap();
        assert!(!json.to_string().contains("cr3t"), "{json}");
        assert_eq!(json["message"], "it is ***\u{7}");
    }
}
