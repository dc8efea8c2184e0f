//! A snapshot of a dying process into bytes: one JSON line, the report, and a few lines for people. Only formatting, into
//! fixed buffers; no descriptors, no system calls, no allocation.

use crate::contract::{
    Cause, EVENT_OUT_OF_MEMORY, Evidence, KEY_INFERRED, LimitSource, Measure, REPORT_KEYS, REPORT_MAX_BYTES,
    REPORT_VERSION, variable,
};
use crate::sys::memory::MemoryUse;
use crate::text::Text;

/// One request that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub bytes: u64,
    /// Unknown for what is not a heap allocation.
    pub align: Option<u64>,
}

/// One of those who share a budget, and what it has of it.
#[derive(Clone, Copy)]
pub struct Holder {
    pub pid: u32,
    pub name: Text<16>,
    pub bytes: u64,
}

/// So many of them are named.
pub const HOLDERS: usize = 4;

/// All that is known when the end has been decided.
#[derive(Clone, Copy)]
pub struct Snapshot<'a> {
    pub cause: Cause,
    pub pid: u32,
    pub tid: u32,
    pub program: &'a [u8],
    pub thread: &'a [u8],
    pub request: Option<Request>,
    pub limit: Option<u64>,
    pub limit_source: Option<LimitSource>,
    pub measure: Measure,
    /// Whether the limit had no room for the request; `None` where that is not known.
    pub limit_refused: Option<bool>,
    pub memory: MemoryUse,
    pub refusals: u64,
    pub exit_code: u8,
    pub uptime_ms: u64,
    pub token: Option<&'a [u8]>,
    pub evidence: Option<Evidence>,
    /// What the process would have ended with: an exit code, or a signal.
    pub own_exit_code: Option<u8>,
    pub own_signal: Option<u8>,
    /// In bytes.
    pub budget: Option<u64>,
    pub budget_used: Option<u64>,
    /// How long the last request waited for others to give memory back.
    pub waited_ms: Option<u64>,
    /// Who holds most of the budget, where it was that which had no room.
    pub holders: &'a [Option<Holder>],
    /// Put together from outside, for a process that has no guard.
    pub inferred: bool,
}

