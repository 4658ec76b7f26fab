use super::*;

#[path = "../../../tests/minflow/smtp.rs"]
mod server;

use server::{Manner, fixtures, serve};

fn task(port: u16) -> EmailTask {
    EmailTask {
        server: MailServer {
            settings: "`[smtp]`".to_owned(),
            host: "localhost".to_owned(),
            port,
            security: Security::None,
            trust: Trust::File(fixtures().join("certificate.pem")),
            login: None,
            timeout: Duration::from_secs(30),
        },
        from: "minflow <minflow@example.com>".to_owned(),
        to: "ann@example.com".to_owned(),
        cc: String::new(),
        bcc: String::new(),
        subject: "done".to_owned(),
        body: Some("all is well".to_owned()),
        html: None,
        files: Vec::new(),
        verdict: PathBuf::from("/dev/null"),
    }
}

fn with_server(port: u16, change: impl FnOnce(&mut MailServer)) -> EmailTask {
    let mut task = task(port);
    change(&mut task.server);
    task
}

fn login() -> Option<Login> {
    Some(Login { user: "ann".to_owned(), password: "s3cretpassword".to_owned() })
}

/// What it says of its failure, with the server's port as PORT.
fn refused(task: &EmailTask) -> (String, Finality) {
    let (failed, finality) = send(task).unwrap_err();
    (failed.0.replace(&format!(":{}", task.server.port), ":PORT"), finality)
}

#[test]
fn a_mail_reaches_all_it_is_for_and_shows_the_hidden_ones_to_nobody() {
    let (port, mails) = serve(Manner::default());
    let task = EmailTask {
        to: "ann@example.com; \"Doe, John\" <john@example.com>,".to_owned(),
        cc: "cc@example.com\n".to_owned(),
        bcc: "hidden@example.com".to_owned(),
        body: Some("first\n.dot\nGrüße".to_owned()),
        ..task(port)
    };
    send(&task).unwrap();
    let mail = mails.recv().unwrap();
    assert_eq!(mail.from, "minflow@example.com");
    assert_eq!(mail.to, ["ann@example.com", "john@example.com", "cc@example.com", "hidden@example.com"]);
    let (head, body) = mail.content.split_once("\n\n").unwrap();
    assert!(!mail.content.contains("hidden@example.com"), "{}", mail.content);
    assert!(head.contains("\nTo: ann@example.com, =?utf-8?b?RG9lLCBKb2hu?= <john@example.com>\n"), "{head}");
    assert!(head.contains("\nSubject: done") && head.contains("@example.com>\n"), "{head}");
    assert_eq!(body.trim_end(), "first\n.dot\nGr=C3=BC=C3=9Fe");
}

#[test]
fn a_template_cannot_add_a_header_or_a_recipient() {
    let (port, mails) = serve(Manner::default());
    let subject = "failed:\r\nBcc: evil@example.com\n\nbody".to_owned();
    send(&EmailTask { subject, ..task(port) }).unwrap();
    let mail = mails.recv().unwrap();
    assert_eq!(mail.to, ["ann@example.com"]);
    assert!(mail.content.contains("Subject: failed: Bcc: evil@example.com body\n"), "{}", mail.content);
    assert!(!mail.content.contains("\nBcc:"), "{}", mail.content);
    for to in [
        "ann@example.com\r\nBcc: evil@example.com",
        "\"a\nBcc: x\" <ann@example.com>",
        "ann",
        "a@b c@d",
        "Ann <ann@example.com",
    ] {
        let (message, finality) = refused(&EmailTask { to: to.to_owned(), ..task(port) });
        assert!(message.contains("is no address; write for example") && !message.contains('\n'), "{message}");
        assert_eq!(finality, Finality::Final);
    }
    let (message, _) = refused(&EmailTask { to: " , ".to_owned(), ..task(port) });
    assert!(message.starts_with("nobody is named"), "{message}");
    assert!(mails.try_recv().is_err(), "none of these was sent");
}

