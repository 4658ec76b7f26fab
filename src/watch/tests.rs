use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::RecvTimeoutError;

use tempfile::TempDir;

use super::*;
use crate::model::Graph;
use crate::scheduler::event::{self, DagFile, EventReceiver, Found};

const LONG: Duration = Duration::from_secs(10);

/// A dags folder under watch. A file parses if it begins with `ok`; the rest of its text is the description.
struct Home {
    folder: TempDir,
    events: EventReceiver,
    watcher: Watcher,
    health: Health,
    parsed: Arc<AtomicUsize>,
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Dag, Vec<Diagnostic>> {
    let Some(text) = std::str::from_utf8(bytes).ok().and_then(|text| text.strip_prefix("ok ")) else {
        return Err(vec![Diagnostic::of_file(path, "broken", "not ok", "write ok")]);
    };
    assert!(text != "panic", "a fault of the parser");
    let dag_id = path.file_stem().unwrap().to_str().unwrap().into();
    Ok(Dag { description: text.to_owned(), ..Dag::new(dag_id, Vec::new(), Graph::default()) })
}

impl Home {
    /// Starts the watch after `prepare` has filled the folder of the DAG files.
    fn start(prepare: impl FnOnce(&Path)) -> Self {
        let folder = TempDir::new().unwrap();
        let dags = folder.path().join("dags");
        fs::create_dir(&dags).unwrap();
        prepare(&dags);
        let (sender, events) = event::channel();
        let health = Health::default();
        let parsed = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&parsed);
        let counting: Parse = Arc::new(move |path, bytes| {
            counter.fetch_add(1, Ordering::SeqCst);
            parse(path, bytes)
        });
        let settings = WatchSettings { dags_folder: dags, home: folder.path().to_owned() };
        let watcher = Watcher::start(settings, counting, sender, health.clone()).unwrap();
        Self { folder, events, watcher, health, parsed }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("dags").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn next(&self) -> (Vec<DagFile>, bool) {
        match self.events.recv_timeout(LONG) {
            Ok(Event::DagFiles { files, complete }) => (files, complete),
            Ok(Event::Scanned) => self.next(),
            other => panic!("{other:?}"),
        }
    }

    /// The first scan: all that is told until it is complete.
    fn first(&self) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let (files, complete) = self.next();
            all.extend(told(&files));
            if complete {
                return all;
            }
        }
    }

    fn changes(&self) -> Vec<String> {
        let (files, complete) = self.next();
        assert!(!complete);
        told(&files)
    }

    /// A marker saved now is the next thing that is told: nothing else was news.
    fn assert_quiet(&self) {
        self.write("zz_marker.toml", "ok marker");
        assert_eq!(self.changes(), ["zz_marker.toml: marker"]);
    }

    fn await_condition(&self, is_raised: bool) {
        let deadline = Instant::now() + LONG;
        while self.health.reasons().is_empty() == is_raised {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
    }
}

fn told(files: &[DagFile]) -> Vec<String> {
    let tell = |file: &DagFile| {
        let what = match &file.found {
            Found::Parsed { dag, .. } => dag.description.clone(),
            Found::Broken(faults) => format!("broken, {}", faults[0].code),
            Found::Gone => "gone".to_owned(),
        };
        format!("{}: {what}", file.path.display())
    };
    files.iter().map(tell).collect()
}

#[test]
fn the_first_scan_tells_every_file_in_order_and_then_that_it_is_complete() {
    let home = Home::start(|dags| {
        fs::create_dir_all(dags.join("team/deep")).unwrap();
        fs::write(dags.join("b.toml"), "ok b").unwrap();
        fs::write(dags.join("a.toml"), "nonsense").unwrap();
        fs::write(dags.join("team/deep/c.toml"), "ok c").unwrap();
        fs::write(dags.join("notes.txt"), "ok no").unwrap();
    });
    let all = ["a.toml: broken, broken", "b.toml: b", "team/deep/c.toml: c"];
    let (files, complete) = home.next();
    assert_eq!((told(&files), complete), (all.map(str::to_owned).to_vec(), false));
    let (rest, complete) = home.next();
    assert_eq!((told(&rest), complete), (Vec::new(), true));
    let Found::Broken(faults) = &files[0].found else { panic!() };
    assert_eq!(faults[0].path, Path::new("dags/a.toml"));
}

#[test]
fn many_files_come_in_pieces_and_in_order() {
    let home = Home::start(|dags| {
        for i in 0..1_201 {
            fs::write(dags.join(format!("d{i:04}.toml")), format!("ok {i}")).unwrap();
        }
    });
    let pieces: Vec<Vec<String>> = (0..3).map(|_| home.changes()).collect();
    assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [500, 500, 201]);
    assert_eq!(home.first(), [""; 0]);
    assert!(pieces.concat().is_sorted());
}

