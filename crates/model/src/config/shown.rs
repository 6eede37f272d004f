//! Values as the effective config shows them, in order: written as JSON and as YAML that reads back.

use std::fmt::Write;

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

/// What stands for a secret.
pub(super) const HIDDEN: &str = "***";

/// A value to show. Unlike a JSON value it keeps the order of its keys.
pub(super) enum Shown {
    Json(Value),
    List(Vec<Shown>),
    Keys(Keys),
}

/// Keys in the order in which they are shown.
#[derive(Default)]
pub(super) struct Keys(Vec<(String, Shown)>);

impl Keys {
    pub(super) fn put(&mut self, key: &str, value: impl Into<Shown>) {
        self.0.push((key.to_owned(), value.into()));
    }

    pub(super) fn put_some(&mut self, key: &str, value: Option<impl Into<Shown>>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn put_list<T>(&mut self, key: &str, items: &[T], show: impl Fn(&T) -> Shown) {
        if !items.is_empty() {
            self.put(key, Shown::List(items.iter().map(show).collect()));
        }
    }

    /// Arguments may hold a secret; the program says enough.
    pub(super) fn put_command(&mut self, key: &str, command: &[SecretString]) {
        let mut shown = vec![HIDDEN; command.len()];
        if let (Some(first), Some(program)) = (shown.first_mut(), command.first()) {
            *first = program.expose_secret();
        }
        self.put_list(key, &shown, |text| (*text).to_owned().into());
    }
}

impl From<Keys> for Shown {
    fn from(keys: Keys) -> Self {
        Self::Keys(keys)
    }
}

impl From<String> for Shown {
    fn from(text: String) -> Self {
        Self::Json(json!(text))
    }
}

impl From<bool> for Shown {
    fn from(flag: bool) -> Self {
        Self::Json(json!(flag))
    }
}

impl From<u64> for Shown {
    fn from(number: u64) -> Self {
        Self::Json(json!(number))
    }
}

impl Shown {
    pub(super) fn is_false(&self) -> bool {
        matches!(self, Self::Json(Value::Bool(false)))
    }

    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Json(value) => value.clone(),
            Self::List(items) => items.iter().map(Self::to_json).collect(),
            Self::Keys(keys) => keys
                .0
                .iter()
                .map(|(key, value)| (key.clone(), value.to_json()))
                .collect(),
        }
    }

    /// Writes the value from where the line stands; what needs lines of its own is indented by `indent`.
    pub(super) fn write_yaml(&self, yaml: &mut String, indent: usize) {
        match self {
            Self::Json(value) => {
                yaml.push_str(&scalar(value));
                yaml.push('\n');
            }
            Self::Keys(keys) if keys.0.is_empty() => yaml.push_str("{}\n"),
            Self::Keys(keys) => {
                for (at, (key, value)) in keys.0.iter().enumerate() {
                    pad(yaml, if at == 0 { 0 } else { indent });
                    let _ = write!(yaml, "{key}:");
                    value.write_behind_key(yaml, indent + 2);
                }
            }
            Self::List(items) => {
                for (at, item) in items.iter().enumerate() {
                    pad(yaml, if at == 0 { 0 } else { indent });
                    yaml.push_str("- ");
                    item.write_yaml(yaml, indent + 2);
                }
            }
        }
    }

    fn write_behind_key(&self, yaml: &mut String, indent: usize) {
        match self {
            Self::Json(_) => yaml.push(' '),
            Self::Keys(keys) if keys.0.is_empty() => yaml.push(' '),
            Self::Keys(_) | Self::List(_) => {
                yaml.push('\n');
                pad(yaml, indent);
            }
        }
        self.write_yaml(yaml, indent);
    }
}

fn pad(yaml: &mut String, indent: usize) {
    yaml.extend(std::iter::repeat_n(' ', indent));
}

/// Writes a scalar so that any YAML reader takes it for what it is, and ours does not look up a variable in it.
fn scalar(value: &Value) -> String {
    let Value::String(text) = value else {
        return value.to_string();
    };
    let text = text.replace("${", "$${");
    if is_plain(&text) { text } else { quoted(&text) }
}

fn is_plain(text: &str) -> bool {
    let is_word = text.starts_with(|c: char| c.is_ascii_alphanumeric() || "/._".contains(c))
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "/._@:=?-".contains(c))
        && !text.ends_with(':');
    let means_something = ["true", "false", "yes", "no", "on", "off", "y", "n", "null"]
        .iter()
        .any(|word| word.eq_ignore_ascii_case(text));
    // `1_000`, `0x1f`, `1:30` and `.5` are numbers to one reader or another; `60s` and `10m` are not.
    let looks_like_number = text.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && text
            .chars()
            .all(|c| c.is_ascii_hexdigit() || "xob._:+-".contains(c));
    is_word && !means_something && !looks_like_number
}

/// Quotes text as JSON does, which YAML reads too, with what YAML wants escaped beyond that.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control()
                || matches!(
                    c,
                    '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
                ) =>
            {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Writes a size without rounding it.
pub(super) fn show_size(bytes: u64) -> String {
    match (bytes % (1 << 20), bytes % (1 << 10)) {
        (0, _) => format!("{}MiB", bytes >> 20),
        (_, 0) => format!("{}KiB", bytes >> 10),
        _ => format!("{bytes}B"),
    }
}
