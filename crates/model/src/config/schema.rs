//! The config's JSON Schema (draft 2020-12), for editors.
//!
//! Made from the table of keys, so that it knows every key and no other. Wherever a number or a flag goes, a
//! string with `${..}` goes too. Looser than the reader where JSON Schema cannot tell.

use serde_json::{Map, Value, json};

use super::keys::{Key, Kind, Section};
use super::types::{ROOT, SECTIONS};

/// Names that both databases and storages may have.
const NAME: &str = "^[A-Za-z0-9_][A-Za-z0-9_-]{0,127}$";

/// Returns the JSON Schema of the config file.
pub fn config_schema() -> Value {
    let mut definitions = Map::new();
    for section in SECTIONS {
        definitions.insert(section.name.to_owned(), object(section));
    }
    let root = definitions.remove(ROOT.name).unwrap_or_default();
    definitions.insert(
        "reference".into(),
        json!({
            "type": "string",
            "pattern": "\\$\\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\\}",
            "description": "A value from the environment: ${NAME} or ${NAME:-default}.",
        }),
    );
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pgkeep",
        "$defs": definitions,
    });
    for (name, value) in root.as_object().into_iter().flatten() {
        schema[name] = value.clone();
    }
    schema
}

fn object(section: &Section) -> Value {
    let properties: Map<String, Value> = section
        .keys
        .iter()
        .map(|key| (key.name.to_owned(), property(key)))
        .collect();
    let mut object = json!({
        "type": "object",
        "description": section.doc,
        "properties": properties,
        "additionalProperties": false,
    });
    let is_required = |key: &&Key| key.is_required && section.key(&key.file()).is_none();
    let required: Vec<&str> = section
        .keys
        .iter()
        .filter(is_required)
        .map(|key| key.name)
        .collect();
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    if section.name == "notifier" {
        object["minProperties"] = json!(1);
        object["maxProperties"] = json!(1);
    }
    object
}

fn property(key: &Key) -> Value {
    let mut property = shape(key.kind);
    property["description"] = json!(key.doc);
    if let Some(default) = key.default {
        property["default"] = match key.kind {
            Kind::Flag => json!(default == "true"),
            Kind::Count(..) => default.parse::<u64>().map_or(Value::Null, Value::from),
            _ => json!(default),
        };
    }
    property
}

fn shape(kind: Kind) -> Value {
    match kind {
        // Digits alone are text to the reader and a number to an editor.
        Kind::Text | Kind::Secret | Kind::Path | Kind::SecretFile => {
            json!({"type": ["string", "number"]})
        }
        Kind::ConnectionUrl => json!({"type": "string", "pattern": "^postgres(ql)?://|\\$\\{"}),
        Kind::StorageUrl => json!({"type": "string", "minLength": 1}),
        Kind::SecretUrl | Kind::Endpoint => {
            json!({"type": "string", "pattern": "^https?://|\\$\\{"})
        }
        Kind::Flag => or_reference(json!({"type": "boolean"})),
        Kind::Count(min, max) => or_reference(integer(min, max)),
        Kind::Percent => {
            let text = json!({"type": "string", "pattern": "^[0-9]{1,3} ?%?$|\\$\\{", "examples": ["50%"]});
            json!({"anyOf": [text, integer(1, 100)]})
        }
        Kind::Duration(..) | Kind::Span => time(),
        Kind::DurationOrOff(..) => {
            json!({"anyOf": [time(), {"const": 0}, {"enum": ["off", false]}]})
        }
        Kind::CountOrSpan(min, max) => json!({"anyOf": [integer(min, max), time()]}),
        Kind::Jobs => {
            json!({"anyOf": [{"enum": ["auto"]}, integer(1, 32), {"$ref": "#/$defs/reference"}]})
        }
        Kind::Size(min, max) => {
            let text = json!({"type": "string", "pattern": "^[0-9.]+ ?([KMG]i?)?B?$|\\$\\{"});
            json!({"anyOf": [text, integer(min, max)]})
        }
        Kind::TimeZone => {
            json!({"type": "string", "pattern": "^[A-Za-z]|\\$\\{", "examples": ["UTC", "Europe/Berlin"]})
        }
        Kind::Schedule => {
            json!({"type": "string", "examples": ["15 3 * * *", "@daily"]})
        }
        Kind::Choice(choices) => or_reference(json!({"enum": choices})),
        Kind::Storages => {
            json!({"anyOf": [text(), {"type": "array", "items": text(), "minItems": 1, "uniqueItems": true}]})
        }
        Kind::Command => json!({"type": "array", "items": text(), "minItems": 1}),
        Kind::Choices(choices) => {
            let item = or_reference(json!({"enum": choices}));
            json!({"anyOf": [item, {"type": "array", "items": item, "minItems": 1}]})
        }
        Kind::Headers => json!({"type": "object", "additionalProperties": text()}),
        Kind::Sections(section) => {
            let item = reference_to(section);
            json!({"anyOf": [item, {"type": "array", "items": item}]})
        }
        Kind::Tables
        | Kind::Schemas
        | Kind::Networks
        | Kind::Texts
        | Kind::Paths
        | Kind::Databases => {
            json!({"anyOf": [text(), {"type": "array", "items": text()}]})
        }
        Kind::RequiredTables(section) => {
            let item = json!({"anyOf": [text(), reference_to(section)]});
            json!({"anyOf": [item, {"type": "array", "items": item}]})
        }
        Kind::Section(section) => json!({"anyOf": [reference_to(section), {"type": "null"}]}),
        Kind::SectionOrChoice(section, choices) => {
            json!({"anyOf": [{"enum": choices}, reference_to(section), {"$ref": "#/$defs/reference"}]})
        }
        Kind::Limits(section) => {
            json!({"type": ["object", "null"], "additionalProperties": reference_to(section)})
        }
        Kind::Named(section) => json!({
            "type": "object",
            "minProperties": 1,
            "propertyNames": {"pattern": NAME},
            "additionalProperties": reference_to(section),
        }),
    }
}

