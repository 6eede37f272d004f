//! The YAML text as a small tree in which every node knows its line.
//!
//! Sits on the parser of serde-saphyr and keeps what a typed reading would lose: lines, keys written twice, and
//! scalars letter for letter (`0755` stays `0755`). The size of the tree is bounded, so no file can blow it up by
//! aliases or nesting. Gives no meaning to any key.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, StrInput, Tag};

use super::Problem;

/// Longest text read. A config of 1000 databases is some 300 KiB; anything longer is another file.
const MAX_BYTES: usize = 1 << 20;

/// Most nodes in the tree, copies by alias included: 1000 databases of 20 keys each stay well below.
const MAX_NODES: usize = 100_000;

/// Most text in the tree, copies by alias included. Anyone who writes a file by hand repeats little.
const MAX_TEXT: usize = 4 << 20;

/// Deepest nesting of block and of flow collections each. The deepest key of the config is at level 5.
const MAX_DEPTH: usize = 32;

/// One value and the line (from 1) that it starts in. Not `Debug`: it may hold secrets.
#[derive(Clone)]
pub(super) struct Node {
    pub line: u64,
    pub value: Value,
}

impl Node {
    /// Tells whether a scalar in it is as `is_meant` says; keys are none.
    pub fn holds(&self, is_meant: &dyn Fn(&str) -> bool) -> bool {
        match &self.value {
            Value::Null => false,
            Value::Text(text) => is_meant(text),
            Value::List(items) => items.iter().any(|item| item.holds(is_meant)),
            Value::Map(entries) => entries.iter().any(|entry| entry.node.holds(is_meant)),
        }
    }
}

/// What a node holds.
#[derive(Clone)]
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Any scalar, quoted or not, as written.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in the order of the file; a key may stand in it twice.
    Map(Vec<Entry>),
}

/// One key of a mapping with its value.
#[derive(Clone)]
pub(super) struct Entry {
    pub key: String,
    pub line: u64,
    pub node: Node,
}

/// Reads one document; an empty text is a null in line 1.
pub(super) fn parse(text: &str) -> Result<Node, Problem> {
    if text.len() > MAX_BYTES {
        let message = format!("the file is longer than {} KiB", MAX_BYTES / 1024);
        return Err(Problem { line: 1, message });
    }
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.flow_nesting_limit = MAX_DEPTH;
    options.block_nesting_limit = MAX_DEPTH;
    let mut builder = Builder {
        parser: Parser::new_from_str_with_options(text, options),
        anchors: HashMap::new(),
        nodes: 0,
        text_bytes: 0,
        last_line: 1,
    };
    builder.document()
}

/// How large a node is, with all that is in it.
#[derive(Clone, Copy)]
struct Size {
    nodes: usize,
    text_bytes: usize,
}

struct Builder<'t> {
    parser: Parser<'t, StrInput<'t>>,
    /// Finished anchored nodes with the size of each.
    anchors: HashMap<usize, (Node, Size)>,
    nodes: usize,
    text_bytes: usize,
    last_line: u64,
}

impl<'t> Builder<'t> {
    fn document(&mut self) -> Result<Node, Problem> {
        let mut root = None;
        loop {
            match self.next()? {
                (Event::StreamStart | Event::DocumentEnd, _) => {}
                (Event::DocumentStart(..), line) if root.is_some() => {
                    return Err(problem(line, "the file holds more than one YAML document"));
                }
                (Event::DocumentStart(..), _) => root = Some(self.node()?),
                (_, line) => {
                    let empty = Node {
                        line,
                        value: Value::Null,
                    };
                    return Ok(root.unwrap_or(empty));
                }
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'t>, u64), Problem> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => {
                self.last_line = (span.start.line() as u64).max(1);
                Ok((event, self.last_line))
            }
            Some(Err(error)) => Err(syntax_problem(&error)),
            None => Ok((Event::StreamEnd, self.last_line)),
        }
    }

    fn node(&mut self) -> Result<Node, Problem> {
        let (event, line) = self.next()?;
        self.node_of(event, line)
    }

