//! Finds PostgreSQL's client programs and chooses those that fit a server.
//!
//! A `pg_dump` older than its server is never chosen. Where none fits, the error names what was searched and found.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::environment::Environment;
use super::error::{Error, Reason};
use super::process::Program;

/// A program that does not tell its version in this time is not one that we can use.
const VERSION_TIMEOUT: Duration = Duration::from_secs(5);

/// Where distributions put the programs; one `*` per pattern, within one part of the path.
const USUAL_FOLDERS: &[&str] = &[
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/opt/homebrew/opt/libpq/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/usr/local/opt/libpq/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
];

/// Where to look for programs.
#[derive(Clone, Debug)]
pub struct Search {
    /// The only folder to look in, where the user named one.
    pub bin_dir: Option<PathBuf>,
    /// The PATH.
    pub path: Option<OsString>,
    /// Further folders; a `*` stands for any text within one part of the path.
    pub folders: Vec<PathBuf>,
}

/// A version of a program or a server, such as 15.18 or 9.6.24.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 15 of 15.18, 9 of 9.6.24.
    pub major: u32,
    /// 18 of 15.18, 6 of 9.6.24.
    pub minor: u32,
}

/// Client programs of one folder.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The folder.
    pub folder: PathBuf,
    /// The version of `pg_dump`.
    pub version: Version,
    /// `psql`, from the same folder where it is there.
    pub psql: PathBuf,
    /// Debian's `pg_wrapper`, which chooses a real program by rules of its own.
    is_wrapper: bool,
}

/// What a search found.
#[derive(Clone, Debug)]
pub struct Found {
    programs: Vec<Programs>,
    searched: Vec<PathBuf>,
    broken: Vec<String>,
}

impl Search {
    /// Looks in the PATH and the usual folders, or only in `bin_dir`.
    pub fn new(bin_dir: Option<PathBuf>, path: Option<OsString>) -> Self {
        Self {
            bin_dir,
            path,
            folders: USUAL_FOLDERS.iter().map(PathBuf::from).collect(),
        }
    }

    /// Returns every folder that exists, in order, each once.
    pub fn existing_folders(&self) -> Vec<PathBuf> {
        let mut folders = Vec::new();
        for folder in self.all_folders() {
            if folder.is_dir() && !folders.contains(&folder) {
                folders.push(folder);
            }
        }
        folders
    }

    /// Finds every `pg_dump` with its version.
    pub async fn find(&self, environment: &Environment, cancel: &CancellationToken) -> Found {
        let searched = self.all_folders();
        let candidates: Vec<PathBuf> = self
            .existing_folders()
            .into_iter()
            .filter(|folder| is_executable(folder, "pg_dump"))
            .collect();
        let asked = candidates
            .iter()
            .map(|folder| ask_version(folder.join("pg_dump"), environment, cancel));
        let mut found = Found {
            programs: Vec::new(),
            searched,
            broken: Vec::new(),
        };
        for (folder, answer) in candidates.iter().zip(join_all(asked).await) {
            match answer {
                Ok(version) => found.programs.push(Programs {
                    folder: folder.clone(),
                    version,
                    psql: self.psql_near(folder),
                    is_wrapper: is_wrapper(&folder.join("pg_dump")),
                }),
                Err(why) => found
                    .broken
                    .push(format!("{} ({why})", folder.join("pg_dump").display())),
            }
        }
        found
    }

    fn all_folders(&self) -> Vec<PathBuf> {
        if let Some(folder) = &self.bin_dir {
            return vec![folder.clone()];
        }
        let path = self.path.iter().flat_map(std::env::split_paths);
        let usual = self.folders.iter().flat_map(|folder| expand(folder));
        path.filter(|folder| folder.is_absolute())
            .chain(usual)
            .collect()
    }

    /// Any `psql` will do for queries, but the one beside `pg_dump` is the likeliest to work.
    fn psql_near(&self, folder: &Path) -> PathBuf {
        let others = self.existing_folders();
        std::iter::once(folder)
            .chain(others.iter().map(PathBuf::as_path))
            .find(|folder| is_executable(folder, "psql"))
            .unwrap_or(folder)
            .join("psql")
    }
}

impl Found {
    /// Returns the newest programs: for the first question to a server whose version is not known.
    pub fn newest(&self) -> Result<&Programs, Error> {
        self.choose(None, 0)
    }

    /// Returns programs for a server of this major version, and for a connection that wants at least
    /// `minimum_client_major`: the server's own major first, otherwise the newest that is newer.
    pub fn choose(
        &self,
        server_major: Option<u32>,
        minimum_client_major: u32,
    ) -> Result<&Programs, Error> {
        let least = server_major.unwrap_or(0).max(minimum_client_major);
        self.programs
            .iter()
            .enumerate()
            .filter(|(_, programs)| programs.version.major >= least)
            .max_by_key(|(at, programs)| {
                let is_same = Some(programs.version.major) == server_major;
                // Of equals the first found wins: the order of the PATH is the user's.
                (
                    is_same,
                    programs.version,
                    !programs.is_wrapper,
                    std::cmp::Reverse(*at),
                )
            })
            .map(|(_, programs)| programs)
            .ok_or_else(|| self.missing((least > 0).then_some(least)))
    }

