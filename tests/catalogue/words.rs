//! `on_exhausted`, `on_reclaim`, and where the report goes.

use super::crowd::eaters;
use super::{ABORTED, OUT_OF_EITHER, Role, Setting, fill};
use crate::common::BROKEN_ROLE;
use std::fs::File;
use std::hint::black_box;
use std::mem;
use std::process::exit;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;

/// What a hook prints that got as far as it should.
const SAID: &str = "last words";

pub const ROLES: &[Role] = &[
    Role::dies("a hook gets 2 MiB from the reserve", || {
        oomguard::on_exhausted(allocate_and_say);
        fill::eat(64 << 10)
    })
    .prints(SAID)
    .needs_exact_reserve(),
    Role::dies("a hook gets 2 MiB from the reserve with the heap full to the brim", || {
        oomguard::on_exhausted(allocate_and_say);
        fill::heap().keep();
        fill::eat(1 << 10)
    })
    .prints(SAID)
    .needs_exact_reserve(),
    Role::new("a hook gets 2 MiB while 32 threads eat", OUT_OF_EITHER, || {
        oomguard::on_exhausted(allocate_and_say);
        eaters(32, 16 << 10);
        fill::eat(16 << 10)
    })
    .limit("192Mi")
    .says("")
    .prints(SAID)
    .needs_exact_reserve(),
    Role::dies("a hook maps 2 MiB itself in a program that watches its pressure", || {
        oomguard::on_pressure(1.0, || ()).unwrap();
        wait_until_pressure_is_watched();
        oomguard::on_exhausted(map_and_say);
        fill::eat(64 << 10)
    })
    .prints(SAID)
    .needs_exact_reserve(),
    Role::dies("hooks run in the order of their registration", || {
        static TURN: AtomicU32 = AtomicU32::new(0);
        for turn in 0..3 {
            oomguard::on_exhausted(move || {
                if TURN.fetch_add(1, Ordering::Relaxed) == turn && turn == 2 {
                    say(SAID);
                }
            });
        }
        fill::one_huge_request();
    })
    .prints(SAID)
    .once(),
    Role::dies("a hook hangs on a mutex", || {
        let lock: &Mutex<()> = Box::leak(Box::new(Mutex::new(())));
        let held = lock.lock();
        oomguard::on_exhausted(|| drop(lock.lock()));
        fill::one_huge_request();
        drop(held);
    })
    .takes_at_least(1500),
    Role::dies("a hook hangs with every signal blocked, in a spawned thread", || {
        oomguard::on_exhausted(|| {
            loop {
                thread::park();
            }
        });
        let _ = thread::spawn(fill::one_huge_request).join();
    })
    .takes_at_least(1500)
    .once(),
    Role::dies("a hook panics", || {
        // A backtrace may take longer than the last words may.
        std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
        oomguard::on_exhausted(|| panic!("in the last words"));
        oomguard::on_exhausted(|| say(SAID));
        fill::one_huge_request();
    })
    .limit("512Mi")
    .says("in the last words")
    // Where a panic aborts, these were the last words.
    .prints(if cfg!(panic = "abort") { "" } else { SAID }),
    Role::dies("a hook exits with a code of its own", || {
        oomguard::on_exhausted(|| exit(3));
        fill::one_huge_request();
    }),
    Role::dies("a hook aborts", || {
        oomguard::on_exhausted(|| std::process::abort());
        fill::one_huge_request();
    }),
    Role::dies("a hook runs out of memory itself", || {
        oomguard::on_exhausted(fill::one_huge_request);
        fill::eat(1 << 20)
    }),
    Role::dies("a hook starts a thread and waits for it", || {
        oomguard::on_exhausted(|| {
            let _ = thread::Builder::new().stack_size(64 << 10).spawn(|| {}).map(|thread| thread.join());
            say(SAID);
        });
        fill::one_huge_request();
    })
    .prints(SAID),
    Role::dies("a hook sees a reserve of its own size", || {
        oomguard::on_exhausted(|| {
            let mut block = Vec::<u8>::new();
            // The default reserve is 4 MiB.
            if block.try_reserve_exact(64 << 20).is_err() {
                say(SAID);
            }
        });
        fill::mappings_but(1 << 20).keep();
        fill::eat(64 << 10)
    })
    .prints(SAID),
    Role::dies("a callback frees too little", || {
        oomguard::on_reclaim(|| say(SAID));
        fill::one_huge_request();
    })
    .prints(SAID),
    Role::dies("callbacks that were taken back are not called, and those beside them are", || {
        let mut kept = Vec::new();
        for turn in 0..3 {
            let word = if turn == 1 { SAID } else { "taken back" };
            let reclaim = oomguard::Registration::on_reclaim(move || say(&word[..4]));
            let exhausted = oomguard::Registration::on_exhausted(move || say(&word[4..]));
            if turn == 1 {
                kept.push((reclaim, exhausted));
            }
        }
        fill::one_huge_request();
    })
    .prints(SAID),
    Role::dies("a callback is refused itself", || {
        static CALLS: AtomicU32 = AtomicU32::new(0);
        oomguard::on_reclaim(|| {
            if CALLS.fetch_add(1, Ordering::Relaxed) > 1000 {
                exit(BROKEN_ROLE);
            }
            fill::handled_refusal();
        });
        fill::one_huge_request();
    }),
    Role::dies("a callback does not survive a refusal of its own", || {
        oomguard::on_reclaim(fill::one_huge_request);
        fill::one_huge_request();
    }),
    Role::dies("a callback panics", || {
        oomguard::on_reclaim(|| panic!("in the callback"));
        fill::one_huge_request();
    })
    .where_panics_abort(ABORTED)
    .limit("512Mi")
    .says("in the callback"),
    Role::new("many threads are refused at once, with callbacks", OUT_OF_EITHER, || {
        oomguard::on_reclaim(|| {
            black_box(vec![1u8; 100]);
        });
        eaters(32, 64 << 10);
        fill::eat(64 << 10)
    })
    .limit("192Mi")
    .says(""),
    Role::dies("a callback waits for a lock that another refused thread holds", || {
        let lock: &Mutex<()> = Box::leak(Box::new(Mutex::new(())));
        let (locked, is_locked) = mpsc::channel();
        static IN_CALLBACK: AtomicBool = AtomicBool::new(false);
        oomguard::on_reclaim(|| {
            IN_CALLBACK.store(true, Ordering::SeqCst);
            drop(lock.lock());
        });
        thread::spawn(move || {
            let held = lock.lock();
            let _ = locked.send(());
            while !IN_CALLBACK.load(Ordering::SeqCst) {
                thread::yield_now();
            }
            // Refused while the other one reclaims, and waits for us.
            fill::one_huge_request();
            drop(held);
        });
        let _ = is_locked.recv();
        fill::one_huge_request();
    }),
    Role::exits("a callback waits for a lock whose holder copes with its refusal", 0, || {
        let lock: &Mutex<()> = Box::leak(Box::new(Mutex::new(())));
        let (locked, is_locked) = mpsc::channel();
        static IN_CALLBACK: AtomicBool = AtomicBool::new(false);
        oomguard::on_reclaim(|| {
            IN_CALLBACK.store(true, Ordering::SeqCst);
            drop(lock.lock());
        });
        let holder = thread::spawn(move || {
            let held = lock.lock();
            let _ = locked.send(());
            while !IN_CALLBACK.load(Ordering::SeqCst) {
                thread::yield_now();
            }
            fill::handled_refusal();
            drop(held);
        });
        let _ = is_locked.recv();
        fill::handled_refusal();
        let _ = holder.join();
    })
    .handling(),
    Role::exits("a callback frees a cache, and the program goes on", 0, || {
        const PIECE: usize = 1 << 20;
        static CACHE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
        static FREED: AtomicBool = AtomicBool::new(false);
        oomguard::on_reclaim(|| {
            if let Ok(mut cache) = CACHE.try_lock() {
                FREED.store(true, Ordering::Relaxed);
                *cache = Vec::new();
            }
        });
        let piece = || black_box(Vec::<u8>::with_capacity(black_box(PIECE)));
        CACHE.lock().expect("not poisoned").extend((0..32).map(|_| piece()));
        while !FREED.load(Ordering::Relaxed) {
            mem::forget(piece());
        }
        // Room for these was made; without it they are refused.
        for _ in 0..16 {
            mem::forget(piece());
        }
        say(SAID);
    })
    .limit("128Mi")
    .prints(SAID),
    Role::dies("the report goes to a descriptor", fill::one_huge_request)
        .setting(Setting::ReportToDescriptor),
    Role::dies("the report goes to a relative path, and the program changes its directory", || {
        std::env::set_current_dir("/").expect("a root");
        fill::one_huge_request();
    })
    .setting(Setting::ReportRelative),
    Role::dies("the report is written quietly", fill::one_huge_request).setting(Setting::Quiet).once(),
    Role::dies("every descriptor is taken", || {
        while let Ok(file) = File::open("/dev/null") {
            mem::forget(file);
        }
        fill::one_huge_request();
    }),
];