    fn node_of(&mut self, event: Event<'t>, line: u64) -> Result<Node, Problem> {
        let (nodes, text_bytes) = (self.nodes, self.text_bytes);
        self.count(1, 0, line)?;
        let (value, anchor) = match event {
            Event::Alias(anchor) => return self.alias(anchor, line),
            Event::Scalar(text, style, anchor, tag) => {
                refuse_tag(tag.as_deref(), line)?;
                self.count(0, text.len(), line)?;
                (scalar(&text, style), anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                refuse_tag(tag.as_deref(), line)?;
                (self.list()?, anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                refuse_tag(tag.as_deref(), line)?;
                (self.map()?, anchor)
            }
            _ => return Err(problem(line, "not valid YAML: a value is expected")),
        };
        let node = Node { line, value };
        // The parser numbers anchors from 1; 0 means none.
        if anchor != 0 {
            let size = Size {
                nodes: self.nodes - nodes,
                text_bytes: self.text_bytes - text_bytes,
            };
            self.anchors.insert(anchor, (node.clone(), size));
        }
        Ok(node)
    }

    fn list(&mut self) -> Result<Value, Problem> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                (event, line) => items.push(self.node_of(event, line)?),
            }
        }
    }

    fn map(&mut self) -> Result<Value, Problem> {
        let mut entries = Vec::new();
        loop {
            let (event, line) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                return Ok(Value::Map(entries));
            }
            let Value::Text(key) = self.node_of(event, line)?.value else {
                return Err(problem(line, "a key must be plain text"));
            };
            if key == "<<" {
                return Err(problem(
                    line,
                    "YAML merge keys (`<<`) are not supported; put what databases share under `defaults`",
                ));
            }
            let node = self.node()?;
            entries.push(Entry { key, line, node });
        }
    }

    fn alias(&mut self, anchor: usize, line: u64) -> Result<Node, Problem> {
        let Some(&(_, Size { nodes, text_bytes })) = self.anchors.get(&anchor) else {
            return Err(problem(
                line,
                "a YAML alias refers to the value that contains it",
            ));
        };
        // Counted before it is copied, so that a bomb is refused before it costs memory.
        self.count(nodes, text_bytes, line)?;
        Ok(self.anchors[&anchor].0.clone())
    }

    fn count(&mut self, nodes: usize, text_bytes: usize, line: u64) -> Result<(), Problem> {
        self.nodes = self.nodes.saturating_add(nodes);
        self.text_bytes = self.text_bytes.saturating_add(text_bytes);
        let limit = if self.nodes > MAX_NODES {
            format!("{MAX_NODES} values")
        } else if self.text_bytes > MAX_TEXT {
            format!("{} MiB of text", MAX_TEXT >> 20)
        } else {
            return Ok(());
        };
        let message =
            format!("the file holds more than {limit}, counting what aliases (`*name`) repeat");
        Err(Problem { line, message })
    }
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    let is_null =
        style == ScalarStyle::Plain && matches!(text, "" | "~" | "null" | "Null" | "NULL");
    if is_null {
        Value::Null
    } else {
        Value::Text(text.to_owned())
    }
}

fn refuse_tag(tag: Option<&Tag>, line: u64) -> Result<(), Problem> {
    match tag {
        Some(_) => Err(problem(line, "YAML tags (`!name`) are not supported")),
        None => Ok(()),
    }
}

/// Puts the parser's words in ours. They name punctuation and places, never the text of a scalar.
fn syntax_problem(error: &ScanError) -> Problem {
    Problem {
        line: (error.marker().line() as u64).max(1),
        message: format!("not valid YAML: {}", error.info()),
    }
}