    fn missing(&self, wanted_major: Option<u32>) -> Error {
        let old = self
            .programs
            .iter()
            .map(|p| format!("{} ({})", p.pg_dump().display(), p.version));
        Error::new(Reason::ProgramMissing {
            program: "pg_dump",
            wanted_major,
            searched: self.searched.clone(),
            found: old.chain(self.broken.iter().cloned()).collect(),
        })
    }
}

impl Programs {
    /// Returns the path of `pg_dump`.
    pub fn pg_dump(&self) -> PathBuf {
        self.folder.join("pg_dump")
    }

    /// Returns the path of `pg_dumpall`.
    pub fn pg_dumpall(&self) -> PathBuf {
        self.folder.join("pg_dumpall")
    }

    /// Returns the path of `pg_restore`.
    pub fn pg_restore(&self) -> PathBuf {
        self.folder.join("pg_restore")
    }

    /// Returns what is known to be wrong with this version on the dump side.
    pub fn advisory(&self) -> Option<String> {
        advisory(self.version)
    }
}

impl Version {
    /// Reads `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, `16beta2` or a bare version.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text
            .split_once("(PostgreSQL) ")
            .map_or(text, |(_, version)| version);
        let word = text.split_whitespace().next()?;
        let mut numbers = word.split('.').map(|part| {
            part.split(|c: char| !c.is_ascii_digit())
                .next()
                .unwrap_or("")
        });
        let major = numbers.next()?.parse().ok()?;
        // A beta has no minor yet.
        let minor = numbers
            .next()
            .and_then(|minor| minor.parse().ok())
            .unwrap_or(0);
        Some(Self { major, minor })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A fault of `pg_dump` that a server's users can use against the backup, and the first minor of each major without.
struct Advisory {
    cve: &'static str,
    what: &'static str,
    fixed: &'static [(u32, u32)],
}

const ADVISORIES: &[Advisory] = &[
    Advisory {
        cve: "CVE-2024-7348",
        what: "lets another user of the server run SQL as the backup's role",
        fixed: &[(12, 20), (13, 16), (14, 13), (15, 8), (16, 4)],
    },
    Advisory {
        cve: "CVE-2025-8714 and CVE-2025-8715",
        what: "let a user of the server put commands into the dump that run at restore",
        fixed: &[(13, 22), (14, 19), (15, 14), (16, 10), (17, 6)],
    },
];

/// Returns what is known to be wrong with a version of `pg_dump`, as a warning with the version to update to.
pub fn advisory(version: Version) -> Option<String> {
    let known: Vec<_> = ADVISORIES
        .iter()
        .filter_map(|advisory| {
            let minor = first_fixed(advisory, version.major)?;
            (version.minor < minor).then_some((advisory, minor))
        })
        .collect();
    let minor = known.iter().map(|(_, minor)| *minor).max()?;
    let faults: Vec<_> = known
        .iter()
        .map(|(advisory, _)| format!("{} {}", advisory.cve, advisory.what))
        .collect();
    let update = match minor {
        u32::MAX => "update to a supported major version".into(),
        minor => format!("update to {}.{minor} or later", version.major),
    };
    Some(format!(
        "pg_dump {version}: {}; {update}",
        faults.join("; ")
    ))
}

/// Returns the first minor without the fault: none for majors that ended before it, no fault for those born after.
fn first_fixed(advisory: &Advisory, major: u32) -> Option<u32> {
    let oldest = advisory.fixed.first()?.0;
    if major < oldest {
        return Some(u32::MAX);
    }
    let fixed = advisory.fixed.iter().find(|(fixed, _)| *fixed == major)?;
    Some(fixed.1)
}

async fn ask_version(
    path: PathBuf,
    environment: &Environment,
    cancel: &CancellationToken,
) -> Result<Version, String> {
    let answer = Program::new(path, environment)
        .args(["--version"])
        .run(cancel, VERSION_TIMEOUT, 4096)
        .await
        .map_err(|error| error.to_string())?;
    Version::parse(&String::from_utf8_lossy(&answer.stdout))
        .ok_or_else(|| "its version cannot be read".into())
}

/// Tells whether a folder holds a program that this user may run.
pub(super) fn is_executable(folder: &Path, program: &str) -> bool {
    which::which_in_global(program, Some(folder)).is_ok_and(|mut found| found.next().is_some())
}

fn is_wrapper(program: &Path) -> bool {
    program
        .canonicalize()
        .is_ok_and(|real| real.ends_with("postgresql-common/pg_wrapper"))
}

/// Replaces the one `*` of a pattern by what is there; newest names first.
fn expand(pattern: &Path) -> Vec<PathBuf> {
    let text = pattern.to_string_lossy();
    let Some((before, after)) = text.split_once('*') else {
        return vec![pattern.to_owned()];
    };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let rest = after.trim_start_matches('/');
    let entries = std::fs::read_dir(if parent.is_empty() { "/" } else { parent });
    let mut folders: Vec<PathBuf> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path().join(rest))
        .collect();
    folders.sort();
    folders.reverse();
    folders
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn install(root: &Path, folder: &str, version: &str) -> PathBuf {
        let folder = root.join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        for program in ["pg_dump", "psql"] {
            let path = folder.join(program);
            std::fs::write(
                &path,
                format!("#!/bin/sh\necho '{program} (PostgreSQL) {version}'\n"),
            )
            .unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        folder
    }

    async fn find(search: &Search) -> Found {
        search
            .find(&Environment::new([]), &CancellationToken::new())
            .await
    }

    #[test]
    fn reads_versions() {
        let version = |text: &str| Version::parse(text).map(|v| (v.major, v.minor));
        assert_eq!(
            version("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"),
            Some((15, 18))
        );
        assert_eq!(version("pg_dump (PostgreSQL) 9.6.24"), Some((9, 6)));
        assert_eq!(version("17.5 (1b53132)"), Some((17, 5)));
        assert_eq!(version("18beta2"), Some((18, 0)));
        assert_eq!(version("18devel"), Some((18, 0)));
        assert_eq!(version("nonsense"), None);
        assert_eq!(version(""), None);
    }

    #[tokio::test]
    async fn prefers_the_servers_major_then_the_newest() {
        let root = tempfile::tempdir().unwrap();
        let old = install(root.path(), "pg/14/bin", "14.9");
        install(root.path(), "pg/15/bin", "15.3");
        let same = install(root.path(), "local/bin", "15.18");
        let new = install(root.path(), "pg/17/bin", "17.2");
        let search = Search {
            bin_dir: None,
            path: Some(root.path().join("local/bin").into_os_string()),
            folders: vec![root.path().join("pg/*/bin")],
        };
        let found = find(&search).await;
        let folder = |server, minimum| found.choose(Some(server), minimum).unwrap().folder.clone();
        assert_eq!(folder(14, 0), old);
        assert_eq!(folder(15, 0), same);
        assert_eq!(folder(16, 0), new);
        assert_eq!(folder(9, 0), new);
        assert_eq!(folder(14, 16), new);
        assert_eq!(found.newest().unwrap().psql, new.join("psql"));
    }

    #[tokio::test]
    async fn a_server_too_new_is_an_error_with_the_way_out() {
        let root = tempfile::tempdir().unwrap();
        let folder = install(root.path(), "bin", "15.18");
        let search = Search::new(Some(folder.clone()), None);
        let error = find(&search).await.choose(Some(17), 0).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no `pg_dump` of version 17 or newer was found"
        );
        let failure = error.to_failure("backup of `shop`", "nothing was stored");
        assert_eq!(failure.kind.exit_code(), 26);
        let told = failure.to_string();
        assert!(
            told.contains(&format!("found {}/pg_dump (15.18)", folder.display())),
            "{told}"
        );
        assert!(
            told.contains(&format!("searched {}", folder.display())),
            "{told}"
        );
        assert!(told.contains("apt install postgresql-client-17"), "{told}");
    }

