//! Random trees, one after the other, each in the container's budget: `trees TREE FIRST COUNT LAUNCHER|- JOB STATIC PYTHON POOL`. Tells
//! for each what came of its jobs, tries those again alone that were refused, and ends with 0 if nothing was wrong: no kill by the
//! kernel, no answer that is not right, nobody who hangs, nobody who is refused what it could have alone.
//!
//! With `-` for the launcher nothing is guarded, and it is only counted how many trees lose somebody.

use pod_scenarios::container;
use pod_scenarios::tree::Tree;
use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Nothing takes so long, on a machine that is busy with other things.
const LONGEST: Duration = Duration::from_secs(240);

struct Trees {
    tree: String,
    launcher: Option<String>,
    /// What `tree` gets behind the job's number.
    programs: Vec<String>,
    container: u64,
}

/// What a run of a tree, or of one of its jobs, came to.
struct Ran {
    /// What the root said of each job: how it ended, and why that is wrong.
    jobs: BTreeMap<usize, String>,
    stderr: String,
    /// What is wrong with the run as a whole.
    wrong: Vec<String>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [tree, first, count, programs @ ..] = &arguments[..] else {
        panic!("usage: trees TREE FIRST COUNT LAUNCHER|- JOB STATIC PYTHON POOL")
    };
    let launcher = programs.first().filter(|launcher| *launcher != "-").cloned();
    let container = container::limit();
    let trees = Trees { tree: tree.clone(), launcher, programs: programs.to_vec(), container };
    let first: u64 = first.parse().expect("a seed");
    let count: u64 = count.parse().expect("a number");
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    let (mut died, mut wrong, mut alone) = (0, 0, 0);
    for seed in first..first + count {
        let began = Instant::now();
        let kills = container::oom_kills();
        let mut ran = trees.run(seed, "all");
        let has_died = container::oom_kills() > kills;
        died += u64::from(has_died);
        let refused: Vec<usize> =
            ran.jobs.iter().filter(|(_, how)| is_refused(how)).map(|(index, _)| *index).collect();
        for how in ran.jobs.values() {
            *seen.entry(how.split(' ').next().unwrap_or_default().to_owned()).or_default() += 1;
        }
        if trees.launcher.is_some() {
            for index in &refused {
                alone += 1;
                let again = trees.run(seed, &index.to_string());
                if again.jobs.get(index).is_none_or(|how| how != "right") {
                    let how = again.jobs.get(index).map_or("nothing", String::as_str);
                    ran.wrong.push(format!("job {index} alone: {how}; {}", again.wrong.join("; ")));
                    ran.stderr += &format!("-- alone:\n{}", again.stderr);
                }
            }
            if container::oom_kills() > kills {
                ran.wrong.push("the kernel killed".into());
            }
        }
        println!(
            "seed {seed}: {} jobs, {} refused{}, {:.1} s",
            ran.jobs.len(),
            refused.len(),
            if has_died { ", the kernel killed" } else { "" },
            began.elapsed().as_secs_f64()
        );
        if trees.launcher.is_some() && !ran.wrong.is_empty() {
            wrong += 1;
            let tree = Tree::draw(seed, container);
            let why = ran.wrong.join("; ").replace('\n', " | ");
            println!("wrong, seed {seed}: {} at once, patience {}: {why}", tree.at_once, tree.patience);
            for (index, job) in tree.jobs.iter().enumerate() {
                println!("  {index} {job}: {}", ran.jobs.get(&index).map_or("nothing", String::as_str));
            }
            println!("{}", ran.stderr);
        }
    }
    println!("{count} trees: {seen:?}, alone {alone}, wrong {wrong}, lost to the kernel {died}");
    std::process::exit(i32::from(wrong > 0));
}

/// All processes there are: number, name, state and parent.
fn processes() -> String {
    let told = |pid: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        let rest: Vec<&str> = rest.split_whitespace().take(2).collect();
        Some(format!("{pid} {name} {}", rest.join(" of ")))
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let lines: Vec<String> =
        numbers.filter(|name| name.parse::<u32>().is_ok()).filter_map(|pid| told(&pid)).collect();
    lines.join("\n")
}

fn is_refused(how: &str) -> bool {
    how == "refused" || how == "left"
}

impl Trees {
    fn run(&self, seed: u64, which: &str) -> Ran {
        let patience = Tree::draw(seed, self.container).patience;
        let mut command = match &self.launcher {
            Some(launcher) => {
                let mut command = Command::new(launcher);
                command.args(["run", "--budget", "auto", "--patience", patience, "--", &self.tree]);
                command
            }
            None => Command::new(&self.tree),
        };
        command.args([&self.container.to_string(), &seed.to_string(), which]).args(&self.programs);
        // What it starts is killed with it, should it hang.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().expect("the launcher starts");
        let read = |pipe: Option<Box<dyn Read + Send>>| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
                String::from_utf8_lossy(&bytes).into_owned()
            })
        };
        let stdout = read(child.stdout.take().map(|pipe| Box::new(pipe) as _));
        let stderr = read(child.stderr.take().map(|pipe| Box::new(pipe) as _));
        let mut wrong = Vec::new();
        let began = Instant::now();
        let mut status = None;
        // Whoever is left holds its output.
        while status.is_none() || !(stdout.is_finished() && stderr.is_finished()) {
            status = status.or(child.try_wait().expect("it can be waited for"));
            if began.elapsed() > LONGEST {
                wrong.push(format!("it hangs:\n{}\n{}", processes(), self.top()));
                // In a pod of its own it is everybody else's first process, and can end them all.
                let whom = if std::process::id() == 1 { "-1".into() } else { format!("-{}", child.id()) };
                let _ = Command::new("/bin/sh").args(["-c", &format!("kill -9 {whom}")]).status();
                status = status.or(child.wait().ok());
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let status = status.expect("it was waited for");
        let (stdout, stderr) = (stdout.join().expect("it reads"), stderr.join().expect("it reads"));
        if !status.success() {
            wrong.push(format!("the root ended with {:?}, signal {:?}", status.code(), status.signal()));
        }
        let line = |line: &str| {
            line.split_once(' ').and_then(|(index, how)| Some((index.parse().ok()?, how.into())))
        };
        let jobs: BTreeMap<usize, String> = stdout.lines().filter_map(line).collect();
        wrong.extend(
            jobs.iter()
                .filter(|(_, how)| how.starts_with("wrong"))
                .map(|(job, how)| format!("job {job}: {how}")),
        );
        let expected = if which == "all" { Tree::draw(seed, self.container).jobs.len() } else { 1 };
        if jobs.len() != expected {
            wrong.push(format!("{} of {expected} jobs have ended", jobs.len()));
        }
        Ran { jobs, stderr, wrong }
    }

    /// Who waits for what.
    fn top(&self) -> String {
        let Some(launcher) = &self.launcher else { return String::new() };
        let output = Command::new(launcher).args(["top", "--once"]).output();
        output.map_or_else(
            |error| error.to_string(),
            |output| String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    }
}
