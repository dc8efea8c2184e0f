//! A wrong literal in `guard!` does not compile, and the message names the key and the cure.

#[test]
fn wrong_arguments_of_guard_do_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
