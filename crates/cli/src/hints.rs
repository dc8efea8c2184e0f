//! What a garbage-collecting runtime has to be told, so that it collects before the limit rather than meets it: runtimes
//! size their heaps by the machine or the container, and know nothing of rlimits. Only for `run --hints`, and only what the
//! user has not said.
//!
//! A program that stops at a heap limit from here ran out of memory: `OOMGUARD_HINTED` has the guard in it take the
//! runtime's own message and death for that. At a heap limit of the user's, its exit code is its own.
//!
//! Not in the table: CPython, Perl, Ruby and PHP have no such variable, R collects when it is refused, and glibc's
//! `MALLOC_ARENA_MAX` gains nothing where the limit counts data, while the guard sees to arenas where it counts address
//! space.

use oomguard::contract::variable;
use std::ffi::OsString;

/// One variable that a runtime reads.
struct Hint {
    variable: &'static str,
    /// What the variable says for a limit in bytes.
    value: fn(u64) -> String,
    /// What stands between options where the variable holds many. Ours come first: of two, runtimes take the later.
    /// `None`: the variable is one value.
    separator: Option<&'static str>,
    /// The user has spoken where one of these variables is set …
    variables_of_user: &'static [&'static str],
    /// … and holds one of these words. None: whatever it holds.
    words_of_user: &'static [&'static str],
    /// The runtime ends the program there; a soft limit only has it collect more.
    ends_program: bool,
}

const V8_WORDS: &[&str] = &["max-old-space-size", "max_old_space_size", "max-heap-size", "max_heap_size"];

static HINTS: [Hint; 5] = [
    // Go: https://pkg.go.dev/runtime#hdr-Environment_Variables
    Hint {
        variable: "GOMEMLIMIT",
        // Soft, and blind to what the runtime maps ahead: with 200 MiB live and much garbage, four fifths of a data limit
        // of 320 and 384 MiB let a program of Go 1.19 through, nine tenths did not.
        value: |limit| format!("{}MiB", mib(percent(80, limit))),
        separator: None,
        variables_of_user: &["GOMEMLIMIT"],
        words_of_user: &[],
        ends_program: false,
    },
    // Node: https://nodejs.org/api/cli.html#--max-old-space-sizesize-in-mib
    Hint {
        variable: "NODE_OPTIONS",
        value: v8_old_space,
        separator: Some(" "),
        variables_of_user: &["NODE_OPTIONS"],
        words_of_user: V8_WORDS,
        ends_program: true,
    },
    // Deno: https://docs.deno.com/runtime/reference/env_variables/
    Hint {
        variable: "DENO_V8_FLAGS",
        value: v8_old_space,
        separator: Some(","),
        variables_of_user: &["DENO_V8_FLAGS"],
        words_of_user: V8_WORDS,
        ends_program: true,
    },
    // Java: https://docs.oracle.com/en/java/javase/21/docs/specs/jvmti.html#tooloptions
    Hint {
        // Unlike JDK_JAVA_OPTIONS, also for a JVM that another program has inside; the command line has the last word.
        variable: "JAVA_TOOL_OPTIONS",
        value: |limit| format!("-Xmx{}m", mib(java_heap(limit))),
        separator: Some(" "),
        variables_of_user: &["JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"],
        // A start above the end would keep the JVM from starting.
        words_of_user: &["-Xmx", "-Xms", "HeapSize", "MaxRAM", "InitialRAM"],
        ends_program: true,
    },
    // .NET: https://learn.microsoft.com/dotnet/core/runtime-config/garbage-collector#heap-hard-limit
    Hint {
        variable: "DOTNET_GCHeapHardLimit",
        // Hexadecimal, with or without 0x. 75 % is what it takes of a container's limit by itself.
        value: |limit| format!("0x{:x}", percent(75, limit)),
        separator: None,
        variables_of_user: &[
            "DOTNET_GCHeapHardLimit",
            "DOTNET_GCHeapHardLimitPercent",
            "COMPlus_GCHeapHardLimit",
            "COMPlus_GCHeapHardLimitPercent",
        ],
        words_of_user: &[],
        ends_program: true,
    },
];

