//! The talk with a mail server, step by step, so that a fault names what was refused.

use std::error::Error as _;
use std::io;

use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{Certificate, CertificateStore, SmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailParameter};
use lettre::{Address, Message};

use super::{Login, MailServer, Security, Sent, Trust, is_final};
use crate::builtin::{Failed, Finality};
use crate::supervisor::procfs::host_name;

/// Gives the message to the server. What it answers to it.
///
/// Nobody gets it if one recipient is refused: a mail that has reached some would reach them again with the next try.
pub fn hand_over(server: &MailServer, message: &Message) -> Sent<String> {
    let mut talk = Talk::begin(server)?;
    let said = talk.tell(message);
    // It has been taken or not; how the server says goodbye changes nothing.
    let _ = talk.connection.quit();
    said
}

struct Talk<'a> {
    server: &'a MailServer,
    connection: SmtpConnection,
}

impl<'a> Talk<'a> {
    /// As far as the server knows who asks.
    fn begin(server: &'a MailServer) -> Sent<Self> {
        let hello = ClientId::Domain(hello_name());
        let tls = match server.security {
            Security::None => None,
            Security::Ssl | Security::Starttls => Some(parameters(server)?),
        };
        let wrapper = tls.as_ref().filter(|_| server.security == Security::Ssl);
        let address = (server.host.as_str(), server.port);
        let connection = SmtpConnection::connect(address, Some(server.timeout), &hello, wrapper, None);
        let connection = connection.map_err(|error| fault(server, Step::Connect, &error))?;
        let mut talk = Self { server, connection };
        if let Some(tls) = tls.filter(|_| server.security == Security::Starttls) {
            talk.encrypt(&tls, &hello)?;
        }
        if let Some(login) = &server.login {
            talk.log_in(login)?;
        }
        Ok(talk)
    }

    fn encrypt(&mut self, tls: &TlsParameters, hello: &ClientId) -> Sent<()> {
        let MailServer { host, port, settings, .. } = self.server;
        if !self.connection.can_starttls() {
            return Err(is_final(format!(
                "the mail server {host}:{port} offers no STARTTLS, and nothing was told to it; in {settings} take `tls = \"ssl\"` with its port for that, often 465, or `tls = \"none\"` if its network is safe"
            )));
        }
        self.connection.starttls(tls, hello).map_err(|error| fault(self.server, Step::Encrypt, &error))
    }

    fn log_in(&mut self, login: &Login) -> Sent<()> {
        let MailServer { host, port, settings, .. } = self.server;
        if self.connection.server_info().get_auth_mechanism(DEFAULT_MECHANISMS).is_none() {
            let help = match self.server.security {
                Security::None => "many offer one only after TLS: set `tls`, or leave the user out, in",
                Security::Ssl | Security::Starttls => "leave the user out if it wants none, in",
            };
            return Err(is_final(format!(
                "the mail server {host}:{port} offers no login by PLAIN or LOGIN; {help} {settings}"
            )));
        }
        let credentials = Credentials::new(login.user.clone(), login.password.clone());
        let answer = self.connection.auth(DEFAULT_MECHANISMS, &credentials);
        answer.map(drop).map_err(|error| fault(self.server, Step::LogIn(login), &error))
    }

    fn tell(&mut self, message: &Message) -> Sent<String> {
        let MailServer { host, port, .. } = self.server;
        let (from, to) = (message.envelope().from(), message.envelope().to());
        let mut options = Vec::new();
        if let Some(address) = from.into_iter().chain(to).find(|address| !AsRef::<str>::as_ref(address).is_ascii()) {
            if !self.connection.server_info().supports_feature(Extension::SmtpUtfEight) {
                return Err(is_final(format!(
                    "the mail server {host}:{port} knows no addresses such as `{address}` (SMTPUTF8); use one of letters of ASCII"
                )));
            }
            options.push(MailParameter::SmtpUtfEight);
        }
        let answer = self.connection.command(Mail::new(from.cloned(), options));
        answer.map_err(|error| fault(self.server, Step::From(from), &error))?;
        for address in to {
            let answer = self.connection.command(Rcpt::new(address.clone(), Vec::new()));
            answer.map_err(|error| fault(self.server, Step::To(address), &error))?;
        }
        self.connection.command(Data).map_err(|error| fault(self.server, Step::Content, &error))?;
        let answer = self.connection.message(&message.formatted());
        let answer = answer.map_err(|error| fault(self.server, Step::End, &error))?;
        let said: Vec<&str> = answer.message().collect();
        Ok(format!("{} {}", answer.code(), said.join(" ")))
    }
}

