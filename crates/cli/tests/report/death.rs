//! A program that dies of memory, and `oomguard report` on what it leaves.

use serde_json::Value;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub const OOMGUARD: &str = env!("CARGO_BIN_EXE_oomguard");

/// No command takes longer than this, unless it hangs. Three tries with a report each are 5 s of work when nothing is
/// optimized, and on a busy machine that is minutes.
const TIME_LIMIT: Duration = Duration::from_secs(300);

/// How far apart samples are, in bytes: near enough that the shares are good.
const DISTANCE: &str = "8192";

pub static DEBUG: LazyLock<PathBuf> = LazyLock::new(|| build("postmortem", "debug"));
pub static RELEASE: LazyLock<PathBuf> = LazyLock::new(|| build("postmortem", "release"));
/// Guarded, and without a profiler.
pub static WITHOUT_PROFILER: LazyLock<PathBuf> = LazyLock::new(|| build("worker", "debug"));

fn build(example: &str, profile: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--quiet", "--package", "examples", "--example", example, "--target-dir"]);
    command.arg(target).current_dir(env!("CARGO_MANIFEST_DIR"));
    if profile == "release" {
        command.arg("--release");
    }
    assert!(command.status().unwrap().success(), "the example does not build");
    target.join(profile).join("examples").join(example)
}

/// A directory with a program that died in it, and what it left.
pub struct Death {
    pub directory: TempDir,
    pub pid: u32,
}

impl Death {
    /// A copy of the program dies at 40 MiB.
    pub fn of(program: &Path) -> Death {
        let directory = TempDir::with_prefix("oomguard-report-").unwrap();
        fs::copy(program, directory.path().join("indexer")).unwrap();
        Death::of_indexer_in(directory)
    }

    /// The program is there already.
    pub fn of_indexer_in(directory: TempDir) -> Death {
        make_texts(directory.path());
        let mut death = Death { directory, pid: 0 };
        death.pid = death.die();
        death
    }

    /// Once more; its pid.
    pub fn die(&self) -> u32 {
        let child = clean(Command::new(self.program()))
            .arg(self.path("texts"))
            .env("OOMGUARD_LIMIT", "40Mi")
            .env("OOMGUARD_QUIET", "1")
            .env("OOMGUARD_PROFILE", DISTANCE)
            .env("OOMGUARD_REPORT", self.report_file())
            .stdout(Stdio::null())
            .spawn();
        let mut child = child.unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(198));
        child.id()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn program(&self) -> PathBuf {
        self.path("indexer")
    }

    pub fn report_file(&self) -> PathBuf {
        self.path("report.json")
    }

    pub fn profile(&self) -> PathBuf {
        self.path("report.json.profile")
    }

    /// What `report` says, which must go well.
    pub fn text(&self, options: &[&str]) -> String {
        let output = report(&self.report_file(), options);
        let text = String::from_utf8(output.stdout).unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*stderr), (Some(0), ""), "{options:?}: {text}");
        text
    }

    pub fn json(&self, options: &[&str]) -> Value {
        let options: Vec<&str> = options.iter().copied().chain(["--json"]).collect();
        let text = self.text(&options);
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// What is known of the names in the program itself.
    pub fn names(&self, options: &[&str]) -> Value {
        self.json(options)["modules"][0]["names"].clone()
    }
}

/// Many lines of few words, of which the index needs far more than is allowed.
pub fn make_texts(directory: &Path) {
    let texts = directory.join("texts");
    fs::create_dir(&texts).unwrap();
    for file in 0..100 {
        let line =
            |line: u32| format!("in file {file} line {line} there are the words w{line} and x{file}\n");
        fs::write(texts.join(format!("{file:03}.txt")), (0..5000).map(line).collect::<String>()).unwrap();
    }
}

pub fn make_pipe(path: &Path) {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: a C string that lives during the call.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
}

/// Without variables of ours.
pub fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OOMGUARD_") {
            command.env_remove(name);
        }
    }
    command
}

/// `oomguard report FILE …`, which ends in time.
pub fn report(file: &Path, options: &[&str]) -> Output {
    let mut command = clean(Command::new(OOMGUARD));
    command.arg("report").arg(file).args(options);
    finish(command)
}

/// Waits for a command, but not for ever.
pub fn finish(mut command: Command) -> Output {
    let (stdout, stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    command.stdin(Stdio::null()).stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
    let mut child = command.spawn().unwrap();
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > TIME_LIMIT {
            child.kill().unwrap();
            panic!("{command:?} hangs");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    Output { status, stdout: whole(stdout), stderr: whole(stderr) }
}

fn whole(mut file: fs::File) -> Vec<u8> {
    use std::io::{Read, Seek};
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}
