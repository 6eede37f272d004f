//! The frame of every page: head, bar, footer.

use maud::{DOCTYPE, Markup, html};

use super::assets;
use super::chrome::Chrome;

/// How a page keeps itself up to date.
pub(super) enum Live {
    /// It shows what does not change by itself.
    No,
    /// It is fetched again now and then.
    Refresh,
    /// It follows a run by the events at this link until that ends.
    Run(String),
}

/// Puts a page into its frame. `trail` is the way to it: names and links.
pub(super) fn page(
    chrome: &Chrome,
    title: &str,
    trail: &[(&str, String)],
    live: &Live,
    body: &Markup,
) -> Markup {
    let refresh = matches!(live, Live::Refresh).then_some("30");
    let events = match live {
        Live::Run(events) => Some(events.as_str()),
        _ => None,
    };
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(chrome, title, live))
            body {
                a.skip href="#main" { "Skip to content" }
                header.bar {
                    a.brand href=(chrome.link("/")) { "pgkeep" }
                    nav aria-label="Where you are" {
                        a href=(chrome.link("/")) { "All databases" }
                        @for (name, link) in trail { span.sep aria-hidden="true" { "›" } a href=(link) { (name) } }
                    }
                    (session(chrome))
                }
                p #unanswered hidden role="status" { "This page could not be refreshed; what it shows may be old." }
                main #main tabindex="-1" data-refresh=[refresh] data-events=[events] {
                    @if let Some(doubt) = &chrome.doubt { p.note.bad role="status" { strong { "This may be old: " } (doubt) } }
                    (body)
                }
                footer {
                    p { (chrome.zone_note) " Made at " time datetime=(chrome.now.strftime("%Y-%m-%dT%H:%M:%SZ")) { (super::words::moment(chrome.now)) } "." }
                }
            }
        }
    }
}

/// Puts something into a page without bar and footer.
pub(super) fn bare(
    chrome: &Chrome,
    title: &str,
    class: &str,
    live: &Live,
    body: &Markup,
) -> Markup {
    let refresh = matches!(live, Live::Refresh).then_some("30");
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(chrome, title, live))
            body class=(class) {
                p #unanswered hidden role="status" { "This page could not be refreshed; what it shows may be old." }
                main #main data-refresh=[refresh] { (body) }
            }
        }
    }
}

fn head(chrome: &Chrome, title: &str, live: &Live) -> Markup {
    let asset = |name: &str| chrome.link(&format!("/assets/{name}"));
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            meta name="robots" content="noindex";
            title { (title) " · pgkeep" }
            link rel="stylesheet" href=(asset(assets::style()));
            link rel="icon" type="image/svg+xml" href=(asset(assets::icon()));
            @match live {
                Live::No => {},
                Live::Refresh => noscript { meta http-equiv="refresh" content="300"; },
                Live::Run(_) => noscript { meta http-equiv="refresh" content="5"; },
            }
            script src=(asset(assets::script())) defer {}
        }
    }
}

fn session(chrome: &Chrome) -> Markup {
    html! {
        div.session {
            @if chrome.is_watch_only { span.tag title="Nothing is started from here." { "watch only" } }
            @if let Some(who) = &chrome.who {
                span { (who) " " span.tag { (chrome.role.as_str()) } }
                form method="post" action=(chrome.link("/logout")) { button.plain type="submit" { "Sign out" } }
            }
        }
    }
}
