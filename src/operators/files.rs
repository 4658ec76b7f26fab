//! Template files: those below the DAG file's folder, and none outside of it.

use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use crate::template::Files;

/// The longest template file, in bytes.
const MOST_BYTES: u64 = 1 << 20;

/// The folder of a DAG file, as its templates see it.
#[derive(Clone, Debug)]
pub struct TemplateFolder(PathBuf);

impl TemplateFolder {
    /// `folder` is absolute.
    pub fn new(folder: &Path) -> Self {
        Self(folder.to_owned())
    }
}

impl Files for TemplateFolder {
    fn read(&self, name: &str) -> Result<Option<String>, String> {
        let is_inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        if name.is_empty() || name.contains('\0') || !Path::new(name).components().all(is_inside) {
            return Ok(None);
        }
        let sentence = |error: io::Error| format!("cannot read the template file `{name}`: {error}; check its modes");
        let folder = self.0.canonicalize().map_err(sentence)?;
        let path = match folder.join(name).canonicalize() {
            Ok(path) => path,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(sentence(error)),
        };
        // A link may lead anywhere.
        if !path.starts_with(&folder) || !fs::metadata(&path).map_err(sentence)?.is_file() {
            return Ok(None);
        }
        let mut text = String::new();
        let file = fs::File::open(&path).map_err(sentence)?;
        let read = file.take(MOST_BYTES + 1).read_to_string(&mut text);
        match read {
            Ok(_) if text.len() as u64 > MOST_BYTES => Err(format!(
                "the template file `{name}` is longer than {} MiB; run it as `bash = {{ file = … }}`",
                MOST_BYTES >> 20
            )),
            Ok(_) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(format!(
                "the template file `{name}` is not UTF-8; save it as UTF-8, or run it as `bash = {{ file = … }}`"
            )),
            Err(error) => Err(sentence(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_files_below_the_folder_are_template_files() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("dags");
        fs::create_dir_all(folder.join("scripts")).unwrap();
        fs::write(outer.path().join("secret.sh"), "secret").unwrap();
        fs::write(folder.join("scripts/a.sh"), "echo {{ ds }}").unwrap();
        fs::write(folder.join("latin.sh"), [0xe9, b'x']).unwrap();
        fs::write(folder.join("long.sh"), vec![b'x'; MOST_BYTES as usize + 1]).unwrap();
        symlink(outer.path().join("secret.sh"), folder.join("out.sh")).unwrap();
        symlink(folder.join("scripts/a.sh"), folder.join("in.sh")).unwrap();
        let files = TemplateFolder::new(&folder);
        let inside = Ok(Some("echo {{ ds }}".to_owned()));
        assert_eq!(files.read("scripts/a.sh"), inside);
        assert_eq!(files.read("./scripts/a.sh"), inside);
        assert_eq!(files.read("in.sh"), inside, "a link that stays inside is followed");
        let absolute = outer.path().join("secret.sh");
        for outside in [
            "../secret.sh",
            "scripts/../../secret.sh",
            "out.sh",
            absolute.to_str().unwrap(),
            "",
            "scripts",
            "absent.sh",
        ] {
            assert_eq!(files.read(outside), Ok(None), "{outside}");
        }
        assert!(files.read("latin.sh").unwrap_err().contains("not UTF-8"));
        assert!(files.read("long.sh").unwrap_err().contains("longer than 1 MiB"));
    }
}
