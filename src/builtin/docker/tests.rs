use super::*;

fn task() -> DockerTask {
    DockerTask {
        program: "/bin/docker".to_owned(),
        home: "/home".into(),
        image: "alpine:3".to_owned(),
        command: vec!["echo".to_owned(), "--rm".to_owned()],
        mounts: vec!["type=bind,source=/srv,target=/srv".to_owned()],
        variables: Some("/run/a.variables".into()),
        more_variables: vec![("SECRET".to_owned(), "of two\nlines".to_owned())],
        working_dir: Some("/work".to_owned()),
        network: Some("host".to_owned()),
        user: Some("1000:1000".to_owned()),
        auto_remove: AutoRemove::Success,
        pull: Pull::Missing,
        run_dir: "/home/runs/d,r".to_owned(),
        labels: vec![("minflow.dag_id".to_owned(), "d".to_owned())],
        verdict: "/run/a.verdict".into(),
    }
}

#[test]
fn a_container_is_made_with_all_that_was_asked_for_and_no_value_in_its_words() {
    let identity = Identity { instance: "i".to_owned(), name: "minflow-i.1".to_owned() };
    let variables = ["MINFLOW_RUN_ID".to_owned()];
    let words = creation(&task(), &identity, &variables, RunDir::Mounted).join(" ");
    assert_eq!(
        words,
        "create --name minflow-i.1 --pull never --label minflow.instance=i --label minflow.auto_remove=success \
         --label minflow.dag_id=d --mount type=bind,\"source=/home/runs/d,r\",\"target=/home/runs/d,r\" \
         --mount type=bind,source=/srv,target=/srv --workdir /work --network host --user 1000:1000 \
         --env-file /run/a.variables --env SECRET --env MINFLOW_RUN_ID alpine:3 echo --rm"
    );
    assert!(!format!("{:?}", task()).contains("of two"));
    assert!(!creation(&task(), &identity, &variables, RunDir::Absent).join(" ").contains("/home/runs"));
}

#[test]
fn names_differ_by_host_home_instance_and_try_and_the_instance_is_that_of_all_its_tries() {
    let of = |mark: &str, host: &str| Identity::of(mark, host).unwrap();
    let first = of("00aa.12.1", "a");
    assert!(first.name.starts_with("minflow-") && first.name.ends_with("-12.1"), "{first:?}");
    assert_eq!(first.instance, of("00aa.12.2", "a").instance);
    for other in [of("00aa.12.1", "b"), of("00ab.12.1", "a"), of("00aa.13.1", "a")] {
        assert!(other.instance != first.instance && other.name != first.name, "{other:?}");
    }
    assert_ne!(of("00aa.12.2", "a").name, first.name);
    for wrong in ["", "00aa", "00aa.12"] {
        assert_eq!(Identity::of(wrong, "a"), None);
    }
}

#[test]
fn what_stands_before_the_container_is_not_its_output() {
    let begins = "[2026-11-21T00:00:00.000000Z] minflow: container minflow-i-1.1 begins\n";
    let of = |text: &str| String::from_utf8(own_output(text.as_bytes()).to_vec()).unwrap();
    assert_eq!(of(&format!("pulls alpine\n{begins}a\nb")), "a\nb");
    assert_eq!(of(&format!("pulls alpine\n{begins}")), "");
    assert_eq!(
        of(&format!("{begins}a\n{begins}b\n")),
        format!("a\n{begins}b\n"),
        "what it writes itself is its output"
    );
    assert_eq!(of("no image\n"), "no image\n");
}

#[test]
fn an_end_is_judged_by_what_the_engine_knows() {
    let of = |json: &str| judge(&serde_json::from_str(json).unwrap());
    let ended = |code, reason: Option<&str>| Ok(Ended { code, reason: reason.map(str::to_owned) });
    assert_eq!(of(r#"{"Status":"exited","ExitCode":0,"Error":"","OOMKilled":false}"#), ended(0, None));
    assert_eq!(of(r#"{"Status":"exited","ExitCode":3}"#), ended(3, None));
    let hungry = of(r#"{"Status":"exited","ExitCode":137,"OOMKilled":true}"#).unwrap();
    assert!(hungry.code == 137 && hungry.reason.unwrap().contains("want of memory"));
    let absent = r#"{"Status":"created","ExitCode":127,"Error":"exec: \"x\": executable file not found in $PATH"}"#;
    assert_eq!(of(absent).unwrap().code, 127);
    assert!(of(absent).unwrap().reason.unwrap().contains("did not run: exec: \"x\""));
    for (status, words) in [("created", "not started"), ("running", "still running")] {
        let stop = of(&format!(r#"{{"Status":"{status}","ExitCode":0}}"#)).unwrap_err();
        assert!(matches!(&stop, Stop::Failed(said, Finality::Open) if said.contains(words)), "{stop:?}");
    }
}

#[test]
fn a_command_that_hangs_is_ended_when_its_time_is_over() {
    let cli = Cli::new("/bin/sh", None);
    let script = "sleep 1000 & echo $! >&2; wait";
    let late = cli.ask(&["-c", script], Duration::from_millis(50), Heeds::Signals).unwrap_err();
    assert!(matches!(&late, Stopped::Late(said) if said.contains("was not done within 0.05 s")), "{late:?}");
    let answer = cli.ask(&["-c", "echo a; echo b >&2; exit 3"], SHORT, Heeds::Signals).unwrap();
    assert_eq!(answer, Answer { is_well: false, out: "a\n".to_owned(), err: "b\n".to_owned() });
    assert_eq!(answer.reason(), "b");
    assert!(matches!(Cli::new("/nowhere", None).ask(&["x"], SHORT, Heeds::Nothing), Err(Stopped::Unstarted(_))));
}
