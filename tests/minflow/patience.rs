//! Who waits for another process says what for, and waits for nobody who does not come back.

use std::fs;
use std::os::unix::process::ExitStatusExt;

use rustix::process::Signal;

use crate::harness::{Beside, Heard, Home, signal};

#[test]
fn a_start_that_waits_in_vain_for_an_earlier_supervisor_names_who_holds_its_lock() {
    let home = Home::new();
    let held = fs::File::create(home.file("minflow.supervisor")).unwrap();
    held.lock().unwrap();
    let ran = home.cli("run --port 0");
    assert_eq!(ran.code, Some(1));
    let said = ran.err;
    let expected = "error: failed to start the workers: another process holds `HOME/minflow.supervisor`\n\
                    help: `fuser HOME/minflow.supervisor` names it: end it, and start minflow again\n";
    assert!(said.ends_with(expected), "{said}");
}

#[test]
fn a_command_whose_answer_does_not_come_says_what_it_waits_for_and_has_a_last_word() {
    let home = Home::new();
    home.dag("d", "[tasks.a]\nempty = true\n");
    let minflow = home.start();
    minflow.await_dag("d");
    signal(minflow.pid(), Signal::STOP);
    let mut ended = Beside::start(home.command("dags pause d"), Heard::Err);
    let mut kept = Beside::start(home.command("dags pause d"), Heard::Err);
    for client in [&ended, &kept] {
        let said = client.line().unwrap();
        assert!(said.starts_with("waiting for the running minflow, which does not answer"), "{said}");
    }
    signal(ended.pid(), Signal::TERM);
    let last = ended.line().unwrap();
    assert!(last.starts_with("the wait was ended: the running minflow has been asked"), "{last}");
    assert_eq!(ended.await_end().signal(), Some(Signal::TERM.as_raw()));
    assert!(kept.ended().is_none());
    signal(minflow.pid(), Signal::CONT);
    assert_eq!(kept.await_end().code(), Some(0));
    assert_eq!(minflow.dag("d").unwrap()["is_paused"], true);
}

#[test]
fn a_wait_is_explained_again_when_its_reason_is_another() {
    let home = Home::new();
    home.dag("d", "[tasks.a]\nempty = true\n");
    let minflow = home.start();
    minflow.await_dag("d");
    let writer = rusqlite::Connection::open(home.file("minflow.db")).unwrap();
    signal(minflow.pid(), Signal::STOP);
    let mut client = Beside::start(home.command("dags pause d"), Heard::Err);
    let said = client.line().unwrap();
    assert!(said.starts_with("waiting for the running minflow, which does not answer"), "{said}");
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    signal(minflow.pid(), Signal::CONT);
    let said = client.line().unwrap();
    assert!(said.starts_with("waiting for the running minflow (process "), "{said}");
    writer.execute_batch("ROLLBACK").unwrap();
    while client.line().is_some() {}
    assert_eq!(client.await_end().code(), Some(0));
}

#[test]
fn after_a_kill_minflow_starts_at_once_and_a_second_one_is_refused() {
    let home = Home::new();
    let mut minflow = home.start();
    for _ in 0..20 {
        // Not awaited: what dies still holds the lock.
        signal(minflow.pid(), Signal::KILL);
        minflow = home.start();
        let refused = home.cli("run --port 0");
        assert!(refused.err.contains(&format!("another minflow (pid {}) runs on", minflow.pid())), "{refused:?}");
    }
}
