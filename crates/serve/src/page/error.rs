//! The page of what did not work: the problem, why, and the next move.

use maud::{Markup, html};

use super::chrome::Chrome;
use super::layout::{Live, page};

/// What did not work, as an API answer would say it.
#[derive(Clone, Debug, Default)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// What it is, in short.
    pub title: String,
    /// What happened.
    pub detail: String,
    /// Next moves.
    pub hints: Vec<String>,
    /// The stable id of the failure, where it is one.
    pub id: Option<String>,
}

/// Renders the page.
pub fn render(chrome: &Chrome, problem: &Problem) -> Markup {
    let body = html! {
        h1 { (problem.title) }
        section.note.bad {
            p { (problem.detail) }
            @for hint in &problem.hints { p.hint { (hint) } }
        }
        p.quiet {
            "Status " (problem.status)
            @if let Some(id) = &problem.id { ", id " code { (id) } }
            "."
        }
        p { a href=(chrome.link("/")) { "All databases" } }
    };
    page(chrome, &problem.title, &[], &Live::No, &body)
}
