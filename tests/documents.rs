//! README and the book under docs/: links that lead somewhere, commands that run, sessions that come out as shown, and
//! tables that name what there is. The kind of a fenced block says what is done with it:
//!
//! | kind | |
//! |---|---|
//! | `sh` | run, line after line; each has to succeed |
//! | `console` | lines that begin with `$ ` are run, and have to print the others; `…` is anything, a number any number |
//! | `python`, `js` | run as they are, and once more with too little memory |
//! | `c` | compiled |
//! | `dockerfile`, `yaml`, `json` | read, and the launcher's command in it is run with `true` |
//! | `rust`, `toml`, `text` | left alone: doc tests compile Rust (src/lib.rs), and text is output |

mod common;

use common::{c, launcher};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use tempfile::TempDir;
use yaml_rust2::{Yaml, YamlLoader};

/// What takes too long here, the file that runs it, and what stands there.
const RUN_ELSEWHERE: [(&str, &str, &str); 16] = [
    ("examples/demo", ".ci/run", "examples/demo"),
    ("cargo test", ".ci/run", "cargo test"),
    (
        "cargo build --profile launcher -p oomguard-cli",
        "crates/cli/tests/standalone",
        "--profile launcher -p oomguard-cli\n",
    ),
    ("./dist", "tests/dist/run", "./dist \"$made\""),
    ("./dist --arch x86_64", "tests/dist/run", "./dist --arch \"$host\""),
    ("./dist --launcher", "crates/cli/tests/standalone", "./dist --launcher"),
    (
        "pip install target/dist/oomguard-*_x86_64.whl",
        "tests/roots/inside",
        "pip install --no-index /artifacts/*.whl",
    ),
    (
        "npm install target/dist/oomguard-[0-9]*.tgz target/dist/oomguard-linux-x64-*.tgz",
        "tests/roots/inside",
        "npm install --offline",
    ),
    ("dpkg -i target/dist/oomguard_*_amd64.deb", "tests/roots/inside", "dpkg -i /artifacts/deb/*.deb"),
    (
        "dpkg -i target/dist/liboomguard0_*_amd64.deb target/dist/liboomguard-dev_*_amd64.deb",
        "tests/roots/inside",
        "dpkg -i /artifacts/deb/*.deb",
    ),
    (
        "tar -xzf target/dist/oomguard-*-x86_64-linux.tar.gz -C /usr/local --strip-components=1",
        "tests/roots/inside",
        "-linux.tar.gz -C /usr/local --strip-components=1",
    ),
    ("docker build -t oomguard target/dist/docker", "tests/dist/run", "bud --quiet --tag oomguard"),
    ("cargo run -p oomguard-cli --example manual -- manual", "crates/cli/tests/manual.rs", "examples/manual"),
    ("crates/shim/install", "tests/c_library.rs", "crates/shim/install"),
    ("cc program.c $(pkg-config --cflags --libs oomguard)", "tests/c_library.rs", "\"--cflags\""),
    (
        "LD_PRELOAD=/usr/local/lib/liboomguard.so OOMGUARD_LIMIT=256Mi ./any-program",
        "tests/shim/main.rs",
        "LD_PRELOAD",
    ),
];

/// Pages whose programs need more than is here, and the tests that run them.
const PAGES_RUN_ELSEWHERE: [(&str, &str); 3] = [
    ("docs/python.md", "python/tests"),
    ("docs/node.md", "node/tests"),
    ("docs/integrations.md", "tests/integrations"),
];

#[test]
fn the_readme_is_short() {
    let readme = read("README.md");
    assert!(readme.lines().count() <= 200, "README.md has {} lines", readme.lines().count());
    for (index, line) in readme.lines().enumerate() {
        let columns = line.chars().count();
        assert!(columns <= 120, "README.md:{} has {columns} columns", index + 1);
    }
}

#[test]
fn each_page_is_in_the_table_of_contents_once() {
    let contents: Vec<_> = links("docs/SUMMARY.md").into_iter().map(|link| link.target).collect();
    let pages: BTreeSet<_> = pages().into_iter().filter(|page| page != "SUMMARY.md").collect();
    assert_eq!(contents.iter().cloned().collect::<BTreeSet<_>>(), pages);
    assert_eq!(contents.len(), pages.len());
}

