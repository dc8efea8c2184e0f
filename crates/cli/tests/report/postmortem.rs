//! `oomguard run --postmortem`: what lies in the directory after which end.

use super::death::{DEBUG, OOMGUARD, WITHOUT_PROFILER, clean, finish, make_pipe, make_texts, report};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

struct Run {
    directory: TempDir,
}

impl Run {
    fn new() -> Run {
        let directory = TempDir::with_prefix("oomguard-postmortem-").unwrap();
        make_texts(directory.path());
        Run { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The deaths go to a directory that is not there yet.
    fn run(&self, options: &[&str], command: &[&str], environment: &[(&str, &str)]) -> Output {
        let mut launcher = clean(Command::new(OOMGUARD));
        launcher.arg("run").args(options).arg("--postmortem").arg(self.path("deaths/of/today"));
        launcher.arg("--").args(command).current_dir(self.directory.path());
        launcher.envs(environment.iter().copied());
        finish(launcher)
    }

    fn indexer(&self) -> String {
        DEBUG.to_str().unwrap().to_owned()
    }

    fn deaths(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("deaths/of/today")).unwrap();
        let mut deaths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        deaths.sort();
        deaths
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

fn json(file: PathBuf) -> Value {
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const WHOLE: [&str; 6] =
    ["death.json", "flamegraph.svg", "heap.pb.gz", "report.json", "report.json.profile", "report.txt"];

#[test]
fn a_death_of_memory_leaves_everything_and_says_where() {
    let run = Run::new();
    let output = run.run(&["-m", "40Mi"], &[&run.indexer(), "texts"], &[]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(198), "{said}");
    let deaths = run.deaths();
    assert_eq!(deaths.len(), 1);
    assert_eq!(names(&deaths[0]), WHOLE);
    let line = said.lines().find(|line| line.contains("post-mortem in")).unwrap();
    assert!(line.contains(deaths[0].to_str().unwrap()), "{said}");
    let death = json(deaths[0].join("death.json"));
    assert_eq!(death["outcome"], "out_of_memory");
    assert_eq!(death["command"][1], "texts");
    assert!(death["time"].as_str().unwrap().ends_with('Z'), "{death}");
    assert_eq!(json(deaths[0].join("report.json"))["limit"], 40 << 20);
    let text = fs::read_to_string(deaths[0].join("report.txt")).unwrap();
    assert!(text.contains("add_words") && text.contains("examples/postmortem.rs:60"), "{text}");
    let limit = text.lines().find(|line| line.starts_with("  limit ")).unwrap();
    assert!(limit.ends_with("  of resident, from OOMGUARD_LIMIT or --limit"), "{limit}");
    // Again, elsewhere.
    fs::rename(&deaths[0], run.path("moved")).unwrap();
    let again = report(&run.path("moved"), &[]);
    assert_eq!(String::from_utf8(again.stdout).unwrap(), text);
}

#[test]
fn a_command_line_is_for_nobody_elses_eyes() {
    let run = Run::new();
    let output = run.run(&["-m", "40Mi"], &[&run.indexer(), "texts"], &[]);
    assert_eq!(output.status.code(), Some(198), "{}", stderr(&output));
    let deaths = run.deaths();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&deaths[0]), 0o700);
    for name in ["death.json", "report.json", "report.json.profile", "report.txt"] {
        assert_eq!(mode(&deaths[0].join(name)), 0o600, "{name}");
    }
}

#[test]
fn deaths_of_the_same_second_are_told_in_their_order() {
    let run = Run::new();
    // Process numbers are no order: with ten tries, some are shorter than others, or none is.
    let output = run.run(
        &["-m", "2Mi", "--retries", "9", "--grow", "1.05"],
        &["sh", "-c", "exec sh -c 'sort /dev/zero'"],
        &[],
    );
    assert_eq!(output.status.code(), Some(198), "{}", stderr(&output));
    let tries: Vec<Value> =
        run.deaths().into_iter().map(|death| json(death.join("death.json"))["tries"].clone()).collect();
    assert_eq!(tries, (1..=10).map(Value::from).collect::<Vec<_>>());
    let name = run.deaths()[0].file_name().unwrap().to_str().unwrap().to_owned();
    assert!(
        name.split_once('Z').is_some_and(|(time, _)| time.contains('.')),
        "{name} tells no fraction of a second"
    );
}

#[test]
fn every_try_leaves_its_own() {
    let run = Run::new();
    let output = run.run(&["-m", "32Mi", "--retries", "2", "--grow", "1.3"], &[&run.indexer(), "texts"], &[]);
    assert_eq!(output.status.code(), Some(198));
    assert_eq!(run.deaths().len(), 3);
    let listed = report(&run.path("deaths/of/today"), &["--list"]);
    assert_eq!(String::from_utf8(listed.stdout).unwrap().lines().count(), 3);
    let newest = report(&run.path("deaths/of/today"), &["--json"]);
    let newest: Value = serde_json::from_slice(&newest.stdout).unwrap();
    assert_eq!(newest["death"]["tries"], 3);
}

/// A launcher whose program waits in the midst of its work, at a pipe among its texts.
struct Waiting {
    launcher: Child,
    /// The program goes on when this is closed.
    writer: fs::File,
}

impl Run {
    fn waits_at(&self, text: &str, limit: &str, program: &Path) -> Waiting {
        let pipe = self.path("texts").join(text);
        make_pipe(&pipe);
        let mut launcher = clean(Command::new(OOMGUARD));
        launcher.args(["run", "-m", limit, "--postmortem"]).arg(self.path("deaths/of/today"));
        launcher.arg("--").arg(program).arg(self.path("texts")).env("OOMGUARD_PROFILE", "8192");
        let launcher = launcher.stderr(Stdio::piped()).spawn().unwrap();
        // Opens when the program opens its end.
        let writer = fs::File::options().write(true).open(&pipe).unwrap();
        Waiting { launcher, writer }
    }
}

#[test]
fn a_death_by_signal_leaves_what_was_live() {
    let run = Run::new();
    let mut waiting = run.waits_at("001-pipe", "1Gi", &DEBUG);
    let children = format!("/proc/{0}/task/{0}/children", waiting.launcher.id());
    let children = fs::read_to_string(children).unwrap();
    let is_program = |pid: &i32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|file| file == *DEBUG);
    // The other one sees to it that the launcher's own death leaves nobody behind.
    let child = children.split_whitespace().map(|pid| pid.parse::<i32>().unwrap()).find(is_program).unwrap();
    // SAFETY: a child of the launcher, which waits for it.
    assert_eq!(unsafe { libc::kill(child, libc::SIGKILL) }, 0);
    assert_eq!(waiting.launcher.wait().unwrap().code(), Some(128 + libc::SIGKILL));
    let deaths = run.deaths();
    assert_eq!(
        names(&deaths[0]),
        ["death.json", "flamegraph.svg", "heap.pb.gz", "report.json.profile", "report.txt"]
    );
    let text = fs::read_to_string(deaths[0].join("report.txt")).unwrap();
    assert!(text.starts_with("Ended by signal 9: postmortem (pid "), "{text}");
    assert!(text.contains("add_words"), "{text}");
}

#[test]
fn a_pipe_in_place_of_the_program_does_not_hold_the_launcher_up() {
    let run = Run::new();
    let program = run.path("indexer");
    fs::copy(&*DEBUG, &program).unwrap();
    let mut waiting = run.waits_at("000-pipe", "40Mi", &program);
    fs::remove_file(&program).unwrap();
    fs::rename(run.path("texts/000-pipe"), &program).unwrap();
    drop(waiting.writer);
    assert_eq!(waiting.launcher.wait().unwrap().code(), Some(198));
    assert_eq!(names(&run.deaths()[0]), WHOLE);
    let text = fs::read_to_string(run.deaths()[0].join("report.txt")).unwrap();
    assert!(text.contains("indexer: no names (no regular file)"), "{text}");
}

#[test]
fn a_program_without_a_profiler_leaves_its_record_and_one_line_why() {
    let run = Run::new();
    let eat = "x = [bytearray(10**6) for _ in range(1000)]";
    let output = run.run(&["-m", "100Mi"], &["python3", "-c", eat], &[]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(198), "{said}");
    assert_eq!(names(&run.deaths()[0]), ["death.json", "report.json"]);
    let lines: Vec<&str> = said.lines().filter(|line| line.contains("post-mortem in")).collect();
    assert!(matches!(lines[..], [line] if line.contains("guard!(profile = …)")), "{said}");
    let again = report(&run.deaths()[0], &[]);
    assert_eq!(again.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&again.stdout).contains("Out of memory: python3"));
}

