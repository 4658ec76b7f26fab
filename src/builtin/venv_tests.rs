use super::*;

fn task(folder: &Path, requirements: Asked) -> VenvTask {
    VenvTask {
        venvs: folder.join("venvs"),
        folder: folder.to_owned(),
        interpreter: folder.join("python").to_str().unwrap().to_owned(),
        requirements,
        argv: Vec::new(),
        verdict: folder.join("verdict"),
    }
}

#[test]
fn a_virtual_environment_is_known_by_all_that_it_is_made_of() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let write = |name: &str, text: &str| {
        fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
        fs::write(folder.join(name), text).unwrap();
    };
    for name in ["python", "a.whl", "pkg/a.py", "more.txt"] {
        write(name, "one");
    }
    write("all.txt", "# packages\n-r more.txt\n./a.whl[x]\n\n-e ./pkg\n");
    let lines = |lines: &[&str]| identity(&task(folder, Asked::Lines(lines.iter().map(ToString::to_string).collect())));
    let file = || identity(&task(folder, Asked::File(folder.join("all.txt")))).unwrap();
    assert_eq!(lines(&["a==1", "b"]), lines(&[" a==1", "# a comment", "b"]));
    assert_ne!(lines(&["a==1"]), lines(&["a==2"]));
    assert_ne!(lines(&["ab"]), lines(&["a", "b"]));
    let mut known = BTreeSet::from([file()]);
    for (name, text) in
        [("a.whl", "two"), ("more.txt", "a==2"), ("pkg/b.py", ""), ("pkg/a.py", "longer"), ("python", "another")]
    {
        write(name, text);
        assert!(known.insert(file()), "{name} is part of it");
    }
    write("pkg/__pycache__/a.pyc", "");
    write("other.txt", "a==9");
    assert!(!known.insert(file()), "what has nothing to do with it changes nothing");
}

#[test]
fn files_that_include_each_other_come_to_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("python"), "").unwrap();
    fs::write(folder.join("a.txt"), "-r b.txt\n").unwrap();
    fs::write(folder.join("b.txt"), "-r a.txt\n").unwrap();
    assert!(identity(&task(folder, Asked::File(folder.join("a.txt")))).is_ok());
    assert!(identity(&task(folder, Asked::File(folder.join("none.txt")))).is_err());
}

#[test]
fn the_last_error_is_the_complaint_and_all_is_handed_on() {
    let said = "looks\nERROR: no such package x\nERROR: nothing matches x\n[notice] a new pip\n";
    let mut log = Vec::new();
    assert_eq!(complaint(said.as_bytes(), &mut log), "ERROR: nothing matches x");
    assert_eq!(String::from_utf8(log).unwrap(), said);
    assert_eq!(complaint("one\n  two \n\n".as_bytes(), &mut Vec::new()), "two");
    assert_eq!(complaint(&b"\xff"[..], &mut Vec::new()), "\u{fffd}");
}
