//! What the user asked for: the arguments of `guard!`, overridden by the environment. Pure functions.

use oomguard_core::contract::{
    DEFAULT_RESERVE_BYTES, DEFAULT_STALL_MS, EXIT_OUT_OF_MEMORY, Measure, OnRefusal, ParseMeasureError,
    Sufficient, variable,
};
pub use oomguard_core::forms::Profile;
use oomguard_core::forms::{self, BadForm, WhenRefused};
use oomguard_core::limit::{LIMIT_FORMS, Limit, meant, parse_size};
use oomguard_core::names::meant_by;
use oomguard_core::text::{Text, place_of, until, whole_number};

/// What the source code says, checked at compile time. Made by [`guard!`](https://docs.rs/oomguard/latest/oomguard/macro.guard.html).
#[derive(Clone, Copy)]
pub struct Settings {
    limit: Option<Limit>,
    measure: Option<Measure>,
    exit_code: Option<u8>,
    reserve: Option<u64>,
    on_refusal: Option<WhenRefused>,
    profile: Option<Profile>,
}

impl Settings {
    /// Nothing said: everything has its default.
    pub const UNSET: Settings = Settings {
        limit: None,
        measure: None,
        exit_code: None,
        reserve: None,
        on_refusal: None,
        profile: None,
    };

    /// Whether the profiler is compiled in.
    pub(super) const fn profiles(&self) -> bool {
        self.profile.is_some()
    }

    pub(super) const fn profile_from_source(&self) -> Option<Profile> {
        self.profile
    }

    /// `limit = "512MiB"`.
    pub const fn limit(mut self, text: &str) -> Settings {
        match Limit::parse(text.as_bytes()) {
            Ok(limit) => self.limit = Some(limit),
            Err(_) => panic!(
                "guard!(limit = …): not a limit; write bytes (\"536870912\"), \"512M\" or \"512Mi\" (K M G T, Ki Mi Gi \
                 Ti), \"80%\", \"auto\" or \"off\""
            ),
        }
        self
    }

    /// `measure = data`.
    pub const fn measure(mut self, measure: Measure) -> Settings {
        self.measure = Some(measure);
        self
    }

    /// `exit_code = 198`.
    pub const fn exit_code(mut self, code: i128) -> Settings {
        if code < 1 || code > 255 {
            panic!("guard!(exit_code = …): not an exit code; write a number from 1 to 255");
        }
        self.exit_code = Some(code as u8);
        self
    }

    /// `reserve = "8MiB"`.
    pub const fn reserve(mut self, text: &str) -> Settings {
        match parse_size(text.as_bytes()) {
            Ok(bytes) => self.reserve = Some(bytes),
            Err(_) => panic!(
                "guard!(reserve = …): not a size; write bytes (\"4194304\"), \"4M\" or \"4Mi\" (K M G T, Ki Mi Gi Ti)"
            ),
        }
        self
    }

    /// `on_refusal = deferred`.
    pub const fn on_refusal(mut self, on_refusal: OnRefusal) -> Settings {
        self.on_refusal = Some(WhenRefused { allocation: on_refusal, threads_end: false });
        self
    }

    /// `on_refusal = immediate_threads`.
    pub const fn immediate_threads(mut self) -> Settings {
        self.on_refusal = Some(WhenRefused { allocation: OnRefusal::Immediate, threads_end: true });
        self
    }

    /// `profile = on` and `profile = off`.
    pub const fn profile(mut self, profile: Profile) -> Settings {
        self.profile = Some(profile);
        self
    }

    /// `profile = "512KiB"`.
    pub const fn profile_every(self, text: &str) -> Settings {
        match parse_size(text.as_bytes()) {
            Ok(bytes) if bytes > 0 => self.profile(Profile::On(Some(bytes))),
            _ => panic!(
                "guard!(profile = …): not a sampling distance; write on, off, bytes (\"524288\"), \"512K\" or \"512Ki\" \
                 (K M G T, Ki Mi Gi Ti)"
            ),
        }
    }
}