fn problem(line: u64, message: &str) -> Problem {
    let message = message.to_owned();
    Problem { line, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    /// Writes a tree as one line: `{key@line: value}`, `[..]`, `~`, `'text'`.
    fn sketch(node: &Node) -> String {
        match &node.value {
            Value::Null => "~".into(),
            Value::Text(text) => format!("'{text}'"),
            Value::List(items) => {
                let items: Vec<_> = items.iter().map(sketch).collect();
                format!("[{}]", items.join(", "))
            }
            Value::Map(entries) => {
                let entry = |e: &Entry| format!("{}@{}: {}", e.key, e.line, sketch(&e.node));
                let entries: Vec<_> = entries.iter().map(entry).collect();
                format!("{{{}}}", entries.join(", "))
            }
        }
    }

    #[test]
    fn keeps_lines_duplicates_and_letters() {
        for (text, expected) in [
            ("", "~"),
            ("# nothing\n", "~"),
            ("---\n", "~"),
            (
                "a: 1\nb:\n  c: [x, 'y', 0755]\n",
                "{a@1: '1', b@2: {c@3: ['x', 'y', '0755']}}",
            ),
            ("a: 1\n\na: 2\n", "{a@1: '1', a@3: '2'}"),
            (
                "a: ~\nb: ''\nc: 'null'\nd:\n",
                "{a@1: ~, b@2: '', c@3: 'null', d@4: ~}",
            ),
            (
                "a: 1.10\nb: yes\nc: 1e3\n",
                "{a@1: '1.10', b@2: 'yes', c@3: '1e3'}",
            ),
            (
                "a: &x {b: 1}\nc: *x\n",
                "{a@1: {b@1: '1'}, c@2: {b@1: '1'}}",
            ),
            ("\u{feff}a: 1\r\nb: 2\r\n", "{a@1: '1', b@2: '2'}"),
            ("a: |\n  x\n  y\nb: 2\n", "{a@1: 'x\ny\n', b@4: '2'}"),
        ] {
            assert_eq!(
                parse(text).map(|node| sketch(&node)).unwrap(),
                expected,
                "{text:?}"
            );
        }
    }

    /// 400 KB that would become ten gigabytes.
    #[test]
    fn text_that_aliases_repeat_is_counted() {
        let text = format!(
            "x: &a \"{}\"\ny: [{}]",
            "a".repeat(100_000),
            ["*a"; 50_000].join(",")
        );
        let found = parse(&text).err().unwrap();
        assert!(found.message.contains("4 MiB of text"), "{}", found.message);
        assert_eq!(found.line, 2);
        let few = "x: &a aaa\ny: [*a, *a, *a]";
        assert_eq!(
            sketch(&parse(few).unwrap()),
            "{x@1: 'aaa', y@2: ['aaa', 'aaa', 'aaa']}"
        );
    }

    #[test]
    fn refuses_what_it_will_not_read() {
        for (text, line, message) in [
            (
                "a: 1\n---\nb: 2\n",
                2,
                "the file holds more than one YAML document",
            ),
            ("a: 1\nb: [1\nc: 2\n", 3, "not valid YAML: "),
            ("a: 1\n b: 2\n", 2, "not valid YAML: "),
            ("a:\n\t- b\n", 2, "not valid YAML: "),
            ("a: 'x\n", 2, "not valid YAML: "),
            ("a: *nope\n", 1, "not valid YAML: "),
            (
                "a: &x [*x]\n",
                1,
                "a YAML alias refers to the value that contains it",
            ),
            ("a: 1\n? [b]\n: c\n", 2, "a key must be plain text"),
            ("a: 1\n~: c\n", 2, "a key must be plain text"),
            ("a: &x {b: 1}\nc:\n  <<: *x\n", 3, "YAML merge keys"),
            ("a: !!binary aGk=\n", 1, "YAML tags"),
            ("a: !env HOME\n", 1, "YAML tags"),
            ("{", 1, "not valid YAML: "),
        ] {
            let found = parse(text)
                .err()
                .unwrap_or_else(|| panic!("{text:?} was read"));
            assert!(found.message.starts_with(message), "{text:?}: {found:?}");
            assert_eq!(found.line, line, "{text:?}: {found:?}");
        }
    }

    #[test]
    fn bombs_end_early() {
        let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..30 {
            let items = vec![format!("*a{}", level - 1); 9].join(", ");
            laughs.push_str(&format!("a{level}: &a{level} [{items}]\n"));
        }
        let chain: String = (1..5000).fold("a0: &a0 [x]\n".into(), |mut text, level| {
            text.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
            text
        });
        for text in [
            laughs,
            chain,
            "[".repeat(100_000),
            "{a: ".repeat(100_000),
            "- ".repeat(100_000),
            "a:\n".repeat(300_000),
            "? ".repeat(100_000),
            format!("a: [{}]", "1,".repeat(400_000)),
            "x".repeat(MAX_BYTES + 1),
        ] {
            let start = Instant::now();
            assert!(parse(&text).is_err(), "{:?}", &text[..40]);
            let took = start.elapsed();
            assert!(
                took < Duration::from_secs(5),
                "{:?} took {took:?}",
                &text[..40]
            );
        }
    }
}
