//! What runs before and after `main`: functions in the arrays that the loader walks. They do nothing but in a role.

use super::fill;
use crate::common::ROLE;
use std::alloc::Layout;
use std::ffi::{CStr, CString, c_char, c_int};

pub const BEFORE_MAIN: &str = "a constructor of the program asks for too much";
pub const AFTER_MAIN: &str = "a destructor of the program asks for too much after main";
pub const ABORT_HANDLER_BEFORE: &str = "a SIGABRT handler that was there before ours runs for an abort";
pub const ABORT_HANDLER_BEFORE_DEATH: &str =
    "a SIGABRT handler that was there before ours does not hinder exhaustion";

/// What a handler of the program's own leaves with.
pub const OWN_HANDLER_EXIT: i32 = 55;

// Before every `.init_array`, the guard's included.
#[used]
#[unsafe(link_section = ".preinit_array")]
static FIRST: extern "C" fn(c_int, *const *const c_char, *const *const c_char) = before_the_guard;

#[used]
#[unsafe(link_section = ".init_array")]
static LATER: extern "C" fn() = before_main;

#[used]
#[unsafe(link_section = ".fini_array")]
static LAST: extern "C" fn() = after_main;

fn is_role(name: &str) -> bool {
    let variable = CString::new(ROLE).expect("no NUL");
    // SAFETY: a C string; the environment does not change this early and this late.
    let value = unsafe { libc::getenv(variable.as_ptr()) };
    // SAFETY: what getenv found is a C string in the environment.
    !value.is_null() && unsafe { CStr::from_ptr(value) }.to_bytes() == name.as_bytes()
}

// The C library has not taken over the environment yet: it comes as an argument.
extern "C" fn before_the_guard(_: c_int, _: *const *const c_char, mut environment: *const *const c_char) {
    loop {
        // SAFETY: the array ends in a null pointer, behind which this loop does not go.
        let entry = unsafe { *environment };
        if entry.is_null() {
            return;
        }
        // SAFETY: an entry that is not null is a C string.
        let entry = unsafe { CStr::from_ptr(entry) }.to_bytes();
        let value = entry.strip_prefix(ROLE.as_bytes()).and_then(|rest| rest.strip_prefix(b"="));
        if let Some(role) = value
            && [ABORT_HANDLER_BEFORE, ABORT_HANDLER_BEFORE_DEATH].iter().any(|name| role == name.as_bytes())
        {
            handle(libc::SIGABRT);
        }
        // SAFETY: this entry was not the end of the array.
        environment = unsafe { environment.add(1) };
    }
}

extern "C" fn before_main() {
    if is_role(BEFORE_MAIN) {
        fill::one_huge_request();
    }
}

extern "C" fn after_main() {
    if is_role(AFTER_MAIN) {
        std::alloc::handle_alloc_error(Layout::new::<[u8; 4096]>());
    }
}

/// Installs the program's own handler for `signal`, the plain kind.
pub fn handle(signal: i32) {
    let handler = leave as extern "C" fn(i32) as *const () as usize;
    // SAFETY: the handler makes one system call.
    unsafe { libc::signal(signal, handler) };
}

extern "C" fn leave(_: i32) {
    // SAFETY: _exit takes no pointer and does not come back.
    unsafe { libc::_exit(OWN_HANDLER_EXIT) }
}
