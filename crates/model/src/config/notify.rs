//! The meaning of `notify`: who is told what, by which way, and how the effective config shows it.
//!
//! An address of a webhook is a secret: whoever has it may write there. It is shown as its host alone.

use secrecy::{ExposeSecret, SecretString};

use super::keys::Key;
use super::reader::{Field, Fields, Reader, choose, join};
use super::sections::{EVENTS as EVENT_NAMES, NOTIFIER};
use super::setting::{Group, Setting};
use super::shown::{HIDDEN, Keys, Shown};
use super::tree::Node;
use super::types::{Hook, Webhook};
use crate::notice::{Channel, DATABASE_MARK, EmailConfig, Event, MailTls, NotifierConfig};

pub(super) const EVENTS: [Event; 5] = [
    Event::Failure,
    Event::Success,
    Event::Stale,
    Event::Restore,
    Event::Drill,
];

/// Reads all entries.
pub(super) fn read(reader: &mut Reader, root: &Fields) -> Vec<NotifierConfig> {
    let Some(field) = root.find("notify") else {
        return Vec::new();
    };
    let entries = reader.list(&field, |reader, item| read_entry(reader, item, &field.path));
    entries.unwrap_or_default()
}

fn read_entry(reader: &mut Reader, item: &Node, path: &str) -> Option<NotifierConfig> {
    let entry = reader.open(item, item.line, path, &NOTIFIER)?;
    let mut given = NOTIFIER.keys.iter().filter(|key| entry.has(key.name));
    let (Some(way), None) = (given.next(), given.next()) else {
        let ways = "`email`, `slack`, `discord`, `webhook`, `ping`";
        reader.note(
            item.line,
            format!("an entry of `{path}` needs exactly one of {ways}"),
        );
        return None;
    };
    let fields = reader.open_key(&entry, way.name)?;
    let channel = read_channel(reader, &fields, way.name);
    let on = match &channel {
        Channel::Ping(_) => Vec::new(),
        _ => read_events(reader, &fields),
    };
    let mut databases: Vec<String> = Vec::new();
    databases.read(reader, &fields, "databases");
    let mut ca_certificate = None;
    Setting::read(&mut ca_certificate, reader, &fields, "ca_certificate");
    let notifier = NotifierConfig {
        channel,
        on,
        databases,
        ca_certificate,
    };
    check_one_database(reader, &fields, &notifier);
    Some(notifier)
}

fn read_channel(reader: &mut Reader, fields: &Fields, way: &str) -> Channel {
    match way {
        "email" => Channel::Email(read_email(reader, fields)),
        "slack" => Channel::Slack {
            url: read_group::<Hook>(reader, fields).url,
        },
        "discord" => Channel::Discord {
            url: read_group::<Hook>(reader, fields).url,
        },
        "webhook" => {
            let Webhook {
                url,
                secret,
                headers,
            } = read_group(reader, fields);
            Channel::Webhook {
                url,
                secret,
                headers,
            }
        }
        _ => Channel::Ping(read_group(reader, fields)),
    }
}

fn read_group<T: Group>(reader: &mut Reader, fields: &Fields) -> T {
    let mut group = T::unset();
    group.read_all(reader, fields);
    group
}

/// Reads what is told: failures where nothing is said.
fn read_events(reader: &mut Reader, fields: &Fields) -> Vec<Event> {
    let Some(field) = fields.find("on") else {
        return vec![Event::Failure];
    };
    reader.note_empty(&field, "is empty");
    let names = reader
        .list(&field, |reader, item| {
            reader.value(item, item.line, &field.path, false, |text| {
                choose(text, EVENT_NAMES, |name| name)
            })
        })
        .unwrap_or_default();
    let is_chosen = |event: &Event| names.contains(&event.as_str());
    EVENTS.into_iter().filter(is_chosen).collect()
}

/// A good backup of one database would tell the service that all is well while another one fails.
fn check_one_database(reader: &mut Reader, fields: &Fields, notifier: &NotifierConfig) {
    let Channel::Ping(ping) = &notifier.channel else {
        return;
    };
    let known = reader.databases.iter();
    let count = known.filter(|name| notifier.is_for(name)).count();
    let urls = [
        Some(&ping.url),
        ping.start_url.as_ref(),
        ping.failure_url.as_ref(),
    ];
    let is_marked = |url: &SecretString| url.expose_secret().contains(DATABASE_MARK);
    // An empty address is no good, which is a problem of its own.
    let is_good = !ping.url.expose_secret().is_empty();
    if is_good && count > 1 && !urls.into_iter().flatten().all(is_marked) {
        let message = format!(
            "`{}` would be told of {count} databases, and a good backup of one hides that another failed; name one in \
             `databases`, or put `{DATABASE_MARK}` into the url",
            fields.path
        );
        reader.note(fields.line, message);
    }
}

impl Setting for Vec<(String, SecretString)> {
    fn unset(_: &Key) -> Self {
        Self::new()
    }

    fn read(&mut self, reader: &mut Reader, fields: &Fields, name: &str) {
        if let Some(field) = fields.find(name) {
            *self = read_headers(reader, &field);
        }
    }