/// What an entry of the environment begins with, if it concerns the guard.
pub(super) const BEGINNINGS: [&str; 3] = [OURS, ARENAS, TUNABLES];
const OURS: &str = "OOMGUARD_";
/// How users tune malloc's arenas: mallopt(3).
const ARENAS: &str = "MALLOC_ARENA_MAX=";
const TUNABLES: &str = "GLIBC_TUNABLES=";

/// The variables of the environment that concern the guard.
#[derive(Clone, Copy, Default)]
pub struct Environment<'a> {
    /// What each is set to, in the order of `variable::ALL`.
    values: [Option<&'a [u8]>; variable::ALL.len()],
    /// The user has tuned malloc's arenas: mallopt(3), MALLOC_ARENA_MAX and glibc.malloc.arena_max.
    pub(super) arenas_are_set: bool,
    /// The first name that nearly is one of ours, and which.
    pub(super) misspelt: Option<(&'a [u8], &'static str)>,
}

impl<'a> Environment<'a> {
    /// Takes in `NAME=value` if it is one of ours. The first of two wins, as with getenv(3).
    pub(super) fn note(&mut self, entry: &'a [u8]) {
        if entry.starts_with(OURS.as_bytes()) {
            let name = until(entry, b'=');
            if let Some(place) = place_among_ours(name) {
                if let Some(value) = self.values.get_mut(place) {
                    *value = value.or(entry.get(name.len() + 1..));
                }
            } else if self.misspelt.is_none() {
                self.misspelt = meant_by(name).map(|meant| (name, meant));
            }
        }
        self.arenas_are_set |= entry.starts_with(ARENAS.as_bytes())
            || entry.starts_with(TUNABLES.as_bytes()) && place_of(entry, b"arena_max").is_some();
    }

    /// What the variable of this name is set to.
    #[inline(never)]
    pub fn of(&self, name: &str) -> Option<&'a [u8]> {
        *self.values.get(place_among_ours(name.as_bytes())?)?
    }

    /// The same, as it is to be understood.
    fn read<T>(
        &self,
        name: &'static str,
        read: fn(&'a [u8]) -> Result<T, BadForm>,
    ) -> Result<Option<T>, BadVariable<'a>> {
        let Some(value) = self.of(name) else { return Ok(None) };
        read(value).map(Some).map_err(|BadForm { reason, accepted }| BadVariable {
            name,
            value,
            reason,
            accepted,
        })
    }
}

#[inline(never)]
fn place_among_ours(name: &[u8]) -> Option<usize> {
    // They all begin alike: where they end tells most of them apart.
    let end = name.last();
    variable::ALL.iter().position(|known| {
        let known = known.as_bytes();
        known.len() == name.len() && known.last() == end && known == name
    })
}

/// Where the report goes, as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReportTo<'a> {
    Nowhere,
    Path(&'a [u8]),
    Descriptor(i32),
}

/// What holds, once source and environment are joined.
#[derive(Clone, Copy)]
pub(super) struct Wishes<'a> {
    pub(super) limit_from_environment: Option<Limit>,
    pub(super) limit_from_source: Option<Limit>,
    pub(super) measure: Measure,
    pub(super) exit_code: u8,
    pub(super) reserve_bytes: u64,
    pub(super) on_refusal: WhenRefused,
    pub(super) report: ReportTo<'a>,
    pub(super) token: Option<&'a [u8]>,
    pub(super) quiet: bool,
    pub(super) sufficient: Sufficient,
    pub(super) inject: Option<&'a [u8]>,
    pub(super) arenas_are_set: bool,
    pub(super) profile_from_environment: Option<Profile>,
    /// In milliseconds; `None` where it may last for ever.
    pub(super) stall_ms: Option<u64>,
    pub(super) exits_on_uncaught: bool,
}

