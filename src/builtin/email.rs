//! The `email` operator: makes one message and gives it to a server.
//!
//! Knows addresses, bodies and attachments; how a server is talked to stands in [`smtp`]. All has been rendered and looked up before.

mod smtp;

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lettre::Message;
use lettre::message::header::ContentType;
use lettre::message::{Attachment, Mailbox, MultiPart, SinglePart};
use serde::{Deserialize, Serialize};

use super::http::Trust;
use super::{Failed, Finality, Verdict};

/// What to send; all of it is rendered.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct EmailTask {
    pub server: MailServer,
    /// One address, with a name or without.
    pub from: String,
    /// Addresses with commas, semicolons or line breaks between them; so the next two.
    pub to: String,
    pub cc: String,
    pub bcc: String,
    pub subject: String,
    pub body: Option<String>,
    pub html: Option<String>,
    /// What is attached. Absolute.
    pub files: Vec<PathBuf>,
    /// Where the reason of a failure goes.
    pub verdict: PathBuf,
}

impl fmt::Debug for EmailTask {
    // The server's password stays out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmailTask").field("to", &self.to).field("subject", &self.subject).finish_non_exhaustive()
    }
}

/// Who takes it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct MailServer {
    /// Where its settings are, as a remedy names it.
    pub settings: String,
    pub host: String,
    pub port: u16,
    pub security: Security,
    pub trust: Trust,
    pub login: Option<Login>,
    /// For the connection, and for each answer; all of it may take [`WHOLE`] times as long.
    pub timeout: Duration,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Login {
    pub user: String,
    pub password: String,
}

/// How the talk is kept from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Security {
    /// TLS from the first byte.
    Ssl,
    /// TLS before anything is told.
    Starttls,
    None,
}

impl Security {
    /// As settings write it.
    pub const NAMES: &'static [&'static str] = &["starttls", "ssl", "none"];

    pub fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Starttls, Self::Ssl, Self::None];
        all.into_iter().zip(Self::NAMES).find(|(_, known)| **known == name).map(|(security, _)| security)
    }
}

