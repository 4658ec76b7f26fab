//! XComs that are too large for the database: each in a file of its own, written before the row that names it.
//!
//! A file without a row is left by a crash between the two; the next try of the instance removes it. A row is removed in the turn that
//! starts a try, and its file by that try, so that no row ever names a file that minflow has removed.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::executor::{Shared, paths};
use crate::model::SkipDecision;
use crate::operators::Fault;
use crate::scheduler::event::{LargeXcom, Outcome, TryEnd};
use crate::scheduler::port::Work;

/// A value whose JSON is longer goes to a file, in bytes.
const MAX_INLINE: usize = 1 << 20;

/// Whether an earlier try of the instance may have left some. What a first try could find is nobody's.
pub fn may_have_earlier(work: &Work) -> bool {
    work.key.try_number > 1
}

/// Removes what earlier tries of the instance have left.
pub fn clear(shared: &Shared, work: &Work) {
    // It may be gone, or on a disk that cannot be written; then it takes room, and nothing else.
    let _ = fs::remove_dir_all(folder(shared, work));
}

/// Moves the large values of a try's end to files. A full disk is waited for.
pub fn keep(shared: &Shared, work: &Work, mut end: TryEnd) -> TryEnd {
    if !end.xcoms.iter().any(|(key, value)| is_large(key, value)) {
        return end;
    }
    let folder = folder(shared, work);
    let (mut inline, mut large) = (Vec::new(), Vec::new());
    for (key, value) in std::mem::take(&mut end.xcoms) {
        let text = if is_large(&key, &value) { value.to_string() } else { String::new() };
        if text.len() <= MAX_INLINE {
            inline.push((key, value));
            continue;
        }
        let path = folder.join(format!("{}-{}.json", work.key.try_number, large.len() + 1));
        if let Err(reason) = write_patiently(shared, work, &path, text.as_bytes()) {
            let (xcoms, large, decision, lengths) = Default::default();
            return TryEnd { outcome: Outcome::Faulted { reason }, xcoms, large, decision, lengths, ..end };
        }
        large.push(LargeXcom { key, path });
    }
    TryEnd { xcoms: inline, large, ..end }
}

fn folder(shared: &Shared, work: &Work) -> PathBuf {
    let task_id = &work.dag.task(work.task).task_id;
    paths::large_xcoms(&shared.settings.xcoms, &work.dag.dag_id, &work.run.run_id, task_id, work.map_index)
}

/// Whether it may be longer than a row takes. A decision is read with many others, from the database alone.
fn is_large(key: &str, value: &Value) -> bool {
    fn at_least(value: &Value, room: &mut usize) -> bool {
        let own = match value {
            Value::String(text) => text.len(),
            _ => 1,
        };
        *room = room.saturating_sub(own + 1);
        *room == 0
            || match value {
                Value::Array(items) => items.iter().any(|item| at_least(item, room)),
                Value::Object(pairs) => pairs.iter().any(|(key, item)| {
                    *room = room.saturating_sub(key.len());
                    at_least(item, room)
                }),
                _ => false,
            }
    }
    // Escapes and digits make it longer, at most by so much.
    key != SkipDecision::XCOM_KEY && at_least(value, &mut (MAX_INLINE / 24))
}

/// # Errors
/// Why it cannot be kept, and what to do.
fn write_patiently(shared: &Shared, work: &Work, path: &Path, bytes: &[u8]) -> Result<(), String> {
    loop {
        match write(path, bytes).map_err(|error| Fault::of_file("keep an XCom as", path, &error)) {
            Ok(()) => return Ok(()),
            Err(Fault::Host(lack)) if shared.outwait(work.key, &lack) => {}
            Err(fault) => return Err(fault.to_string()),
        }
    }
}

/// Readable by its owner alone, and on the disk when it returns: the row that names it is committed next.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(path);
    let mut options = File::options();
    options.create(true).write(true).truncate(true).mode(0o600);
    let opened = match options.open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            fs::create_dir_all(folder).and_then(|()| options.open(path))
        }
        opened => opened,
    };
    let mut file = opened?;
    file.write_all(bytes)?;
    file.sync_all()?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whatever_may_be_too_long_for_a_row_is_looked_at_closer() {
        let numbers = Value::Array(vec![json!(1.234_567_890_123_456_7e-300); MAX_INLINE / 24]);
        assert!(is_large("k", &numbers));
        assert!(is_large("k", &json!({ "a": ["x".repeat(MAX_INLINE)] })));
        assert!(is_large("k", &json!("\u{1}".repeat(MAX_INLINE / 6))), "each is written as six characters");
        assert!(!is_large("k", &json!([1, "x", { "y": null }])));
        assert!(!is_large(SkipDecision::XCOM_KEY, &numbers));
    }
}
