//! Where systemd looks for units, and how it is talked to: by `systemctl`, if there is one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::unit::Scope;
use crate::cli::Failure;

/// One unit of one systemd.
#[derive(Debug)]
pub struct Place {
    pub scope: Scope,
    folder: PathBuf,
    name: String,
}

/// What `systemctl` said to a request.
#[derive(Debug)]
pub enum Answer {
    Absent,
    Done { said: String },
    Failed { said: String },
}

impl Place {
    /// # Errors
    /// This user has no folder for units.
    pub fn new(scope: Scope, name: &str) -> Result<Self, Failure> {
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let folder = match scope {
            Scope::System => PathBuf::from("/etc/systemd/system"),
            Scope::User => {
                let config = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")));
                let config = config.ok_or_else(|| {
                    Failure::refused("neither XDG_CONFIG_HOME nor HOME names a folder", "set HOME, or ask for --system")
                })?;
                config.join("systemd/user")
            }
        };
        Ok(Self { scope, folder, name: name.to_owned() })
    }

    /// `minflow.service`
    pub fn unit(&self) -> String {
        format!("{}.service", self.name)
    }

    pub fn path(&self) -> PathBuf {
        self.folder.join(self.unit())
    }

    fn words<'a>(&self, words: &[&'a str]) -> Vec<&'a str> {
        let of_user = (self.scope == Scope::User).then_some("--user");
        of_user.into_iter().chain(words.iter().copied()).collect()
    }

    /// As one would type it.
    pub fn in_words(&self, words: &[&str]) -> String {
        format!("systemctl {}", self.words(words).join(" "))
    }

    pub fn systemctl(&self, words: &[&str]) -> Answer {
        let done = Command::new("systemctl").args(self.words(words)).stdin(Stdio::null()).output();
        let Ok(done) = done else { return Answer::Absent };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let said = Some(text(&done.stdout)).filter(|said| !said.is_empty()).unwrap_or_else(|| text(&done.stderr));
        if done.status.success() { Answer::Done { said } } else { Answer::Failed { said } }
    }

    /// Whether this user's systemd runs without a login; null where it is the host's, or nobody knows.
    pub fn lingers(&self) -> Option<bool> {
        let user = own_name().filter(|_| self.scope == Scope::User)?;
        let folder = Path::new("/var/lib/systemd/linger");
        folder.is_dir().then(|| folder.join(user).exists())
    }

    /// What is left to do when a unit is in its place and enabled.
    pub fn next_steps(&self) -> String {
        let (name, journal) = (&self.name, if self.scope == Scope::User { "journalctl --user" } else { "journalctl" });
        let mut steps = match self.scope {
            Scope::System => "enabled: it starts when the host does\n".to_owned(),
            Scope::User => "enabled: it starts when you log in\n".to_owned(),
        };
        steps += &format!("start it now:           {}\n", self.in_words(&["start", name]));
        steps += &format!("after airflow.toml changed: {}\n", self.in_words(&["reload", name]));
        steps += &format!("what it says:           {journal} -u {name}\n");
        if self.scope == Scope::User && self.lingers() != Some(true) {
            let user = own_name().unwrap_or_else(|| "$USER".to_owned());
            steps += &format!(
                "It ends when you log out. To have it start with the host and outlive that: loginctl enable-linger {user}\n"
            );
        }
        steps
    }
}

fn own_name() -> Option<String> {
    user_name(rustix::process::geteuid().as_raw())
}

/// A user's name as /etc/passwd has it.
pub fn user_name(uid: u32) -> Option<String> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}