/// What was being done.
#[derive(Clone, Copy)]
enum Step<'a> {
    Connect,
    Encrypt,
    LogIn(&'a Login),
    From(Option<&'a Address>),
    To(&'a Address),
    Content,
    /// All of it was told, and nothing is left to come but the answer.
    End,
}

impl Step<'_> {
    /// What a server refuses, and what is to be done then.
    fn refused(self, settings: &str) -> (String, String) {
        match self {
            Self::Connect => (
                "the connection".to_owned(),
                format!("look whether this host may use it, and at the host in {settings}"),
            ),
            Self::Encrypt => ("TLS".to_owned(), format!("look at the server, or at `tls` in {settings}")),
            Self::LogIn(login) => {
                (format!("the login of `{}`", login.user), format!("correct user and password in {settings}"))
            }
            Self::From(from) => {
                let from = from.map(ToString::to_string).unwrap_or_default();
                (format!("the sender `{from}`"), format!("correct the sender, or user and password, in {settings}"))
            }
            Self::To(to) => {
                (format!("the recipient `{to}`"), "correct or leave out the address; nobody was sent it".to_owned())
            }
            Self::Content | Self::End => {
                ("the mail".to_owned(), "look at what it says, and at the size of the files".to_owned())
            }
        }
    }

    fn act(self) -> &'static str {
        match self {
            Self::Connect => "connecting",
            Self::Encrypt => "beginning TLS",
            Self::LogIn(_) => "logging in",
            Self::From(_) | Self::To(_) | Self::Content => "handing the mail over",
            Self::End => "waiting for the word that it has the mail",
        }
    }
}

fn fault(server: &MailServer, step: Step<'_>, error: &Error) -> (Failed, Finality) {
    let MailServer { host, port, settings, timeout, .. } = server;
    if let Some(code) = error.status() {
        let (what, help) = step.refused(settings);
        let said = error.source().map(ToString::to_string).unwrap_or_default();
        let said = said.replace(char::is_control, " ");
        let said = without_password(server, said.trim());
        let (help, finality) = match error.is_transient() {
            true => (format!("another try may do better; if none does, {help}"), Finality::Open),
            false => (help, Finality::Final),
        };
        return (Failed(format!("the mail server {host}:{port} refuses {what}: {code} {said}; {help}")), finality);
    }
    let act = step.act();
    let after = match step {
        Step::End => ". It may have been taken all the same",
        _ => "",
    };
    let (what, help) = match Cause::of(error) {
        Cause::Silence => {
            let hint = match (step, server.security) {
                (Step::Connect, Security::Starttls | Security::None) => {
                    ", whether its port wants `tls = \"ssl\"`, as 465 does"
                }
                _ => "",
            };
            let seconds = timeout.as_secs_f64();
            (
                format!("does not answer for {seconds} s"),
                format!("look whether it runs{hint}, or give it longer by `timeout` in {settings}"),
            )
        }
        Cause::Distrust(why) => (
            format!("is not believed: {why}"),
            format!(
                "look whether `host` is the name in its certificate; a certificate of your own is named by `verify = \"FILE.pem\"` in {settings}"
            ),
        ),
        Cause::NoTls(why) => (
            format!("speaks no TLS here: {why}"),
            format!("take `tls = \"starttls\"`, often with the port 587, in {settings}"),
        ),
        Cause::Other(why) => (
            format!("cannot be used: {why}"),
            format!("look whether it runs there, and at host, port and `tls` in {settings}"),
        ),
    };
    let what = without_password(server, &what);
    (Failed(format!("the mail server {host}:{port} {what}, while {act}{after}; {help}")), Finality::Open)
}

/// Why there was no answer that could be read.
enum Cause {
    Silence,
    /// TLS, but not of whom it should be.
    Distrust(String),
    NoTls(String),
    Other(String),
}

impl Cause {
    fn of(error: &Error) -> Self {
        let mut last = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            let io = cause.downcast_ref::<io::Error>();
            if io.is_some_and(|io| matches!(io.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)) {
                return Self::Silence;
            }
            let inner = io.and_then(io::Error::get_ref).and_then(|inner| inner.downcast_ref::<rustls::Error>());
            match inner.or_else(|| cause.downcast_ref()) {
                Some(rustls::Error::InvalidMessage(_)) => return Self::NoTls("its answer is no TLS".to_owned()),
                Some(error) => return Self::Distrust(error.to_string()),
                None => {}
            }
            last = cause.to_string();
            next = cause.source();
        }
        Self::Other(last)
    }
}

/// Servers may repeat what they were told.
fn without_password(server: &MailServer, said: &str) -> String {
    match &server.login {
        Some(login) if !login.password.is_empty() => said.replace(&login.password, crate::secrets::HIDDEN),
        _ => said.to_owned(),
    }
}

fn parameters(server: &MailServer) -> Sent<TlsParameters> {
    let MailServer { host, settings, .. } = server;
    let mut builder = TlsParameters::builder(host.clone());
    match &server.trust {
        Trust::Host => {}
        Trust::Anybody => {
            builder = builder.dangerous_accept_invalid_certs(true).dangerous_accept_invalid_hostnames(true)
        }
        Trust::File(path) => {
            let shown = path.display();
            let wrong = |why: String| {
                is_final(format!("`{shown}` holds no certificates in PEM: {why}; correct `verify` in {settings}"))
            };
            let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
            // What holds none is no fault to the parser.
            if !text.windows(17).any(|part| part == b"BEGIN CERTIFICATE") {
                return Err(wrong("there is none".to_owned()));
            }
            let certificate = Certificate::from_pem(&text).map_err(|error| wrong(error.to_string()))?;
            builder = builder.certificate_store(CertificateStore::None).add_root_certificate(certificate);
        }
    }
    builder.build_rustls().map_err(|error| {
        is_final(format!("no TLS with the mail server {host}: {error}; look at `host` in {settings}, and at the certificates that this host trusts"))
    })
}

/// This host's name, as a server is greeted with it.
fn hello_name() -> String {
    let name = host_name();
    let is_name =
        |name: &String| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c));
    Some(name).filter(is_name).unwrap_or_else(|| "localhost".to_owned())
}
