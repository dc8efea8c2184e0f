//! Where a language's runtime is, and its program, built once for each run of the tests.

use crate::languages::{Language, Row};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex, OnceLock};

/// The first of the language's runtimes that can be run; else which ones are missing.
pub fn find(language: &Language) -> Result<String, String> {
    let mut found = language.runtimes.iter().filter(|name| can_run(name));
    let suits = found.find(|name| language.probe.is_empty() || ends_well(name, language.probe));
    suits.map(ToString::to_string).ok_or_else(|| {
        let runtimes = language.runtimes.join(" and no ");
        let probe = if language.probe.is_empty() { "" } else { " that has it" };
        format!("no {runtimes} in PATH{probe}; tests/languages/install installs it")
    })
}

fn ends_well(runtime: &str, arguments: &[&str]) -> bool {
    Command::new(runtime).args(arguments).output().is_ok_and(|output| output.status.success())
}

fn can_run(name: &str) -> bool {
    if name.contains('/') {
        return Path::new(name).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(name).is_file())
}

/// The command that runs the program in the way of this row, without the launcher before it.
pub fn command(language: &Language, row: &Row, code: i32) -> Result<Vec<String>, String> {
    let program = build(language)?;
    let mut words = Vec::new();
    for word in language.command {
        match *word {
            "{flags}" => words.extend(row.flags.iter().map(ToString::to_string)),
            word => words.push(fill_in(language, word, &program)?),
        }
    }
    words.extend([row.way.to_string(), code.to_string()]);
    Ok(words)
}

/// The variables of the runtime.
pub fn environment(language: &Language) -> Result<Vec<(&'static str, String)>, String> {
    let program = build(language)?;
    language
        .environment
        .iter()
        .map(|(name, value)| Ok((*name, fill_in(language, value, &program)?)))
        .collect()
}

fn fill_in(language: &Language, word: &str, program: &Path) -> Result<String, String> {
    let source = source()?;
    let text = word
        .replace("{program}", &program.display().to_string())
        .replace("{source}", &source.display().to_string());
    if text.contains("{runtime}") { Ok(text.replace("{runtime}", &find(language)?)) } else { Ok(text) }
}

/// This folder, from whichever package of the workspace the tests were built.
fn source() -> Result<PathBuf, String> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = package.ancestors().map(|folder| folder.join("tests/languages"));
    folders
        .find(|folder| folder.is_dir())
        .ok_or_else(|| format!("no tests/languages above {}", package.display()))
}

type Built = Arc<OnceLock<Result<PathBuf, String>>>;

/// Builds the program, once, whichever trial comes first.
fn build(language: &Language) -> Result<PathBuf, String> {
    static BUILT: LazyLock<Mutex<HashMap<&'static str, Built>>> = LazyLock::new(Mutex::default);
    let built = Arc::clone(BUILT.lock().unwrap().entry(language.name).or_default());
    built.get_or_init(|| build_now(language)).clone()
}

fn build_now(language: &Language) -> Result<PathBuf, String> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("languages").join(language.name);
    std::fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let program = directory.join("eat");
    let [builder, arguments @ ..] = language.build else { return Ok(program) };
    let arguments: Result<Vec<String>, String> =
        arguments.iter().map(|word| fill_in(language, word, &program)).collect();
    let output = Command::new(builder)
        .args(arguments?)
        .envs(language.environment.iter().copied())
        .output()
        .map_err(|error| format!("{builder}: {error}"))?;
    if output.status.success() {
        Ok(program)
    } else {
        Err(format!("{builder} failed: {}", String::from_utf8_lossy(&output.stderr)))
    }
}
