//! The meaning of `notify`: who is notified of what, by which way, and how the effective config shows it.
//!
//! An address of a webhook is a secret: anyone who has it may write there. It is shown as its host alone.

use secrecy::{ExposeSecret, SecretString};

use super::keys::Key;
use super::reader::{Field, Fields, Reader, choose};
use super::setting::{Group, Item, Setting};
use super::shown::{HIDDEN, Keys, Shown};
use super::types::{EVENTS as EVENT_NAMES, NOTIFIER, Scope};
use crate::notice::{Channel, DATABASE_MARK, EmailConfig, Event, MailTls, NotifierConfig};

pub(super) const EVENTS: [Event; 5] = [
    Event::Failure,
    Event::Success,
    Event::Stale,
    Event::Restore,
    Event::Drill,
];

impl Item for NotifierConfig {
    fn read(reader: &mut Reader, item: &Field) -> Option<Self> {
        let entry = reader.open(item)?;
        let mut given = NOTIFIER.keys.iter().filter_map(|key| entry.find(key.name));
        let (Some(way), None) = (given.next(), given.next()) else {
            let ways = "`email`, `slack`, `discord`, `webhook`, `ping`";
            let path = &item.path;
            let message = format!("an entry of `{path}` needs exactly one of {ways}");
            reader.note(item.line, message);
            return None;
        };
        let fields = reader.open(way)?;
        let channel = read_channel(reader, &fields, way.name);
        let on = match &channel {
            Channel::Ping(_) => Vec::new(),
            _ => read_events(reader, &fields),
        };
        let mut scope = Scope::unset();
        scope.read(reader, &fields);
        let notifier = Self {
            channel,
            on,
            databases: scope.databases,
            ca_certificate: scope.ca_certificate,
        };
        check_one_database(reader, &fields, &notifier);
        Some(notifier)
    }

    /// Shows an entry without its secrets; what is shown reads back.
    fn show(&self) -> Shown {
        let mut keys = match self.channel.clone() {
            Channel::Email(mut email) => {
                email.port = Some(email.port_in_force());
                email.shown()
            }
            Channel::Slack(hook) | Channel::Discord(hook) => hook.shown(),
            Channel::Webhook(webhook) => webhook.shown(),
            Channel::Ping(ping) => ping.shown(),
        };
        keys.put_list("on", &self.on, |event| event.as_str().to_owned().into());
        Scope {
            databases: self.databases.clone(),
            ca_certificate: self.ca_certificate.clone(),
        }
        .put(&mut keys);
        let mut entry = Keys::default();
        entry.put(self.kind(), keys);
        entry.into()
    }
}

fn read_channel(reader: &mut Reader, fields: &Fields, way: &str) -> Channel {
    match way {
        "email" => Channel::Email(read_email(reader, fields)),
        "slack" => Channel::Slack(Group::read_new(reader, fields)),
        "discord" => Channel::Discord(Group::read_new(reader, fields)),
        "webhook" => Channel::Webhook(Group::read_new(reader, fields)),
        _ => Channel::Ping(Group::read_new(reader, fields)),
    }
}

/// Reads what is reported: failures where nothing is said.
fn read_events(reader: &mut Reader, fields: &Fields) -> Vec<Event> {
    let Some(field) = fields.find("on") else {
        return vec![Event::Failure];
    };
    reader.refuse_empty(field, "is empty");
    let names = reader.list(field, |reader, item| {
        reader.value(item, |text| choose(text, EVENT_NAMES, |name| name))
    });
    let is_chosen = |event: &Event| names.iter().flatten().any(|name| *name == event.as_str());
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
        let why = format!(
            "would report on {count} databases, and a good backup of one hides that another failed; name one in \
             `databases`, or put `{DATABASE_MARK}` into the url"
        );
        reader.refuse(&fields.here, why);
    }
}

impl Setting for Vec<(String, SecretString)> {
    fn unset(_: &Key) -> Self {
        Self::new()
    }

    fn read(reader: &mut Reader, fields: &Fields, name: &str) -> Option<Self> {
        Some(read_headers(reader, fields.find(name)?))
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
    let mut headers = Vec::new();
    for entry in reader.entries(field).unwrap_or_default() {
        if let Err(why) = check_header_name(entry.name) {
            reader.refuse(&entry, why);
        }
        let value = reader.value(&entry, |text| {
            if text.bytes().all(|b| matches!(b, b' '..=b'~')) {
                Ok(SecretString::from(text.to_owned()))
            } else {
                Err("must have only ordinary characters".to_owned())
            }
        });
        headers.extend(value.map(|value| (entry.name.to_owned(), value)));
    }
    headers
}

fn check_header_name(name: &str) -> Result<(), &'static str> {
    let is_part = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let own = ["content-type", "content-length", "host"];
    if name.is_empty() || !name.bytes().all(is_part) {
        return Err("is not the name of a header");
    }
    let name = name.to_ascii_lowercase();
    if own.contains(&name.as_str()) || name.starts_with("pgkeep-") {
        return Err("is set by pgkeep itself");
    }
    Ok(())
}

fn read_email(reader: &mut Reader, fields: &Fields) -> EmailConfig {
    let email = EmailConfig::read_new(reader, fields);
    let no_mailbox = "must be a mail address such as `ops@example.com` or `Ops <ops@example.com>`";
    if !email.from.is_empty() && !is_mailbox(&email.from) {
        reader.refuse_key(fields, "from", no_mailbox);
    }
    if let Some(field) = fields.find("to") {
        reader.refuse_empty(field, "is empty");
        if !email.to.iter().all(|text| is_mailbox(text)) {
            reader.refuse(field, no_mailbox);
        }
    }
    check_login(reader, fields, &email);
    email
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
    match (fields.find("user"), password) {
        (Some(user), None) => {
            reader.refuse(user, "needs `password` as well");
        }
        (None, Some(password)) => {
            reader.refuse(password, "needs `user` as well");
        }
        _ => {}
    }
    let is_here = matches!(email.host.as_str(), "" | "localhost" | "127.0.0.1" | "::1");
    if let (Some(password), MailTls::None, false) = (password, email.tls, is_here) {
        let why = "would be sent unencrypted; use `tls: starttls` or `tls: implicit`";
        reader.refuse(password, why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::url::hide;
    use crate::config::{NoEnv, parse};
    use crate::notice::PingStyle;

    /// A file with two databases and these entries, the first of which is line 3.
    fn file(entries: &str) -> String {
        format!(
            "databases: {{shop: {{url: 'postgres://h/shop'}}, crm: {{url: 'postgres://h/crm'}}}}\n\
             notify:\n{entries}\nstorages: {{local: {{url: ./b}}}}\n"
        )
    }

    fn good(entries: &str) -> Vec<NotifierConfig> {
        let parsed = parse(&file(entries), &NoEnv);
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
                "`notify.webhook.headers.X Y` is not the name of a header",
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
                "`notify.email.user` needs `password` as well",
            ),
            (
                "email: {host: m, from: a@b, to: a@b, password: x}",
                "`notify.email.password` needs `user` as well",
            ),
            (
                "email: {host: m, from: a@b, to: a@b, user: x, password: x, tls: none}",
                "`notify.email.password` would be sent unencrypted",
            ),
            (
                "ping: {url: 'https://hc.example/x'}",
                "`notify.ping` would report on 2 databases",
            ),
        ] {
            let problems = parse(&file(&format!("  - {entry}")), &NoEnv).unwrap_err();
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
