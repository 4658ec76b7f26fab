//! The XComs that a process leaves: its output's last line, or its value, and its XCom file (CONTRACTS 7).

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde_json::{Map, Value};

use crate::model::Output;
use crate::supervisor::protocol::TAIL_BYTES;

pub const RETURN_VALUE: &str = "return_value";
/// As much as one template may become: what is larger could not be used there.
const MAX_XCOM_BYTES: u64 = 16 << 20;
/// The longest part of an output that a message shows, in characters.
const MAX_SHOWN: usize = 200;

/// What a process left.
#[derive(Clone, Copy, Debug)]
pub struct Left<'a> {
    pub output: Output,
    /// The end of its output; looked at unless `value` is given.
    pub tail: &'a [u8],
    /// The file with its value as JSON; it need not exist.
    pub value: Option<&'a Path>,
    /// `$MINFLOW_XCOM`, unless it is known not to exist.
    pub xcom: Option<&'a Path>,
}

/// Is told what the host lacks just now, and waits a while; false when there is no more waiting.
pub type Patience<'a> = &'a dyn Fn(&str) -> bool;

/// XComs in the order of the file, then `return_value` if the file has none. A process that has ended well does not fail for
/// what minflow lacks: reading waits.
///
/// # Errors
/// What is wrong with them, and what to do.
pub fn collect(left: Left<'_>, patience: Patience<'_>) -> Result<Vec<(String, Value)>, String> {
    let text = left.xcom.map_or(Ok(None), |xcom| read(xcom, patience))?;
    let mut xcoms = text.map_or_else(|| Ok(Vec::new()), |text| parse_file(&text))?;
    if !xcoms.iter().any(|(key, _)| key == RETURN_VALUE)
        && let Some(value) = return_value(left, patience)?
    {
        xcoms.push((RETURN_VALUE.to_owned(), value));
    }
    Ok(xcoms)
}

