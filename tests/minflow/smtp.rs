//! A mail server on loopback for tests: speaks SMTP, with STARTTLS or TLS from the first byte by the certificate of the fixtures, wants
//! a login if it has one, and refuses what it is told to.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What a server is like.
#[derive(Clone, Default)]
pub struct Manner {
    pub offers_starttls: bool,
    /// TLS from the first byte.
    pub is_wrapped: bool,
    /// The mechanism of the login that must come, `PLAIN` or `LOGIN`, and what each of its answers holds in base64.
    pub login: Option<(&'static str, &'static [&'static str])>,
    /// Commands that begin so, or of which a part is so, are answered by the text.
    pub refuses: &'static [(&'static str, &'static str)],
    /// Nothing is said after a command that begins so; of "" nothing at all.
    pub is_silent_after: Option<&'static str>,
    /// Its first answer has no end.
    pub trickles: bool,
}

/// One mail, as it came.
#[derive(Clone, Debug, Default)]
pub struct Mail {
    pub from: String,
    pub to: Vec<String>,
    pub content: String,
    pub was_encrypted: bool,
}

/// The folder of certificate and key.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls")
}

/// Serves one connection after the other for as long as the test runs. The port, and the mails that it has taken.
pub fn serve(manner: Manner) -> (u16, Receiver<Mail>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (heard, mails) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (manner, heard) = (manner.clone(), heard.clone());
            // One that is left silent must not keep others waiting.
            std::thread::spawn(move || talk(stream.unwrap(), &manner, &heard));
        }
    });
    (port, mails)
}

pub trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// The server's side of TLS, by the certificate of the fixtures.
pub fn encrypted(stream: impl Stream + 'static) -> Box<dyn Stream> {
    let folder = fixtures();
    let chain = CertificateDer::pem_file_iter(folder.join("certificate.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
    Box::new(StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), stream))
}

/// A line without its end; None at the end of the talk.
fn line(stream: &mut dyn Stream) -> Option<String> {
    let mut text = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).ok()? == 1 {
        if byte[0] == b'\n' {
            return Some(String::from_utf8(text).unwrap().trim_end_matches('\r').to_owned());
        }
        text.push(byte[0]);
    }
    None
}

/// Until the client has gone, or is not answered any longer.
fn talk(raw: TcpStream, manner: &Manner, heard: &Sender<Mail>) -> Option<()> {
    let mut is_encrypted = manner.is_wrapped;
    let plain = raw.try_clone().unwrap();
    let mut stream: Box<dyn Stream> = if is_encrypted { encrypted(raw.try_clone().unwrap()) } else { Box::new(plain) };
    let mut is_known = manner.login.is_none();
    let mut mail = Mail::default();
    if manner.is_silent_after == Some("") {
        return hold(&mut *stream);
    }
    if manner.trickles {
        return trickle(&mut *stream);
    }
    say(&mut *stream, "220 localhost ready")?;
    loop {
        let command = line(&mut *stream)?;
        let upper = command.to_uppercase();
        if manner.is_silent_after.is_some_and(|after| upper.starts_with(after)) {
            return hold(&mut *stream);
        }
        let refusal = manner.refuses.iter().find(|(part, _)| command.contains(part));
        if let Some((_, answer)) = refusal {
            say(&mut *stream, answer)?;
        } else if upper.starts_with("EHLO") {
            let mut lines = vec!["localhost".to_owned()];
            lines.extend((manner.offers_starttls && !is_encrypted).then(|| "STARTTLS".to_owned()));
            lines.extend(manner.login.map(|(mechanism, _)| format!("AUTH {mechanism}")));
            let last = lines.len() - 1;
            for (at, text) in lines.iter().enumerate() {
                say(&mut *stream, &format!("250{}{text}", if at == last { ' ' } else { '-' }))?;
            }
        } else if upper == "STARTTLS" {
            say(&mut *stream, "220 go on")?;
            stream = encrypted(raw.try_clone().unwrap());
            is_encrypted = true;
        } else if upper.starts_with("AUTH") {
            is_known = log_in(&mut *stream, manner, &command)?;
            say(&mut *stream, if is_known { "235 welcome" } else { "535 5.7.8 who are you" })?;
        } else if !is_known {
            say(&mut *stream, "530 5.7.0 log in first")?;
        } else if upper.starts_with("MAIL FROM:") {
            mail = Mail { from: inside(&command), was_encrypted: is_encrypted, ..Mail::default() };
            say(&mut *stream, "250 ok")?;
        } else if upper.starts_with("RCPT TO:") {
            mail.to.push(inside(&command));
            say(&mut *stream, "250 ok")?;
        } else if upper == "DATA" {
            say(&mut *stream, "354 go on")?;
            loop {
                let next = line(&mut *stream)?;
                if next == "." {
                    break;
                }
                mail.content += next.strip_prefix('.').unwrap_or(&next);
                mail.content.push('\n');
            }
            if manner.is_silent_after == Some(".") {
                return hold(&mut *stream);
            }
            heard.send(std::mem::take(&mut mail)).ok()?;
            say(&mut *stream, "250 2.0.0 queued as 4711")?;
        } else if upper == "QUIT" {
            say(&mut *stream, "221 bye")?;
            return None;
        } else {
            say(&mut *stream, "500 what")?;
        }
    }
}

fn say(stream: &mut dyn Stream, text: &str) -> Option<()> {
    stream.write_all(format!("{text}\r\n").as_bytes()).ok()?;
    stream.flush().ok()
}

/// Answers without an end, until the client has had enough.
fn trickle(stream: &mut dyn Stream) -> Option<()> {
    loop {
        say(stream, "220-wait")?;
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Reads and says nothing until the client has had enough.
fn hold(stream: &mut dyn Stream) -> Option<()> {
    std::io::copy(stream, &mut std::io::sink()).ok().map(drop)
}

/// Whether each answer is the one that it should be.
fn log_in(stream: &mut dyn Stream, manner: &Manner, command: &str) -> Option<bool> {
    let (mechanism, expected) = manner.login?;
    if mechanism == "PLAIN" {
        return Some(command == format!("AUTH PLAIN {}", expected[0]));
    }
    let mut is_right = true;
    for (question, expected) in ["VXNlcm5hbWU6", "UGFzc3dvcmQ6"].iter().zip(expected) {
        say(stream, &format!("334 {question}"))?;
        is_right &= line(stream)? == *expected;
    }
    Some(is_right)
}

fn inside(command: &str) -> String {
    let start = command.find('<').unwrap() + 1;
    command[start..command.find('>').unwrap()].to_owned()
}
