//! The command line of `podrun`.

use pod::{Capabilities, Change, Pod, Root, User};
use std::ffi::OsString;
use std::time::Duration;

pub const USAGE: &str = "\
podrun --memory SIZE [OPTION]... -- COMMAND [ARGUMENT]...

Runs COMMAND as the main process of a Kubernetes-like container under a guest kernel.
Prints what the pod wrote, then one line of JSON on stdout: exit, signal, timed_out,
memory_peak, max, oom, oom_kill, oom_group_kill (memory.events), wall_s, kernel.

  --memory SIZE        memory.max: bytes, or with K, M, G; 'max' for none
  --group 0|1          memory.oom.group (default 1, as Kubernetes since 1.28)
  --user UID[:GID]     default 0
  --caps default|none|all
                       capabilities of root (default: the 14 a container keeps)
  --env K=V            repeatable
  --root staged|host   staged (default): the pod sees the command, its libraries and
                       the includes; host: this machine's / read-only, $TMPDIR writable
  --include PATH       a file or directory for the staged root; repeatable
  --guest-write PATH=VALUE
                       write a file of the guest before the pod starts; repeatable
  --set FILE=VALUE[@SECONDS]
                       write a file of the pod's cgroup, so long after the pod's start
                       (without a time: before it); repeatable
  --set-once-it-fits FILE=BYTES@SECONDS
                       the same, but not before the pod uses less than that
  --overcommit 0|1|2   vm.overcommit_memory (default 1, as a kubelet sets it)
  --timeout SECONDS    kill the pod then (default 60)
  --guest-memory SIZE  RAM of the guest (default: the limit and 512M)
  --dmesg              the guest kernel's log on stderr

Exit status: the pod's (137 for SIGKILL); 124 timed out; 125 the harness failed.
";

pub enum Wanted {
    Help,
    Run { pod: Box<Pod>, show_log: bool },
}

pub fn parse(words: impl Iterator<Item = OsString>) -> Result<Wanted, String> {
    let mut words = words;
    let mut pod = Pod::new(None, [""; 0]);
    let mut memory_given = false;
    let mut show_log = false;
    while let Some(word) = words.next() {
        let option = word.to_string_lossy().into_owned();
        match option.as_str() {
            "-h" | "--help" => return Ok(Wanted::Help),
            "--dmesg" => {
                show_log = true;
                continue;
            }
            "--" => {
                pod.command = words.collect();
                break;
            }
            _ => {}
        }
        let value =
            words.next().ok_or_else(|| format!("'{option}' has no value, or is no option: see --help"))?;
        let value =
            value.into_string().map_err(|value| format!("{option} {}: not UTF-8", value.display()))?;
        memory_given |= option == "--memory";
        take(&mut pod, &option, &value)
            .ok_or_else(|| format!("'{option} {value}': no such option or value; see --help"))?;
    }
    if !memory_given {
        return Err("--memory is missing: give a size such as 128M, or 'max'".to_owned());
    }
    if pod.command.is_empty() {
        return Err("no command: give it after '--'".to_owned());
    }
    Ok(Wanted::Run { pod: Box::new(pod), show_log })
}

/// `None`: no such option, or it cannot have this value.
fn take(pod: &mut Pod, option: &str, value: &str) -> Option<()> {
    match option {
        "--memory" => pod.memory_max = if value == "max" { None } else { Some(bytes(value)?) },
        "--group" => {
            pod.oom_group = match value {
                "0" => false,
                "1" => true,
                _ => return None,
            }
        }
        "--user" => {
            let (uid, gid) = value.split_once(':').unwrap_or((value, value));
            pod.user = Some(User { uid: uid.parse().ok()?, gid: gid.parse().ok()? });
        }
        "--caps" => {
            pod.capabilities = match value {
                "default" => Capabilities::Default,
                "none" => Capabilities::None,
                "all" => Capabilities::All,
                _ => return None,
            }
        }
        "--env" => {
            let (name, value) = value.split_once('=')?;
            pod.environment.push((name.into(), value.into()));
        }
        "--root" => {
            pod.root = match value {
                "staged" => Root::Staged,
                "host" => Root::Host,
                _ => return None,
            }
        }
        "--include" => pod.include.push(value.into()),
        "--guest-write" => {
            let (path, value) = value.split_once('=')?;
            pod.guest_writes.push((path.to_owned(), value.to_owned()));
        }
        "--set" | "--set-once-it-fits" => {
            let (file, value) = value.split_once('=')?;
            let (value, at) = match value.rsplit_once('@') {
                Some((value, at)) => (value, seconds(at)?),
                None => (value, Duration::ZERO),
            };
            let once_it_fits = option == "--set-once-it-fits";
            pod.changes.push(Change { file: file.to_owned(), value: value.to_owned(), at, once_it_fits });
        }
        "--overcommit" => pod.overcommit = value.parse().ok().filter(|mode| *mode <= 2)?,
        "--timeout" => pod.timeout = seconds(value)?,
        "--guest-memory" => pod.guest_memory = Some(bytes(value)?),
        _ => return None,
    }
    Some(())
}

fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse().ok()?).ok()
}

fn bytes(text: &str) -> Option<u64> {
    let shift = match text.chars().last()?.to_ascii_uppercase() {
        'K' => 10,
        'M' => 20,
        'G' => 30,
        _ => return text.parse().ok(),
    };
    text[..text.len() - 1].parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Pod, String> {
        match parse(line.split(' ').map(OsString::from))? {
            Wanted::Run { pod, .. } => Ok(*pod),
            Wanted::Help => Err("help".to_owned()),
        }
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes("4096"), Some(4096));
        assert_eq!(bytes("3k"), Some(3 << 10));
        assert_eq!(bytes("2G"), Some(2 << 30));
        for wrong in ["", "M", "-1", "1.5G", "99999999999G"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_change_has_a_time_or_comes_first() {
        let pod = parsed("--memory 1M --set memory.max=2M@0.5 --set memory.high=1M -- true");
        let changes = pod.expect("a good line").changes;
        assert_eq!(changes[0].value, "2M");
        assert_eq!(changes[0].at, Duration::from_millis(500));
        assert_eq!(changes[1].at, Duration::ZERO);
    }

    #[test]
    fn a_wrong_line_is_refused_with_its_reason() {
        for (line, reason) in [
            ("--memory 1M", "no command"),
            ("-- true", "--memory is missing"),
            ("--memory 1X -- true", "'--memory 1X'"),
            ("--memory 1M --group 2 -- true", "'--group 2'"),
            ("--memory 1M --timeout -1 -- true", "'--timeout -1'"),
            ("--memory 1M --wrong x -- true", "'--wrong x'"),
        ] {
            let error = parsed(line).expect_err(line);
            assert!(error.contains(reason), "{line}: {error}");
        }
    }
}
