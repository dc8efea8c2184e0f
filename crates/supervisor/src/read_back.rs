//! A report's line, read back: what [`Report::to_json`](super::Report::to_json) and a dying process write. Any JSON object
//! on one line is read; keys that are not known are passed over, as later versions add some. Pure.

use super::Report;
use crate::contract::{
    Cause, EVENT_OUT_OF_MEMORY, Evidence, KEY_INFERRED, LimitSource, Measure, REPORT_VERSION,
};
use crate::record::Claims;
use crate::text::Text;
use oomguard_core::report::Request;
use serde_json::{Map, Value};
use std::fmt;

/// Why a text is not a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseReportError(Wrong);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Wrong {
    /// Not an object, or cut short.
    Form,
    /// The object's first key, or its `event`, is not the report's.
    OtherObject,
    Version(u64),
    Value(&'static str),
}

impl fmt::Display for ParseReportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Wrong::Form => f.write_str("not a JSON object on one line"),
            Wrong::OtherObject => f.write_str("a JSON object, but not a report of oomguard's"),
            Wrong::Version(version) => {
                write!(f, "a report of version {version}; version {REPORT_VERSION} is what can be read")
            }
            Wrong::Value(key) => write!(f, "a report without a usable value of {key:?}"),
        }
    }
}

impl std::error::Error for ParseReportError {}

/// Reads one report.
pub(super) fn read(line: &str) -> Result<Report, ParseReportError> {
    let object = Object(serde_json::from_str(line).map_err(|_| ParseReportError(Wrong::Form))?);
    if object.text("event") != Some(EVENT_OUT_OF_MEMORY) {
        return Err(ParseReportError(Wrong::OtherObject));
    }
    match object.number("oomguard") {
        Some(REPORT_VERSION) => {}
        Some(version) => return Err(ParseReportError(Wrong::Version(version))),
        None => return Err(ParseReportError(Wrong::OtherObject)),
    }
    object.claims().map(Report::new).map_err(|key| ParseReportError(Wrong::Value(key)))
}

struct Object(Map<String, Value>);

impl Object {
    /// `None` for null, and for what is no number of a report's: a fraction, or negative.
    fn number(&self, key: &str) -> Option<u64> {
        self.0.get(key).and_then(Value::as_u64)
    }

