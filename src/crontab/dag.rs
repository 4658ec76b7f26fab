//! A job as a DAG file, with comments that say where each thing comes from.

use super::text::{comment, script, string, template};
use super::{Job, Mail};

impl Job {
    /// The task's script as it is after rendering.
    pub fn script(&self) -> String {
        self.command.script(&self.env["SHELL"])
    }

    /// The DAG file's text. `source` is the crontab as the file's comment names it.
    pub fn to_toml(&self, source: &str) -> String {
        let mut lines = vec![format!("# From line {} of {}:", self.line, comment(source))];
        lines.push(format!("#   {}", comment(&self.source)));
        let remarks = self.remarks.iter().map(|remark| format!("# {}", comment(remark)));
        lines.extend(remarks);
        lines.push(self.mail_remark());
        lines.push(String::new());
        if let Some(description) = &self.comment {
            lines.push(format!("description = {}", string(description)));
        }
        lines.push(format!("schedule = {}", string(&self.schedule.text)));
        lines.push(format!("timezone = {}", string(&self.timezone)));
        lines.push("catchup = false".to_owned());
        lines.push(String::new());
        lines.push(format!("[tasks.{}]", key(&self.dag_id)));
        lines.push(format!("bash = {}", script(&template(&self.script()))));
        lines.push(format!("cwd = {}", string(&template(&self.env["HOME"]))));
        lines.push("retries = 0".to_owned());
        lines.push("skip_on_exit_code = false    # to cron, 99 is an exit code like any other".to_owned());
        lines.push(String::new());
        lines.push("# What cron gives to the job; all else is as minflow was started with.".to_owned());
        lines.push(format!("[tasks.{}.env]", key(&self.dag_id)));
        for (name, value) in &self.env {
            let is_default = name == "PATH" && self.defaults.contains(&"PATH");
            let remark = if is_default { "    # cron's own, as the crontab sets none" } else { "" };
            lines.push(format!("{} = {}{remark}", key(name), string(&template(value))));
        }
        lines.join("\n") + "\n"
    }

    fn mail_remark(&self) -> String {
        let id = &self.dag_id;
        let text = match &self.mail {
            Mail::Nowhere => {
                format!("MAILTO is empty, so cron mails nothing. The output is in `minflow tasks logs {id}`.")
            }
            Mail::User => {
                format!("cron mails what it prints to its user. minflow keeps it: `minflow tasks logs {id}`.")
            }
            Mail::To(to) => format!(
                "cron mails what it prints to {to}. minflow keeps it: `minflow tasks logs {id}`. For a mail when it fails, see `[notifiers.NAME]` and `[defaults]` in docs/configuration.md."
            ),
        };
        format!("# {}", comment(&text))
    }
}

/// A bare key, or one in quotes.
fn key(name: &str) -> String {
    let is_bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
    if is_bare { name.to_owned() } else { string(name) }
}
