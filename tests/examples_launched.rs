//! The examples that start other programs under `oomguard run`, run as a user runs them; and the files for workflow
//! systems and containers, whose commands are run where the system itself is not here.

mod common;

use common::child::{End, Remains, Start};
use common::launcher;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;
use tempfile::TempDir;
use yaml_rust2::{Yaml, YamlLoader};

const ROWS: u64 = 150_000;
const OUT_OF_MEMORY: i32 = oomguard::EXIT_OUT_OF_MEMORY as i32;

/// A parent that takes FIRST_MIB CEILING_MIB and an input.
struct Parent {
    /// What it calls itself.
    name: &'static str,
    command: Vec<String>,
    worker: Vec<String>,
    /// Too little, even twice as much. (Node 20 hangs as it starts where it gets less than 48 MiB, with us or without.)
    first_mib: &'static str,
    still_too_little_mib: &'static str,
}

fn parents() -> Vec<Parent> {
    let file = |path: &str| in_source(path).to_str().expect("a path in UTF-8").to_owned();
    let mut parents = Vec::new();
    if common::have("node") {
        parents.push(Parent {
            name: "parent.mjs",
            command: vec!["node".to_owned(), file("examples/node/parent.mjs")],
            worker: vec![],
            first_mib: "28",
            still_too_little_mib: "36",
        });
    }
    if common::have("python3") {
        parents.push(Parent {
            name: "retry.sh",
            command: vec![file("examples/shell/retry.sh")],
            worker: vec!["answer.txt".to_owned(), "python3".to_owned(), file("examples/python/worker.py")],
            first_mib: "24",
            still_too_little_mib: "30",
        });
    }
    parents
}

#[test]
fn a_parent_retries_until_the_answer_is_right() {
    for Parent { name, command, worker, first_mib, .. } in parents() {
        let remains = ask(&command, &[first_mib, "1024"], &worker, "requests.csv", &launcher::DIRECTORY);
        assert_eq!(remains.end(), End::Exit(0), "{name}: {remains:?}");
        assert_eq!(remains.answer(), *ANSWER, "{name}");
        let retries = count(&remains.stderr, &format!("{name}: "));
        assert!(retries >= 2, "{name}: {remains:?}");
        assert_eq!(count(&remains.stderr, "oomguard: out of memory: "), retries, "{name}: {remains:?}");
    }
}

#[test]
fn a_parent_gives_up_at_its_ceiling() {
    for Parent { name, command, worker, first_mib, still_too_little_mib: ceiling } in parents() {
        let remains = ask(&command, &[first_mib, ceiling], &worker, "requests.csv", &launcher::DIRECTORY);
        assert_eq!(remains.end(), End::Exit(OUT_OF_MEMORY), "{name}: {remains:?}");
        assert_eq!(remains.answer(), "", "{name}");
        assert_eq!(count(&remains.stderr, &format!("{name}: ")), 2, "{name}: {remains:?}");
        assert!(
            remains.stderr.contains(&format!(" limit: {ceiling} MiB ")),
            "the last attempt has all of it: {remains:?}"
        );
    }
}

#[test]
fn a_parent_returns_at_once_what_is_not_a_lack_of_memory() {
    for Parent { name, command, worker, .. } in parents() {
        let remains = ask(&command, &["512", "1024"], &worker, "no/such.csv", &launcher::DIRECTORY);
        assert_eq!(remains.end(), End::Exit(1), "{name}: {remains:?}");
        assert_eq!(count(&remains.stderr, &format!("{name}: ")), 1, "{name}: {remains:?}");
        assert_eq!(remains.answer(), "", "{name}");
    }
}

#[test]
fn the_python_parent_retries_only_the_workers_that_ran_out_of_memory() {
    if !common::have("python3") {
        return;
    }
    let parent = ["python3".to_owned(), in_source("examples/python/workers.py").to_str().unwrap().to_owned()];
    let remains =
        ask(&parent, &["512", "24", "small.csv", "bad.csv"], &[], "requests.csv", &launcher::DIRECTORY);
    assert_eq!(remains.end(), End::Exit(1), "bad.csv fails: {remains:?}");
    assert_eq!(remains.stdout, format!("small.csv:\ncart 1 5\nrequests.csv:\n{}", *ANSWER));
    let said = |start: &str| count(&remains.stderr, &format!("workers.py: {start}"));
    assert_eq!(
        (said("small.csv: "), said("bad.csv: giving up"), said("bad.csv: ")),
        (0, 1, 1),
        "{remains:?}"
    );
    assert!(said("requests.csv: ") >= 1, "{remains:?}");
    assert_eq!(count(&remains.stderr, "oomguard: out of memory: "), said("requests.csv: "), "{remains:?}");
}