enum Value<'a> {
    Number(Option<u64>),
    Word(Option<&'static str>),
    Name(&'a [u8]),
    Text(Option<&'a [u8]>),
}

/// Where a limit was said, for whoever has to change it.
pub fn place_of(source: LimitSource) -> &'static str {
    match source {
        LimitSource::Environment => "OOMGUARD_LIMIT",
        LimitSource::CommandLine => "--limit",
        LimitSource::Source => "the program's source",
        LimitSource::Cgroup => "from the container",
        LimitSource::Rlimit => "an rlimit that was there before",
        LimitSource::Budget => "from the budget",
        LimitSource::Changed => "an rlimit that was moved since the start",
    }
}

impl Snapshot<'_> {
    /// The report: one line, all keys, at most [`REPORT_MAX_BYTES`]. The two names get what the rest leaves.
    pub fn write_report(&self, line: &mut Text<REPORT_MAX_BYTES>) {
        // A process may have been forked while its parent wrote here.
        line.truncate(0);
        self.compose(line, 0);
        let room_for_a_name = (REPORT_MAX_BYTES - line.len()) / 2;
        line.truncate(0);
        self.compose(line, room_for_a_name);
    }

    fn compose(&self, line: &mut Text<REPORT_MAX_BYTES>, room_for_a_name: usize) {
        line.push("{");
        for (index, key) in REPORT_KEYS.iter().enumerate() {
            line.push(if index == 0 { "\"" } else { ",\"" });
            line.push(key);
            line.push("\":");
            match self.value(key) {
                Value::Number(Some(number)) => line.push_number(number),
                Value::Word(Some(word)) => {
                    line.push("\"");
                    line.push(word);
                    line.push("\"");
                }
                Value::Name(name) => push_json_string(line, name, room_for_a_name),
                Value::Text(Some(text)) => push_json_string(line, text, usize::MAX),
                Value::Number(None) | Value::Word(None) | Value::Text(None) => line.push("null"),
            }
        }
        if self.inferred {
            line.push(",\"");
            line.push(KEY_INFERRED);
            line.push("\":true");
        }
        line.push("}\n");
    }

    fn value(&self, key: &str) -> Value<'_> {
        match key {
            "oomguard" => Value::Number(Some(REPORT_VERSION)),
            "event" => Value::Word(Some(EVENT_OUT_OF_MEMORY)),
            "cause" => Value::Word(Some(self.cause.as_str())),
            "pid" => Value::Number(Some(u64::from(self.pid))),
            "tid" => Value::Number(Some(u64::from(self.tid))),
            "program" => Value::Name(self.program),
            "thread" => Value::Name(self.thread),
            "requested" => Value::Number(self.request.map(|request| request.bytes)),
            "align" => Value::Number(self.request.and_then(|request| request.align)),
            "limit" => Value::Number(self.limit),
            "limit_source" => Value::Word(self.limit_source.map(LimitSource::as_str)),
            "measure" => Value::Word(Some(self.measure.report_word())),
            "address_space" => Value::Number(self.memory.address_space),
            "data" => Value::Number(self.memory.data),
            "resident" => Value::Number(self.memory.resident),
            "resident_peak" => Value::Number(self.memory.resident_peak),
            "refusals" => Value::Number(Some(self.refusals)),
            "exit_code" => Value::Number(Some(u64::from(self.exit_code))),
            "uptime_ms" => Value::Number(Some(self.uptime_ms)),
            "token" => Value::Text(self.token),
            "evidence" => Value::Word(self.evidence.map(Evidence::as_str)),
            "own_exit_code" => Value::Number(self.own_exit_code.map(u64::from)),
            "own_signal" => Value::Number(self.own_signal.map(u64::from)),
            "budget" => Value::Number(self.budget),
            "budget_used" => Value::Number(self.budget_used),
            "waited_ms" => Value::Number(self.waited_ms),
            // Known only where the profiler counts.
            "heap_live" => Value::Number(self.memory.heap.live),
            "heap_peak" => Value::Number(self.memory.heap.peak),
            _ => Value::Number(None),
        }
    }

    /// The lines on stderr: at most six.
    pub fn write_lines(&self, text: &mut Text<2048>) {
        // As above.
        text.truncate(0);
        self.write_headline(text);
        self.write_limit(text);
        self.write_use(text);
        text.push("oomguard:   try: ");
        self.write_advice(text);
        text.push("\noomguard:   exit code ");
        text.push_number(u64::from(self.exit_code));
        text.push("\n");
    }

    fn write_headline(&self, text: &mut Text<2048>) {
        text.push("oomguard: out of memory: ");
        text.push_foreign(self.program);
        text.push(" (pid ");
        text.push_number(u64::from(self.pid));
        text.push(") in thread ");
        text.push_foreign(self.thread);
        text.push(" (");
        text.push_number(u64::from(self.tid));
        text.push(")");
        text.push(match self.cause {
            Cause::Thread => " could not start a thread",
            Cause::Stack => " could not grow its stack",
            Cause::Resident => " went over its limit, with memory that it had mapped before",
            Cause::AskedToLeave
                if self.holders.iter().flatten().next().is_some_and(|first| first.pid == 0) =>
            {
                " was asked to leave, as the container was about to overflow"
            }
            Cause::AskedToLeave => " was asked to leave, as it held most",
            _ => " could not go on",
        });
        if let Some(request) = self.request {
            text.push(" without ");
            text.push_number(request.bytes);
            text.push(" bytes more");
            if let Some(align) = request.align {
                text.push(" (align ");
                text.push_number(align);
                text.push(")");
            }
        }
        if self.inferred {
            text.push(" (inferred: seen from outside)");
        }
        text.push("\n");
    }

    fn write_limit(&self, text: &mut Text<2048>) {
        if let (Some(LimitSource::Budget), Some(budget)) = (self.limit_source, self.budget) {
            return self.write_budget(text, budget);
        }
        text.push("oomguard:   limit: ");
        match self.limit {
            None => text.push("none of this process's own"),
            Some(limit) => {
                text.push_size(limit);
                text.push(" (");
                text.push_number(limit);
                text.push(" bytes) of ");
                text.push(self.measure.as_str());
                text.push(match self.limit_source {
                    Some(LimitSource::Environment) => ", from OOMGUARD_LIMIT",
                    Some(LimitSource::CommandLine) => ", from oomguard run --limit",
                    Some(LimitSource::Source) => ", from the program's source",
                    Some(LimitSource::Cgroup) => ", from the container (90% of its limit)",
                    Some(LimitSource::Rlimit) => ", from an rlimit that was there before",
                    Some(LimitSource::Budget) => ", from the budget that it shares",
                    Some(LimitSource::Changed) => ", moved since the start",
                    None => "",
                });
            }
        }
        text.push("\n");
    }

    /// Whose memory it was.
    fn write_budget(&self, text: &mut Text<2048>, budget: u64) {
        text.push("oomguard:   the ");
        text.push_size(budget);
        text.push(match self.cause {
            Cause::AskedToLeave => " budget was about to overflow",
            _ if self.request.is_some_and(|request| request.bytes > budget) => " budget is less than that",
            _ => " budget is used up",
        });
        for (place, holder) in self.holders.iter().flatten().enumerate() {
            text.push(if place == 0 { ": " } else { ", " });
            if holder.pid == 0 {
                text.push("nobody");
            } else {
                text.push_foreign(holder.name.as_bytes());
                text.push(" (");
                text.push_number(holder.pid.into());
                text.push(")");
            }
            text.push(" ");
            text.push_size(holder.bytes);
        }
        if let Some(waited_ms) = self.waited_ms.filter(|waited_ms| *waited_ms > 0) {
            text.push("; waited ");
            text.push_number(waited_ms / 1000);
            text.push(".");
            text.push_number(waited_ms % 1000 / 100);
            text.push(" s");
        }
        text.push("\n");
    }

    fn write_use(&self, text: &mut Text<2048>) {
        text.push("oomguard:   in use: ");
        let uses = [
            ("address-space ", self.memory.address_space),
            (", data ", self.memory.data),
            (", resident ", self.memory.resident),
            (", resident at most ", self.memory.resident_peak),
        ];
        for (name, bytes) in uses {
            text.push(name);
            match bytes {
                Some(bytes) => text.push_size(bytes),
                None => text.push("unknown"),
            }
        }
        text.push("; ");
        text.push_number(self.refusals);
        text.push(if self.refusals == 1 { " refusal\n" } else { " refusals\n" });
    }

    fn write_advice(&self, text: &mut Text<2048>) {
        if self.cause == Cause::Injected {
            text.push("nothing: this refusal was injected by ");
            text.push(variable::INJECT);
            return;
        }
        let Some(limit) = self.limit else {
            text.push("a smaller request, or more memory: the system itself refused");
            return;
        };
        if self.limit_refused == Some(false) {
            text.push(
                "a look at the system (vm.overcommit_memory, vm.max_map_count): the limit had room for this",
            );
            return;
        }
        if self.request.is_some_and(|request| request.bytes > limit) {
            text.push("a smaller request: this one alone is more than the limit; or ");
        }
        text.push(match (self.limit_source, self.measure) {
            (Some(LimitSource::Environment), _) => "a larger OOMGUARD_LIMIT",
            (Some(LimitSource::CommandLine), _) => "a larger --limit (-m)",
            (Some(LimitSource::Source), _) => "a larger OOMGUARD_LIMIT (it overrides the source)",
            (Some(LimitSource::Cgroup), _) => {
                "a larger memory limit for the container, or fewer such processes in it"
            }
            (Some(LimitSource::Budget), _) => "a larger budget, or fewer processes that share it",
            (Some(LimitSource::Changed), _) => "a larger rlimit where this one was set (setrlimit, prlimit)",
            (_, Measure::AddressSpace) => "a larger RLIMIT_AS (ulimit -v) in whatever started this",
            (_, Measure::Data | Measure::Resident) => {
                "a larger RLIMIT_DATA (ulimit -d) in whatever started this"
            }
        });
        let mostly_reserved = self.memory.resident_peak.is_some_and(|peak| peak < limit / 2);
        if self.cause == Cause::Thread {
            text.push(", fewer threads, or smaller stacks (RUST_MIN_STACK)");
        } else if self.measure == Measure::AddressSpace && mostly_reserved {
            text.push("; or OOMGUARD_MEASURE=data: most of the address space was never touched");
        }
    }
}