/// A variable whose value cannot be used.
pub(super) struct BadVariable<'a> {
    pub(super) name: &'static str,
    pub(super) value: &'a [u8],
    pub(super) reason: &'static str,
    pub(super) accepted: &'static str,
}

impl BadVariable<'_> {
    /// `OOMGUARD_LIMIT="12Q" …: not a number with a known unit; accepted: …`
    pub(super) fn describe(&self, line: &mut Text<1024>) {
        line.push(self.name);
        line.push("=\"");
        // Long enough to be recognised, short enough to leave room for the cure.
        let shown = 80;
        line.push_foreign(self.value.get(..shown).unwrap_or(self.value));
        line.push(if self.value.len() > shown { "…\"" } else { "\"" });
        line.push(" in the environment: ");
        line.push(self.reason);
        line.push("; accepted: ");
        line.push(self.accepted);
        if let Some(words) =
            meant(self.value).filter(|_| matches!(self.name, variable::LIMIT | variable::BUDGET))
        {
            line.push("; did you mean ");
            line.push_bytes(words.as_bytes());
            line.push("?");
        }
    }
}

/// Joins source and environment; the environment wins.
pub(super) fn resolve<'a>(
    source: &Settings,
    environment: &Environment<'a>,
) -> Result<Wishes<'a>, BadVariable<'a>> {
    let measure = environment.of(variable::MEASURE).map(measure_from).transpose()?.or(source.measure);
    let exit_code = environment.read(variable::EXIT_CODE, forms::exit_code)?.or(source.exit_code);
    let reserve = environment.read(variable::RESERVE, forms::reserve)?.or(source.reserve);
    let on_refusal = environment.read(variable::ON_REFUSAL, forms::on_refusal)?.or(source.on_refusal);
    // For whoever keeps a ledger; wrong text is told here as well.
    environment.read(variable::PATIENCE, forms::patience)?;
    environment.of(variable::BUDGET).map(|value| limit_of(variable::BUDGET, value)).transpose()?;
    Ok(Wishes {
        limit_from_environment: environment.of(variable::LIMIT).map(limit_from).transpose()?,
        limit_from_source: source.limit,
        measure: measure.unwrap_or_default(),
        exit_code: exit_code.unwrap_or(EXIT_OUT_OF_MEMORY),
        reserve_bytes: reserve.unwrap_or(DEFAULT_RESERVE_BYTES),
        on_refusal: on_refusal.unwrap_or_default(),
        report: environment.of(variable::REPORT).map_or(Ok(ReportTo::Nowhere), report_from)?,
        token: environment.read(variable::TOKEN, forms::token)?,
        quiet: environment.read(variable::QUIET, forms::switch)?.unwrap_or(false),
        sufficient: environment.read(variable::VERDICT, forms::verdict)?.unwrap_or_default(),
        inject: environment.of(variable::INJECT),
        arenas_are_set: environment.arenas_are_set,
        profile_from_environment: environment.read(variable::PROFILE, forms::profile)?,
        stall_ms: environment.read(variable::STALL, forms::stall)?.unwrap_or(Some(DEFAULT_STALL_MS)),
        exits_on_uncaught: environment.read(variable::EXIT_ON_UNCAUGHT, forms::switch)?.unwrap_or(false),
    })
}

fn limit_from(value: &[u8]) -> Result<Limit, BadVariable<'_>> {
    limit_of(variable::LIMIT, value)
}

fn limit_of<'a>(name: &'static str, value: &'a [u8]) -> Result<Limit, BadVariable<'a>> {
    Limit::parse(value).map_err(|error| BadVariable {
        name,
        value,
        reason: error.reason(),
        accepted: LIMIT_FORMS,
    })
}

fn measure_from(value: &[u8]) -> Result<Measure, BadVariable<'_>> {
    Measure::parse(value).map_err(|_| BadVariable {
        name: variable::MEASURE,
        value,
        reason: ParseMeasureError::REASON,
        accepted: ParseMeasureError::FORMS,
    })
}

