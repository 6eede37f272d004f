//! `/login`: sign in with a token of the configuration.

use maud::{Markup, html};

use super::chrome::Chrome;
use super::layout::{Live, bare};

/// Renders the form. `problem` says why the last try did not let in; `next` is the path to go to afterwards.
pub fn render(chrome: &Chrome, problem: Option<&str>, next: Option<&str>) -> Markup {
    let body = html! {
        h1 { "pgkeep" }
        @if let Some(problem) = problem { p.note.bad role="alert" { (problem) } }
        form method="post" action=(chrome.link("/login")) {
            // Password managers keep a token under a name.
            input type="text" name="username" value="pgkeep" autocomplete="username" hidden;
            label for="token" { "Token" }
            input #token type="password" name="token" required autofocus autocomplete="current-password" spellcheck="false";
            @if let Some(next) = next { input type="hidden" name="next" value=(next); }
            button.main type="submit" { "Sign in" }
        }
        p.quiet { "Tokens stand in the configuration under " code { "server.tokens" } ", each with a name and a role." }
    };
    bare(chrome, "Sign in", "login", &Live::No, &body)
}
