//! What a task inherits: the environment that minflow was given, without what minflow tells its own allocator.

use crate::harness::Home;

const DAG: &str = "[tasks.show]\nbash = 'echo \"<${GLIBC_TUNABLES-unset}>\"'\n";

#[test]
fn a_task_inherits_the_allocators_settings_as_the_user_has_given_them() {
    for (given, seen) in [(None, "<unset>"), (Some("glibc.malloc.check=0"), "<glibc.malloc.check=0>")] {
        let home = Home::new();
        home.dag("inherits", DAG);
        let mut command = home.command("run --port 0");
        command.envs(given.map(|given| ("GLIBC_TUNABLES", given)));
        let minflow = home.start_as(command);
        let own = std::fs::read(format!("/proc/{}/environ", minflow.pid())).unwrap();
        let own = String::from_utf8_lossy(&own).into_owned();
        assert!(!cfg!(target_env = "gnu") || own.contains("glibc.malloc.tcache_count=0x0"), "{own}");
        home.run_dag("inherits", "one");
        let log = home.log("inherits", "one", "show", 1);
        assert!(log.contains(seen), "{log}");
    }
}
