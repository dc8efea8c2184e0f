//! The grammar of limits: what is read is written so that it is read as the same, and what a message offers is a limit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oomguard::{__fuzz, Limit};

fuzz_target!(|text: &str| {
    match text.parse::<Limit>() {
        Ok(limit) => assert_eq!(limit.to_string().parse(), Ok(limit)),
        Err(_) => {
            for offered in __fuzz::meant(text).iter().flat_map(|words| words.split(" or ")) {
                assert!(offered.parse::<Limit>().is_ok(), "{offered} is offered for {text:?}");
            }
        }
    }
});
