//! A text parted into words as a POSIX shell does it, without expanding anything (Python: `shlex.split`).

/// # Errors
/// A quote is not closed, or a backslash has nothing behind it.
pub fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    // None: between words. A word of empty quotes is one.
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '\'' | '"' => quoted(c, &mut chars, word.get_or_insert_default())?,
            '\\' => word.get_or_insert_default().push(chars.next().ok_or("a backslash stands at its end")?),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

/// To the closing quote. Between double ones a backslash quotes a backslash and a double quote, and nothing else.
fn quoted(quote: char, chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), String> {
    let unclosed = || format!("a quote `{quote}` in it is not closed");
    loop {
        match chars.next().ok_or_else(unclosed)? {
            c if c == quote => return Ok(()),
            '\\' if quote == '"' => {
                let next = chars.next().ok_or_else(unclosed)?;
                if !matches!(next, '\\' | '"') {
                    word.push('\\');
                }
                word.push(next);
            }
            c => word.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Python 3.12's `shlex.split` gives.
    #[test]
    fn words_are_parted_as_python_does_it() {
        let cases: [(&str, &[&str]); 9] = [
            ("", &[]),
            ("  python  -m x\n--day 1 ", &["python", "-m", "x", "--day", "1"]),
            ("sh -c 'echo \"$A\" | wc'", &["sh", "-c", "echo \"$A\" | wc"]),
            (r#"a "b \" \\ \n c" d"#, &["a", r#"b " \ \n c"#, "d"]),
            (r"a\ b 'c\d' e\'", &["a b", r"c\d", "e'"]),
            ("a'b'\"c\"", &["abc"]),
            ("a '' \"\"", &["a", "", ""]),
            ("$HOME *.csv # no comment", &["$HOME", "*.csv", "#", "no", "comment"]),
            ("a\\\nb", &["a\nb"]),
        ];
        for (text, words) in cases {
            assert_eq!(split(text).unwrap(), words, "{text:?}");
        }
        for text in ["a 'b", "a \"b", "\"a\\", "a\\"] {
            assert!(split(text).is_err(), "{text:?}");
        }
    }
}
