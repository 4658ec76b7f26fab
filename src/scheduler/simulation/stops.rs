//! How hard a stop is, and what overtakes it.

use super::*;
use crate::scheduler::command::Done;

const HOURLY: &str = "schedule = \"@hourly\"\n[tasks.a]\nbash = 'true'\n";

#[test]
fn a_stop_that_waits_has_no_end_until_a_harder_one_comes() {
    let mut simulation = Simulation::with(&[("d.toml", HOURLY)]);
    simulation.advance(Duration::from_secs(3_600));
    simulation.started("d.a");
    simulation.trace();
    let stop = |simulation: &mut Simulation, how: Stop| {
        let reply = simulation.command(Command::Stop { how, by: Asker::Cli }).recv().unwrap();
        let Ok(Done::Stopping { running }) = reply else { panic!("{reply:?}") };
        (running.len(), simulation.trace())
    };
    assert_eq!(stop(&mut simulation, Stop::Finish), (1, Vec::new()));
    simulation.advance(Duration::from_secs(7 * 86_400));
    assert_eq!(simulation.trace(), Vec::<String>::new());
    assert_eq!(stop(&mut simulation, Stop::Drain), (1, Vec::new()));
    // A milder one does not take back what was asked for.
    assert_eq!(stop(&mut simulation, Stop::Finish), (1, Vec::new()));
    assert!(!simulation.scheduler.world().is_stopped());
    simulation.advance(Duration::from_secs(5));
    assert_eq!(simulation.trace(), [""; 0], "what still runs is left as it is");
    assert!(simulation.scheduler.world().is_stopped());
    assert_eq!(stop(&mut simulation, Stop::Now).1, ["kill d.a: stopped"]);
    assert_eq!(simulation.store.audit().iter().filter(|entry| entry.event == "stop").count(), 1);
    assert!(!simulation.scheduler.world().is_stopped(), "its end is waited for");
}

#[test]
fn who_keeps_all_running_waits_for_what_has_not_begun_alone() {
    let mut simulation = Simulation::with(&[("d.toml", HOURLY)]);
    simulation.advance(Duration::from_secs(3_600));
    simulation.command(Command::Stop { how: Stop::KeepRunning, by: Asker::Cli });
    assert!(!simulation.scheduler.world().is_stopped(), "nobody knows yet whether it runs");
    simulation.started("d.a");
    assert!(simulation.scheduler.world().is_stopped());
    assert_eq!(simulation.task_state("a"), TaskState::Running);
}