#[test]
fn the_parents_that_read_reports_do_not_believe_an_exit_code_without_one() {
    // In place of the launcher, a program that exits with 198 and leaves somebody else's report.
    let directory = TempDir::new().unwrap();
    let liar = directory.path().join("oomguard");
    fs::write(&liar, "#!/bin/sh\necho '{\"token\":\"other\"}' >> \"$5\"\nexit 198\n").unwrap();
    fs::set_permissions(&liar, fs::Permissions::from_mode(0o755)).unwrap();
    for (program, script, code) in
        [("python3", "examples/python/workers.py", 1), ("node", "examples/node/parent.mjs", OUT_OF_MEMORY)]
    {
        if !common::have(program) {
            continue;
        }
        let parent = [program.to_owned(), in_source(script).to_str().unwrap().to_owned()];
        let remains = ask(&parent, &["512", "24"], &[], "requests.csv", directory.path());
        assert_eq!(remains.end(), End::Exit(code), "{script}: {remains:?}");
        assert_eq!(remains.stderr.lines().count(), 1, "one attempt: {script}: {remains:?}");
    }
}

#[test]
fn the_image_has_one_more_file_and_the_launcher_as_its_entry_point() {
    let text = fs::read_to_string(in_source("examples/docker/Dockerfile")).unwrap();
    let copied = text.lines().filter(|line| line.starts_with("COPY oomguard ")).count();
    assert_eq!(copied, 1);
    let list = |instruction: &str| -> Vec<String> {
        let line = text.lines().find_map(|line| line.strip_prefix(instruction)).expect("it is there");
        serde_json::from_str(line).expect("the exec form, which needs no shell")
    };
    runs_the_worker_and_dies_well(&[list("ENTRYPOINT "), list("CMD ")].concat());
}

#[test]
fn the_workflow_of_argo_retries_on_the_reserved_code() {
    let workflow = yaml("examples/workflows/argo.yaml");
    let template = &workflow["spec"]["templates"][0];
    let condition = format!("asInt(lastRetry.exitCode) == {OUT_OF_MEMORY}");
    assert_eq!(template["retryStrategy"]["expression"].as_str(), Some(&*condition));
    let patch: serde_json::Value =
        serde_json::from_str(template["podSpecPatch"].as_str().unwrap()).expect("a patch in JSON");
    let memory = patch["containers"][0]["resources"]["limits"]["memory"].as_str().unwrap();
    assert!(memory.contains("retries"), "it grows: {memory}");
    runs_the_worker_and_dies_well(&command_of(&template["container"]));
}

#[test]
fn the_deployment_has_the_launcher_as_its_entry_point() {
    let deployment = yaml("examples/kubernetes/deployment.yaml");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert!(container["resources"]["limits"]["memory"].as_str().is_some(), "the limit comes from there");
    let mut command = command_of(container);
    let program = command.iter().position(|word| word == "--").unwrap() + 1;
    command.truncate(program);
    let report = command.iter().position(|word| word == "/dev/termination-log").unwrap();
    command[report] = "report".to_owned();
    command.extend(["python3", "/app/worker.py", "/data/requests.csv"].map(str::to_owned));
    let remains = runs_the_worker_and_dies_well(&command);
    if let Some(remains) = remains {
        assert!(remains.report.is_some_and(|report| report.contains("\"out_of_memory\"")));
    }
}

#[test]
fn snakemake_retries_what_ran_out_of_memory_and_nothing_else() {
    if !common::have("snakemake") || !common::have("python3") {
        return;
    }
    let directory = inputs();
    // It takes its time: longer than any program of ours may.
    let output = Command::new("timeout")
        .args(["300", "snakemake", "--cores", "1", "--quiet", "--keep-going", "bad.txt", "requests.txt"])
        .arg("--snakefile")
        .arg(in_source("examples/workflows/Snakefile"))
        .env("PATH", launcher::path_with(&launcher::DIRECTORY))
        .current_dir(directory.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "bad.csv fails: {stderr}");
    assert_eq!(fs::read_to_string(directory.path().join("requests.txt")).unwrap(), *ANSWER);
    assert_eq!(count(&stderr, "ValueError: "), 1, "bad.csv is tried once: {stderr}");
    assert!(count(&stderr, "oomguard: out of memory: ") >= 1, "{stderr}");
}

#[test]
fn the_dag_of_airflow_and_the_pipeline_of_nextflow_know_the_reserved_code() {
    let nextflow = fs::read_to_string(in_source("examples/workflows/main.nf")).unwrap();
    assert!(nextflow.contains(&format!("task.exitStatus == {OUT_OF_MEMORY} ? 'retry'")));
    let dag = fs::read_to_string(in_source("examples/workflows/airflow_dag.py")).unwrap();
    assert!(dag.contains(&format!("OUT_OF_MEMORY = {OUT_OF_MEMORY}\n")));
    if common::have("python3") {
        let parsed =
            Command::new("python3").args(["-c", "import ast, sys; ast.parse(sys.argv[1])", &dag]).status();
        assert!(parsed.unwrap().success());
    }
}

