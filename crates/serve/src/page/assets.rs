//! The files that pages load: one style sheet, one script, one icon. Their names hold a digest, so that they never expire.

use std::sync::LazyLock;

use pgkeep_model::words::hex;
use sha2::{Digest, Sha256};

const STYLE: &[u8] = include_bytes!("assets/style.css");
const SCRIPT: &[u8] = include_bytes!("assets/script.js");
const ICON: &[u8] = include_bytes!("assets/icon.svg");

static ALL: LazyLock<[(String, &'static str, &'static [u8]); 3]> = LazyLock::new(|| {
    [
        named("style", "css", "text/css; charset=utf-8", STYLE),
        named("script", "js", "text/javascript; charset=utf-8", SCRIPT),
        named("icon", "svg", "image/svg+xml", ICON),
    ]
});

fn named(
    name: &str,
    extension: &str,
    content_type: &'static str,
    bytes: &'static [u8],
) -> (String, &'static str, &'static [u8]) {
    let digest = hex(&Sha256::digest(bytes)[..8]);
    (format!("{name}.{digest}.{extension}"), content_type, bytes)
}

/// Returns each file with its name below `/assets/`, its content type and its bytes.
pub fn assets() -> &'static [(String, &'static str, &'static [u8])] {
    ALL.as_slice()
}

/// Returns the style sheet's name.
pub(super) fn style() -> &'static str {
    &ALL[0].0
}

/// Returns the script's name.
pub(super) fn script() -> &'static str {
    &ALL[1].0
}

/// Returns the icon's name.
pub(super) fn icon() -> &'static str {
    &ALL[2].0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_short_and_needs_no_evaluation() {
        let text = std::str::from_utf8(SCRIPT).unwrap();
        assert!(text.lines().count() <= 80);
        for word in ["eval(", "new Function", "innerHTML", "document.write"] {
            assert!(!text.contains(word), "{word}");
        }
    }

    #[test]
    fn names_hold_a_digest() {
        for (name, _, bytes) in assets() {
            assert!(name.contains(&hex(&Sha256::digest(bytes)[..8])), "{name}");
        }
    }
}
