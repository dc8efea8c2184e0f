//! The keeper: a shell that waits until this process is done with a pod, or is gone for
//! whatever reason, SIGKILL included; then it kills what is left of the machine and
//! removes its files. Each guest process is a process of the host, so that the machine
//! must go as a process group.

use crate::Error;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const SCRIPT: &str = r#"
trap '' INT TERM HUP
read -r group
read -r end
[ -n "$group" ] && kill -s KILL -- "-$group" 2>/dev/null
rm -rf -- "$1"
"#;

/// Cleans up when dropped, at the latest.
pub struct Keeper(Child);

impl Keeper {
    pub fn start(directory: &Path) -> Result<Keeper, Error> {
        Command::new("/bin/sh")
            .args(["-c", SCRIPT, "pod-keeper"])
            .arg(directory)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map(Keeper)
            .map_err(Error::on("start the keeper", Path::new("/bin/sh")))
    }

    /// From now on, this process group goes too.
    pub fn watch(&mut self, group: u32) -> Result<(), Error> {
        let stdin = self.0.stdin.as_mut().expect("its stdin is piped");
        writeln!(stdin, "{group}").map_err(|e| Error::new(format!("cannot tell the keeper: {e}")))
    }

    /// Has it clean up, and waits until that is done.
    pub fn end(&mut self) {
        // `wait` closes its stdin first, which is what it waits for.
        let _ = self.0.wait();
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.end();
    }
}
