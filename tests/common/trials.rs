//! What test programs share that are their own subjects: started with `role NAME …` they play that part.

use libtest_mimic::{Failed, Trial};

pub fn add(trials: &mut Vec<Trial>, name: &str, test: fn()) {
    trials.push(Trial::test(name, move || -> Result<(), Failed> {
        test();
        Ok(())
    }));
}

/// The role that this program was started to play, and its arguments.
pub fn role_to_play() -> Option<Vec<String>> {
    let mut arguments = std::env::args().skip(1);
    (arguments.next().as_deref() == Some("role")).then(|| arguments.collect())
}