fn allocate_and_say() {
    let block = black_box(vec![7u8; black_box(2 << 20)]);
    if block[1 << 20] == 7 {
        say(SAID);
    }
}

/// A thread that has only been started may want memory for all that anybody knows. This one has looked, and sleeps.
fn wait_until_pressure_is_watched() {
    static WATCHER: AtomicI32 = AtomicI32::new(0);
    // SAFETY: gettid takes no pointer and cannot fail.
    oomguard::on_pressure(1e-6, || WATCHER.store(unsafe { libc::gettid() }, Ordering::Relaxed)).unwrap();
    let sleeps = || {
        let stat = format!("/proc/self/task/{}/stat", WATCHER.load(Ordering::Relaxed));
        std::fs::read_to_string(stat).is_ok_and(|stat| stat.contains(") S "))
    };
    while !sleeps() {
        thread::yield_now();
    }
}

/// As the C library's own allocations are: past the guard.
fn map_and_say() {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a mapping at no address in particular takes the place of nothing.
    let block = unsafe { libc::mmap(std::ptr::null_mut(), 2 << 20, protection, flags, -1, 0) };
    if block != libc::MAP_FAILED {
        say(SAID);
    }
}

/// Writes to stdout without its buffer and its lock.
fn say(text: &str) {
    // SAFETY: `text` is readable for its whole length.
    unsafe { libc::write(libc::STDOUT_FILENO, text.as_ptr().cast(), text.len()) };
}
