//! What a tracer is told when it is started.

use super::room::SharedLedger;
use super::sys::locale::NO_MEMORY_BYTES;
use crate::contract::{LimitSource, Measure, TOKEN_MAX_BYTES};
use crate::text::Text;

/// What the worker was started with.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    pub(super) measure: Measure,
    /// The limit on what is resident, if that is the measure.
    pub(super) resident_limit: Option<u64>,
    /// The budget that it shares.
    pub(super) budget: Option<SharedLedger>,
    pub(super) exit_code: u8,
    pub(super) token: Option<Text<TOKEN_MAX_BYTES>>,
    /// Who set its limit.
    pub(super) source: LimitSource,
    /// How the C library tells of ENOMEM in the user's language; empty in English.
    pub(super) no_memory: Text<NO_MEMORY_BYTES>,
    /// Process numbers are below this.
    pub(super) numbers: usize,
}