fn reference_to(section: &Section) -> Value {
    json!({"$ref": format!("#/$defs/{}", section.name)})
}

fn or_reference(shape: Value) -> Value {
    json!({"anyOf": [shape, {"$ref": "#/$defs/reference"}]})
}

fn integer(min: u64, max: u64) -> Value {
    // Beyond 2^53 editors round, so no limit is better than a wrong one.
    if max > 1 << 53 {
        json!({"type": "integer", "minimum": min})
    } else {
        json!({"type": "integer", "minimum": min, "maximum": max})
    }
}

fn time() -> Value {
    json!({"type": "string", "pattern": "^[0-9].*[a-z]$|\\$\\{", "examples": ["90s", "10m", "26h", "30d"]})
}

fn text() -> Value {
    json!({"type": ["string", "number"]})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(value: &Value, see: &mut impl FnMut(&Map<String, Value>)) {
        match value {
            Value::Object(map) => {
                see(map);
                map.values().for_each(|value| visit(value, see));
            }
            Value::Array(items) => items.iter().for_each(|value| visit(value, see)),
            _ => {}
        }
    }

    #[test]
    fn knows_every_key_and_no_other() {
        let schema = config_schema();
        for section in SECTIONS {
            let place = if section.name == "config" {
                &schema
            } else {
                &schema["$defs"][section.name]
            };
            let mut names: Vec<&String> = place["properties"].as_object().unwrap().keys().collect();
            let mut expected: Vec<&str> = section.keys.iter().map(|key| key.name).collect();
            names.sort();
            expected.sort();
            assert_eq!(names, expected, "{}", section.name);
            assert_eq!(place["additionalProperties"], false, "{}", section.name);
            for key in section.keys {
                assert_eq!(place["properties"][key.name]["description"], key.doc);
            }
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let schema = config_schema();
        let mut seen = 0;
        visit(&schema, &mut |map| {
            if let Some(Value::String(target)) = map.get("$ref") {
                let pointer = target.strip_prefix('#').unwrap();
                assert!(schema.pointer(pointer).is_some(), "{target}");
                seen += 1;
            }
        });
        assert!(seen > 10, "{seen}");
    }

    #[test]
    fn numbers_and_flags_take_variables() {
        let schema = config_schema();
        for (pointer, default) in [
            ("/$defs/database/properties/globals", json!(false)),
            ("/$defs/retries/properties/attempts", json!(3)),
        ] {
            let property = schema.pointer(pointer).unwrap();
            let shapes = property["anyOf"].as_array().unwrap();
            assert!(
                shapes.contains(&json!({"$ref": "#/$defs/reference"})),
                "{pointer}"
            );
            assert_eq!(property["default"], default, "{pointer}");
        }
    }
}
