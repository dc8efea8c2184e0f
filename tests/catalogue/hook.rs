//! An alloc-error hook of the program's own, which only nightly compilers let it set: see `tests/compilers/build.rs`.

use super::{OUT_OF_HEAP, Role, fill};
use crate::common::BROKEN_ROLE;
use std::hint::black_box;
use std::io::Write;
use std::panic::catch_unwind;
use std::process::exit;

/// Less than any machine has, and more than the limit.
const TOO_MUCH: usize = 160 << 20;
/// What std's own hook would say of it.
const LINE: &str = "memory allocation of 167772160 bytes failed\n";

/// Which say std's own line, and are told from std where the guard has been built to look.
#[cfg(oomguard_nightly)]
pub const ROLES_WITH_STD_LINE: &[Role] = &[
    Role::exits("a hook that says std's line and unwinds is caught, and the program goes on", 0, || {
        unwinds();
        assert!(catch_unwind(too_much).is_err());
        drop(black_box(vec![1u8; black_box(1 << 20)]));
    })
    .needs_unwinding()
    .handling()
    .says(LINE),
    Role::exits("the same twice, and the program says 3", 3, || {
        unwinds();
        assert!(catch_unwind(too_much).is_err());
        assert!(catch_unwind(too_much).is_err());
        drop(black_box(vec![1u8; black_box(100 << 20)]));
        exit(3);
    })
    .needs_unwinding()
    .limit("152Mi")
    .handling()
    .says(LINE),
    Role::exits("the same in one piece", 0, || {
        std::alloc::set_alloc_error_hook(|_| {
            let _ = std::io::stderr().write_all(LINE.as_bytes());
            std::panic::resume_unwind(Box::new(()))
        });
        assert!(catch_unwind(too_much).is_err());
    })
    .needs_unwinding()
    .handling()
    .says(LINE),
];
#[cfg(not(oomguard_nightly))]
pub const ROLES_WITH_STD_LINE: &[Role] = &[];

pub const ROLES: &[Role] = &[
    Role::exits("a hook that panics is caught, and something else panics later", 101, || {
        std::alloc::set_alloc_error_hook(|layout| panic!("no room for {} bytes", layout.size()));
        assert!(catch_unwind(too_much).is_err());
        super::own_fate::work();
        panic!("as planned");
    })
    .needs_unwinding()
    .limit("152Mi")
    .handling()
    .says("as planned"),
    Role::dies("a hook that says std's line and comes back", || {
        std::alloc::set_alloc_error_hook(|layout| {
            eprintln!("memory allocation of {} bytes failed", layout.size())
        });
        too_much();
    }),
    Role::dies("a hook that says std's line and exits", || {
        std::alloc::set_alloc_error_hook(|layout| {
            eprintln!("memory allocation of {} bytes failed", layout.size());
            exit(7)
        });
        too_much();
    }),
    Role::new("a hook that says something else and exits", OUT_OF_HEAP, || {
        std::alloc::set_alloc_error_hook(|_| {
            eprintln!("sorry");
            exit(7)
        });
        too_much();
    })
    .says(""),
];

#[cfg(oomguard_nightly)]
fn unwinds() {
    std::alloc::set_alloc_error_hook(|layout| {
        eprintln!("memory allocation of {} bytes failed", layout.size());
        std::panic::resume_unwind(Box::new(()))
    });
}

fn too_much() {
    let block = Vec::<u8>::with_capacity(black_box(TOO_MUCH));
    if black_box(block).capacity() >= TOO_MUCH {
        exit(BROKEN_ROLE);
    }
    fill::one_huge_request();
}
