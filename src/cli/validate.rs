//! `minflow validate`

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;

use crate::cli::failure::eprint;
use crate::cli::output::{Format, Output};
use crate::cli::{Failure, Globals, Outcome, files, record, settings};
use crate::config;
use crate::dagfile::{self, Defaults};
use crate::diagnostic::Diagnostic;
use crate::model::{Dag, DagId, Pool, RunAs};
use crate::observe::host;
use crate::operators::plugin;
use crate::secrets::{Masker, Secrets};
use crate::store::Reader;
use crate::supervisor::sys;
use crate::template;

#[derive(Debug, Args)]
#[command(
    after_help = "Each fault is shown as path:line:column: code: message, with its line and what to write instead. \
    Exit code 3 if there is one. \
    A warning is no fault.\n\nExamples:\n  minflow validate\n  minflow validate dags/host_report.toml -o json"
)]
pub struct Arguments {
    /// DAG files to check [default: all of the dags folder, and airflow.toml]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// What has been looked at so far.
#[derive(Default)]
struct Findings {
    faults: Vec<Diagnostic>,
    /// No faults, and likely not meant.
    warnings: Vec<Diagnostic>,
    checked: usize,
    broken: BTreeSet<PathBuf>,
    /// Where each dag_id was first found.
    dag_ids: BTreeMap<DagId, PathBuf>,
    /// Hides the home's secrets, if its configuration is sound.
    masker: Arc<Masker>,
}

pub fn run(globals: &Globals, arguments: &Arguments, output: &mut Output) -> Outcome {
    let home = settings::home(globals)?;
    let mut findings = Findings::default();
    let loaded = config::load(settings::inputs(globals, home.clone(), Vec::new()));
    let (folder, defaults) = match &loaded {
        Ok(loaded) => (
            loaded.config.core.dags_folder.clone(),
            Defaults::from_config(&loaded.config, stored_pools(&loaded.config))
                .with_host(host::reservable())
                .with_plugins(plugin::list(&loaded.config.home)),
        ),
        Err(_) => (home.join("dags"), Defaults::default()),
    };
    // Of a broken configuration the pools are not known: what names one must not be blamed for it.
    let secrets = loaded.as_ref().ok().map(|loaded| Secrets::of_process(loaded.config.secrets.clone()));
    findings.masker = secrets.map(|secrets| secrets.masker()).unwrap_or_default();
    let is_blameless = |fault: &Diagnostic| loaded.is_err() && fault.code == "unknown-pool";
    if let Err(faults) = &loaded {
        findings.broken.extend(faults.iter().map(|fault| fault.path.clone()));
        findings.faults.extend(faults.iter().cloned());
    }
    if arguments.files.is_empty() {
        findings.checked += usize::from(loaded.is_err() || home.join("airflow.toml").exists());
        for file in files::dag_files(&folder) {
            let path = folder.join(file);
            let shown = settings::shown(&path, &home).to_owned();
            findings.look_at(&path, shown, &defaults, is_blameless);
        }
    } else {
        for file in &arguments.files {
            if file.file_name().is_some_and(|name| name == "airflow.toml") {
                let inputs = config::ConfigInputs {
                    config: Some(file.clone()),
                    ..settings::inputs(globals, home.clone(), Vec::new())
                };
                findings.checked += 1;
                if let Err(faults) = config::load(inputs) {
                    findings.broken.insert(file.clone());
                    findings.faults.extend(faults.into_iter().filter(|fault| loaded.is_ok() || fault.path != *file));
                }
            } else {
                findings.look_at(file, file.clone(), &defaults, is_blameless);
            }
        }
    }
    findings.tell(output)
}

fn stored_pools(config: &config::Config) -> Vec<Pool> {
    Reader::open(&config.database.path).ok().and_then(|reader| reader.pools().ok()).unwrap_or_default()
}

impl Findings {
    fn look_at(
        &mut self,
        path: &Path,
        shown: PathBuf,
        defaults: &Defaults,
        is_blameless: impl Fn(&Diagnostic) -> bool,
    ) {
        self.checked += 1;
        let found = match files::read(path) {
            Ok(bytes) => dagfile::read(&shown, &bytes, defaults).and_then(|(dag, warnings)| {
                let masker = &self.masker;
                self.warnings.extend(warnings.into_iter().map(|one| one.masked(|text| masker.mask_in(text))));
                let mut faults = template::check(&dag, &shown, &String::from_utf8_lossy(&bytes));
                faults.extend(unknown_users(&dag, &shown, &String::from_utf8_lossy(&bytes)));
                faults.extend(self.claim(dag, &shown).err().unwrap_or_default());
                if faults.is_empty() { Ok(()) } else { Err(faults) }
            }),
            Err((code, message, help)) => Err(vec![Diagnostic::of_file(&shown, code, message, help)]),
        };
        let faults: Vec<Diagnostic> =
            found.err().unwrap_or_default().into_iter().filter(|fault| !is_blameless(fault)).collect();
        if !faults.is_empty() {
            self.broken.insert(shown);
            let masker = &self.masker;
            self.faults.extend(faults.into_iter().map(|fault| fault.masked(|text| masker.mask_in(text))));
        }
    }