#[test]
fn a_saved_file_is_told() {
    let home = Home::start(|_| {});
    assert!(home.first().is_empty());
    home.write("a.toml", "ok one");
    assert_eq!(home.changes(), ["a.toml: one"]);
    home.write("a.toml", "ok two");
    assert_eq!(home.changes(), ["a.toml: two"]);
}

#[test]
fn a_save_by_rename_is_one_change() {
    let home = Home::start(|dags| fs::write(dags.join("a.toml"), "ok one").unwrap());
    home.first();
    home.write(".a.toml.tmp", "ok two");
    fs::rename(home.path(".a.toml.tmp"), home.path("a.toml")).unwrap();
    assert_eq!(home.changes(), ["a.toml: two"]);
    home.assert_quiet();
}

#[test]
fn a_save_by_removing_and_writing_anew_is_one_change() {
    let home = Home::start(|dags| fs::write(dags.join("a.toml"), "ok one").unwrap());
    home.first();
    fs::rename(home.path("a.toml"), home.path("a.toml~")).unwrap();
    home.write("a.toml", "ok two");
    fs::remove_file(home.path("a.toml~")).unwrap();
    assert_eq!(home.changes(), ["a.toml: two"]);
    home.assert_quiet();
}

#[test]
fn a_half_written_file_is_not_told_as_broken_but_one_that_stays_broken_is() {
    let home = Home::start(|dags| fs::write(dags.join("a.toml"), "ok one").unwrap());
    home.first();
    let mut file = fs::File::create(home.path("a.toml")).unwrap();
    file.write_all(b"o").unwrap();
    // Until the watcher has seen the half of it.
    let seen = home.parsed.load(Ordering::SeqCst);
    let deadline = Instant::now() + LONG;
    while home.parsed.load(Ordering::SeqCst) == seen {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    file.write_all(b"k two").unwrap();
    assert_eq!(home.changes(), ["a.toml: two"]);
    home.write("a.toml", "nonsense");
    assert_eq!(home.changes(), ["a.toml: broken, broken"]);
    home.write("a.toml", "ok three");
    assert_eq!(home.changes(), ["a.toml: three"]);
}

#[test]
fn a_rename_tells_both_names_in_one_event() {
    let home = Home::start(|dags| fs::write(dags.join("a.toml"), "ok one").unwrap());
    home.first();
    fs::create_dir(home.path("sub")).unwrap();
    fs::rename(home.path("a.toml"), home.path("sub/b.toml")).unwrap();
    assert_eq!(home.changes(), ["a.toml: gone", "sub/b.toml: one"]);
}

#[test]
fn a_removed_file_and_a_removed_folder_are_gone() {
    let home = Home::start(|dags| {
        fs::create_dir(dags.join("sub")).unwrap();
        fs::write(dags.join("sub/a.toml"), "ok a").unwrap();
        fs::write(dags.join("b.toml"), "ok b").unwrap();
    });
    home.first();
    fs::remove_file(home.path("b.toml")).unwrap();
    assert_eq!(home.changes(), ["b.toml: gone"]);
    fs::remove_dir_all(home.path("sub")).unwrap();
    assert_eq!(home.changes(), ["sub/a.toml: gone"]);
}

#[test]
fn files_of_editors_and_untouched_contents_are_no_news() {
    let home = Home::start(|dags| fs::write(dags.join("a.toml"), "ok a").unwrap());
    home.first();
    for name in [".a.toml.swp", ".#a.toml", "#a.toml#", "a.toml~", "a.toml.bak", "4913", ".hidden.toml"] {
        home.write(name, "ok editor");
    }
    home.write("a.toml", "ok a");
    home.assert_quiet();
}

#[test]
fn a_folder_made_later_is_watched_too() {
    let home = Home::start(|_| {});
    home.first();
    fs::create_dir_all(home.path("x/y")).unwrap();
    home.write("x/y/a.toml", "ok a");
    assert_eq!(home.changes(), ["x/y/a.toml: a"]);
    home.write("x/y/a.toml", "ok b");
    assert_eq!(home.changes(), ["x/y/a.toml: b"]);
}

#[test]
fn links_to_files_and_folders_are_followed_and_loops_end() {
    let elsewhere = TempDir::new().unwrap();
    fs::create_dir(elsewhere.path().join("shared")).unwrap();
    fs::write(elsewhere.path().join("shared/s.toml"), "ok s").unwrap();
    fs::write(elsewhere.path().join("one"), "ok l").unwrap();
    let home = Home::start(|dags| {
        symlink(elsewhere.path().join("one"), dags.join("l.toml")).unwrap();
        symlink(elsewhere.path().join("shared"), dags.join("team")).unwrap();
        symlink(dags, dags.join("loop")).unwrap();
        symlink("nowhere", dags.join("n.toml")).unwrap();
    });
    assert_eq!(home.first(), ["l.toml: l", "n.toml: broken, unreadable", "team/s.toml: s"]);
    fs::write(elsewhere.path().join("one"), "ok m").unwrap();
    assert_eq!(home.changes(), ["l.toml: m"]);
    fs::write(elsewhere.path().join("shared/s.toml"), "ok t").unwrap();
    assert_eq!(home.changes(), ["team/s.toml: t"]);
}

#[test]
fn a_link_made_later_is_followed() {
    let elsewhere = TempDir::new().unwrap();
    fs::write(elsewhere.path().join("s.toml"), "ok s").unwrap();
    let home = Home::start(|_| {});
    home.first();
    symlink(elsewhere.path(), home.path("team")).unwrap();
    assert_eq!(home.changes(), ["team/s.toml: s"]);
    fs::write(elsewhere.path().join("s.toml"), "ok t").unwrap();
    assert_eq!(home.changes(), ["team/s.toml: t"]);
}

#[test]
fn what_is_no_readable_file_of_sane_size_is_named() {
    let home = Home::start(|dags| {
        let big = fs::File::create(dags.join("big.toml")).unwrap();
        big.set_len(scan::MAX_BYTES + 1).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, dags.join("fifo.toml"), rustix::fs::Mode::RUSR).unwrap();
        fs::write(dags.join(std::ffi::OsString::from_vec(b"\xff.toml".to_vec())), "ok x").unwrap();
        fs::write(dags.join("panic.toml"), "ok panic").unwrap();
    });
    assert_eq!(
        home.first(),
        [
            "big.toml: broken, too-large",
            "fifo.toml: broken, not-a-file",
            "panic.toml: broken, internal",
            "\u{fffd}.toml: broken, file-name",
        ]
    );
}