    /// Zero for null: nobody counted.
    fn count(&self, key: &'static str) -> Result<u64, &'static str> {
        let is_null = self.0.get(key) == Some(&Value::Null);
        self.number(key).or(is_null.then_some(0)).ok_or(key)
    }

    fn byte(&self, key: &str) -> Option<u8> {
        self.number(key).and_then(|number| u8::try_from(number).ok())
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(Value::as_str)
    }

    fn id(&self, key: &'static str) -> Result<u32, &'static str> {
        self.number(key).and_then(|number| u32::try_from(number).ok()).ok_or(key)
    }

    /// What it claims, or the key whose value cannot be used.
    fn claims(&self) -> Result<Claims, &'static str> {
        let exit_code = self.byte("exit_code").ok_or("exit_code")?;
        // Whichever it was is read below.
        let mut claims = Claims::from_outside(exit_code, LimitSource::Environment);
        claims.inferred = self.0.get(KEY_INFERRED) == Some(&Value::Bool(true));
        claims.cause = self.text("cause").and_then(cause).ok_or("cause")?;
        claims.pid = self.id("pid")?;
        claims.tid = self.id("tid")?;
        claims.program = Text::from_bytes(self.text("program").ok_or("program")?.as_bytes());
        claims.thread = Text::from_bytes(self.text("thread").ok_or("thread")?.as_bytes());
        claims.token = self.text("token").map(|token| Text::from_bytes(token.as_bytes()));
        claims.request = self.number("requested").map(|bytes| Request { bytes, align: self.number("align") });
        claims.limit = self.number("limit");
        claims.limit_source = self.text("limit_source").and_then(limit_source);
        claims.measure =
            self.text("measure").and_then(|word| Measure::parse(word.as_bytes()).ok()).ok_or("measure")?;
        claims.memory.address_space = self.number("address_space");
        claims.memory.data = self.number("data");
        claims.memory.resident = self.number("resident");
        claims.memory.resident_peak = self.number("resident_peak");
        claims.memory.heap.live = self.number("heap_live");
        claims.memory.heap.peak = self.number("heap_peak");
        claims.refusals = self.count("refusals")?;
        claims.uptime_ms = self.count("uptime_ms")?;
        claims.evidence = self.text("evidence").and_then(evidence);
        claims.own_exit_code = self.byte("own_exit_code");
        claims.own_signal = self.byte("own_signal");
        claims.budget = self.number("budget");
        claims.budget_used = self.number("budget_used");
        claims.waited_ms = self.number("waited_ms");
        Ok(claims)
    }
}

fn cause(word: &str) -> Option<Cause> {
    use Cause::*;
    [Heap, Stack, Thread, Mapping, Injected, Resident, AskedToLeave]
        .into_iter()
        .find(|cause| cause.as_str() == word)
}

fn limit_source(word: &str) -> Option<LimitSource> {
    use LimitSource::*;
    // The command line's word is the environment's.
    [Environment, Source, Cgroup, Rlimit, Budget, Changed].into_iter().find(|source| source.as_str() == word)
}

fn evidence(word: &str) -> Option<Evidence> {
    use Evidence::*;
    [Exact, Fault, Said, Missing, Straight, Outside].into_iter().find(|evidence| evidence.as_str() == word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const LINE: &str = concat!(
        r#"{"oomguard":1,"event":"out_of_memory","cause":"thread","pid":7,"tid":8,"program":"w\"\u001b\ud83d\ude00","#,
        r#""thread":"main","requested":4096,"align":null,"limit":536870912,"limit_source":"cgroup","measure":"data","#,
        r#""address_space":5,"data":4,"resident":3,"resident_peak":6,"heap_live":null,"heap_peak":null,"refusals":2,"#,
        r#""exit_code":77,"uptime_ms":1500,"token":"mine","evidence":"said","own_exit_code":1,"own_signal":null,"#,
        r#""budget":null,"budget_used":null,"waited_ms":null}"#
    );

    #[test]
    fn what_was_written_is_read_and_written_again() {
        let report: Report = LINE.parse().unwrap();
        assert_eq!((report.cause(), report.pid(), report.tid()), (Cause::Thread, 7, 8));
        assert_eq!((report.program().as_ref(), report.thread().as_ref()), ("w\"\u{1b}😀", "main"));
        assert_eq!((report.requested(), report.align()), (Some(4096), None));
        assert_eq!((report.limit(), report.limit_source()), (Some(512 << 20), Some(LimitSource::Cgroup)));
        assert_eq!(
            (report.measure(), report.data(), report.resident_peak()),
            (Measure::Data, Some(4), Some(6))
        );
        assert_eq!(
            (report.refusals(), report.exit_code(), report.uptime()),
            (2, 77, Duration::from_millis(1500))
        );
        assert_eq!((report.token().as_deref(), report.evidence()), (Some("mine"), Some(Evidence::Said)));
        assert_eq!(
            (report.own_exit_code(), report.own_signal(), report.is_inferred()),
            (Some(1), None, false)
        );
        assert_eq!(report.to_json().parse::<Report>().unwrap().to_json(), report.to_json());
        assert!(report.to_json().contains(r#""program":"w\"\u001b😀""#), "{report:?}");
        assert!(report.to_string().starts_with("oomguard: out of memory: w"), "{report}");
    }

    #[test]
    fn what_later_versions_add_is_passed_over() {
        let later = LINE.replace("\"tid\"", r#""new":[{"a]":-1.5,"b":[]},"}"],"more":{"x":{}},"tid""#);
        assert_eq!(later.parse::<Report>().unwrap().to_json(), LINE.parse::<Report>().unwrap().to_json());
        let inferred = LINE.replace(":null}", ":null , \"inferred\" : true}\n");
        assert!(inferred.parse::<Report>().unwrap().is_inferred());
    }

    #[test]
    fn a_number_that_nobody_knows_is_none_or_zero() {
        let unknown = LINE.replace(r#""refusals":2"#, r#""refusals":null"#).replace("1500", "null");
        let report: Report = unknown.parse().unwrap();
        assert_eq!((report.refusals(), report.uptime()), (0, Duration::ZERO));
    }

    #[test]
    fn what_is_no_report_is_told() {
        let wrong = |text: &str| text.parse::<Report>().unwrap_err().0;
        assert_eq!(wrong(r#"{"event":"start"}"#), Wrong::OtherObject);
        assert_eq!(wrong("{}"), Wrong::OtherObject);
        assert_eq!(wrong(&LINE.replace(r#"{"oomguard":1"#, r#"{"oomguard":2"#)), Wrong::Version(2));
        assert_eq!(wrong(&LINE.replace(r#""pid":7"#, r#""pid":-7"#)), Wrong::Value("pid"));
        assert_eq!(wrong(&LINE.replace(r#""refusals":2"#, r#""refusals":"2""#)), Wrong::Value("refusals"));
        assert_eq!(wrong(&LINE.replace(r#""cause":"thread""#, r#""cause":"rain""#)), Wrong::Value("cause"));
        for text in [
            "",
            "[]",
            "null",
            "198",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"a\":[1}",
            "{} {}",
            "{\"a\":\"\\u12\"}",
        ] {
            assert_eq!(wrong(text), Wrong::Form, "{text}");
        }
        // Cut anywhere, or a byte of it another one: an error or a report, and no panic.
        for at in 0..LINE.len() {
            assert!(LINE.get(..at).is_none_or(|cut| cut.parse::<Report>().is_err()), "{at}");
            for other in ['"', '\\', '{', '}', '[', ']', ',', ':', '9', 'é'] {
                if let (Some(before), Some(after)) = (LINE.get(..at), LINE.get(at + 1..)) {
                    let _ = format!("{before}{other}{after}").parse::<Report>();
                }
            }
        }
    }
}
