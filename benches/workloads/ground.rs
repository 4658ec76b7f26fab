//! Where the homes and the floors' logs lie until all is measured.
//!
//! Nothing is deleted in between: for a minute an ext4 without a journal hands out no inode that has been deleted, and with each new
//! file looks for another, so that whoever comes next would pay for the files of whoever was before.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

static ROOT: OnceLock<PathBuf> = OnceLock::new();
static FOLDERS: AtomicUsize = AtomicUsize::new(0);

/// Deletes all folders when it is dropped.
pub struct Ground;

impl Drop for Ground {
    fn drop(&mut self) {
        if let Some(root) = ROOT.get() {
            let _ = std::fs::remove_dir_all(root);
        }
    }
}

/// A new, empty folder.
pub fn folder() -> PathBuf {
    let root = ROOT.get_or_init(|| {
        let root = tempfile::Builder::new().prefix("minflow-bench-").tempdir();
        root.expect("the folder of temporary files is writable").keep()
    });
    let folder = root.join(FOLDERS.fetch_add(1, Ordering::Relaxed).to_string());
    std::fs::create_dir(&folder).expect("a new folder takes a folder");
    folder
}