    /// A dag_id belongs to one file.
    fn claim(&mut self, dag: Dag, shown: &Path) -> Result<(), Vec<Diagnostic>> {
        match self.dag_ids.get(&dag.dag_id) {
            Some(first) => {
                let message = format!("the dag_id `{}` is also that of `{}`", dag.dag_id, first.display());
                let help = "give one of the two another `dag_id`, or rename its file";
                Err(vec![Diagnostic::of_file(shown, "duplicate-dag-id", message, help)])
            }
            None => {
                self.dag_ids.insert(dag.dag_id, shown.to_owned());
                Ok(())
            }
        }
    }

    fn tell(self, output: &mut Output) -> Outcome {
        match output.format {
            Format::Json | Format::Yaml => {
                let now = Timestamp::now();
                let record = |severity: &'static str| {
                    move |fault: &Diagnostic| {
                        let mut record = record::fault(fault, now);
                        record["severity"] = severity.into();
                        record
                    }
                };
                let faults = self.faults.iter().map(record("error"));
                let records: Vec<_> = faults.chain(self.warnings.iter().map(record("warning"))).collect();
                output.list(&records, &[])?;
            }
            Format::Table | Format::Plain | Format::Svg => {
                for fault in &self.faults {
                    writeln!(output, "{fault}\n")?;
                }
                for warning in &self.warnings {
                    writeln!(output, "warning: {warning}\n")?;
                }
            }
        }
        output.flush()?;
        let files = counted(self.checked, "file");
        let warnings = match self.warnings.len() {
            0 => String::new(),
            count => format!(", {}", counted(count, "warning")),
        };
        if self.faults.is_empty() {
            eprint(&format!("{files} checked, no faults{warnings}\n"));
            return Ok(());
        }
        let faults = counted(self.faults.len(), "fault");
        eprint(&format!("{files} checked, {faults} in {}{warnings}\n", self.broken.len()));
        Err(Failure::InvalidTold)
    }
}

/// Tasks that are to run as users whom this host does not know. A user whom nobody can be asked about is not blamed.
fn unknown_users(dag: &Dag, shown: &Path, text: &str) -> Vec<Diagnostic> {
    let mut named: Vec<&RunAs> = dag.tasks.iter().filter_map(|task| task.run_as.as_deref()).collect();
    // That of `default_args` is each task's.
    named.sort_by_key(|run_as| run_as.at);
    named.dedup();
    let unknown = named.into_iter().filter(|run_as| matches!(sys::find_user(&run_as.user), Ok(None)));
    let fault = |RunAs { user, at }: &RunAs| {
        let source_line = text.lines().nth(at.line.saturating_sub(1) as usize).unwrap_or_default().to_owned();
        Diagnostic {
            path: shown.to_owned(),
            line: at.line,
            column: at.column,
            width: user.chars().count() as u32 + 2,
            source_line,
            code: "unknown-user",
            message: format!("this host has no user `{user}`"),
            help: format!("create it (`useradd {user}`), or correct the name"),
        }
    };
    unknown.map(fault).collect()
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
