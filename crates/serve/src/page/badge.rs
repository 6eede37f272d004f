//! `/badge/{db}.svg?key=`: a badge for a README or a dashboard. Its colours are attributes, so that it needs no style.

use maud::{Markup, html};

use super::view::Light;

/// Renders a badge that says a name and some words. Text widths are guessed, so a font that is wider is squeezed.
pub fn render(name: &str, light: Light, words: &str) -> Markup {
    let colour = match light {
        Light::Good => "#2a7a45",
        Light::Unknown => "#5b6670",
        Light::Warn => "#96690a",
        Light::Bad => "#b3261e",
    };
    let word = match light {
        Light::Good => words.to_owned(),
        Light::Unknown => format!("not judged, {words}"),
        Light::Warn => format!("attention, {words}"),
        Light::Bad => format!("bad, {words}"),
    };
    let label = format!("backup {}", name.chars().take(60).collect::<String>());
    let (left, right) = (width(&label), width(&word));
    let all = left + right;
    html! {
        svg xmlns="http://www.w3.org/2000/svg" width=(all) height="20" viewBox=(format!("0 0 {all} 20")) role="img" aria-label=(format!("{label}: {word}")) {
            title { (label) ": " (word) }
            rect width=(all) height="20" rx="3" fill=(colour) {}
            path d=(format!("M3 0H{left}V20H3A3 3 0 0 1 0 17V3A3 3 0 0 1 3 0Z")) fill="#3b444c" {}
            g fill="#fff" font-family="DejaVu Sans,Verdana,Arial,sans-serif" font-size="11" text-anchor="middle" {
                text x=(left / 2) y="14" textLength=(left - 12) { (label) }
                text x=(left + right / 2) y="14" textLength=(right - 12) { (word) }
            }
        }
    }
}

fn width(text: &str) -> u32 {
    u32::try_from(text.chars().count()).unwrap_or(200).min(200) * 65 / 10 + 12
}

/// Renders the badge of a database that is not there; it says no more than that.
pub fn unknown() -> Markup {
    render("?", Light::Unknown, "no such database")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text_and_nothing_needs_a_style() {
        let svg = render("<script>alert(1)</script>", Light::Bad, "\"3 d\" old").into_string();
        assert!(!svg.contains("<script"), "{svg}");
        assert!(!svg.contains("style"), "{svg}");
        assert!(
            svg.contains("&lt;script&gt;") && svg.contains("bad, &quot;3 d&quot; old"),
            "{svg}"
        );
    }
}
