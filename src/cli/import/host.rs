//! What cron knows of the host beside the crontab: who the user is, and the zone of its clock.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use jiff::tz::TimeZone;

use crate::cli::Failure;
use crate::crontab::Form;
use crate::keytable::zone_help;

/// A user of the host.
#[derive(Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub home: Option<String>,
}

impl User {
    /// Who runs this command: by the host's table, as cron looks it up; else by the environment.
    pub fn current() -> Self {
        let of_environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let uid = fs::metadata("/proc/self").map(|process| process.uid()).ok();
        let table = fs::read("/etc/passwd").unwrap_or_default();
        let found = uid.and_then(|uid| Self::of_passwd(&String::from_utf8_lossy(&table), uid));
        found.unwrap_or_else(|| Self {
            name: of_environment("LOGNAME").or_else(|| of_environment("USER")).unwrap_or_else(|| "?".to_owned()),
            home: of_environment("HOME"),
        })
    }

    fn of_passwd(table: &str, uid: u32) -> Option<Self> {
        table.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let is_meant = fields.get(2)?.parse() == Ok(uid);
            is_meant.then(|| Self {
                name: fields[0].to_owned(),
                home: fields.get(5).map(|home| (*home).to_owned()).filter(|home| home.starts_with('/')),
            })
        })
    }
}

/// The zone of the host's clock, by its name.
///
/// # Errors
/// `typed` is no zone; or nothing is typed, and the host does not say what its zone is called.
pub fn zone(typed: Option<&str>) -> Result<(String, TimeZone), Failure> {
    if let Some(name) = typed {
        let zone = crate::keytable::zone(name)
            .map_err(|_| Failure::Usage { message: format!("unknown time zone `{name}`"), help: zone_help(name) })?;
        return Ok((name.to_owned(), zone));
    }
    let zone = TimeZone::system();
    let name = match zone.iana_name() {
        Some(name) if crate::keytable::zone(name).is_ok() => name.to_owned(),
        // What jiff calls UTC, or does not know at all.
        None if zone == TimeZone::UTC => "UTC".to_owned(),
        _ => {
            let help = "name it with --tz, e.g. --tz Europe/London";
            return Err(Failure::refused("the host does not say what its time zone is called", help));
        }
    };
    Ok((name, zone))
}

/// Whose crontab a file is, by its place.
///
/// # Errors
/// It is the spooled crontab of another user.
pub fn form_of(path: &Path, user: &User) -> Result<Form, Failure> {
    let place = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if place == Path::new("/etc/crontab") || place.parent() == Some(Path::new("/etc/cron.d")) {
        return Ok(Form::System);
    }
    let is_spooled =
        ["/var/spool/cron", "/var/spool/cron/crontabs"].iter().any(|spool| place.parent() == Some(Path::new(spool)));
    let owner = place.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if is_spooled && owner != user.name {
        let message = format!(
            "`{}` is the crontab of `{owner}`, and minflow runs its tasks as the user that it was started as",
            path.display()
        );
        let help = format!("as `{owner}`, run `crontab -l | minflow import crontab -` for a home of that user");
        return Err(Failure::refused(message, help));
    }
    Ok(Form::User)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_number() {
        let table =
            "root:x:0:0:root:/root:/bin/bash\nbroken\nanna:x:1000:1000::/home/anna:/bin/zsh\nx:x:7:7::-:/bin/false\n";
        let user = |uid| User::of_passwd(table, uid).map(|user| (user.name, user.home));
        assert_eq!(user(1000), Some(("anna".to_owned(), Some("/home/anna".to_owned()))));
        assert_eq!(user(7), Some(("x".to_owned(), None)));
        assert_eq!(user(8), None);
    }

    #[test]
    fn the_place_of_a_file_says_whose_it_is() {
        let user = User { name: "anna".to_owned(), home: None };
        let form = |path: &str| form_of(Path::new(path), &user).ok();
        assert_eq!(form("/etc/crontab"), Some(Form::System));
        assert_eq!(form("/etc/cron.d/php"), Some(Form::System));
        assert_eq!(form("/etc/cron.d/old/php"), Some(Form::User));
        assert_eq!(form("/var/spool/cron/crontabs/anna"), Some(Form::User));
        assert_eq!(form("/var/spool/cron/root"), None);
        assert_eq!(form("crontab"), Some(Form::User));
    }
}
