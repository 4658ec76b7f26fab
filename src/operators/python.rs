//! `python = …`: an interpreter with a small runner, which leaves the value as JSON in a file of the try.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::builtin::venv::{Asked, VenvTask};
use crate::model::{Python, Requirements, Script};
use crate::operators::{Fault, Place, Program, builtin, find_program, script_path, text, write_file};
use crate::template;

/// Runs a script or calls a function. A traceback begins with the user's own lines.
const RUNNER: &str = r#"
import json, os, sys, traceback
value_path, path, function, arguments_path = sys.argv[1:5]
sys.argv = [path]
def run():
    scope = {"__name__": "__minflow__" if function else "__main__", "__file__": path, "__builtins__": __builtins__}
    with open(path, encoding="utf-8") as source:
        code = compile(source.read(), path, "exec")
    if not path.endswith(".minflow.py"):
        sys.path[0] = os.path.dirname(path)
    exec(code, scope)
    if not function:
        return scope.get("result")
    if function not in scope:
        sys.exit("minflow: `%s` defines no function `%s`: correct `function`" % (path, function))
    with open(arguments_path, encoding="utf-8") as source:
        given = json.load(source)
    return scope[function](*given["args"], **given["kwargs"])
try:
    value = run()
except Exception as error:
    steps = error.__traceback__
    while steps and steps.tb_frame.f_code.co_filename == "<string>":
        steps = steps.tb_next
    traceback.print_exception(type(error), error, steps)
    sys.stdout.flush()
    sys.exit(1)
if value is not None:
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        sys.exit("minflow: the value cannot be written as JSON: %s; return texts, numbers, lists, dicts or None" % error)
    with open(value_path, "w", encoding="utf-8") as target:
        target.write(text)
"#;

pub fn prepare(python: &Python, place: &Place<'_>) -> Result<Program, Fault> {
    let name = template::render(&python.interpreter, place.context)?;
    let interpreter = find_program(&name, place.search_path).ok_or_else(|| {
        let key = if python.venv.is_some() { "`python` of `venv`" } else { "`interpreter`" };
        Fault::Task(format!("the interpreter `{name}` was not found on PATH: install it, or name another as {key}"))
    })?;
    let mut files = Vec::new();
    let path = match &python.script {
        Script::File(name) => script_path(name, place)?,
        Script::Text(script) => {
            let script = template::render(script, place.context)?;
            // A file, so that a traceback can show the line.
            let file = write_file(place, ".minflow.py", &script)?;
            files.push(file.clone());
            text(file)?
        }
    };
    let mut arguments = String::new();
    if python.function.is_some() {
        let file = write_file(place, ".args", &arguments_of(python, place)?.to_string())?;
        files.push(file.clone());
        arguments = text(file)?;
    }
    let mut value = place.scratch.as_os_str().to_owned();
    value.push(".value");
    let value = PathBuf::from(value);
    let function = python.function.clone().unwrap_or_default();
    let mut argv = vec!["-c".to_owned(), RUNNER.to_owned(), text(value.clone())?, path, function, arguments];
    if let Some(venv) = &python.venv {
        let task = venv_task(&venv.requirements, interpreter, argv, place)?;
        let program = builtin::program("venv", &task, value, place)?;
        files.extend(program.files);
        return Ok(Program { files, ..program });
    }
    argv.insert(0, interpreter);
    files.push(value.clone());
    Ok(Program { argv, value: Some(value), files, ..Program::default() })
}

/// `argv` is what follows the interpreter.
fn venv_task(
    requirements: &Requirements,
    interpreter: String,
    argv: Vec<String>,
    place: &Place<'_>,
) -> Result<VenvTask, Fault> {
    let requirements = match requirements {
        Requirements::List(lines) => {
            let lines = lines.iter().map(|line| template::render(line, place.context));
            Asked::Lines(lines.collect::<Result<_, _>>()?)
        }
        Requirements::File(name) => {
            let path = place.dag_folder.join(name);
            if !path.is_file() {
                let shown = path.display();
                return Err(Fault::Task(format!(
                    "there is no requirements file `{shown}`: create it, or correct `requirements` (a file relative to the DAG file's folder, or a list)"
                )));
            }
            Asked::File(path)
        }
    };
    Ok(VenvTask {
        venvs: place.home.join("venvs"),
        folder: place.dag_folder.to_owned(),
        interpreter,
        requirements,
        argv,
        verdict: builtin::verdict_path(place),
    })
}

fn arguments_of(python: &Python, place: &Place<'_>) -> Result<Value, Fault> {
    let args = Value::Array(python.args.clone());
    let kwargs = Value::Object(python.kwargs.clone());
    let rendered = |value: &Value| template::render_value(value, python.arguments_at, place.context);
    Ok(json!({ "args": rendered(&args)?, "kwargs": rendered(&kwargs)? }))
}