    fn put(&self, keys: &mut Keys, key: &Key) {
        let mut shown = Keys::default();
        for (name, _) in self {
            shown.put(name, HIDDEN.to_owned());
        }
        keys.put_some(key.name, (!shown.is_empty()).then_some(shown));
    }
}

fn read_headers(reader: &mut Reader, field: &Field) -> Vec<(String, SecretString)> {
    let entries = reader.entries(field.node, field.line, &field.path);
    let mut headers = Vec::new();
    for entry in entries.unwrap_or_default() {
        let path = join(&field.path, &entry.key);
        if let Err(why) = check_header_name(&entry.key) {
            reader.note(entry.line, format!("`{path}` {why}"));
        }
        let value = reader.value(&entry.node, entry.line, &path, true, |text| {
            if text.bytes().all(|b| matches!(b, b' '..=b'~')) {
                Ok(SecretString::from(text.to_owned()))
            } else {
                Err("must have ordinary characters alone".to_owned())
            }
        });
        headers.extend(value.map(|value| (entry.key.clone(), value)));
    }
    headers
}

fn check_header_name(name: &str) -> Result<(), &'static str> {
    let is_part = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let own = ["content-type", "content-length", "host"];
    if name.is_empty() || !name.bytes().all(is_part) {
        return Err("is no name of a header");
    }
    let name = name.to_ascii_lowercase();
    if own.contains(&name.as_str()) || name.starts_with("pgkeep-") {
        return Err("is set by pgkeep itself");
    }
    Ok(())
}

fn read_email(reader: &mut Reader, fields: &Fields) -> EmailConfig {
    let email: EmailConfig = read_group(reader, fields);
    let wrong = |texts: &[String]| !texts.iter().all(|text| is_mailbox(text));
    if !email.from.is_empty() && wrong(std::slice::from_ref(&email.from)) {
        note_no_mailbox(reader, fields.line_of("from"), &join(&fields.path, "from"));
    }
    if let Some(field) = fields.find("to") {
        reader.note_empty(&field, "is empty");
        if wrong(&email.to) {
            note_no_mailbox(reader, field.line, &field.path);
        }
    }
    check_login(reader, fields, &email);
    email
}

fn note_no_mailbox(reader: &mut Reader, line: u64, path: &str) {
    let forms = "`ops@example.com` or `Ops <ops@example.com>`";
    reader.note(
        line,
        format!("`{path}` must be a mail address such as {forms}"),
    );
}

/// A rough look; the mail server has the last word.
fn is_mailbox(text: &str) -> bool {
    let address = match text.split_once('<') {
        Some((_, rest)) => match rest.strip_suffix('>') {
            Some(address) => address,
            None => return false,
        },
        None => text,
    };
    let is_part = |part: &str| {
        let is_odd = |c: char| c.is_whitespace() || c.is_control() || "<>,;()\"@".contains(c);
        !part.is_empty() && !part.contains(is_odd)
    };
    address
        .rsplit_once('@')
        .is_some_and(|(user, host)| is_part(user) && is_part(host))
}

/// A login is whole, and its password does not cross a network in the clear.
fn check_login(reader: &mut Reader, fields: &Fields, email: &EmailConfig) {
    let password = fields.find_or_file("password");
    match (fields.find("user"), &password) {
        (Some(user), None) => {
            reader.note(
                user.line,
                format!("`{}` needs `password` beside it", user.path),
            );
        }
        (None, Some(password)) => {
            let message = format!("`{}` needs `user` beside it", password.path);
            reader.note(password.line, message);
        }
        _ => {}
    }
    let is_here = matches!(email.host.as_str(), "" | "localhost" | "127.0.0.1" | "::1");
    if let (Some(password), MailTls::None, false) = (password, email.tls, is_here) {
        let message = format!(
            "`{}` would be sent in the clear; use `tls: starttls` or `tls: implicit`",
            password.path
        );
        reader.note(password.line, message);
    }
}

