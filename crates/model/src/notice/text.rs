//! A notice as plain text and as HTML, for mail, for the body of a ping and for whoever reads the JSON document.

use super::{Notice, cut};

/// Longest part of a mail that one run fills; beyond this nobody reads.
const MAX_CHARS: usize = 50_000;

/// How wide names of facts are.
const NAME_WIDTH: usize = 10;

impl Notice {
    /// Renders everything as plain text, the subject aside.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (name, value) in self.facts() {
            text += &format!("{name:<NAME_WIDTH$} {value}\n");
        }
        for (title, lines) in self.parts() {
            text += &format!("\n{title}:\n");
            for line in lines {
                text += &format!("  {line}\n");
            }
        }
        cut::head(&text, MAX_CHARS)
    }

    /// Renders subject and text, the end kept where it is longer than `max`.
    pub(super) fn log(&self, max: usize) -> String {
        cut::tail(&format!("{}\n\n{}", self.subject, self.text()), max)
    }

    /// Renders everything as a page of HTML.
    pub fn html(&self) -> String {
        let rows: String = self
            .facts()
            .iter()
            .map(|(name, value)| row(name, value))
            .collect();
        let parts: String = self
            .parts()
            .iter()
            .map(|(title, lines)| part(title, lines))
            .collect();
        let color = match self.outcome {
            super::Outcome::Good => "#1a7f37",
            super::Outcome::GoodBut => "#9a6700",
            super::Outcome::Failed => "#b42318",
        };
        format!(
            "<!doctype html>\n<html><body style=\"font-family:sans-serif\">\n\
             <h2 style=\"color:{color}\">{}</h2>\n<table>\n{rows}</table>\n{parts}</body></html>\n",
            cut::html(&self.subject)
        )
    }

    /// Returns the longer parts, each a title and its lines.
    fn parts(&self) -> Vec<(&'static str, Vec<String>)> {
        let why = self.failure.as_ref().map(super::Trouble::lines);
        let lines = |texts: &[String]| texts.iter().map(|text| cut::one_line(text)).collect();
        let parts = [
            ("why", why.unwrap_or_default()),
            ("safe", lines(std::slice::from_ref(&self.safe))),
            ("next", lines(&self.next)),
            ("warnings", lines(&self.warnings)),
        ];
        let has_text = |(_, lines): &(_, Vec<String>)| lines.iter().any(|line| !line.is_empty());
        parts.into_iter().filter(has_text).collect()
    }
}

fn row(name: &str, value: &str) -> String {
    let value = cut::html(value);
    format!("<tr><th align=\"left\" valign=\"top\">{name}</th><td>{value}</td></tr>\n")
}

fn part(title: &str, lines: &[String]) -> String {
    let text = cut::html(&cut::head(&lines.join("\n"), MAX_CHARS));
    format!("<h3>{title}</h3>\n<pre style=\"white-space:pre-wrap\">{text}</pre>\n")
}