#[test]
fn what_may_not_be_read_is_named_and_nothing_is_taken_for_gone() {
    if rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: root may read everything");
        return;
    }
    let home = Home::start(|dags| {
        fs::create_dir(dags.join("sub")).unwrap();
        fs::write(dags.join("sub/a.toml"), "ok a").unwrap();
        fs::write(dags.join("b.toml"), "ok b").unwrap();
    });
    home.first();
    fs::set_permissions(home.path("sub"), fs::Permissions::from_mode(0o0)).unwrap();
    assert_eq!(home.changes(), ["sub: broken, unreadable"]);
    fs::set_permissions(home.path("sub"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(home.changes(), ["sub: gone"]);
    fs::set_permissions(home.path("b.toml"), fs::Permissions::from_mode(0o0)).unwrap();
    assert_eq!(home.changes(), ["b.toml: broken, unreadable"]);
}

#[test]
fn a_lost_dags_folder_is_said_keeps_its_dags_and_goes_on_when_it_is_back() {
    let home = Home::start(|dags| fs::write(dags.join("a.toml"), "ok a").unwrap());
    home.first();
    fs::rename(home.path(""), home.folder.path().join("away")).unwrap();
    home.await_condition(true);
    fs::create_dir(home.path("")).unwrap();
    home.write("a.toml", "ok a");
    home.write("b.toml", "ok b");
    assert_eq!(home.changes(), ["b.toml: b"]);
    home.await_condition(false);
    home.write("a.toml", "ok c");
    assert_eq!(home.changes(), ["a.toml: c"]);
}

#[test]
fn a_dags_folder_that_comes_later_gets_its_first_scan_then() {
    let home = Home::start(|dags| fs::remove_dir(dags).unwrap());
    assert!(matches!(home.events.recv_timeout(LONG), Ok(Event::Scanned)));
    home.await_condition(true);
    fs::create_dir(home.path("")).unwrap();
    assert!(home.first().is_empty());
    home.assert_quiet();
}

#[test]
fn a_rescan_on_demand_needs_no_event() {
    let home = Home::start(|_| {});
    home.first();
    home.watcher.rescan();
    home.assert_quiet();
}

#[test]
fn a_watcher_that_is_dropped_ends_its_thread() {
    let Home { events, watcher, folder: _folder, .. } = Home::start(|_| {});
    drop(watcher);
    while events.recv_timeout(LONG).is_ok() {}
    assert!(events.recv_timeout(LONG).is_err_and(|error| error == RecvTimeoutError::Disconnected));
}

#[test]
fn what_has_not_changed_is_read_again_when_what_holds_for_it_has() {
    let home = Home::start(|dags| {
        fs::write(dags.join("good.toml"), "ok good").unwrap();
        fs::write(dags.join("faulty.toml"), "nonsense").unwrap();
    });
    home.first();
    // What was written just now is read once more in any case.
    let age = |name: &str| {
        let file = fs::File::options().write(true).open(home.path(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(60)).unwrap();
    };
    ["good.toml", "faulty.toml"].into_iter().for_each(age);
    home.assert_quiet();
    home.watcher.reread();
    // Its faults are the same; the other one's meaning may not be.
    assert_eq!(home.changes(), ["good.toml: good", "zz_marker.toml: marker"]);
    home.watcher.change(|| true);
    home.write("other.toml", "ok other");
    assert_eq!(home.changes(), ["other.toml: other"]);
}
