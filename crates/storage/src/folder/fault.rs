//! Turns what the system says about files into words: what was being done, why it failed, what to do.

use std::io;

use rustix::io::Errno;

use crate::Error;

/// Explains a failure while something was written.
pub(super) fn writing(label: &str, key: &str, error: impl Into<io::Error>) -> Error {
    let error = error.into();
    let what = format!("writing `{key}` to `{label}` failed");
    match Errno::from_io_error(&error) {
        Some(Errno::NOSPC | Errno::DQUOT) => Error::Failed {
            message: format!("{what}: no space left"),
            hint: Some(format!("make room below `{label}`, or keep fewer backups")),
            source: Some(Box::new(error)),
        },
        Some(Errno::FBIG) => Error::Failed {
            message: format!("{what}: file size limit reached"),
            hint: Some("raise `ulimit -f`, or use a file system for larger files".to_owned()),
            source: Some(Box::new(error)),
        },
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => Error::setup(
            format!("{what}: {}", plain(&error)),
            format!("this user must be able to write below `{label}`"),
        ),
        Some(Errno::LOOP | Errno::NOTDIR | Errno::ISDIR) => in_the_way(label, key),
        _ => other(
            format!(
                "{what}: {}; nothing was stored under that name",
                plain(&error)
            ),
            error,
        ),
    }
}

/// Explains a failure while something was looked for, read or removed.
pub(super) fn reading(label: &str, key: &str, error: impl Into<io::Error>) -> Error {
    let error = error.into();
    match Errno::from_io_error(&error) {
        Some(Errno::NOENT) => Error::NotFound(key.to_owned()),
        Some(Errno::ACCESS | Errno::PERM) => Error::Denied {
            message: format!("`{key}` in `{label}`: permission denied"),
            hint: None,
        },
        Some(Errno::LOOP | Errno::NOTDIR | Errno::ISDIR) => in_the_way(label, key),
        _ => other(format!("`{key}` in `{label}`: {}", plain(&error)), error),
    }
}

/// Explains that a link, or something else that is neither folder nor file, stands where a key leads.
pub(super) fn in_the_way(label: &str, key: &str) -> Error {
    Error::setup(
        format!(
            "the path of `{key}` in `{label}` is not made of folders only; links are not followed"
        ),
        format!("look with `ls -la` below `{label}` for what is in the way"),
    )
}

/// Explains that the thread which did the work is gone. A panic was reported where it happened; its text may hold a
/// secret and stays out of here.
pub(super) fn died(label: &str) -> Error {
    Error::failed(format!("work on `{label}` ended early"))
}

fn other(message: String, error: io::Error) -> Error {
    Error::Failed {
        message,
        hint: None,
        source: Some(Box::new(error)),
    }
}

/// Says the error in the system's words without Rust's `(os error 28)`.
pub(super) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    words.to_lowercase()
}
