//! Everything that was found, and what the guard would do with it.

use super::probes::{self, Probe};
use crate::environment::{Asked, asked, mistakes};
use crate::run::DEFAULT_MEASURE;
use crate::{arguments, hints};
use oomguard::contract::variable;
use oomguard::supervisor::{LimitHere, SharedBudget, Surroundings, misspelt_variables};
use oomguard::{Limit, Measure};
use std::ffi::OsString;

pub struct Examination {
    pub here: Surroundings,
    /// `OOMGUARD_LIMIT`.
    pub asked_limit: Asked<Limit>,
    /// `OOMGUARD_MEASURE`.
    pub asked_measure: Asked<Measure>,
    pub run: Plan,
    pub guard: Plan,
    /// What `--budget auto` would share, in bytes.
    pub budget: Option<u64>,
    /// What `OOMGUARD_BUDGET` has everything share that `run` starts, in bytes.
    pub asked_budget: Option<u64>,
    /// The budget that this process is in.
    pub joined: Option<Joined>,
    /// Those of ours that somebody set.
    pub variables: Vec<&'static str>,
    /// A line for each name that nearly is one of ours.
    pub misspelt: Vec<String>,
    /// What is wrong with other variables of ours that `run` reads.
    pub bad: Vec<String>,
    /// Whether programs that are started here get the library.
    pub preloads_us: bool,
    /// What `run --hints` would set.
    pub hints: Vec<(&'static str, OsString)>,
    pub probes: Vec<Probe>,
}

/// A budget that is shared already, in bytes.
#[derive(Clone, Copy)]
pub struct Joined {
    pub bytes: u64,
    pub used: u64,
}

/// What would hold for a program.
pub struct Plan {
    pub measure: Measure,
    pub limit: Option<LimitHere>,
}

impl Examination {
    pub fn of_here() -> Examination {
        let found = Examination::of(Surroundings::here(), |name| std::env::var_os(name), probes::all());
        Examination { misspelt: misspelt_variables(), ..found }
    }

    pub(super) fn of(
        here: Surroundings,
        environment: impl Fn(&str) -> Option<OsString>,
        probes: Vec<Probe>,
    ) -> Examination {
        let asked_limit = asked(&environment, variable::LIMIT, arguments::limit);
        let asked_measure = asked(&environment, variable::MEASURE, arguments::measure);
        let limit = asked_limit.as_ref().ok().copied().flatten();
        let measure = asked_measure.as_ref().ok().copied().flatten();
        let plan = |default| {
            let measure = measure.unwrap_or(default);
            Plan { measure, limit: here.limit_for(limit, None, measure) }
        };
        let (run, guard) = (plan(DEFAULT_MEASURE), plan(Measure::default()));
        let shared = |budget| here.limit_for(Some(budget), None, Measure::Resident).map(|limit| limit.bytes);
        let budget = shared(Limit::Auto);
        let read_budget = asked(&environment, variable::BUDGET, arguments::limit);
        let asked_budget = read_budget.as_ref().ok().copied().flatten().and_then(shared);
        let joined = if environment(variable::LEDGER).is_some() { SharedBudget::inherited() } else { None };
        let joined = joined.map(|joined| Joined { bytes: joined.bytes(), used: joined.used() });
        let variables = [
            variable::LIMIT,
            variable::MEASURE,
            variable::BUDGET,
            variable::EXIT_CODE,
            variable::ON_REFUSAL,
            variable::REPORT,
        ];
        let variables = variables.into_iter().filter(|name| environment(name).is_some()).collect();
        let preloads_us =
            environment("LD_PRELOAD").is_some_and(|list| list.to_string_lossy().contains("liboomguard"));
        let hints = run.limit.map(|limit| hints::apply(&environment, limit.bytes)).unwrap_or_default();
        let bad = [
            read_budget.err(),
            asked(&environment, variable::PATIENCE, arguments::patience).err(),
            asked(&environment, variable::EXIT_CODE, arguments::exit_code).err(),
            asked(&environment, variable::VERDICT, arguments::sufficient).err(),
        ];
        let bad = bad.into_iter().flatten().chain(mistakes(&environment, |_| true)).collect();
        Examination {
            run,
            guard,
            budget,
            asked_budget,
            joined,
            variables,
            misspelt: Vec::new(),
            bad,
            preloads_us,
            hints,
            asked_limit,
            asked_measure,
            here,
            probes,
        }
    }
}
