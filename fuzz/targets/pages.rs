//! The pages that a worker and its descendants fill: whatever they claim, the report is JSON of the length that is promised,
//! can be read back, and its lines obey no terminal.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oomguard::__fuzz;
use oomguard::supervisor::Report;

const PAGE_BYTES: usize = 1024;

fuzz_target!(|data: &[u8]| {
    // The worker's own page, and one of a descendant's.
    let mut head = vec![0; __fuzz::HEAD_BYTES];
    for (page, claims) in head.chunks_exact_mut(PAGE_BYTES).zip(data.chunks(PAGE_BYTES)) {
        page[..claims.len()].copy_from_slice(claims);
    }
    for report in __fuzz::pages(&head) {
        let line = report.to_json();
        assert!(line.len() <= oomguard::contract::REPORT_MAX_BYTES && !line.trim_end().contains('\n'));
        let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(value["oomguard"], oomguard::contract::REPORT_VERSION);
        let again: Report = line.parse().expect("a report");
        assert_eq!(
            (again.pid(), again.limit(), again.requested()),
            (report.pid(), report.limit(), report.requested())
        );
        assert!(report.to_string().chars().all(|character| character == '\n' || !character.is_control()));
    }
});