fn return_value(left: Left<'_>, patience: Patience<'_>) -> Result<Option<Value>, String> {
    if left.output == Output::None {
        return Ok(None);
    }
    if let Some(path) = left.value {
        let Some(text) = read(path, patience)? else { return Ok(None) };
        return serde_json::from_str(&text).map(Some).map_err(|error| format!("its value is not JSON: {error}"));
    }
    let Some(line) = last_line(left.tail) else { return Ok(None) };
    let text = String::from_utf8_lossy(line).into_owned();
    if left.output == Output::Text {
        return Ok(Some(Value::String(text)));
    }
    // What came before the tail is not at hand.
    if left.tail.len() >= TAIL_BYTES && left.tail.starts_with(line) {
        let limit = TAIL_BYTES >> 10;
        return Err(format!(
            "its last line of output has {limit} KiB or more, too much for `output = \"json\"`: write \
             {{\"return_value\": …}} to the file $MINFLOW_XCOM instead"
        ));
    }
    serde_json::from_str(&text).map(Some).map_err(|error| {
        format!(
            "its last line of output is not JSON, which `output = \"json\"` expects: it is `{}` ({error}); print JSON \
             alone on the last line, or set `output = \"text\"`",
            shown(&text)
        )
    })
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The last line that is not blank, without its end.
fn last_line(tail: &[u8]) -> Option<&[u8]> {
    let line = tail.split(|&byte| byte == b'\n').rfind(|line| !line.trim_ascii().is_empty())?;
    Some(line.strip_suffix(b"\r").unwrap_or(line))
}

/// None if there is no such file.
fn read(path: &Path, patience: Patience<'_>) -> Result<Option<String>, String> {
    let unreadable = |error: io::Error| format!("cannot read its XComs from `{}`: {error}", path.display());
    let file = loop {
        // A pipe would be waited for, and nobody writes to it any longer.
        match File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
            Ok(file) => break file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                let is_lack = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM));
                let said = unreadable(error);
                if !is_lack || !patience(&said) {
                    return Err(said);
                }
            }
        }
    };
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(format!("cannot read its XComs from `{}`, which is no file: write one", path.display()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_XCOM_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_XCOM_BYTES {
        return Err(
            "its XComs are larger than 16 MiB: leave the data in a file of the run_dir, and push its path".to_owned()
        );
    }
    String::from_utf8(bytes).map(Some).map_err(|_| "its XCom file is not UTF-8: write text".to_owned())
}

fn parse_file(text: &str) -> Result<Vec<(String, Value)>, String> {
    if text.starts_with('{') {
        let pairs: Map<String, Value> = serde_json::from_str(text)
            .map_err(|error| format!("$MINFLOW_XCOM begins with `{{`, so it is to be a JSON object, and it is not ({error}): correct it, or write lines of `key=value`"))?;
        return Ok(pairs.into_iter().collect());
    }
    let mut xcoms: Vec<(String, Value)> = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let pair = line.split_once('=').filter(|(key, _)| !key.trim().is_empty());
        let Some((key, value)) = pair else {
            let line = shown(line);
            return Err(format!(
                "line {} of $MINFLOW_XCOM is no `key=value`: {line:?}; write one, or a JSON object",
                at + 1
            ));
        };
        let (key, value) = (key.trim().to_owned(), Value::String(value.to_owned()));
        match xcoms.iter_mut().find(|(earlier, _)| *earlier == key) {
            Some(earlier) => earlier.1 = value,
            None => xcoms.push((key, value)),
        }
    }
    Ok(xcoms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn collected(output: Output, tail: &str, file: Option<&str>) -> Result<Value, String> {
        let folder = tempfile::tempdir().unwrap();
        let xcom = folder.path().join("xcom");
        if let Some(text) = file {
            std::fs::write(&xcom, text).unwrap();
        }
        let left = Left { output, tail: tail.as_bytes(), value: None, xcom: Some(&xcom) };
        collect(left, &|_| false).map(|pairs| Value::Object(pairs.into_iter().collect()))
    }

    #[test]
    fn the_last_line_that_is_not_blank_is_the_value() {
        let text = |tail| collected(Output::Text, tail, None).unwrap();
        assert_eq!(text("a\nb\r\n\n  \n"), json!({ "return_value": "b" }));
        assert_eq!(text("no newline"), json!({ "return_value": "no newline" }));
        assert_eq!(text("\n \n"), json!({}));
        assert_eq!(collected(Output::Json, "x\n[1, 2]\n", None), Ok(json!({ "return_value": [1, 2] })));
        let told = collected(Output::Json, "x\n", None).unwrap_err();
        assert!(told.contains("it is `x` (") && told.contains("output = \"text\""), "{told}");
        let long = format!("[{}]", "1,".repeat(TAIL_BYTES));
        let tail = &long[long.len() - TAIL_BYTES..];
        assert!(collected(Output::Json, tail, None).unwrap_err().contains("has 64 KiB or more"));
        assert!(collected(Output::Text, tail, None).is_ok(), "of a text the end is taken");
        let whole = format!("{}\n[1]\n", "x".repeat(TAIL_BYTES - 5));
        assert_eq!(collected(Output::Json, &whole, None), Ok(json!({ "return_value": [1] })));
        assert_eq!(collected(Output::None, "x\n", None), Ok(json!({})));
    }

    #[test]
    fn the_xcom_file_is_json_or_lines_and_its_return_value_wins() {
        let file = |text| collected(Output::Text, "line\n", Some(text));
        assert_eq!(file(r#"{"a": [1], "return_value": 2}"#), Ok(json!({ "a": [1], "return_value": 2 })));
        assert_eq!(file("a=1\n\nb = x=y\na=2\n"), Ok(json!({ "a": "2", "b": " x=y", "return_value": "line" })));
        assert!(file("a=1\nnonsense\n").unwrap_err().contains("line 2"));
        assert!(file("{oops").unwrap_err().contains("to be a JSON object"));
        let large = format!("a={}", "x".repeat(16 << 20));
        assert!(file(&large).unwrap_err().contains("16 MiB"));
        assert_eq!(file(&large[2..4_000_000]).unwrap_err().len(), file("x").unwrap_err().len() + 201 + 1);
    }
}