#[test]
fn a_guarded_program_without_a_profiler_is_told_how_to_get_one() {
    let run = Run::new();
    let row = "17,search,/index.html,agent,12\n";
    fs::write(run.path("requests.csv"), row.repeat(500_000)).unwrap();
    let output = run.run(&["-m", "20Mi"], &[WITHOUT_PROFILER.to_str().unwrap(), "requests.csv"], &[]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(198), "{said}");
    assert!(said.contains("build it with guard!(profile = on)"), "{said}");
}

/// So far apart that none is met, whatever the program allocates.
const NO_SAMPLES: [(&str, &str); 1] = [("OOMGUARD_PROFILE", "1000Ti")];

#[test]
fn where_nothing_live_was_sampled_all_but_the_flame_graph_is_there() {
    let run = Run::new();
    let output = run.run(&["-m", "40Mi"], &[&run.indexer(), "texts"], &NO_SAMPLES);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(198), "{said}");
    let death = &run.deaths()[0];
    assert_eq!(names(death), WHOLE.into_iter().filter(|name| *name != "flamegraph.svg").collect::<Vec<_>>());
    let line = said.lines().find(|line| line.contains("post-mortem in")).unwrap();
    assert!(line.ends_with(": see report.txt and heap.pb.gz; nothing live was sampled"), "{said}");
    let text = fs::read_to_string(death.join("report.txt")).unwrap();
    assert!(
        text.contains("nothing that was live had been sampled") && text.contains("Refused last"),
        "{text}"
    );
    // What was asked for besides is there, too.
    let (graph, folded) = (run.path("graph.svg"), run.path("folded"));
    let options = ["--flamegraph", graph.to_str().unwrap(), "--folded", folded.to_str().unwrap(), "--json"];
    let again = report(death, &options);
    assert_eq!(again.status.code(), Some(0), "{}", stderr(&again));
    assert!(stderr(&again).contains("no flame graph") && !graph.exists(), "{}", stderr(&again));
    assert_eq!(fs::read_to_string(folded).unwrap(), "");
    let json: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(json["sampled_bytes"], 0, "{json}");
}

