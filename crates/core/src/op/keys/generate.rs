//! `keys generate`: makes a key pair of age, the private half in a file of its owner alone.

use std::io::Write;
use std::path::{Path, PathBuf};

use age::secrecy::ExposeSecret;
use age::x25519;
use jiff::Timestamp;
use serde::Serialize;

use crate::stream::beside::Beside;
use pgkeep_model::failure::{Failure, Kind, Result};

/// Where the private key goes.
pub struct Request {
    /// The file, which must not be there.
    pub file: PathBuf,
    /// Folders that hold backups.
    pub folders: Vec<PathBuf>,
}

/// What was made.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The file of the private key.
    pub file: String,
    /// The public key.
    pub recipient: String,
}

/// Makes a key. It blocks.
pub fn run(request: &Request, now: Timestamp) -> Result<Report> {
    let Request { file, folders } = request;
    let is_beside = folders.iter().any(|folder| is_inside(file, folder));
    if is_beside {
        let message = format!(
            "will not write a private key to `{}`: backups are stored there, and whoever takes them would have the key",
            file.display()
        );
        return Err(Failure::new(Kind::Refused, "key_beside_backups", message)
            .hint("choose a place that is not copied along with the backups, such as a password manager"));
    }
    let key = x25519::Identity::generate();
    let recipient = key.to_public().to_string();
    // A file that is there may be the only key to other backups.
    let beside = Beside::start(file, false, "key")?;
    let (created, secret) = (now.strftime("%Y-%m-%dT%H:%M:%SZ"), key.to_string());
    let secret = secret.expose_secret();
    let text = format!("# created: {created}\n# public key: {recipient}\n{secret}\n");
    let written = beside.file().write_all(text.as_bytes());
    written.map_err(|error| beside.cannot_write(&error))?;
    let written = beside.finish().map_err(kept)?;
    Ok(Report {
        file: written.display().to_string(),
        recipient,
    })
}

/// A key is never replaced, so nothing is said of how to.
fn kept(mut failure: Failure) -> Failure {
    if failure.id == "file_exists" {
        failure.hints =
            vec!["choose another name: backups may need the key that is there".to_owned()];
    }
    failure
}

fn is_inside(file: &Path, folder: &Path) -> bool {
    let parent = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match (parent.canonicalize(), folder.canonicalize()) {
        (Ok(parent), Ok(folder)) => parent.starts_with(folder),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::encryption::{Identities, Recipients};

    #[test]
    fn a_key_is_for_its_owner_alone_opens_what_is_encrypted_and_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let request = Request {
            file: folder.path().join("key.txt"),
            folders: Vec::new(),
        };
        let report = run(&request, Timestamp::UNIX_EPOCH).unwrap();
        let mode = fs::metadata(&request.file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut identities = Identities::default();
        let text = fs::read_to_string(&request.file).unwrap();
        identities.add(&text.clone().into()).unwrap();
        let recipients = Recipients::parse(&[report.recipient]).unwrap();
        recipients.prove(&identities).unwrap();
        let again = run(&request, Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!(again.id, "file_exists");
        assert_eq!(fs::read_to_string(&request.file).unwrap(), text);
    }

    #[test]
    fn a_key_does_not_lie_beside_backups() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("shop");
        fs::create_dir(&below).unwrap();
        let request = Request {
            file: below.join("key.txt"),
            folders: vec![folder.path().to_owned()],
        };
        let refused = run(&request, Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!(refused.id, "key_beside_backups");
        assert!(!request.file.exists());
    }
}
