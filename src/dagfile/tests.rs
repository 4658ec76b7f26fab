use super::*;

fn read(text: &str) -> Result<Dag, Vec<Diagnostic>> {
    parse(Path::new("dags/report.toml"), text.as_bytes(), &Defaults::default())
}

#[test]
fn the_smallest_file_is_a_dag_with_the_files_name() {
    let dag = read("[tasks.hello]\nbash = \"echo hello\"\n").unwrap();
    assert_eq!(&*dag.dag_id, "report");
    assert_eq!(dag.tasks.len(), 1);
    assert_eq!(dag.schedule, Schedule::Never);
}