#[test]
fn each_link_leads_somewhere() {
    let mut broken = Vec::new();
    for document in documents() {
        for Link { line, target } in links(&document) {
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let path = if file.is_empty() { document.clone() } else { beside(&document, file) };
            let is_page = |path: &str| path.starts_with("docs/");
            let problem = if !in_source(&path).exists() {
                "there is no such file"
            } else if is_page(&document) && !is_page(&path) {
                "the book has no such page: name the file in the text"
            } else if !anchor.is_empty() && !anchors(&path).contains(anchor) {
                "there is no such heading"
            } else {
                continue;
            };
            broken.push(format!("{document}:{line}: {target}: {problem}"));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_schema_of_the_report_is_the_contract() {
    let schema: Value = serde_json::from_str(&read("docs/report.schema.json")).unwrap();
    let mut keys: Vec<_> = oomguard::contract::REPORT_KEYS.to_vec();
    assert_eq!(schema["required"], serde_json::json!(keys));
    keys.push(oomguard::contract::KEY_INFERRED);
    let properties = schema["properties"].as_object().unwrap();
    assert_eq!(properties.keys().collect::<Vec<_>>(), keys);
    let page = read("docs/report.md");
    for key in keys {
        assert!(page.contains(&format!("`{key}`")), "docs/report.md does not explain {key}");
    }
    // The words that Rust's enumerations have for these keys, read where they are defined.
    let contract = read("crates/core/src/contract.rs");
    for (key, enumeration, function) in [
        ("cause", "Cause", "as_str"),
        ("limit_source", "LimitSource", "as_str"),
        ("measure", "Measure", "report_word"),
        ("evidence", "Evidence", "as_str"),
    ] {
        let words = words_of(&contract, enumeration, function);
        let said = properties[key]["enum"].as_array().unwrap();
        let said: BTreeSet<_> = said.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        assert_eq!(said, words, "{key}");
        for word in words {
            assert!(page.contains(&format!("`{word}`")), "docs/report.md does not explain the {key} {word}");
        }
    }
}

#[test]
fn a_report_is_as_its_schema_says() {
    let schema: Value = serde_json::from_str(&read("docs/report.schema.json")).unwrap();
    let directory = fixtures();
    let report = directory.path().join("report.json");
    let output = shell(&directory, "./worker requests.csv")
        .env("OOMGUARD_LIMIT", "64Mi")
        .env("OOMGUARD_REPORT", &report)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(198), "{output:?}");
    let line = fs::read_to_string(report).unwrap();
    let report: Value = serde_json::from_str(&line).unwrap();
    assert!(line.len() <= oomguard::contract::REPORT_MAX_BYTES);
    for key in schema["required"].as_array().unwrap() {
        assert!(report.get(key.as_str().unwrap()).is_some(), "{key} is missing");
    }
    for (key, value) in report.as_object().unwrap() {
        let rule = schema["properties"].get(key).unwrap_or_else(|| panic!("{key} is in no schema"));
        assert!(fits(value, rule), "{key}: {value} does not fit {rule}");
    }
}

#[test]
fn each_variable_and_each_option_is_explained() {
    let configuration = read("docs/configuration.md") + &read("docs/rust.md");
    for variable in quoted(&read("crates/core/src/contract.rs"), "OOMGUARD_") {
        assert!(
            configuration.contains(&format!("`{variable}`"))
                || configuration.contains(&format!("{variable}=")),
            "{variable}"
        );
    }
    for (task, page) in [("run", "docs/run.md"), ("report", "docs/post-mortem.md")] {
        let page = read(page);
        let help =
            Command::new(launcher::DIRECTORY.join("oomguard")).args([task, "--help"]).output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        let options = help.lines().filter_map(|line| line.trim_start().strip_prefix("-")).map(|line| {
            let long = line.split("--").nth(1).or_else(|| line.strip_prefix('-')).unwrap_or(line);
            long.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').next().unwrap().to_owned()
        });
        for option in options.filter(|option| option != "help") {
            assert!(page.contains(&format!("`--{option}")), "{task} --{option} is explained nowhere");
        }
    }
}

#[test]
fn each_benchmark_and_test_that_is_named_is_there() {
    let mut names = BTreeSet::new();
    for document in documents() {
        let text = read(&document).split_whitespace().collect::<Vec<_>>().join(" ");
        for code in
            text.split('`').filter(|code| code.starts_with("cargo bench") || code.starts_with("cargo test"))
        {
            let words: Vec<_> = code.split(' ').collect();
            let after =
                |flag: &str| words.iter().position(|word| *word == flag).map(|at| words[at + 1].to_owned());
            let package = after("-p").unwrap_or_else(|| "oomguard".to_owned());
            for kind in ["bench", "test"] {
                names.extend(
                    after(&format!("--{kind}")).map(|name| (package.clone(), kind, name, document.clone())),
                );
            }
        }
    }
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(in_source("."))
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert!(names.len() > 5, "{names:?}");
    for (package, kind, name, document) in names {
        let package_there =
            metadata["packages"].as_array().unwrap().iter().find(|candidate| candidate["name"] == *package);
        let package_there =
            package_there.unwrap_or_else(|| panic!("{document}: there is no package {package}"));
        let targets = package_there["targets"].as_array().unwrap();
        let is_there = targets.iter().any(|target| target["name"] == *name && target["kind"][0] == kind);
        assert!(is_there, "{document}: {package} has no {kind} {name}");
    }
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "the launcher is the same")]
fn each_command_does_what_the_page_says() {
    let mut wrong = Vec::new();
    for block in blocks().iter().filter(|block| block.kind == "sh") {
        let lines = block.lines_of_shell();
        let here: Vec<_> = lines.iter().filter(|line| !runs_elsewhere(line)).cloned().collect();
        if here.is_empty() || !can_run(&block.text) {
            continue;
        }
        let directory = fixtures();
        let output = output_of(&mut shell(&directory, &format!("set -eu\n{}\n", here.join("\n"))));
        if output.code != Some(0) {
            wrong.push(format!("{block}\n{output:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "the launcher is the same")]
fn each_session_comes_out_as_shown() {
    let mut wrong = Vec::new();
    for block in blocks().iter().filter(|block| block.kind == "console" && can_run(&block.text)) {
        let directory = fixtures();
        let (commands, expected) = session(&block.text);
        let mut script = String::from("exec 2>&1\n");
        for command in &commands {
            script += &format!("{command}\n_code=$?; echo '{MARK}'; (exit $_code)\n");
        }
        let output = output_of(&mut shell(&directory, &script));
        let printed: Vec<_> = output.stdout.split(&format!("{MARK}\n")).map(str::to_owned).collect();
        for ((command, expected), printed) in commands.iter().zip(&expected).zip(&printed) {
            if !matches(expected, &printed.lines().map(str::to_owned).collect::<Vec<_>>()) {
                wrong.push(format!("{block}: {command} printed\n{printed}"));
            }
        }
        if printed.len() != commands.len() + 1 {
            wrong.push(format!("{block}: {output:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "the launcher is the same")]
fn each_parent_lives_and_notices_that_memory_ran_out() {
    let mut wrong = Vec::new();
    for block in blocks() {
        let (program, file) = match block.kind.as_str() {
            "python" => ("python3", "parent.py"),
            "js" => ("node", "parent.mjs"),
            _ => continue,
        };
        if !common::have(program) {
            continue;
        }
        for (text, codes) in [(block.text.clone(), &[0][..]), (with_little(&block.text), &[0, 198][..])] {
            let directory = fixtures();
            fs::write(directory.path().join(file), &text).unwrap();
            let output = output_of(&mut shell(&directory, &format!("{program} {file}")));
            let said = output.stdout.clone() + &output.stderr;
            let noticed = said
                .lines()
                .any(|line| line.starts_with("out of memory") || line.contains(" were not enough"));
            let starved = text != block.text;
            if !output.code.is_some_and(|code| codes.contains(&code)) || (starved && !noticed) {
                wrong.push(format!("{block}, {}: {output:?}", if starved { "starved" } else { "as it is" }));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn each_c_program_compiles() {
    let Some(compiler) = c::c() else { return common::skip::skipped("there is no C compiler here") };
    for block in blocks().iter().filter(|block| block.kind == "c") {
        let directory = TempDir::new().unwrap();
        let source = directory.path().join("program.c");
        fs::write(&source, &block.text).unwrap();
        let output = Command::new(&compiler)
            .args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I"])
            .arg(in_source("include"))
            .arg(source)
            .output()
            .unwrap();
        assert!(output.status.success(), "{block}: {output:?}");
    }
}

#[test]
fn each_container_starts_the_launcher() {
    let mut commands = Vec::new();
    for block in blocks() {
        match block.kind.as_str() {
            "dockerfile" => {
                let line = block.text.lines().find_map(|line| line.strip_prefix("ENTRYPOINT "));
                let words: Vec<String> = serde_json::from_str(line.expect("an entry point")).unwrap();
                commands.push((block.to_string(), words));
            }
            "yaml" => {
                for document in
                    YamlLoader::load_from_str(&block.text).unwrap_or_else(|error| panic!("{block}: {error}"))
                {
                    commands_in(&document, &mut |words| commands.push((block.to_string(), words)));
                }
            }
            "json" => drop(
                serde_json::from_str::<Value>(&block.text).unwrap_or_else(|error| panic!("{block}: {error}")),
            ),
            _ => {}
        }
    }
    assert!(commands.len() >= 4, "{commands:?}");
    for (block, mut words) in commands {
        assert_eq!(
            (&*words[0], &*words[1], words.last().unwrap().as_str()),
            ("oomguard", "run", "--"),
            "{block}"
        );
        let directory = TempDir::new().unwrap();
        if let Some(report) = words.iter().position(|word| word == "/dev/termination-log") {
            words[report] = directory.path().join("report").to_str().unwrap().to_owned();
        }
        let ran = Command::new(launcher::DIRECTORY.join("oomguard"))
            .args(&words[1..])
            .arg("true")
            .output()
            .unwrap();
        assert!(ran.status.success(), "{block}: {ran:?}");
    }
}

#[test]
fn each_kind_of_block_is_known() {
    const KNOWN: [&str; 11] =
        ["sh", "console", "python", "js", "c", "dockerfile", "yaml", "json", "rust", "toml", "text"];
    for block in blocks() {
        assert!(KNOWN.contains(&&*block.kind), "{block} is {:?}: what is to be done with it?", block.kind);
    }
}

// What the documents are.

/// Those whose links are looked at.
fn documents() -> Vec<String> {
    let others = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "examples/README.md"].map(str::to_owned);
    others.into_iter().chain(pages().into_iter().map(|page| format!("docs/{page}"))).collect()
}

fn pages() -> Vec<String> {
    let names = fs::read_dir(in_source("docs")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> =
        names.map(|name| name.into_string().unwrap()).filter(|name| name.ends_with(".md")).collect();
    names.sort();
    names
}

struct Link {
    line: usize,
    target: String,
}

/// The links outside code: `[text](target)`.
fn links(document: &str) -> Vec<Link> {
    let mut links = Vec::new();
    for (index, line) in prose(&read(document)) {
        let mut rest = &*without_code(&line);
        while let Some(start) = rest.find("](") {
            rest = &rest[start + 2..];
            let end =
                rest.find(')').unwrap_or_else(|| panic!("{document}:{}: a link without an end", index + 1));
            links.push(Link { line: index + 1, target: rest[..end].to_owned() });
        }
    }
    links
}

/// The anchors of a page's headings, as GitHub and mdBook make them.
fn anchors(document: &str) -> BTreeSet<String> {
    let headings = prose(&read(document)).into_iter().filter(|(_, line)| line.starts_with('#'));
    let slug = |(_, line): (usize, String)| {
        let text = line.trim_start_matches('#').trim().to_lowercase();
        let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(slug).collect()
}

/// The lines outside fenced blocks, with their indices.
fn prose(text: &str) -> Vec<(usize, String)> {
    let mut inside = false;
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if !inside {
            lines.push((index, line.to_owned()));
        }
    }
    lines
}

fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

/// A fenced block of README or the book.
struct Block {
    document: String,
    line: usize,
    kind: String,
    text: String,
}

impl std::fmt::Display for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.document, self.line)
    }
}

impl Block {
    /// The commands of a shell block, without comments; a line that goes on is one.
    fn lines_of_shell(&self) -> Vec<String> {
        let whole = self.text.replace(" \\\n", " ");
        let lines = whole.lines().map(|line| match line.find(" # ").or(line.starts_with('#').then_some(0)) {
            Some(comment) => line[..comment].trim_end(),
            None => line.trim_end(),
        });
        lines.filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    for document in documents().into_iter().filter(|path| path == "README.md" || path.starts_with("docs/")) {
        if let Some((_, tests)) = PAGES_RUN_ELSEWHERE.iter().find(|(page, _)| *page == document) {
            assert!(in_source(tests).is_dir(), "nobody runs {document}: there is no {tests}");
            continue;
        }
        let mut open: Option<Block> = None;
        for (index, line) in read(&document).lines().enumerate() {
            match (&mut open, line.strip_prefix("```")) {
                (None, Some(kind)) => {
                    let kind = kind.split([',', ' ']).next().unwrap_or_default().to_owned();
                    let document = document.clone();
                    open = Some(Block { document, line: index + 1, kind, text: String::new() });
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(block), None) => block.text += &format!("{line}\n"),
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{document} ends within a block");
    }
    blocks
}

/// Is this command run by another test? That one still has to have it.
fn runs_elsewhere(line: &str) -> bool {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let found = RUN_ELSEWHERE.iter().find(|(command, ..)| words(command) == words(line));
    if let Some((_, file, text)) = found {
        assert!(read(file).contains(text), "{file} no longer runs {line}");
    }
    found.is_some()
}

// Running them.

const MARK: &str = "-- end of a command --";

#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn output_of(command: &mut Command) -> Ran {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

/// A script, run in a directory with what the pages speak of, and with the launcher in PATH.
fn shell(directory: &TempDir, script: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["-k", "5", "120", "sh", "-c", script]);
    command
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .env("PATH", launcher::path_with(&launcher::DIRECTORY));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OOMGUARD_") {
            command.env_remove(name);
        }
    }
    command
}

/// A directory with what the pages speak of.
fn fixtures() -> TempDir {
    let directory = TempDir::with_prefix("oomguard-documents-").unwrap();
    let link =
        |from: &Path, name: &str| std::os::unix::fs::symlink(from, directory.path().join(name)).unwrap();
    link(&example("worker"), "worker");
    link(&in_source("examples/python/worker.py"), "worker.py");
    link(&in_source("examples/node/worker.mjs"), "worker.mjs");
    fs::write(directory.path().join("requests.csv"), &*REQUESTS).unwrap();
    script(&directory, "report.sh", "python3 worker.py requests.csv");
    // Stands in for a program with the feature `inject` that dies of its first three allocations.
    script(&directory, "program", "[ \"$OOMGUARD_INJECT\" -gt 3 ] || exit 198");
    directory
}

fn script(directory: &TempDir, name: &str, line: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = directory.path().join(name);
    fs::write(&path, format!("#!/bin/sh\n{line}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// An input that is too much for 64 MiB.
static REQUESTS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let output = Command::new(example("make_input")).arg("200000").output().unwrap();
    assert!(output.status.success());
    output.stdout
});

/// A parent's program with a limit that is too small for what it starts.
fn with_little(text: &str) -> String {
    // Enough for Node to start.
    let mut little = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("Mi\"") {
        let digits = rest[..start].trim_end_matches(|c: char| c.is_ascii_digit()).len();
        little += &rest[..digits];
        little += "56Mi\"";
        rest = &rest[start + 3..];
    }
    assert!(!little.is_empty(), "it has a limit");
    little + rest
}

/// The commands of a session, and what each prints.
fn session(text: &str) -> (Vec<String>, Vec<Vec<String>>) {
    let (mut commands, mut printed) = (Vec::new(), Vec::<Vec<String>>::new());
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            commands.push(command.to_owned());
            printed.push(Vec::new());
        } else {
            printed.last_mut().expect("a session begins with a command").push(line.to_owned());
        }
    }
    (commands, printed)
}

/// Are these lines those of the page? `…` stands for any number of lines.
fn matches(expected: &[String], printed: &[String]) -> bool {
    match expected.split_first() {
        None => printed.is_empty(),
        Some((line, rest)) if line.trim() == "…" => {
            (0..=printed.len()).any(|skip| matches(rest, &printed[skip..]))
        }
        Some((line, rest)) => {
            printed.first().is_some_and(|first| pattern(first) == pattern(line))
                && matches(rest, &printed[1..])
        }
    }
}

/// A line with its numbers taken out, and the units behind them.
fn pattern(line: &str) -> String {
    let mut words = Vec::new();
    for word in line.split(' ') {
        let number = word.trim_start_matches('(').starts_with(|c: char| c.is_ascii_digit());
        let after_number = words.last().is_some_and(|last: &String| last.ends_with('#'));
        words.push(if number {
            let kept = word.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '(');
            format!("{kept}#")
        } else if after_number && word.starts_with(['K', 'M', 'G']) && word.contains("iB") {
            word.replacen(['K', 'M', 'G'], "", 1)
        } else {
            word.replace("refusals", "refusal")
        });
    }
    words.join(" ")
}

/// The containers' commands, wherever they stand.
fn commands_in(yaml: &Yaml, found: &mut impl FnMut(Vec<String>)) {
    match yaml {
        Yaml::Hash(hash) => {
            for (key, value) in hash {
                match (key.as_str(), value) {
                    (Some("command"), Yaml::Array(words)) => {
                        found(words.iter().map(|word| word.as_str().expect("a string").to_owned()).collect());
                    }
                    _ => commands_in(value, found),
                }
            }
        }
        Yaml::Array(list) => list.iter().for_each(|value| commands_in(value, found)),
        _ => {}
    }
}

// Reading the sources.

/// The words that a function of an enumeration in contract.rs gives.
fn words_of(contract: &str, enumeration: &str, function: &str) -> BTreeSet<String> {
    let implementation = contract.split(&format!("impl {enumeration} {{")).nth(1).expect("it is there");
    let body = implementation.split(&format!("fn {function}(")).nth(1).expect("it is there");
    let body = &body[..body.find("\n    }\n").expect("it has an end")];
    body.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

fn quoted(text: &str, start: &str) -> BTreeSet<String> {
    let strings = text.split('"').skip(1);
    strings
        .filter(|text| text.starts_with(start) && text.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        .map(str::to_owned)
        .collect()
}

/// Does a value fit what a schema says of it? As far as ours go.
fn fits(value: &Value, rule: &Value) -> bool {
    let is = |name: &str| match name {
        "integer" => value.is_i64() || value.is_u64(),
        "string" => value.is_string(),
        "null" => value.is_null(),
        other => panic!("a type that this test does not know: {other}"),
    };
    let types = match &rule["type"] {
        Value::Null => true,
        Value::Array(names) => names.iter().any(|name| is(name.as_str().unwrap())),
        name => is(name.as_str().unwrap()),
    };
    let bound = |key: &str, holds: fn(i64, i64) -> bool| match (rule[key].as_i64(), value.as_i64()) {
        (Some(bound), Some(number)) => holds(number, bound),
        _ => true,
    };
    types
        && rule.get("const").is_none_or(|only| only == value)
        && rule.get("enum").and_then(Value::as_array).is_none_or(|words| words.contains(value))
        && bound("minimum", |number, bound| number >= bound)
        && bound("maximum", |number, bound| number <= bound)
}

fn read(path: &str) -> String {
    fs::read_to_string(in_source(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The path in the tree of what a document names by a path of its own.
fn beside(document: &str, file: &str) -> String {
    let mut parts: Vec<_> = Path::new(document).parent().unwrap().iter().collect();
    for part in Path::new(file).components() {
        match part {
            Component::ParentDir => drop(parts.pop()),
            Component::Normal(name) => parts.push(name),
            _ => {}
        }
    }
    parts.iter().collect::<PathBuf>().to_str().unwrap().to_owned()
}

fn in_source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// An example's program, built along with the tests.
fn example(name: &str) -> PathBuf {
    let this_test = std::env::current_exe().unwrap();
    let path = this_test.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --examples` first", path.display());
    path
}

/// Are the programs here that a script starts?
fn can_run(script: &str) -> bool {
    !script.contains("python3") || common::have("python3")
}
