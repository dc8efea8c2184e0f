//! A profile's tables: what is read of them has the sizes that are promised, whatever they hold.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oomguard::__fuzz;

/// A word's place, then the word.
const CHANGE_BYTES: usize = 12;

fuzz_target!(|data: &[u8]| {
    let mut tables = vec![0; __fuzz::PROFILE_BYTES];
    tables[..8].copy_from_slice(b"oomgprof");
    tables[8] = 1;
    for change in data.chunks_exact(CHANGE_BYTES) {
        let (place, word) = change.split_at(4);
        let place = u32::from_ne_bytes(place.try_into().unwrap()) as usize % (tables.len() / 8);
        tables[place * 8..place * 8 + 8].copy_from_slice(word);
    }
    let Some(profile) = __fuzz::samples(&tables) else { return };
    assert!(profile.sampling_distance > 0 && profile.timeline.is_sorted_by_key(|moment| moment.at));
    let sampled = profile.sampled_bytes();
    for site in &profile.sites {
        assert!(site.frames.len() <= 48 && site.live_bytes <= sampled);
        assert!((0.0..=1.0).contains(&profile.share(site)));
        for frame in &site.frames {
            let _ = profile.module_of(*frame);
        }
    }
    assert!(profile.modules.iter().all(|module| module.start < module.end && module.build_id.len() <= 32));
    assert!(profile.last_refusal.is_none_or(|(_, frames)| frames.len() <= 48));
});