/// Shows an entry without its secrets; what is shown reads back.
pub(super) fn show(notifier: &NotifierConfig) -> Shown {
    let mut keys = match notifier.channel.clone() {
        Channel::Email(mut email) => {
            email.port = Some(email.port_in_force());
            email.shown()
        }
        Channel::Slack { url } | Channel::Discord { url } => Hook { url }.shown(),
        Channel::Webhook {
            url,
            secret,
            headers,
        } => Webhook {
            url,
            secret,
            headers,
        }
        .shown(),
        Channel::Ping(ping) => ping.shown(),
    };
    keys.put_list("on", &notifier.on, |event| event.as_str().to_owned().into());
    keys.put_list("databases", &notifier.databases, |name| name.clone().into());
    let certificate = notifier.ca_certificate.as_ref();
    keys.put_some(
        "ca_certificate",
        certificate.map(|path| path.display().to_string()),
    );
    let mut entry = Keys::default();
    entry.put(notifier.kind(), keys);
    entry.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::url::hide;
    use crate::config::{Env, parse};
    use crate::notice::PingStyle;

    struct Nothing;

    impl Env for Nothing {
        fn var(&self, _: &str) -> Option<String> {
            None
        }
        fn read_file(&self, _: &std::path::Path) -> std::io::Result<String> {
            Err(std::io::ErrorKind::NotFound.into())
        }
    }

    /// A file with two databases and these entries, the first of which is line 3.
    fn file(entries: &str) -> String {
        format!(
            "databases: {{shop: {{url: 'postgres://h/shop'}}, crm: {{url: 'postgres://h/crm'}}}}\n\
             notify:\n{entries}\nstorages: {{local: {{url: ./b}}}}\n"
        )
    }

    fn good(entries: &str) -> Vec<NotifierConfig> {
        let parsed = parse(&file(entries), &Nothing);
        parsed
            .unwrap_or_else(|problems| panic!("{entries}: {problems:?}"))
            .notify
    }

    #[test]
    fn entries_arrive_with_their_defaults() {
        let all = good(
            "  - slack: {url: 'https://hooks.example/x'}\n  \
             - email: {host: mail, from: a@b.example, to: c@d.example, on: [drill, success, drill]}\n  \
             - ping: {url: 'https://hc.example/{database}'}",
        );
        assert_eq!(all[0].on, [Event::Failure]);
        assert_eq!(all[1].on, [Event::Success, Event::Drill]);
        let Channel::Email(email) = &all[1].channel else {
            panic!("{all:?}")
        };
        assert_eq!((email.tls, email.port_in_force()), (MailTls::StartTls, 587));
        let Channel::Ping(ping) = &all[2].channel else {
            panic!("{all:?}")
        };
        assert_eq!(ping.style, PingStyle::Healthchecks);
        // One entry needs no list, and none at all is nobody.
        assert_eq!(
            good("  discord: {url: 'https://discord.example/x'}").len(),
            1
        );
        assert_eq!(good("  []").len(), 0);
    }

    #[test]
    fn every_problem_is_told() {
        for (entry, expected) in [
            ("slack: {}", "`notify.slack.url` is missing"),
            (
                "{slack: {url: 'https://a.b'}, ping: {url: 'https://a.b'}}",
                "an entry of `notify` needs exactly one of",
            ),
            (
                "slak: {}",
                "`notify.slak` is not a known key; did you mean `slack`?",
            ),
            (
                "slack: {url: 'https://a.b', chanel: x}",
                "`notify.slack.chanel` is not a known key",
            ),
            (
                "slack: {url: hooks.slack.com/x}",
                "`notify.slack.url` must be an address",
            ),
            (
                "slack: {url: 'ftp://a.b/x'}",
                "`notify.slack.url` must be an address",
            ),
            (
                "slack: {url: 'https://'}",
                "`notify.slack.url` must be an address",
            ),
            (
                "slack: {url: 'https://a.b', on: [failure, sucess]}",
                "must be `failure`, `success`, `stale`, `restore` or `drill`",
            ),
            (
                "slack: {url: 'https://a.b', databases: [shpo]}",
                "`notify.slack.databases: shpo` is not a database of this file; did you mean `shop`?",
            ),
            (
                "slack: {url: 'https://a.b', on: []}",
                "`notify.slack.on` is empty",
            ),
            (
                "webhook: {url: 'https://a.b', headers: {'X Y': a}}",
                "`notify.webhook.headers.X Y` is no name of a header",
            ),
            (
                "webhook: {url: 'https://a.b', headers: {Host: a}}",
                "is set by pgkeep itself",
            ),
            (
                "email: {host: m, from: nobody, to: a@b}",
                "`notify.email.from` must be a mail address",
            ),
            (
                "email: {host: m, from: a@b, to: []}",
                "`notify.email.to` is empty",
            ),
            (
                "email: {host: m, from: a@b, to: a@b, user: x}",
                "`notify.email.user` needs `password` beside it",
            ),
            (
                "email: {host: m, from: a@b, to: a@b, password: x}",
                "`notify.email.password` needs `user` beside it",
            ),
            (
                "email: {host: m, from: a@b, to: a@b, user: x, password: x, tls: none}",
                "`notify.email.password` would be sent in the clear",
            ),
            (
                "ping: {url: 'https://hc.example/x'}",
                "`notify.ping` would be told of 2 databases",
            ),
        ] {
            let problems = parse(&file(&format!("  - {entry}")), &Nothing).unwrap_err();
            let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
            assert!(
                told.iter()
                    .any(|told| told.starts_with("line 3: ") && told.contains(expected)),
                "{entry}: {told:?}"
            );
        }
    }

    #[test]
    fn an_address_is_shown_as_its_host() {
        for (url, shown) in [
            (
                "https://u:p@hooks.example:81/T1/B2/tok?x=tok",
                "https://hooks.example:81/***",
            ),
            (
                "http://hc.example/tok/{database}?tok",
                "http://hc.example/***/{database}",
            ),
        ] {
            assert_eq!(hide(&SecretString::from(url)), shown);
            assert_eq!(hide(&SecretString::from(shown)), shown);
        }
    }
}