/// The variables to set for a command with this limit, whose environment otherwise is `environment`.
pub fn apply(
    environment: impl Fn(&str) -> Option<OsString>,
    limit_bytes: u64,
) -> Vec<(&'static str, OsString)> {
    let unsaid: Vec<&Hint> = HINTS.iter().filter(|hint| !hint.is_said(&environment)).collect();
    let mut variables: Vec<_> =
        unsaid.iter().map(|hint| (hint.variable, hint.joined(&environment, limit_bytes))).collect();
    if unsaid.iter().any(|hint| hint.ends_program) {
        variables.push((variable::HINTED, "1".into()));
    }
    variables
}

/// The variable to set so that a JVM ends where an exhaustion is thrown, whoever would catch it, unless the user has said
/// what it does then.
pub fn exit_on_uncaught(environment: impl Fn(&str) -> Option<OsString>) -> Option<(&'static str, OsString)> {
    static EXIT: Hint = Hint {
        variable: "JAVA_TOOL_OPTIONS",
        value: |_| "-XX:+ExitOnOutOfMemoryError".to_owned(),
        separator: Some(" "),
        variables_of_user: &["JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"],
        words_of_user: &["OnOutOfMemoryError"],
        ends_program: true,
    };
    (!EXIT.is_said(&environment)).then(|| (EXIT.variable, EXIT.joined(&environment, 0)))
}

impl Hint {
    /// Whether the user has said it.
    fn is_said(&self, environment: impl Fn(&str) -> Option<OsString>) -> bool {
        self.variables_of_user.iter().filter_map(|name| environment(name)).any(|value| {
            let value = value.to_string_lossy();
            self.words_of_user.is_empty() || self.words_of_user.iter().any(|word| value.contains(word))
        })
    }

    fn joined(&self, environment: impl Fn(&str) -> Option<OsString>, limit_bytes: u64) -> OsString {
        let mut value = OsString::from((self.value)(limit_bytes));
        let theirs = environment(self.variable).filter(|theirs| !theirs.is_empty());
        if let (Some(separator), Some(theirs)) = (self.separator, theirs) {
            value.push(separator);
            value.push(theirs);
        }
        value
    }
}

/// Node's makers leave a quarter to everything else.
fn v8_old_space(limit_bytes: u64) -> String {
    format!("--max-old-space-size={}", mib(percent(75, limit_bytes)))
}

/// A JVM needs about 100 MiB beside its heap, whatever the heap's size, and more for a larger one: with 256 MiB of data a
/// heap of 153 MiB started and one of 192 did not; with 512 and 1024 MiB, three quarters did.
fn java_heap(limit_bytes: u64) -> u64 {
    const BESIDE_HEAP: u64 = 128 << 20;
    percent(75, limit_bytes).min(limit_bytes.saturating_sub(BESIDE_HEAP)).max(limit_bytes / 4)
}

fn percent(share: u64, bytes: u64) -> u64 {
    // In 128 bits, which no product of the two fills.
    (u128::from(bytes) * u128::from(share) / 100) as u64
}