/// A JSON string of at most `most` bytes between its quotes; cut between characters. No control character is in it as
/// it is: JSON forbids only those below U+0020, but a terminal that shows the line obeys the others as well.
fn push_json_string(line: &mut Text<REPORT_MAX_BYTES>, value: &[u8], most: usize) {
    line.push("\"");
    let room = line.len().saturating_add(most);
    for chunk in value.utf8_chunks() {
        for character in chunk.valid().chars() {
            push_if_it_fits(line, character, room);
        }
        if !chunk.invalid().is_empty() {
            push_if_it_fits(line, char::REPLACEMENT_CHARACTER, room);
        }
    }
    line.push("\"");
}

fn push_if_it_fits(line: &mut Text<REPORT_MAX_BYTES>, character: char, room: usize) {
    let mut escaped = Text::<8>::new();
    match character {
        '"' => escaped.push("\\\""),
        '\\' => escaped.push("\\\\"),
        // All of them are below U+0100.
        _ if character.is_control() => {
            escaped.push("\\u00");
            let byte = character as u8;
            for nibble in [byte >> 4, byte & 15] {
                escaped.push_bytes(&[if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }]);
            }
        }
        _ => escaped.push(character.encode_utf8(&mut [0; 4])),
    }
    if line.len() + escaped.len() <= room {
        line.push_bytes(escaped.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memory::HeapUse;

    fn snapshot<'a>() -> Snapshot<'a> {
        Snapshot {
            cause: Cause::Heap,
            pid: 7,
            tid: 8,
            program: b"worker",
            thread: b"main",
            request: Some(Request { bytes: 4096, align: Some(8) }),
            limit: Some(512 << 20),
            limit_source: Some(LimitSource::Environment),
            measure: Measure::AddressSpace,
            limit_refused: Some(true),
            memory: MemoryUse {
                address_space: Some(511 << 20),
                anonymous: None,
                shared: None,
                swapped: None,
                data: Some(400 << 20),
                resident: Some(300 << 20),
                resident_peak: Some(310 << 20),
                threads: Some(1),
                heap: HeapUse::default(),
            },
            refusals: 1,
            exit_code: 198,
            uptime_ms: 12,
            token: None,
            evidence: Some(Evidence::Exact),
            own_exit_code: None,
            own_signal: Some(6),
            budget: None,
            budget_used: None,
            waited_ms: None,
            holders: &[],
            inferred: false,
        }
    }

    fn json(snapshot: &Snapshot<'_>) -> String {
        let mut line = Text::new();
        snapshot.write_report(&mut line);
        assert!(!line.is_cut(), "{} bytes", line.len());
        String::from_utf8(line.as_bytes().to_vec()).unwrap()
    }

    fn lines(snapshot: &Snapshot<'_>) -> String {
        let mut text = Text::new();
        snapshot.write_lines(&mut text);
        assert!(!text.is_cut());
        String::from_utf8(text.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn the_report_is_the_one_of_the_contract() {
        assert_eq!(
            json(&snapshot()),
            concat!(
                r#"{"oomguard":1,"event":"out_of_memory","cause":"heap","pid":7,"tid":8,"program":"worker","#,
                r#""thread":"main","requested":4096,"align":8,"limit":536870912,"limit_source":"environment","#,
                r#""measure":"address_space","address_space":535822336,"data":419430400,"resident":314572800,"#,
                r#""resident_peak":325058560,"heap_live":null,"heap_peak":null,"refusals":1,"exit_code":198,"#,
                r#""uptime_ms":12,"token":null,"evidence":"exact","own_exit_code":null,"own_signal":6,"#,
                r#""budget":null,"budget_used":null,"waited_ms":null}"#,
                "\n"
            )
        );
    }

    #[test]
    fn an_inferred_report_has_one_key_more_and_says_so_to_people() {
        let mut inferred = snapshot();
        inferred.inferred = true;
        assert_eq!(json(&inferred), json(&snapshot()).replace("}\n", ",\"inferred\":true}\n"));
        assert!(lines(&inferred).lines().next().is_some_and(|line| line.contains("inferred")));
    }

    #[test]
    fn unknown_values_are_null_and_no_key_is_missing() {
        let mut unknown = snapshot();
        unknown.request = None;
        unknown.limit = None;
        unknown.limit_source = None;
        unknown.evidence = None;
        unknown.own_signal = None;
        unknown.memory = MemoryUse::default();
        let line = json(&unknown);
        for key in REPORT_KEYS {
            assert!(line.contains(&format!("\"{key}\":")), "{key}");
        }
        assert_eq!(line.matches("null").count(), 17);
    }

    #[test]
    fn the_largest_report_fits_its_line() {
        let huge = Some(u64::MAX);
        let ugly = [1u8; 64];
        let largest = Snapshot {
            cause: Cause::Injected,
            pid: u32::MAX,
            tid: u32::MAX,
            program: &ugly,
            thread: &ugly[..15],
            request: Some(Request { bytes: u64::MAX, align: huge }),
            limit: huge,
            limit_source: Some(LimitSource::Environment),
            measure: Measure::AddressSpace,
            limit_refused: None,
            memory: MemoryUse {
                address_space: huge,
                anonymous: huge,
                shared: huge,
                swapped: huge,
                data: huge,
                resident: huge,
                resident_peak: huge,
                heap: HeapUse { live: Some(u64::MAX), peak: Some(u64::MAX) },
                threads: huge,
            },
            refusals: u64::MAX,
            exit_code: 255,
            uptime_ms: u64::MAX,
            token: Some(&ugly),
            evidence: Some(Evidence::Straight),
            own_exit_code: Some(255),
            own_signal: Some(255),
            budget: huge,
            budget_used: huge,
            waited_ms: huge,
            holders: &[],
            inferred: true,
        };
        let line = json(&largest);
        assert!(line.len() <= REPORT_MAX_BYTES, "{} bytes", line.len());
        assert!(line.contains(&"\\u0001".repeat(64)), "the token is never cut");
    }

    #[test]
    fn names_of_any_bytes_make_valid_json() {
        let mut foreign = snapshot();
        foreign.program = b"a\"b\\\n\xff\xe2\x82\xac";
        assert!(json(&foreign).contains("\"program\":\"a\\\"b\\\\\\u000a\u{fffd}€\""));
        assert!(lines(&foreign).lines().count() <= 6);
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_in_either_form() {
        for character in (0..=u8::MAX).map(char::from).filter(|character| character.is_control()) {
            let name = character.to_string().into_bytes();
            let mut foreign = snapshot();
            (foreign.program, foreign.thread, foreign.token) = (&name, &name, Some(name.as_slice()));
            for text in [json(&foreign), lines(&foreign)] {
                let obeyed = text.chars().find(|character| character.is_control() && *character != '\n');
                assert_eq!(obeyed, None, "{text:?}");
            }
        }
        let mut foreign = snapshot();
        foreign.thread = b"\xc2\x9b31mX\x7f";
        assert!(json(&foreign).contains(r#""thread":"\u009b31mX\u007f""#), "{}", json(&foreign));
        assert!(lines(&foreign).contains("in thread ?31mX? (8)"), "{}", lines(&foreign));
    }

    #[test]
    fn people_get_at_most_six_lines_that_say_what_to_try() {
        let text = lines(&snapshot());
        assert!(text.starts_with("oomguard: out of memory: worker (pid 7) in thread main (8)"), "{text}");
        assert!(text.lines().count() <= 6);
        for part in
            ["4096 bytes", "512 MiB", "address-space 511 MiB", "data 400 MiB", "OOMGUARD_LIMIT", "198"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn the_advice_follows_the_case() {
        let advice = |change: fn(&mut Snapshot<'_>)| {
            let mut case = snapshot();
            change(&mut case);
            lines(&case)
        };
        assert!(advice(|s| s.cause = Cause::Injected).contains("injected"));
        assert!(advice(|s| s.limit = None).contains("the system itself"));
        assert!(advice(|s| s.limit_refused = Some(false)).contains("had room"));
        assert!(
            advice(|s| s.request = Some(Request { bytes: 1 << 40, align: None })).contains("this one alone")
        );
        assert!(advice(|s| s.limit_source = Some(LimitSource::Source)).contains("overrides"));
        assert!(advice(|s| s.limit_source = Some(LimitSource::Cgroup)).contains("container"));
        assert!(advice(|s| s.limit_source = Some(LimitSource::Rlimit)).contains("ulimit -v"));
        assert!(advice(|s| s.limit_source = Some(LimitSource::Budget)).contains("share it"));
        assert!(advice(|s| s.limit_source = Some(LimitSource::Changed)).contains("setrlimit"));
        assert!(advice(|s| s.cause = Cause::Thread).contains("fewer threads"));
        assert!(advice(|s| s.memory.resident_peak = Some(1 << 20)).contains("OOMGUARD_MEASURE=data"));
    }
}
