//! A wrong literal in `guard!` does not compile, and the message names the key and the cure.
//!
//! The expected messages are those of stable Rust 1.95, which words its own part around ours. After an update of the
//! compiler look at the difference, and write them anew with `TRYBUILD=overwrite`.

#[test]
fn wrong_arguments_of_guard_do_not_compile() {
    trybuild::TestCases::new().compile_fail("cases/*.rs");
}
