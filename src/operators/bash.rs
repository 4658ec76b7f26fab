//! `bash = …`: a shell with a script.

use crate::model::{Bash, Script};
use crate::operators::{Fault, MAX_INLINE, Place, Program, find_program, script_path, text, write_file};
use crate::template;

pub fn prepare(bash: &Bash, place: &Place<'_>) -> Result<Program, Fault> {
    let shell = find_program("bash", place.search_path).or_else(|| find_program("sh", place.search_path));
    let shell = shell.ok_or_else(|| {
        Fault::Task("neither `bash` nor `sh` was found on PATH: install one, or correct PATH in `env`".to_owned())
    })?;
    match &bash.script {
        Script::File(name) => Ok(Program { argv: vec![shell, script_path(name, place)?], ..Program::default() }),
        Script::Text(script) => {
            let script = template::render_script(script, place.context)?;
            if script.len() <= MAX_INLINE {
                return Ok(Program { argv: vec![shell, "-c".to_owned(), script], ..Program::default() });
            }
            let file = write_file(place, ".sh", &script)?;
            Ok(Program { argv: vec![shell, text(file.clone())?], files: vec![file], ..Program::default() })
        }
    }
}