#[test]
fn files_and_both_forms_of_a_text_are_parts_of_one_mail() {
    let (port, mails) = serve(Manner::default());
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &[u8]| {
        std::fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name)
    };
    let files = vec![file("report.CSV", b"a,b\n"), file("odd \"name\".bin", &[0, 159, 146])];
    send(&EmailTask { html: Some("<b>all is well</b>".to_owned()), files, ..task(port) }).unwrap();
    let content = mails.recv().unwrap().content;
    for part in [
        "multipart/mixed",
        "multipart/alternative",
        "text/plain",
        "text/html",
        "text/csv",
        "filename=\"report.CSV\"",
        "filename=\"odd _name_.bin\"",
        "AJ+S",
    ] {
        assert!(content.contains(part), "{part}\n{content}");
    }
}

#[test]
fn what_cannot_be_attached_is_named_and_nothing_is_sent() {
    let (port, mails) = serve(Manner::default());
    let folder = tempfile::tempdir().unwrap();
    let large = folder.path().join("large");
    File::create(&large).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
    let cases = [
        (folder.path().join("none"), "cannot be attached: No such file", Finality::Open),
        (folder.path().to_owned(), "is no file that can be attached", Finality::Final),
        (PathBuf::from("/dev/zero"), "is no file that can be attached", Finality::Final),
        (large, "more than 25 MiB would be attached", Finality::Final),
    ];
    for (path, words, expected) in cases {
        let (message, finality) = refused(&EmailTask { files: vec![path.clone()], ..task(port) });
        assert!(message.contains(words) && message.contains(path.to_str().unwrap()), "{message}");
        assert_eq!(finality, expected, "{message}");
    }
    assert!(mails.try_recv().is_err());
}

#[test]
fn tls_and_both_kinds_of_login_are_spoken() {
    let plain = Some(("PLAIN", &["AGFubgBzM2NyZXRwYXNzd29yZA=="][..]));
    let two = Some(("LOGIN", &["YW5u", "czNjcmV0cGFzc3dvcmQ="][..]));
    for (security, login_of) in [(Security::Starttls, plain), (Security::Starttls, two), (Security::Ssl, plain)] {
        let manner = Manner {
            offers_starttls: security == Security::Starttls,
            is_wrapped: security == Security::Ssl,
            login: login_of,
            ..Manner::default()
        };
        let (port, mails) = serve(manner);
        send(&with_server(port, |server| (server.security, server.login) = (security, login()))).unwrap();
        assert!(mails.recv().unwrap().was_encrypted, "{security:?}");
    }
}

#[test]
fn what_a_server_refuses_is_named_with_its_words_and_a_remedy() {
    type Answers = &'static [(&'static str, &'static str)];
    let cases: [(Answers, &str, Finality); 7] = [
        (
            &[("RCPT TO:<bob@", "550 5.1.1 no such user")],
            "the mail server localhost:PORT refuses the recipient `bob@example.com`: 550 5.1.1 no such user; correct or leave out the address; nobody was sent it",
            Finality::Final,
        ),
        (
            &[("RCPT TO:<bob@", "451 4.7.1 come back later")],
            "the mail server localhost:PORT refuses the recipient `bob@example.com`: 451 4.7.1 come back later; another try may do better; if none does, correct or leave out the address; nobody was sent it",
            Finality::Open,
        ),
        (
            &[("MAIL FROM:", "553 not yours")],
            "the mail server localhost:PORT refuses the sender `minflow@example.com`: 553 not yours; correct the sender, or user and password, in `[smtp]`",
            Finality::Final,
        ),
        (
            &[("AUTH", "535 5.7.8 not s3cretpassword")],
            "the mail server localhost:PORT refuses the login of `ann`: 535 5.7.8 not ***; correct user and password in `[smtp]`",
            Finality::Final,
        ),
        (
            &[("EHLO", "554 5.7.1 you are on a list")],
            "the mail server localhost:PORT refuses the connection: 554 5.7.1 you are on a list; look whether this host may use it, and at the host in `[smtp]`",
            Finality::Final,
        ),
        (
            &[("DATA", "552 5.3.4 too large")],
            "the mail server localhost:PORT refuses the mail: 552 5.3.4 too large; look at what it says, and at the size of the files",
            Finality::Final,
        ),
        (&[("DATA", "this is no answer of SMTP")], "the mail server localhost:PORT cannot be used: ", Finality::Open),
    ];
    for (refuses, expected, finality) in cases {
        let expected_login = Some(("PLAIN", &["AGFubgBzM2NyZXRwYXNzd29yZA=="][..]));
        let (port, mails) = serve(Manner { refuses, login: expected_login, ..Manner::default() });
        let task = with_server(port, |server| server.login = login());
        let (message, found) = refused(&EmailTask { cc: "bob@example.com".to_owned(), ..task });
        assert!(message.starts_with(expected), "{message}");
        assert_eq!(found, finality, "{message}");
        assert!(mails.try_recv().is_err(), "{message}");
    }
}