#[test]
fn where_names_take_more_than_there_is_the_rest_is_there_and_one_line_says_so() {
    let run = Run::new();
    // The limit holds for the search as well.
    let script = format!("ulimit -S -d 20000; exec {OOMGUARD} run -m 18Mi --postmortem d -- \"$0\" texts");
    let mut shell = clean(Command::new("sh"));
    shell.args(["-c", &script, &run.indexer()]).current_dir(run.directory.path());
    let output = finish(shell);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(198), "{said}");
    assert!(said.contains("without names: ") && said.contains("oomguard report again elsewhere"), "{said}");
    let death = fs::read_dir(run.path("d")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(names(&death), WHOLE);
    assert!(fs::read_to_string(death.join("report.txt")).unwrap().contains("postmortem+0x"));
    // And here there is enough.
    let again = String::from_utf8(report(&death, &[]).stdout).unwrap();
    assert!(again.contains("add_words"), "{again}");
}

#[test]
fn a_profile_that_was_switched_off_stays_off() {
    let run = Run::new();
    let said = stderr(&run.run(&["-m", "40Mi"], &[&run.indexer(), "texts"], &[("OOMGUARD_PROFILE", "off")]));
    assert_eq!(names(&run.deaths()[0]), ["death.json", "report.json"]);
    assert!(said.contains("OOMGUARD_PROFILE says off"), "{said}");
}

#[test]
fn what_does_not_die_of_memory_leaves_nothing() {
    let run = Run::new();
    for (command, code) in [(["true", ""], 0), (["false", ""], 1)] {
        assert_eq!(run.run(&["-m", "1Gi"], &command[..1], &[]).status.code(), Some(code));
    }
    assert_eq!(run.run(&["-m", "1Gi"], &["sh", "-c", "kill -9 $$"], &[]).status.code(), Some(137));
    assert!(run.deaths().is_empty());
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error_before_anything_runs() {
    let run = Run::new();
    fs::write(run.path("deaths"), "").unwrap();
    let output = run.run(&["-m", "1Gi"], &["touch", "ran"], &[]);
    assert_eq!(output.status.code(), Some(125));
    assert!(stderr(&output).contains("--postmortem"), "{}", stderr(&output));
    assert!(!run.path("ran").exists());
}

#[test]
fn quiet_says_nothing_and_writes_the_same() {
    let run = Run::new();
    let output = run.run(&["-m", "40Mi", "--quiet"], &[&run.indexer(), "texts"], &[]);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(198), ""));
    assert_eq!(names(&run.deaths()[0]), WHOLE);
}
