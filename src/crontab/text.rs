//! Texts in TOML and in templates: whatever a line holds comes out again as it was.

/// A template that becomes `text` again when it is rendered: what would begin one of Jinja's tags is written by an expression.
pub(super) fn template(text: &str) -> String {
    let mut written = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = ["{{", "{%", "{#"].iter().filter_map(|tag| rest.find(tag)).min() {
        let (before, from) = rest.split_at(at);
        let (tag, behind) = from.split_at(2);
        written.push_str(before);
        written.push_str(&format!("{{{{ '{tag}' }}}}"));
        rest = behind;
    }
    written.push_str(rest);
    written
}

/// A TOML string, in the form that reads best: literal where nothing needs an escape.
pub(super) fn string(text: &str) -> String {
    let is_literal = !text.contains('\'') && !text.contains(is_control);
    let is_quiet = !text.contains(['"', '\\', '\'']) && !text.contains(is_control);
    match (is_quiet, is_literal) {
        (true, _) => format!("\"{text}\""),
        (false, true) => format!("'{text}'"),
        _ => format!("\"{}\"", escaped(text)),
    }
}

/// A script, as TOML: on one line if it is one, else between lines of three quotes. An end of line is added in the second form, which
/// rendering takes away.
pub(super) fn script(text: &str) -> String {
    let is_script_name = (text.ends_with(".sh") || text.ends_with(".bash")) && !text.contains(char::is_whitespace);
    // A relative path alone would be taken for a template file of that name, and a text's last end of line is dropped.
    let needs_lines = text.contains('\n') || is_script_name;
    if !needs_lines && (!text.contains('\'') || !text.contains(['"', '\\'])) && !text.contains(is_control) {
        return string(text);
    }
    let is_literal = !text.contains("'''") && !text.chars().any(|c| c != '\n' && is_control(c));
    match is_literal {
        true => format!("'''\n{text}\n'''"),
        false => format!("\"\"\"\n{}\n\"\"\"", text.split('\n').map(escaped).collect::<Vec<_>>().join("\n")),
    }
}

/// A comment's text: control characters are shown by their escapes.
pub(super) fn comment(text: &str) -> String {
    text.chars().flat_map(|c| if is_control(c) { c.escape_default().collect() } else { vec![c] }).collect()
}

/// What TOML takes as an escape only.
fn is_control(c: char) -> bool {
    c.is_control() && c != '\t'
}

fn escaped(text: &str) -> String {
    let mut written = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '"' => written.push_str("\\\""),
            '\\' => written.push_str("\\\\"),
            '\n' => written.push_str("\\n"),
            c if is_control(c) => written.push_str(&format!("\\u{:04X}", c as u32)),
            c => written.push(c),
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_written_in_the_form_that_reads_best() {
        for (text, written) in [
            ("backup --full", "\"backup --full\""),
            ("echo \"a\"", "'echo \"a\"'"),
            ("echo 'a'", "\"echo 'a'\""),
            ("a\\b", "'a\\b'"),
            ("it's \"a\"", "\"it's \\\"a\\\"\""),
            ("bell\u{7}", "\"bell\\u0007\""),
        ] {
            assert_eq!(string(text), written);
        }
        for (text, written) in [
            ("backup --full", "\"backup --full\""),
            ("bin/x.sh", "'''\nbin/x.sh\n'''"),
            ("awk '{ print \"a\" }'", "'''\nawk '{ print \"a\" }'\n'''"),
            ("a 'b' \\'''", "\"\"\"\na 'b' \\\\'''\n\"\"\""),
            ("a\nb", "'''\na\nb\n'''"),
            ("bell\u{7}", "\"\"\"\nbell\\u0007\n\"\"\""),
        ] {
            assert_eq!(script(text), written);
        }
    }

    #[test]
    fn what_would_begin_a_tag_is_written_by_an_expression() {
        assert_eq!(template("a {{ b }} {% c %} ${#d}"), "a {{ '{{' }} b }} {{ '{%' }} c %} ${{ '{#' }}d}");
        assert_eq!(template("{ { }} {{{"), "{ { }} {{ '{{' }}{");
    }
}