#[test]
fn no_password_is_told_to_a_server_that_does_not_do_what_was_asked() {
    let (port, _mails) = serve(Manner::default());
    let (message, finality) = refused(&with_server(port, |server| server.security = Security::Starttls));
    assert!(message.contains("offers no STARTTLS, and nothing was told to it; in `[smtp]` take"), "{message}");
    assert_eq!(finality, Finality::Final);
    let (message, _) = refused(&with_server(port, |server| server.login = login()));
    assert!(message.contains("offers no login by PLAIN or LOGIN; many offer one only after TLS"), "{message}");
    let (message, _) = refused(&with_server(port, |server| server.security = Security::Ssl));
    assert!(message.contains("speaks no TLS here") && message.contains("take `tls = \"starttls\"`"), "{message}");
}

#[test]
fn a_server_whose_certificate_is_not_trusted_is_told_nothing() {
    let (port, mails) = serve(Manner { is_wrapped: true, ..Manner::default() });
    let (starttls, more) = serve(Manner { offers_starttls: true, ..Manner::default() });
    let cases = [
        (port, Security::Ssl, "localhost", Trust::Host),
        (starttls, Security::Starttls, "localhost", Trust::Host),
        (port, Security::Ssl, "127.0.0.1", Trust::File(fixtures().join("certificate.pem"))),
    ];
    for (port, security, host, trust) in cases {
        let task = with_server(port, |server| {
            (server.security, server.trust, server.host) = (security, trust, host.to_owned());
        });
        let (message, _) = refused(&task);
        assert!(message.contains("is not believed: invalid peer certificate"), "{message}");
        assert!(
            message.contains("a certificate of your own is named by `verify = \"FILE.pem\"` in `[smtp]`"),
            "{message}"
        );
    }
    let anybody = with_server(port, |server| {
        (server.security, server.trust, server.host) = (Security::Ssl, Trust::Anybody, "127.0.0.1".to_owned());
    });
    send(&anybody).unwrap();
    assert!(mails.recv().unwrap().was_encrypted && mails.try_recv().is_err() && more.try_recv().is_err());
    let (message, _) = refused(&with_server(port, |server| {
        (server.security, server.trust) = (Security::Ssl, Trust::File(fixtures().join("README.md")));
    }));
    assert!(message.contains("README.md` holds no certificates in PEM"), "{message}");
}

#[test]
fn a_server_that_says_nothing_is_waited_for_no_longer_than_the_timeout() {
    let cases = [
        ("", "while connecting; look whether it runs, whether its port wants"),
        ("RCPT", "while handing"),
        (".", "It may have been taken all the same; "),
    ];
    for (after, words) in cases {
        let (port, _mails) = serve(Manner { is_silent_after: Some(after), ..Manner::default() });
        let (message, finality) = refused(&with_server(port, |server| server.timeout = Duration::from_millis(200)));
        assert!(message.contains("does not answer for 0.2 s") && message.contains(words), "{message}");
        assert_eq!(finality, Finality::Open);
    }
    let (port, _mails) = serve(Manner { trickles: true, ..Manner::default() });
    let EmailTask { server, .. } = task(port);
    let (failed, finality) = within(&server, message(&task(port)).unwrap(), Duration::from_millis(300)).unwrap_err();
    assert!(failed.0.contains("has not come to an end within 0.3 s, though it goes on answering"), "{failed}");
    assert_eq!(finality, Finality::Open);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (message, finality) = refused(&task(port));
    assert!(message.contains("cannot be used: ") && message.contains("Connection refused"), "{message}");
    assert_eq!(finality, Finality::Open);
}