    #[tokio::test]
    async fn what_cannot_run_is_told() {
        let root = tempfile::tempdir().unwrap();
        let folder = install(root.path(), "bin", "15.18");
        std::fs::write(folder.join("pg_dump"), "#!/bin/sh\nexit 3\n").unwrap();
        let search = Search::new(Some(folder), None);
        let Reason::ProgramMissing { found, .. } = find(&search).await.newest().unwrap_err().reason
        else {
            panic!("not a missing program");
        };
        assert!(
            found[0].ends_with("(`pg_dump` exited with status 3)"),
            "{found:?}"
        );
        let nowhere = Search {
            bin_dir: None,
            path: None,
            folders: vec![root.path().join("no/*/bin")],
        };
        assert!(find(&nowhere).await.newest().is_err());
    }

    #[test]
    fn warns_of_known_faults() {
        let warning = |major, minor| advisory(Version { major, minor });
        assert_eq!(warning(15, 18), None);
        assert_eq!(warning(18, 0), None);
        assert_eq!(warning(17, 6), None);
        let both = warning(16, 3).unwrap();
        assert!(
            both.contains("CVE-2024-7348") && both.contains("CVE-2025-8714"),
            "{both}"
        );
        assert!(both.ends_with("update to 16.10 or later"), "{both}");
        let one = warning(16, 4).unwrap();
        assert!(
            !one.contains("CVE-2024-7348") && one.ends_with("16.10 or later"),
            "{one}"
        );
        assert!(
            warning(11, 22)
                .unwrap()
                .ends_with("supported major version")
        );
    }
}