fn report_from(value: &[u8]) -> Result<ReportTo<'_>, BadVariable<'_>> {
    let bad = |reason| BadVariable {
        name: variable::REPORT,
        value,
        reason,
        accepted: "a file's path, or fd:N for an open descriptor",
    };
    match value.strip_prefix(b"fd:") {
        Some(number) => whole_number(number)
            .and_then(|number| i32::try_from(number).ok())
            .map(ReportTo::Descriptor)
            .ok_or(bad("not a descriptor's number")),
        None if value.is_empty() => Err(bad("empty")),
        None => Ok(ReportTo::Path(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment<'a>(entries: &[&'a str]) -> Environment<'a> {
        let mut environment = Environment::default();
        for entry in entries {
            environment.note(entry.as_bytes());
        }
        environment
    }

    #[test]
    fn the_environment_wins_over_the_source() {
        let source = Settings::UNSET
            .limit("1Gi")
            .measure(Measure::AddressSpace)
            .exit_code(3)
            .reserve("1Mi")
            .on_refusal(OnRefusal::Deferred);
        let variables = environment(&[
            "OOMGUARD_LIMIT=80%",
            "OOMGUARD_MEASURE=data",
            "OOMGUARD_EXIT_CODE=77",
            "OOMGUARD_RESERVE=0",
            "OOMGUARD_ON_REFUSAL=immediate",
            "OOMGUARD_REPORT=fd:9",
            "OOMGUARD_TOKEN=a b",
            "OOMGUARD_QUIET=1",
            "OOMGUARD_PROFILE=64Ki",
        ]);
        let Ok(wishes) = resolve(&source, &variables) else { panic!("all good") };
        assert_eq!(wishes.limit_from_environment, "80%".parse().ok());
        assert_eq!(wishes.limit_from_source, Some(Limit::Bytes(1 << 30)));
        assert_eq!((wishes.measure, wishes.exit_code, wishes.reserve_bytes), (Measure::Data, 77, 0));
        assert_eq!((wishes.on_refusal.allocation, wishes.quiet), (OnRefusal::Immediate, true));
        assert_eq!((wishes.report, wishes.token), (ReportTo::Descriptor(9), Some(&b"a b"[..])));
        assert_eq!(wishes.profile_from_environment, Some(Profile::On(Some(64 << 10))));
    }

    #[test]
    fn the_source_wins_over_the_defaults() {
        let Ok(wishes) =
            resolve(&Settings::UNSET.exit_code(9).measure(Measure::Data), &Environment::default())
        else {
            panic!("all good")
        };
        assert_eq!((wishes.exit_code, wishes.measure), (9, Measure::Data));
        assert_eq!(
            (wishes.reserve_bytes, wishes.on_refusal),
            (DEFAULT_RESERVE_BYTES, WhenRefused::default())
        );
        assert_eq!((wishes.report, wishes.quiet), (ReportTo::Nowhere, false));
    }

    #[test]
    fn names_match_whole_and_the_first_of_two_wins() {
        let variables = environment(&[
            "OOMGUARD_LIMITS=1",
            "XOOMGUARD_LIMIT=2",
            "OOMGUARD_LIMIT",
            "OOMGUARD_LIMIT=3Mi",
            "OOMGUARD_LIMIT=4Mi",
        ]);
        assert_eq!(variables.of(variable::LIMIT), Some(&b"3Mi"[..]));
        assert_eq!(variables.misspelt, Some((&b"OOMGUARD_LIMITS"[..], variable::LIMIT)));
    }

    #[test]
    fn tuned_arenas_are_noticed() {
        assert!(environment(&["MALLOC_ARENA_MAX=8"]).arenas_are_set);
        assert!(environment(&["GLIBC_TUNABLES=glibc.rtld.x=1:glibc.malloc.arena_max=8"]).arenas_are_set);
        assert!(!environment(&["GLIBC_TUNABLES=glibc.malloc.check=1", "XMALLOC_ARENA_MAX=1"]).arenas_are_set);
    }
}