/// The most bytes that are attached: few servers take more.
const MAX_FILE_BYTES: u64 = 25 << 20;
/// What the ends of names say of what is in a file; others are sent as bytes.
const CONTENT: [(&str, &str); 13] = [
    ("csv", "text/csv; charset=utf-8"),
    ("gif", "image/gif"),
    ("gz", "application/gzip"),
    ("html", "text/html; charset=utf-8"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("json", "application/json"),
    ("log", "text/plain; charset=utf-8"),
    ("md", "text/plain; charset=utf-8"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("txt", "text/plain; charset=utf-8"),
    ("zip", "application/zip"),
];

/// All of a talk may take so many times as long as one answer: a server that says a little of each in time could hold a task for ever.
const WHOLE: u32 = 20;

type Sent<T> = Result<T, (Failed, Finality)>;

/// Sends it.
///
/// # Errors
/// An address or a file is wrong, or the server cannot be reached, is not believed, or refuses.
pub fn run(task: &EmailTask) -> Result<(), Failed> {
    let sent = send(task);
    if let Err((failed, finality)) = &sent {
        Verdict::failed(failed.0.clone(), *finality).leave(&task.verdict)?;
    }
    sent.map_err(|(failed, _)| failed)
}

fn send(task: &EmailTask) -> Sent<()> {
    let message = message(task)?;
    let MailServer { host, port, .. } = &task.server;
    let to: Vec<&str> = message.envelope().to().iter().map(AsRef::as_ref).collect();
    println!("to {} by {host}:{port}", to.join(", "));
    let said = within(&task.server, message, task.server.timeout.saturating_mul(WHOLE))?;
    println!("the server has taken it: {said}");
    Ok(())
}

/// Gives the message to the server, unless all of it takes longer than `limit`: then the talk is left, and ends with the process.
fn within(server: &MailServer, message: Message, limit: Duration) -> Sent<String> {
    let (tell, told) = mpsc::channel();
    let talked = server.clone();
    std::thread::spawn(move || tell.send(smtp::hand_over(&talked, &message)));
    told.recv_timeout(limit).unwrap_or_else(|_| {
        let MailServer { host, port, settings, .. } = server;
        let message = format!(
            "the mail server {host}:{port} has not come to an end within {} s, though it goes on answering. It may have taken the mail all the same; look at the server, or give it longer by `timeout` in {settings}",
            limit.as_secs_f64()
        );
        Err((Failed(message), Finality::Open))
    })
}

fn is_final(message: String) -> (Failed, Finality) {
    (Failed(message), Finality::Final)
}

fn message(task: &EmailTask) -> Sent<Message> {
    let from = match &addresses("mail_from", &task.from)?[..] {
        [from] => from.clone(),
        _ => {
            let settings = &task.server.settings;
            return Err(is_final(format!("`{}` is not one sender; correct it in {settings}", task.from.trim())));
        }
    };
    let id = message_id(&from);
    let mut builder = Message::builder().date_now().message_id(Some(id)).from(from);
    let mut count = 0;
    for (key, list) in [("to", &task.to), ("cc", &task.cc), ("bcc", &task.bcc)] {
        for mailbox in addresses(key, list)? {
            count += 1;
            builder = match key {
                "to" => builder.to(mailbox),
                "cc" => builder.cc(mailbox),
                _ => builder.bcc(mailbox),
            };
        }
    }
    if count == 0 {
        return Err(is_final(
            "nobody is named whom it goes to: `to`, `cc` and `bcc` are empty; look at what their templates give"
                .to_owned(),
        ));
    }
    // A line break would begin a header of its own, and what a template gives may hold one.
    let subject: Vec<&str> =
        task.subject.split(char::is_control).map(str::trim).filter(|line| !line.is_empty()).collect();
    let builder = builder.subject(subject.join(" "));
    let made = if task.files.is_empty() {
        match text(task) {
            Text::One(part) => builder.singlepart(part),
            Text::Either(parts) => builder.multipart(parts),
        }
    } else {
        let mut parts = match text(task) {
            Text::One(part) => MultiPart::mixed().singlepart(part),
            Text::Either(parts) => MultiPart::mixed().multipart(parts),
        };
        for file in attachments(&task.files)? {
            parts = parts.singlepart(file);
        }
        builder.multipart(parts)
    };
    made.map_err(|error| is_final(format!("no mail can be made of this: {error}; look at its addresses")))
}

enum Text {
    One(SinglePart),
    /// The same twice, of which a reader is shown one.
    Either(MultiPart),
}

fn text(task: &EmailTask) -> Text {
    match (&task.body, &task.html) {
        (Some(text), Some(page)) => Text::Either(MultiPart::alternative_plain_html(text.clone(), page.clone())),
        (None, Some(page)) => Text::One(SinglePart::html(page.clone())),
        (text, None) => Text::One(SinglePart::plain(text.clone().unwrap_or_default())),
    }
}

/// The addresses of a list; those in quotes keep what parts the others.
fn addresses(key: &str, list: &str) -> Sent<Vec<Mailbox>> {
    let mut is_quoted = false;
    let parts = list.split(|c| {
        is_quoted ^= c == '"';
        matches!(c, ',' | ';' | '\n' | '\r') && !is_quoted
    });
    let parts = parts.map(str::trim).filter(|part| !part.is_empty());
    let mailbox = |part: &str| {
        let parsed = part.parse().ok().filter(|_| !part.contains(char::is_control));
        parsed.ok_or_else(|| {
            let part = part.replace(char::is_control, " ");
            is_final(format!(
                "`{part}` in `{key}` is no address; write for example `ann@example.com` or `Ann <ann@example.com>`"
            ))
        })
    };
    parts.map(mailbox).collect()
}

/// One that no other mail has, of the sender's domain.
fn message_id(from: &Mailbox) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("<{}.{}@{}>", since.as_nanos(), std::process::id(), from.email.domain())
}

fn attachments(files: &[PathBuf]) -> Sent<Vec<SinglePart>> {
    let mut left = MAX_FILE_BYTES;
    let mut parts = Vec::new();
    for path in files {
        let content = content(path, left)?;
        left -= content.len() as u64;
        // A quote or a line break in a name would end it.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.replace(|c: char| c == '"' || c == '\\' || c.is_control(), "_");
        let end = path.extension().and_then(|end| end.to_str()).unwrap_or_default().to_lowercase();
        let kind = CONTENT.iter().find(|(known, _)| *known == end).map_or("application/octet-stream", |(_, kind)| kind);
        let kind = ContentType::parse(kind).expect("the table holds types");
        parts.push(Attachment::new(name).body(content, kind));
    }
    Ok(parts)
}

/// All of a file, if that is not more than `most` bytes.
fn content(path: &Path, most: u64) -> Sent<Vec<u8>> {
    let shown = path.display();
    let unread = |error: std::io::Error| {
        let help = "look whether the task before has written it, and where";
        (Failed(format!("the file `{shown}` cannot be attached: {error}; {help}")), Finality::Open)
    };
    // Opening a pipe would wait for somebody who writes.
    if !std::fs::metadata(path).map_err(unread)?.is_file() {
        return Err(is_final(format!(
            "`{shown}` is no file that can be attached; name a file, or make an archive of the folder"
        )));
    }
    let mut content = Vec::new();
    File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut content)).map_err(unread)?;
    if content.len() as u64 > most {
        return Err(is_final(format!(
            "with `{shown}` more than {} MiB would be attached, which few servers take; send a link, or fewer files",
            MAX_FILE_BYTES >> 20
        )));
    }
    Ok(content)
}
