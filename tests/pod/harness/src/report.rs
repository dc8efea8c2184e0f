//! How the pod ended, by the guest's init and the kernel's counters.

use std::collections::HashMap;

/// The names are those of the cgroup files; counts are of the pod's whole life.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The main process's exit code; 128 and the signal's number for a signal.
    pub exit: i32,
    pub signal: Option<i32>,
    pub timed_out: bool,
    /// In bytes. It moves in steps of some 256 KiB.
    pub memory_peak: u64,
    /// Times that usage was about to pass memory.max.
    pub max: u64,
    /// Times that nothing could be reclaimed then.
    pub oom: u64,
    /// Not the number of victims: a group kill counts the first one twice.
    pub oom_kill: u64,
    pub oom_group_kill: u64,
    /// From the start of the main process to its end, by the guest's clock.
    pub wall_s: f64,
    /// The guest kernel's release.
    pub kernel: String,
}

impl Report {
    /// From the guest's lines `key=value`; the error names the line that is missing.
    pub(crate) fn parse(text: &str) -> Result<Report, String> {
        let lines: HashMap<&str, &str> = text.lines().filter_map(|l| l.split_once('=')).collect();
        if let Some(error) = lines.get("error") {
            return Err((*error).to_owned());
        }
        let get = |key: &str| lines.get(key).copied().ok_or_else(|| format!("no line '{key}='"));
        let count = |key: &str| number::<u64>(key, get(key)?);
        // Written last: without it the guest ended before its time.
        get("end")?;
        Ok(Report {
            exit: number("exit", get("exit")?)?,
            signal: lines.get("signal").map(|text| number("signal", text)).transpose()?,
            timed_out: get("timed_out")? == "true",
            memory_peak: count("memory_peak")?,
            max: count("max")?,
            oom: count("oom")?,
            oom_kill: count("oom_kill")?,
            oom_group_kill: count("oom_group_kill")?,
            wall_s: number::<f64>("wall_ms", get("wall_ms")?)? / 1e3,
            kernel: get("kernel")?.to_owned(),
        })
    }

    /// One line. Numbers and a kernel release need no escapes.
    pub fn json(&self) -> String {
        let signal = self.signal.map_or_else(|| "null".to_owned(), |number| number.to_string());
        format!(
            r#"{{"exit":{},"signal":{signal},"timed_out":{},"memory_peak":{},"max":{},"oom":{},"oom_kill":{},"oom_group_kill":{},"wall_s":{:.3},"kernel":"{}"}}"#,
            self.exit,
            self.timed_out,
            self.memory_peak,
            self.max,
            self.oom,
            self.oom_kill,
            self.oom_group_kill,
            self.wall_s,
            self.kernel,
        )
    }
}

fn number<T: std::str::FromStr>(key: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("the line '{key}={text}' holds no such number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = "exit=137\nsignal=9\ntimed_out=false\nmemory_peak=1\nlow=0\nmax=2\noom=3\n\
        oom_kill=4\noom_group_kill=5\nwall_ms=1500\nkernel=6.1\n";

    #[test]
    fn a_result_without_its_last_line_is_no_report() {
        assert_eq!(Report::parse(LINES), Err("no line 'end='".to_owned()));
    }

    #[test]
    fn an_error_in_the_guest_is_no_report() {
        let text = format!("error=cannot mount\n{LINES}end=1\n");
        assert_eq!(Report::parse(&text), Err("cannot mount".to_owned()));
    }

    #[test]
    fn a_whole_result_becomes_one_line_of_json() {
        let report = Report::parse(&format!("{LINES}end=1\n")).expect("it is whole");
        assert_eq!(
            report.json(),
            r#"{"exit":137,"signal":9,"timed_out":false,"memory_peak":1,"max":2,"oom":3,"oom_kill":4,"oom_group_kill":5,"wall_s":1.500,"kernel":"6.1"}"#
        );
    }
}
