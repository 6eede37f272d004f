//! Notices by e-mail, over a real mail server: TLS, login, refusals, and that the mail reads back.

use serde_json::{Value, json};

use super::{Told, backup_of};
use crate::support::CANARY;
use crate::support::mail::MailServer;
use crate::support::secret::assert_absent;

/// An entry for a server; `more` replaces its keys.
fn email(server: &MailServer, more: &Value) -> Value {
    let mut email = json!({
        "host": "localhost",
        "port": server.port,
        "from": "pgkeep <backup@example.com>",
        "to": ["ops@example.com", "Öps <more@example.com>"],
        "on": ["failure", "success"],
        "ca_certificate": server.authority(),
    });
    for (key, value) in more.as_object().unwrap() {
        email[key] = value.clone();
    }
    json!([{ "email": email }])
}

const LOGIN: &str = "${CANARY}";

#[test]
fn a_mail_reads_back_over_starttls_with_login() {
    let Some(server) = MailServer::start("starttls", true, &[]) else {
        return;
    };
    let mut told = Told::new(&email(&server, &json!({"user": "app", "password": LOGIN})));
    told.backup().run().expect(0);
    told.may_print_secret();
    let words = format!("pg_dump: error: wörds \u{1f525} <b>{CANARY}</b>\r\nBcc: x@example.com");
    told.shop
        .dumps(json!({ "exit_code": 1, "last_stderr": words }));
    told.backup().run().expect(20);

    let mails = server.mails();
    let [good, bad] = mails.as_slice() else {
        panic!("{mails:#?}")
    };
    assert!(
        good["subject"]
            .as_str()
            .unwrap()
            .starts_with("pgkeep: shop: backup good: ")
    );
    for mail in &mails {
        assert_absent(CANARY, "a mail", mail.to_string().as_bytes());
        assert_eq!(
            (&mail["is_tls"], &mail["user"]),
            (&json!(true), &json!("app"))
        );
        assert_eq!(mail["defects"], json!([]));
        assert_eq!(mail["mail_from"], "backup@example.com");
        assert_eq!(
            mail["rcpt_tos"],
            json!(["ops@example.com", "more@example.com"])
        );
        assert_eq!(mail["to"], "ops@example.com, Öps <more@example.com>");
        let names: Vec<&str> = mail["headers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pair| pair[0].as_str().unwrap())
            .collect();
        assert!(
            names.contains(&"Auto-Submitted") && names.contains(&"Date"),
            "{names:?}"
        );
        assert!(!names.contains(&"Bcc"), "{names:?}");
    }
    let text = bad["text"].as_str().unwrap();
    assert!(text.contains("wörds \u{1f525} <b>***</b>"), "{text}");
    assert!(text.contains("nothing was stored"), "{text}");
    let html = bad["html"].as_str().unwrap();
    assert!(
        html.contains("wörds \u{1f525} &lt;b&gt;***&lt;/b&gt;"),
        "{html}"
    );
}

#[test]
fn a_mail_goes_over_tls_from_the_first_byte_and_over_none() {
    for tls in ["implicit", "none"] {
        let Some(server) = MailServer::start(tls, false, &["451 come back", "250 taken"]) else {
            return;
        };
        // The first answer asks to come back later.
        let told = Told::new(&email(&server, &json!({"tls": tls})));
        told.backup().run().expect(0);
        let mails = server.mails();
        assert_eq!(mails.len(), 1, "{tls}: {mails:#?}");
        assert_eq!(mails[0]["is_tls"], tls == "implicit");
    }
}

/// Whatever the server says, the backup is good; and neither login nor mail goes where it must not.
#[test]
fn l12_a_mail_server_that_refuses_is_a_warning() {
    let login = json!({"user": "app", "password": LOGIN});
    let wrong = json!({"user": "app", "password": "not the one"});
    let untrusted = json!({"user": "app", "password": LOGIN, "ca_certificate": null});
    for (tls, has_login, answers, keys, words) in [
        (
            "starttls",
            true,
            &["550 no such user"] as &[&str],
            &login,
            "no such user",
        ),
        (
            "starttls",
            true,
            &["451 later", "451 later"],
            &login,
            "later",
        ),
        (
            "starttls",
            true,
            &[],
            &wrong,
            "mail server refused: permanent error (535)",
        ),
        ("starttls", true, &[], &untrusted, "certificate"),
        ("none", true, &[], &login, "STARTTLS"),
        (
            "none",
            false,
            &["hang"],
            &json!({"tls": "none"}),
            "did not answer",
        ),
    ] {
        let Some(server) = MailServer::start(tls, has_login, answers) else {
            return;
        };
        let mut notify = email(&server, keys);
        if keys.get("ca_certificate").is_some() {
            notify[0]["email"]
                .as_object_mut()
                .unwrap()
                .remove("ca_certificate");
        }
        let told = Told::new(&notify);
        let outcome = told.backup().run().expect(3);
        assert_eq!(outcome.exit_error()["id"], "notice_failed");
        let error = backup_of(&outcome)["notices"][0]["error"]
            .clone()
            .as_str()
            .unwrap()
            .to_lowercase();
        assert!(
            error.contains(&words.to_lowercase()),
            "{tls} {answers:?}: {error}"
        );
        assert_eq!(server.mails(), Vec::<Value>::new());
    }
}

/// One address that is no more keeps the mail from nobody else, and is told.
#[test]
fn l12_a_recipient_that_is_refused_is_told_and_the_others_have_the_mail() {
    const OPS: &str = "ops@example.com";
    const MORE: &str = "more@example.com";
    for (answers, has_mail, refused) in [
        (
            &["more@example.com=550 gone"] as &[&str],
            &[OPS] as &[&str],
            &[MORE] as &[&str],
        ),
        (&["ops@example.com=550 gone"], &[MORE], &[OPS]),
        (
            &["more@example.com=451 later", "more@example.com=550 gone"],
            &[OPS],
            &[MORE],
        ),
        (
            &["more@example.com=550 gone", "ops@example.com=550 gone"],
            &[],
            &[MORE, OPS],
        ),
    ] {
        let Some(server) = MailServer::start("none", false, answers) else {
            return;
        };
        let told = Told::new(&email(&server, &json!({"tls": "none"})));
        let outcome = told.backup().run().expect(3);
        let failure = outcome.exit_error();
        assert_eq!(failure["id"], "notice_failed");
        let notice = backup_of(&outcome)["notices"][0].clone();
        assert_eq!(notice["delivered"], !has_mail.is_empty(), "{notice}");
        for text in [&notice["error"], &failure["message"]] {
            let text = text.as_str().unwrap();
            assert!(text.contains("(550): gone"), "{text}");
            for (to, is_told) in [OPS, MORE].map(|to| (to, refused.contains(&to))) {
                assert_eq!(text.contains(&format!("`{to}`: ")), is_told, "{text}");
            }
        }
        let mails = server.mails();
        let to: Vec<&Value> = mails.iter().map(|mail| &mail["rcpt_tos"]).collect();
        let wanted = json!(has_mail);
        assert_eq!(
            to,
            Vec::from_iter((!has_mail.is_empty()).then_some(&wanted))
        );
    }
}

#[test]
fn a_recipient_that_is_taken_later_is_asked_for_once_more() {
    let answers = ["more@example.com=451 later"];
    let Some(server) = MailServer::start("none", false, &answers) else {
        return;
    };
    let told = Told::new(&email(&server, &json!({"tls": "none"})));
    let outcome = told.backup().run().expect(0);
    assert_eq!(backup_of(&outcome)["notices"][0]["error"], json!(null));
    let mails = server.mails();
    let to: Vec<&Value> = mails.iter().map(|mail| &mail["rcpt_tos"]).collect();
    assert_eq!(
        to,
        [&json!(["ops@example.com"]), &json!(["more@example.com"])]
    );
}

/// Behind 421 the server hangs up, so the mail is tried again for everybody.
#[test]
fn a_server_that_hangs_up_for_now_is_asked_once_more() {
    let Some(server) = MailServer::start("none", false, &["ops@example.com=421 later"]) else {
        return;
    };
    let told = Told::new(&email(&server, &json!({"tls": "none"})));
    let outcome = told.backup().run().expect(0);
    assert_eq!(backup_of(&outcome)["notices"][0]["error"], json!(null));
    let mails = server.mails();
    let to: Vec<&Value> = mails.iter().map(|mail| &mail["rcpt_tos"]).collect();
    assert_eq!(to, [&json!(["ops@example.com", "more@example.com"])]);
}
