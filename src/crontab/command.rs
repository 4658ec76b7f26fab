//! The command of a line: what `%` makes of it, which shell it needs, and the script that does in minflow what it did in cron.

/// A command as cron hands it over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// For the shell.
    pub text: String,
    /// What the command reads from its standard input; None: nothing.
    pub input: Option<String>,
}

impl Command {
    /// cron's rule of `%`: the first one ends the command, and what follows is its input, in which each is an end of line. `\%` is a
    /// plain one. In the command, a backslash that is itself behind a backslash has no such power; in the input it has.
    pub fn read(written: &str) -> Self {
        let mut text = String::new();
        let mut is_escaped = false;
        for (at, c) in written.char_indices() {
            match c {
                '%' if is_escaped => {
                    text.pop();
                    text.push('%');
                }
                '%' => return Self { text, input: Some(input(&written[at + 1..])).filter(|input| !input.is_empty()) },
                _ => text.push(c),
            }
            is_escaped = c == '\\' && !is_escaped;
        }
        Self { text, input: None }
    }

    /// The script for minflow's `bash`, as its text shall be after its templates have been rendered. `shell` is what cron would have
    /// started.
    pub fn script(&self, shell: &str) -> String {
        match &self.input {
            None if is_plain(&self.text, shell) => self.text.clone(),
            None => self.in_shell(shell),
            Some(input) => {
                let end = end_marker(input);
                format!("{} <<'{end}'\n{input}{end}", self.in_shell(shell))
            }
        }
    }

    fn in_shell(&self, shell: &str) -> String {
        format!("exec {} -c {}", quoted(shell), quoted(&self.text))
    }

    /// The place of a `&` that leaves something running behind the command's end, in bytes of the text. cron lets it go on, while
    /// minflow ends what is left of a task. None also if the command waits for it.
    pub fn background(&self) -> Option<usize> {
        let bytes = self.text.as_bytes();
        let mut quote = None;
        let mut at = 0;
        let mut found = None;
        while at < bytes.len() {
            let (byte, next) = (bytes[at], bytes.get(at + 1).copied());
            let before = at.checked_sub(1).map(|before| bytes[before]);
            match (quote, byte) {
                (Some(open), _) if byte == open => quote = None,
                (None | Some(b'"'), b'\\') => at += 1,
                (Some(_), _) => {}
                (None, b'\'' | b'"') => quote = Some(byte),
                // The rest is a comment.
                (None, b'#') if before.is_none_or(|before| b" \t;&|(".contains(&before)) => break,
                (None, b'&') if next == Some(b'&') => at += 1,
                (None, b'&') if next == Some(b'>') || before.is_some_and(|before| b"<>|".contains(&before)) => {}
                (None, b'&') => found = found.or(Some(at)),
                _ => {}
            }
            at += 1;
        }
        let waits = tokens(&self.text).any(|word| word == "wait");
        found.filter(|_| !waits)
    }

    /// The place of `&>` in a command for `sh`: some read it as bash does, others start the command in the background and empty the
    /// file.
    pub fn doubtful_redirection(&self, shell: &str) -> Option<usize> {
        if is_sh(shell) { self.text.find("&>") } else { None }
    }
}

fn input(written: &str) -> String {
    let mut input = String::new();
    let mut is_escaped = false;
    for c in written.chars() {
        let c = match c {
            '%' if is_escaped => '%',
            '%' => '\n',
            _ => {
                if is_escaped {
                    input.push('\\');
                }
                c
            }
        };
        is_escaped = c == '\\';
        if !is_escaped {
            input.push(c);
        }
    }
    if is_escaped {
        input.push('\\');
    }
    // What is not empty ends with an end of line. cron adds none to a lone backslash, but a reader of lines sees no difference.
    if !input.is_empty() && !input.ends_with('\n') {
        input.push('\n');
    }
    input
}

/// A word that no line of `input` consists of.
fn end_marker(input: &str) -> String {
    let is_free = |marker: &String| input.lines().all(|line| line != marker);
    let numbered = (2..).map(|n| format!("END{n}"));
    std::iter::once("END".to_owned()).chain(numbered).find(is_free).expect("a finite input holds finitely many markers")
}

fn is_sh(shell: &str) -> bool {
    ["/bin/sh", "/usr/bin/sh"].contains(&shell)
}

/// minflow's own bash does the same as the shell that cron would have started.
fn is_plain(text: &str, shell: &str) -> bool {
    ["/bin/bash", "/usr/bin/bash"].contains(&shell) || (is_sh(shell) && !may_differ(text))
}

