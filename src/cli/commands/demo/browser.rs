//! A page in the browser of the desktop, where there is one.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use pgkeep_core::setup::Setup;

/// Opens an address in the browser. Where there is no desktop, or none of its programs, nothing happens: the address was
/// printed.
pub(super) fn open(address: &str, setup: &Setup) {
    let is_there = |name: &str| setup.var(name).is_some_and(|value| !value.is_empty());
    let program = if cfg!(target_os = "macos") {
        "open"
    } else if ["DISPLAY", "WAYLAND_DISPLAY"]
        .iter()
        .any(|name| is_there(name))
    {
        "xdg-open"
    } else {
        return;
    };
    let mut command = Command::new(program);
    // A Ctrl-C is for the demo and not for the browser.
    command.arg(address).process_group(0);
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    match quiet.spawn() {
        // It is waited for, so that nothing of it is left; the end of the process ends the waiting.
        Ok(mut child) => drop(std::thread::spawn(move || child.wait())),
        Err(error) => tracing::debug!("{program} did not open the page: {error}"),
    }
}
