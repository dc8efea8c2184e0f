//! The programs in `benches/programs`: built on demand, as `cargo bench` builds no examples, and started with as
//! little noise as there can be.

use std::ffi::CString;
use std::path::PathBuf;
use std::process::Command;

/// Builds the examples of these names the way that the benchmark itself was built; their paths in the same order.
pub fn build<const N: usize>(names: [&str; N]) -> [PathBuf; N] {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--release"]);
    for name in names {
        cargo.args(["--example", name]);
    }
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    assert!(cargo.status().expect("cargo starts").success(), "the programs do not build");
    // This benchmark is in target/release/deps.
    let own = std::env::current_exe().expect("a program knows where it is");
    let release = own.ancestors().nth(2).expect("cargo has put it two folders deep");
    names.map(|name| release.join("examples").join(name))
}

/// A program ready to be started many times, by `posix_spawn`: nothing is copied from the parent, so the time until
/// its end is the child's own as far as possible. It inherits the standard streams.
pub struct Prepared {
    file: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Prepared {
    /// `file` with these arguments, and nothing in its environment but this.
    pub fn new(file: &std::path::Path, arguments: &[&str], environment: &[(&str, &str)]) -> Prepared {
        let text = |text: String| CString::new(text).expect("no NUL");
        let file = text(file.to_str().expect("a path in UTF-8").to_owned());
        let mut all = vec![file.clone()];
        all.extend(arguments.iter().map(|argument| text((*argument).to_owned())));
        let environment = environment.iter().map(|(key, value)| text(format!("{key}={value}"))).collect();
        Prepared { file, arguments: all, environment }
    }

    /// Starts it; its process number.
    pub fn start(&self) -> libc::pid_t {
        let list = |texts: &[CString]| {
            let mut pointers: Vec<_> = texts.iter().map(|text| text.as_ptr().cast_mut()).collect();
            pointers.push(std::ptr::null_mut());
            pointers
        };
        let (arguments, environment) = (list(&self.arguments), list(&self.environment));
        let mut pid = 0;
        // SAFETY: the file and both lists are C strings, ended by null pointers, that outlive the call.
        let failed = unsafe {
            libc::posix_spawn(
                &raw mut pid,
                self.file.as_ptr(),
                std::ptr::null(),
                std::ptr::null(),
                arguments.as_ptr(),
                environment.as_ptr(),
            )
        };
        assert_eq!(failed, 0, "{} does not start: errno {failed}", self.file.to_string_lossy());
        pid
    }

    /// Starts it and waits for its end, which must be exit code `code`; the processor time that it took, in ns.
    pub fn run(&self, code: i32) -> u64 {
        wait_for(self.start(), code)
    }
}

/// Waits for the end of a child, which must be exit code `code`; the processor time that it took, in ns.
pub fn wait_for(pid: libc::pid_t, code: i32) -> u64 {
    let mut status = 0;
    // SAFETY: all-zero is a valid `rusage`, a struct of integers.
    let mut used: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `status` and `used` are writable during the call.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut used) };
    assert_eq!(waited, pid);
    assert!(
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == code,
        "the program ended with wait status {status:#x} instead of exit code {code}"
    );
    let ns =
        |time: libc::timeval| time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_usec.unsigned_abs() * 1000;
    ns(used.ru_utime) + ns(used.ru_stime)
}