/// What `sh` need not read as bash does. Says yes once too often rather than not.
fn may_differ(text: &str) -> bool {
    const SIGNS: [&str; 15] =
        ["[[", "((", "$[", "$'", "$\"", "<(", ">(", "<<<", "|&", "==", "+=", "~+", "~-", "!(", "@("];
    const WORDS: [&str; 20] = [
        "source", "function", "time", "let", "declare", "typeset", "shopt", "pushd", "popd", "dirs", "select", "local",
        "read", "type", "trap", "ulimit", "history", "disown", "mapfile", "coproc",
    ];
    const VARIABLES: [&str; 11] =
        ["RANDOM", "SECONDS", "UID", "EUID", "HOSTNAME", "BASH", "OSTYPE", "PIPESTATUS", "SHLVL", "LINENO", "PPID"];
    let is_word = |word: &str| tokens(text).any(|token| token == word);
    let is_variable = |name: &&str| text.contains(&format!("${name}")) || text.contains(&format!("${{{name}"));
    let echoes = is_word("echo") || is_word("printf");
    SIGNS.iter().any(|sign| text.contains(sign))
        || has_braces(text)
        || WORDS.iter().any(|word| is_word(word))
        || VARIABLES.iter().any(is_variable)
        // `sh` may take the backslashes and the options of `echo` otherwise.
        || (echoes && (text.contains('\\') || [" -e", " -n", " -E"].iter().any(|option| text.contains(option))))
        || text.split(">&").skip(1).any(|rest| !rest.starts_with(|c: char| c.is_ascii_digit() || c == '-'))
}

/// `{a,b}`, `{1..9}`, and of `${…}` what more than names a variable.
fn has_braces(text: &str) -> bool {
    text.match_indices('{').any(|(at, _)| {
        let inside = text[at + 1..].split('}').next().unwrap_or_default();
        let is_name = !inside.is_empty() && inside.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        match text[..at].ends_with('$') {
            true => !is_name,
            false => (inside.contains(',') || inside.contains("..")) && !inside.starts_with([' ', '\t']),
        }
    })
}

/// What a shell may take for a command's name.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || ";&|(){}`'\"!".contains(c)).filter(|token| !token.is_empty())
}

/// A word as a shell reads it back.
pub(super) fn quoted(text: &str) -> String {
    let is_tame = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "._/-+".contains(c));
    if is_tame { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(written: &str) -> (String, Option<String>) {
        let command = Command::read(written);
        (command.text, command.input)
    }

    #[test]
    fn a_percent_sign_ends_the_command_and_begins_its_input() {
        for (written, text, input) in [
            ("true", "true", None),
            ("cat%hello", "cat", Some("hello\n")),
            ("cat%hello%world%", "cat", Some("hello\nworld\n")),
            ("cat%", "cat", None),
            ("date +\\%F", "date +%F", None),
            ("date '+\\%F \\%T'", "date '+%F %T'", None),
            // Behind two backslashes it is no longer plain in the command, and plain in the input.
            ("echo \\\\%x", "echo \\\\", Some("x\n")),
            ("cat%a\\\\%b", "cat", Some("a\\%b\n")),
            ("cat%50\\% off%\\n", "cat", Some("50% off\n\\n\n")),
            ("a\\b \\\\", "a\\b \\\\", None),
            ("cat%%", "cat", Some("\n")),
            ("cat%\\", "cat", Some("\\\n")),
        ] {
            assert_eq!(read(written), (text.to_owned(), input.map(str::to_owned)), "{written}");
        }
    }

    #[test]
    fn what_is_left_running_is_found_and_other_ampersands_are_not() {
        for (text, at) in [
            ("sleep 9 &", Some(8)),
            ("a & b", Some(2)),
            ("a>/dev/null 2>&1 &", Some(17)),
            ("(a &)", Some(3)),
            ("a && b", None),
            ("a >&2", None),
            ("a &>/dev/null", None),
            ("a |& b", None),
            ("a 'b & c' \"d & e\" \\& f", None),
            ("curl 'http://h/?a=1&b=2'", None),
            ("a & b & wait", None),
            ("a # b & c", None),
            ("curl http://h/?a=1&b=2", Some(18)),
        ] {
            assert_eq!(Command::read(text).background(), at, "{text}");
        }
    }

    #[test]
    fn a_command_keeps_its_shell_where_bash_might_read_it_otherwise() {
        let script = |text: &str, shell: &str| Command::read(text).script(shell);
        for plain in [
            "/usr/local/bin/backup.sh --full > /dev/null 2>&1",
            "cd / && run-parts --report /etc/cron.hourly",
            "test -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.daily; }",
            "tar czf /b/$(date +\\%F).tgz \"$HOME\" ${DIR}",
            "echo hello",
        ] {
            assert_eq!(script(plain, "/bin/sh"), Command::read(plain).text);
        }
        for (text, expected) in [
            ("sleep $((RANDOM % 60))", "exec /bin/sh -c 'sleep $((RANDOM ' <<'END'\n 60))\nEND"),
            ("echo $RANDOM", "exec /bin/sh -c 'echo $RANDOM'"),
            ("echo -e a", "exec /bin/sh -c 'echo -e a'"),
            ("mkdir {a,b}", "exec /bin/sh -c 'mkdir {a,b}'"),
            ("[[ a ]] && b", "exec /bin/sh -c '[[ a ]] && b'"),
            ("echo ${A#x}", "exec /bin/sh -c 'echo ${A#x}'"),
        ] {
            assert_eq!(script(text, "/bin/sh"), expected);
        }
        assert_eq!(script("mkdir {a,b}", "/bin/bash"), "mkdir {a,b}");
        assert_eq!(script("print 'a'", "/usr/bin/zsh"), "exec /usr/bin/zsh -c 'print '\\''a'\\'''");
        assert_eq!(script("cat%END%x", "/bin/sh"), "exec /bin/sh -c cat <<'END2'\nEND\nx\nEND2");
    }
}
