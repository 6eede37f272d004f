//! What is known of a database beside its tables: settings, owner, locale, rights; extensions; roles.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Change, NameChange, ValueChange};
use crate::manifest::{Extension, Server};

/// Compares what a plain dump leaves out of a database. Settings whose name has a dot are never stored, so only their being
/// there is compared.
pub(super) fn settings(from: &Server, to: &Server) -> Vec<ValueChange> {
    changes(&flat(from), &flat(to))
}

fn flat(server: &Server) -> BTreeMap<String, String> {
    let mut out = BTreeMap::from([("encoding".to_owned(), server.encoding.clone())]);
    for (name, value) in server.properties.as_object().into_iter().flatten() {
        match (name.as_str(), value) {
            ("settings", Value::Array(entries)) => add_settings(&mut out, entries),
            // The order in which rights were given says nothing.
            (_, Value::Array(items)) => {
                let mut texts: Vec<String> = items.iter().map(text).collect();
                texts.sort_unstable();
                out.insert(name.clone(), texts.join(", "));
            }
            (_, Value::Null) => {}
            (_, value) => {
                out.insert(name.clone(), text(value));
            }
        }
    }
    out
}

/// Adds `ALTER DATABASE … SET` and `ALTER ROLE … IN DATABASE … SET`, each under its own name.
fn add_settings(out: &mut BTreeMap<String, String>, entries: &[Value]) {
    for entry in entries {
        let role = entry["role"].as_str();
        for setting in entry["settings"].as_array().into_iter().flatten() {
            let setting = text(setting);
            let (name, value) = setting.split_once('=').unwrap_or((&setting, ""));
            let name = match role {
                Some(role) => format!("setting {name} of role {role}"),
                None => format!("setting {name}"),
            };
            out.insert(name, value.to_owned());
        }
    }
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// Compares extensions: which there are, in which version and schema.
pub(super) fn extensions(from: &[Extension], to: &[Extension]) -> Vec<ValueChange> {
    let flat = |all: &[Extension]| -> BTreeMap<String, String> {
        let words = |one: &Extension| {
            let text = match one.schema.as_str() {
                "" | "public" => one.version.clone(),
                schema => format!("{} in {schema}", one.version),
            };
            (one.name.clone(), text)
        };
        all.iter().map(words).collect()
    };
    changes(&flat(from), &flat(to))
}

fn changes(from: &BTreeMap<String, String>, to: &BTreeMap<String, String>) -> Vec<ValueChange> {
    let names: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    let differs = |name: &&String| from.get(*name) != to.get(*name);
    let changed = names.into_iter().filter(differs);
    changed
        .map(|name| ValueChange {
            name: name.clone(),
            from: from.get(name).cloned(),
            to: to.get(name).cloned(),
        })
        .collect()
}

/// Compares the roles that the structure names.
pub(super) fn roles(from: &[String], to: &[String]) -> Vec<NameChange> {
    let (from, to): (BTreeSet<_>, BTreeSet<_>) = (from.iter().collect(), to.iter().collect());
    let removed = from.difference(&to).map(|name| (name, Change::Removed));
    let added = to.difference(&from).map(|name| (name, Change::Added));
    let mut all: Vec<NameChange> = removed
        .chain(added)
        .map(|(name, change)| NameChange {
            name: (*name).clone(),
            change,
        })
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}