// What they are run with.

static REQUESTS: LazyLock<String> = LazyLock::new(|| {
    let mut text = String::from("id,service,url,agent,millis\n");
    for row in 0..ROWS {
        writeln!(text, "r{row},{},/item/{row},a-user-agent,{}", service(row), row % 97).unwrap();
    }
    text
});

static ANSWER: LazyLock<String> = LazyLock::new(|| {
    let mut services = BTreeMap::<&str, (u64, u64)>::new();
    for row in 0..ROWS {
        let (requests, millis) = services.entry(service(row)).or_default();
        *requests += 1;
        *millis += row % 97;
    }
    services.iter().map(|(name, (requests, millis))| format!("{name} {requests} {millis}\n")).collect()
});

fn service(row: u64) -> &'static str {
    ["cart", "login", "search"][(row % 3) as usize]
}

/// What a run left behind, and where it ran.
#[derive(Debug)]
struct Ran {
    remains: Remains,
    directory: TempDir,
}

impl std::ops::Deref for Ran {
    type Target = Remains;

    fn deref(&self) -> &Remains {
        &self.remains
    }
}

impl Ran {
    /// The answer, in the file that some parents write or on stdout.
    fn answer(&self) -> String {
        fs::read_to_string(self.directory.path().join("answer.txt")).unwrap_or_else(|_| self.stdout.clone())
    }
}

/// A directory with the inputs: a large one, a small one, and one that no memory cures.
fn inputs() -> TempDir {
    let directory = TempDir::with_prefix("oomguard-launched-").unwrap();
    for (name, text) in [
        ("requests.csv", REQUESTS.as_str()),
        ("small.csv", "id,service,url,agent,millis\nr1,cart,/,-,5\n"),
        ("bad.csv", "id,service,url,agent,millis\nr1,cart,/,-,never\n"),
    ] {
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

/// Runs a parent where the inputs are; `launcher` is where it finds `oomguard`.
fn ask(parent: &[String], numbers: &[&str], worker: &[String], input: &str, launcher: &Path) -> Ran {
    let directory = inputs();
    let (program, arguments) = parent.split_first().expect("a program");
    let mut start = Start::program(program.into(), "none");
    start
        .command
        .args(arguments)
        .args(numbers)
        .args(worker)
        .arg(input)
        .env("PATH", launcher::path_with(launcher))
        .env_remove("OOMGUARD_REPORT")
        .current_dir(directory.path());
    // Near its limit V8 collects and asks again, for up to 9 s on a busy machine.
    let remains = start.run_within(Duration::from_secs(180)).expect("it ends in time");
    Ran { remains, directory }
}

/// The command of a container, run here: with the container's limit as it is, and with one that is too small.
fn runs_the_worker_and_dies_well(command: &[String]) -> Option<Remains> {
    assert_eq!(command[..2], ["oomguard", "run"]);
    if !common::have("python3") {
        return None;
    }
    let start = |limit: &str| {
        let mut start = Start::program(launcher::DIRECTORY.join("oomguard"), "none");
        fs::write(start.directory.path().join("requests.csv"), &*REQUESTS).unwrap();
        for word in &command[1..] {
            start.command.arg(match word.as_str() {
                "/app/worker.py" => in_source("examples/python/worker.py"),
                "/data/requests.csv" => "requests.csv".into(),
                other => PathBuf::from(other),
            });
        }
        start.env("OOMGUARD_LIMIT", limit).run().expect("it ends in time")
    };
    let remains = start("1Gi");
    assert_eq!((remains.end(), &remains.stdout), (End::Exit(0), &*ANSWER), "{remains:?}");
    let remains = start("24Mi");
    assert_eq!(remains.end(), End::Exit(OUT_OF_MEMORY), "{remains:?}");
    Some(remains)
}

fn command_of(container: &Yaml) -> Vec<String> {
    let words = |list: &Yaml| list.as_vec().cloned().unwrap_or_default();
    let all = words(&container["command"]).into_iter().chain(words(&container["args"]));
    all.map(|word| word.as_str().expect("a string").to_owned()).collect()
}

fn yaml(path: &str) -> Yaml {
    let text = fs::read_to_string(in_source(path)).unwrap();
    let mut documents = YamlLoader::load_from_str(&text).unwrap();
    assert_eq!(documents.len(), 1);
    documents.remove(0)
}

/// How many lines start so.
fn count(text: &str, start: &str) -> usize {
    text.lines().filter(|line| line.starts_with(start)).count()
}

fn in_source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
