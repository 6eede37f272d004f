//! What Sentry gets, taken apart as its protocol says: a line of headers, then items, each behind a line of its own.

use serde_json::Value;

use super::CANARY;
use super::receiver::{Received, Receiver};
use super::secret::assert_absent;

/// The key of every DSN of the tests.
pub const KEY: &str = "0123456789abcdef0123456789abcdef";

/// Returns the DSN of project 42 at a receiver.
pub fn dsn(receiver: &Receiver) -> String {
    receiver
        .address
        .replace("http://", &format!("http://{KEY}@"))
        + "/42"
}

/// Returns the items of a type that came, oldest first. Each envelope must be as Sentry takes it, without a secret.
#[track_caller]
pub fn items(receiver: &Receiver, kind: &str) -> Vec<Value> {
    let came = receiver.of("/api/42/envelope/");
    came.iter()
        .flat_map(items_of)
        .filter(|(of, _)| of == kind)
        .map(|(_, item)| item)
        .collect()
}

fn items_of(envelope: &Received) -> Vec<(String, Value)> {
    assert_eq!(envelope.method, "POST");
    let auth = &envelope.headers["x-sentry-auth"];
    assert!(auth.contains(&format!("sentry_key={KEY}")), "{auth}");
    assert_absent(CANARY, "an envelope", &envelope.body);
    assert_absent(KEY, "an envelope", &envelope.body);
    let mut lines = envelope.text().splitn(2, '\n');
    let headers: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert!(headers.is_object(), "{headers}");
    let mut rest = lines.next().unwrap();
    let mut items = Vec::new();
    while !rest.is_empty() {
        let (head, behind) = rest.split_once('\n').unwrap();
        let head: Value = serde_json::from_str(head).unwrap();
        let length = usize::try_from(head["length"].as_u64().unwrap()).unwrap();
        let (payload, left) = behind.split_at(length);
        let kind = head["type"].as_str().unwrap().to_owned();
        items.push((kind, serde_json::from_str(payload).unwrap()));
        rest = left.trim_start_matches('\n');
    }
    items
}