/// Never 0, which means "no limit" to most.
fn mib(bytes: u64) -> u64 {
    (bytes >> 20).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(environment: &[(&str, &str)], limit: u64) -> Vec<(&'static str, String)> {
        let find = |name: &str| {
            environment.iter().find(|(set, _)| *set == name).map(|(_, value)| OsString::from(value))
        };
        let string = |value: OsString| value.into_string().unwrap();
        apply(find, limit).into_iter().map(|(name, value)| (name, string(value))).collect()
    }

    fn value(environment: &[(&str, &str)], name: &str) -> Option<String> {
        applied(environment, 1 << 30).into_iter().find(|(set, _)| *set == name).map(|(_, value)| value)
    }

    #[test]
    fn each_runtime_is_told_in_its_own_language() {
        let all = applied(&[], 1 << 30);
        let expected = [
            ("GOMEMLIMIT", "819MiB"),
            ("NODE_OPTIONS", "--max-old-space-size=768"),
            ("DENO_V8_FLAGS", "--max-old-space-size=768"),
            ("JAVA_TOOL_OPTIONS", "-Xmx768m"),
            ("DOTNET_GCHeapHardLimit", "0x30000000"),
            ("OOMGUARD_HINTED", "1"),
        ];
        assert_eq!(all, expected.map(|(name, value)| (name, value.to_owned())));
    }

    #[test]
    fn what_the_user_said_stands_and_what_else_the_variable_says_stays() {
        for (name, said) in [
            ("GOMEMLIMIT", "off"),
            ("NODE_OPTIONS", "--trace-gc --max_old_space_size=99"),
            ("DENO_V8_FLAGS", "--max-heap-size=99"),
            ("JAVA_TOOL_OPTIONS", "-Dx=1 -XX:MaxRAMPercentage=50"),
            ("DOTNET_GCHeapHardLimit", "1000"),
        ] {
            assert_eq!(value(&[(name, said)], name), None, "{name}={said}");
        }
        assert_eq!(value(&[("JDK_JAVA_OPTIONS", "-Xms1g")], "JAVA_TOOL_OPTIONS"), None);
        assert_eq!(value(&[("COMPlus_GCHeapHardLimitPercent", "10")], "DOTNET_GCHeapHardLimit"), None);
        let joined = value(&[("NODE_OPTIONS", "--trace-gc")], "NODE_OPTIONS");
        assert_eq!(joined.as_deref(), Some("--max-old-space-size=768 --trace-gc"));
        let joined = value(&[("DENO_V8_FLAGS", "--expose-gc")], "DENO_V8_FLAGS");
        assert_eq!(joined.as_deref(), Some("--max-old-space-size=768,--expose-gc"));
        assert_eq!(
            value(&[("NODE_OPTIONS", "")], "NODE_OPTIONS").as_deref(),
            Some("--max-old-space-size=768")
        );
    }

    #[test]
    fn a_jvm_is_told_to_end_unless_the_user_has_said_what_it_does() {
        let told = |said: &[(&str, &str)]| {
            exit_on_uncaught(|name| {
                said.iter().find(|(set, _)| *set == name).map(|(_, value)| OsString::from(value))
            })
        };
        let option = |value: &str| Some(("JAVA_TOOL_OPTIONS", OsString::from(value)));
        assert_eq!(told(&[]), option("-XX:+ExitOnOutOfMemoryError"));
        assert_eq!(told(&[("JAVA_TOOL_OPTIONS", "-Xmx9m")]), option("-XX:+ExitOnOutOfMemoryError -Xmx9m"));
        for said in
            ["-XX:-ExitOnOutOfMemoryError", "-XX:+CrashOnOutOfMemoryError", "-XX:OnOutOfMemoryError=x"]
        {
            assert_eq!(told(&[("JDK_JAVA_OPTIONS", said)]), None);
        }
    }

    #[test]
    fn the_guard_is_told_only_if_a_heap_limit_is_ours() {
        let all_said = [
            ("NODE_OPTIONS", "--max-old-space-size=9"),
            ("DENO_V8_FLAGS", "--max-old-space-size=9"),
            ("_JAVA_OPTIONS", "-Xmx9m"),
            ("DOTNET_GCHeapHardLimit", "9"),
        ];
        let names: Vec<_> = applied(&all_said, 1 << 30).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["GOMEMLIMIT"]);
    }

    #[test]
    fn a_small_limit_leaves_the_jvm_what_it_needs_beside_its_heap() {
        let heap = |limit_mib: u64| java_heap(limit_mib << 20) >> 20;
        assert_eq!([128, 160, 256, 512, 1024].map(heap), [32, 40, 128, 384, 768]);
        let tiny = applied(&[], 1000);
        assert!(tiny.contains(&("NODE_OPTIONS", "--max-old-space-size=1".into())), "{tiny:?}");
    }
}
