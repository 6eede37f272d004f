//! The remote of an `rclone:` storage: what is accepted, and what may not stand in it because everyone on the machine can
//! read a program's arguments.

/// What to write instead.
const WANTED: &str = "must name a remote and a path: `rclone:remote:path`, or `rclone::sftp,host=nas,user=backup,key_file=/root/.ssh/id:path`";

/// Parts of a setting's name that tell that its value is a secret.
const SECRET_PARTS: [&str; 13] = [
    "2fa",
    "access_grant",
    "authorization",
    "connection_string",
    "cookie",
    "credentials",
    "headers",
    "pass",
    "pem",
    "sas_url",
    "secret",
    "ssh",
    "token",
];

/// Settings whose names have such a part and whose values are none.
const NO_SECRETS: [&str; 4] = [
    "ask_password",
    "pass_command",
    "token_url",
    "shared_credentials_file",
];

/// Checks the text behind `rclone:`; the error says what is wrong and never shows the text.
pub fn check(remote: &str) -> Result<(), String> {
    let is_begun_well =
        remote.starts_with(|c: char| c == ':' || c == '_' || c.is_ascii_alphanumeric());
    if !is_begun_well || remote.chars().any(char::is_control) {
        return Err(WANTED.to_owned());
    }
    let (name, settings, path) = split(remote).ok_or(WANTED)?;
    if name.is_empty() {
        return Err(WANTED.to_owned());
    }
    for (key, value) in settings {
        if is_secret(key, value) {
            return Err(told(name, key, remote.starts_with(':')));
        }
    }
    if path.starts_with("//") {
        return Err("has an address without quotes; write it as `url='https://…'`".to_owned());
    }
    // rclone takes both for what they are elsewhere, and keys come behind.
    if path.contains('\\') || path.split('/').any(|part| part == "..") {
        return Err("has a path with `\\` or `..` in it".to_owned());
    }
    Ok(())
}

/// Says where a secret belongs.
fn told(name: &str, key: &str, is_without_file: bool) -> String {
    let upper = |text: &str| text.to_ascii_uppercase().replace('-', "_");
    let variable = if is_without_file {
        format!("RCLONE_{}_{}", upper(name), upper(key))
    } else {
        format!("RCLONE_CONFIG_{}_{}", upper(name), upper(key))
    };
    format!(
        "has `{key}` in it, and everyone on the machine can read that; put it into the variable `{variable}` \
         (a password as `rclone obscure` prints it), or into rclone's own configuration file"
    )
}

fn is_secret(key: &str, value: &str) -> bool {
    if value.contains("://") && value.contains(['@', '?']) {
        return true;
    }
    let key = key.to_ascii_lowercase();
    let is_place = ["_file", "_command", "_path", "_env"]
        .iter()
        .any(|end| key.ends_with(end));
    if is_place || NO_SECRETS.contains(&key.as_str()) {
        return false;
    }
    let is_key = key == "key" || (key.ends_with("_key") && key != "public_key");
    is_key || SECRET_PARTS.iter().any(|part| key.contains(part))
}

type Settings<'r> = Vec<(&'r str, &'r str)>;

/// Takes `[:]name[,key=value]…:path` apart. A value may stand in quotes, where a comma or a colon means nothing.
fn split(remote: &str) -> Option<(&str, Settings<'_>, &str)> {
    let text = remote.strip_prefix(':').unwrap_or(remote);
    let mut quote = None;
    let mut begin = 0;
    let mut parts: Vec<&str> = Vec::new();
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, ',' | ':') => {
                parts.push(&text[begin..at]);
                begin = at + 1;
                if c == ':' {
                    let mut named = parts.into_iter();
                    let name = named.next()?;
                    let settings = named.map(|part| part.split_once('=').unwrap_or((part, "")));
                    return Some((name, settings.collect(), &text[begin..]));
                }
            }
            (None, _) => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn takes_remotes_with_and_without_a_file() {
        for remote in [
            "nas:backups/pg",
            "nas:",
            "gdrive,shared_with_me:pg",
            ":local:/srv/backups",
            ":sftp,host=nas,port=22,user=backup,key_file=/root/.ssh/id:pg",
            ":sftp,host='a:b',known_hosts_file=\"/a,b\":pg",
            ":s3,provider=AWS,env_auth,access_key_id=AKIA,region=eu-west-1:bucket/pg",
            ":webdav,url='https://dav.example.com/x':",
        ] {
            assert_eq!(check(remote), Ok(()), "{remote}");
        }
    }

    #[test]
    fn refuses_what_is_none_or_tells_a_secret() {
        for (remote, message) in [
            ("", "must name a remote"),
            ("backups", "must name a remote"),
            ("-v:x", "must name a remote"),
            ("::x", "must name a remote"),
            ("./x:y", "must name a remote"),
            ("nas:a/../b", "has a path"),
            (":sftp,host='a:b", "must name a remote"),
            (":sftp,host=nas,pass=hunter2:x", "has `pass` in it"),
            (
                ":s3,secret_access_key=hunter2:x",
                "has `secret_access_key` in it",
            ),
            (":azureblob,account=a,key=hunter2:x", "has `key` in it"),
            (":sftp,key_pem=hunter2:x", "has `key_pem` in it"),
            (
                ":b2,account=a,application_key=hunter2:x",
                "has `application_key` in it",
            ),
            (":webdav,url='https://u:hunter2@dav/x':", "has `url` in it"),
            (
                ":webdav,url=https://u:hunter2@dav/x:",
                "has an address without quotes",
            ),
            ("gdrive,token='{hunter2}':x", "has `token` in it"),
            (
                ":azureblob,sas_url=https://hunter2:x",
                "has `sas_url` in it",
            ),
        ] {
            let error = check(remote).unwrap_err();
            assert!(error.starts_with(message), "{remote}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let error = check(":sftp,host=nas,pass=x:y").unwrap_err();
        assert!(error.contains("`RCLONE_SFTP_PASS`"), "{error}");
        let error = check("my-nas,pass=x:y").unwrap_err();
        assert!(error.contains("`RCLONE_CONFIG_MY_NAS_PASS`"), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = check(&text);
        }
    }
}
