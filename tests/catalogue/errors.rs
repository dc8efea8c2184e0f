//! Refusals that come back as errors: of a request that std or C code handles by giving up, of the C library's heap, and
//! of a mapping. The program ends by a code, a panic or an abort of its own that says why, or says nothing.

use super::own_fate::work;
use super::{ABORTED, OUT_OF_HEAP, Role, fill};
use std::ffi::c_void;
use std::fmt::Write as _;
use std::fs::File;
use std::hint::black_box;
use std::process::{abort, exit};
use std::sync::{Barrier, LazyLock, Mutex};
use std::thread;
use std::time::Duration;

/// More than the limit of 96 MiB, and less than any machine has.
const TOO_MUCH: usize = 160 << 20;

/// A backtrace may find no room either.
const OUT_OF_MAPPINGS: super::Fate = super::Fate::OutOfMemory(&["mapping", "heap"]);

pub const ROLES: &[Role] = &[
    Role::new("a file is too large, unwrap", OUT_OF_HEAP, || drop(large_file().unwrap())).says(""),
    Role::new("a file is too large, in a thread that main joins", OUT_OF_HEAP, || {
        thread::spawn(|| drop(large_file().unwrap())).join().unwrap();
    })
    .says(""),
    Role::new("a file is too large, a word and exit 1", OUT_OF_HEAP, || {
        if let Err(error) = large_file() {
            eprintln!("cannot load: {error}");
            exit(1);
        }
    })
    .says(""),
    Role::exits("a file is too large, exit 1 at once and without a word", 1, || {
        if large_file().is_err() {
            exit(1);
        }
    })
    .handling(),
    Role::new("C is refused, and calls _exit 1 at once", OUT_OF_HEAP, || {
        if c_block().is_null() {
            // SAFETY: takes no pointer and does not come back.
            unsafe { libc::_exit(1) };
        }
    }),
    Role::new("try_reserve, unwrap", OUT_OF_HEAP, || {
        Vec::<u8>::new().try_reserve(black_box(TOO_MUCH)).unwrap();
    })
    .says(""),
    Role::new("a panic hook of the program's own that says nothing", OUT_OF_HEAP, || {
        std::panic::set_hook(Box::new(|_| {}));
        drop(large_file().unwrap());
    }),
    Role::new("a panic hook that says nothing, in a thread, and main gives up", OUT_OF_HEAP, || {
        std::panic::set_hook(Box::new(|_| {}));
        if thread::spawn(|| drop(large_file().unwrap())).join().is_err() {
            exit(1);
        }
    })
    .says(""),
    Role::exits(
        "a file is too large, then a panic about something else that a hook keeps silent",
        101,
        || {
            std::panic::set_hook(Box::new(|_| {}));
            assert!(large_file().is_err());
            panic!("no row {}", black_box(7));
        },
    )
    .where_panics_abort(super::ABORTED)
    .handling()
    .says(""),
    Role::exits("a file is too large, then a panic of one text that a hook keeps silent", 101, || {
        std::panic::set_hook(Box::new(|_| {}));
        assert!(large_file().is_err());
        panic!("there is no such row");
    })
    .where_panics_abort(super::ABORTED)
    .handling()
    .says(""),
    Role::exits(
        "a hook keeps what was told last, of memory, and the panic is about something else",
        101,
        || {
            let error = Vec::<u8>::new().try_reserve(black_box(TOO_MUCH)).unwrap_err().to_string();
            std::panic::set_hook(Box::new(move |_| {
                let line = error.clone();
                let kept = black_box(vec![line]);
                std::mem::forget((kept, black_box(Box::new([7u8; 80]))));
            }));
            panic!("no row {}", black_box(7));
        },
    )
    .where_panics_abort(super::ABORTED)
    .handling()
    .says(""),
    Role::exits(
        "a panic over a large file is caught, then one about something else, a hook keeps both silent",
        101,
        || {
            std::panic::set_hook(Box::new(|_| {}));
            assert!(std::panic::catch_unwind(|| drop(large_file().unwrap())).is_err());
            panic!("no row {}", black_box(7));
        },
    )
    .needs_unwinding()
    .handling()
    .says(""),
    Role::exits("a file is too large, then a panic without a text that a hook keeps silent", 101, || {
        std::panic::set_hook(Box::new(|_| {}));
        assert!(large_file().is_err());
        std::panic::panic_any(black_box(7));
    })
    .where_panics_abort(super::ABORTED)
    .handling()
    .says(""),
    Role::exits("a file is too large, then something is thrown without a word", 101, || {
        assert!(large_file().is_err());
        std::panic::resume_unwind(Box::new(black_box(7)));
    })
    .where_panics_abort(super::ABORTED)
    .handling()
    .says(""),
    Role::exits(
        "a panic over a large file is caught, then one without a text, a hook keeps both silent",
        101,
        || {
            std::panic::set_hook(Box::new(|_| {}));
            assert!(std::panic::catch_unwind(|| drop(large_file().unwrap())).is_err());
            std::panic::panic_any(black_box(7));
        },
    )
    .needs_unwinding()
    .needs_last_first()
    .handling()
    .says(""),
    Role::is_killed(
        "a file is too large, then a silent hook aborts over something else",
        libc::SIGABRT,
        || {
            std::panic::set_hook(Box::new(|_| abort()));
            assert!(large_file().is_err());
            panic!("no row {}", black_box(7));
        },
    )
    .handling()
    .says(""),
    Role::new("a silent hook aborts over a large file", OUT_OF_HEAP, || {
        std::panic::set_hook(Box::new(|_| abort()));
        drop(large_file().unwrap());
    })
    .says(""),
    Role::new("the error of a large file is thrown itself, and a hook keeps silent", OUT_OF_HEAP, || {
        std::panic::set_hook(Box::new(|_| {}));
        std::panic::panic_any(large_file().unwrap_err());
    })
    .needs_unwinding()
    .says(""),
    Role::new("the error of try_reserve is thrown itself, and a hook keeps silent", OUT_OF_HEAP, || {
        std::panic::set_hook(Box::new(|_| {}));
        std::panic::panic_any(Vec::<u8>::new().try_reserve(black_box(TOO_MUCH)).unwrap_err());
    })
    .needs_unwinding()
    .says(""),
    Role::new("the error of try_reserve is thrown past all hooks", OUT_OF_HEAP, || {
        let error = Vec::<u8>::new().try_reserve(black_box(TOO_MUCH)).unwrap_err();
        std::panic::resume_unwind(Box::new(error));
    })
    .needs_unwinding()
    .says(""),
    Role::new("a text of a large file's error is thrown past all hooks", OUT_OF_HEAP, || {
        let text = large_file().unwrap_err().to_string();
        let boxed = Box::new(text);
        drop(black_box(vec![7; 80]));
        std::panic::resume_unwind(boxed);
    })
    .needs_unwinding()
    .says(""),
    Role::new("a panic over a large file is thrown on, and a hook keeps silent", OUT_OF_HEAP, || {
        std::panic::set_hook(Box::new(|_| {}));
        let thrown = thread::spawn(|| drop(large_file().unwrap())).join().unwrap_err();
        std::panic::resume_unwind(thrown);
    })
    .needs_unwinding()
    .says(""),
    Role::new("a hook makes a text of a large file's error, gives it back, and ends it", OUT_OF_HEAP, || {
        std::panic::set_hook(Box::new(|panic| {
            drop(black_box(panic.to_string()));
            drop(black_box(vec![7; 80]));
            exit(7);
        }));
        drop(large_file().unwrap());
    })
    .says(""),
    Role::exits("a file is too large, a long row of dots, then a word about something else", 1, || {
        assert!(large_file().is_err());
        eprintln!("not kept: out of memory");
        for _ in 0..2000 {
            eprint!(".");
        }
        eprintln!("cannot find the table: no such file or directory");
        exit(1);
    })
    .handling()
    .says(""),
    Role::new("a panic over a large file, in a function that C calls", OUT_OF_HEAP, || {
        reads_a_large_file();
    })
    .says(""),
    Role::new("what is made once is not there, for a panic over a large file", OUT_OF_HEAP, || {
        static ROWS: LazyLock<Vec<u8>> = LazyLock::new(|| large_file().unwrap());
        let _ = std::panic::catch_unwind(|| ROWS.len());
        black_box(ROWS.len());
    })
    .says(""),
    Role::exits("a panic over a large file is caught, then a hook ends it over something else", 7, || {
        std::panic::set_hook(Box::new(|_| {}));
        assert!(std::panic::catch_unwind(|| drop(large_file().unwrap())).is_err());
        std::panic::set_hook(Box::new(|_| exit(7)));
        panic!("there is no such row");
    })
    .needs_unwinding()
    .handling()
    .says(""),
    Role::exits(
        "a message grows into a block where memory was told of, and a silent hook ends it",
        7,
        || {
            std::panic::set_hook(Box::new(|_| exit(7)));
            assert!(Vec::<u8>::new().try_reserve(black_box(TOO_MUCH)).is_err());
            let mut line = String::with_capacity(black_box(88));
            write!(line, "{:>60}: out of memory", "the rows are not kept").unwrap();
            drop(black_box(line));
            panic!("there is no row in the table that is number {}", black_box(7));
        },
    )
    .handling()
    .says(""),
    Role::exits("what panic hooks write to grows between two panics, and in the second one", 7, || {
        static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());
        let grow = |len| LINES.lock().unwrap().resize(black_box(len), 7);
        // Room for them to grow in their place, and none of it for what is thrown.
        let small: Vec<_> = (1..5).map(|size| vec![0u8; 24 * size]).collect();
        drop(black_box(small));
        let (room, behind) = (vec![0u8; black_box(16_000)], vec![0u8; black_box(16_000)]);
        drop(room);
        assert!(Vec::<u8>::new().try_reserve(black_box(TOO_MUCH)).is_err());
        std::panic::set_hook(Box::new(move |_| grow(600)));
        assert!(std::panic::catch_unwind(|| std::panic::panic_any(5)).is_err());
        grow(900);
        std::panic::set_hook(Box::new(move |_| grow(4000)));
        assert!(std::panic::catch_unwind(|| std::panic::panic_any(5)).is_err());
        assert!(LINES.lock().unwrap().iter().all(|byte| *byte == 7));
        drop(black_box(behind));
        exit(7)
    })
    .needs_unwinding()
    .handling()
    .says(""),
    Role::exits("a silent hook ends it, in a block where an error of memory was told before", 7, || {
        let tell = |what: &dyn std::fmt::Display| {
            let mut line = String::with_capacity(black_box(200));
            write!(line, "{what}").unwrap();
            black_box(line);
        };
        std::panic::set_hook(Box::new(move |panic| {
            tell(panic);
            exit(7);
        }));
        let error = Vec::<u8>::new().try_reserve(black_box(TOO_MUCH)).unwrap_err();
        tell(&format_args!("{:>100}: {error}", "the rows of the table are not kept"));
        panic!("no row {}", black_box(7));
    })
    .handling()
    .says(""),
    // Where Rust's allocator is another one than C's, the mapping behind its request is what is remembered.
    Role::new("C is refused, goes through its rows, and says so", OUT_OF_MAPPINGS, || {
        assert!(c_block().is_null());
        for _ in 0..64 {
            drop(black_box(vec![1_u8; 2 << 20]));
        }
        eprintln!("Error: out of memory");
        exit(1);
    })
    .says("out of memory"),
    Role::exits("C is refused, says so, goes through its rows, and ends for another reason", 3, || {
        assert!(c_block().is_null());
        eprintln!("Error: out of memory");
        for _ in 0..64 {
            drop(black_box(vec![1_u8; 2 << 20]));
        }
        exit(3);
    })
    .handling()
    .says("out of memory"),
    Role::exits("C is refused, says so, goes through its rows, and tells of the next", 3, || {
        assert!(c_block().is_null());
        eprintln!("Error: out of memory");
        for _ in 0..64 {
            drop(black_box(vec![1_u8; 2 << 20]));
        }
        eprintln!("ready for more rows");
        exit(3);
    })
    .handling()
    .says("ready"),
    Role::new("a panic hook of the program's own ends it over a large file", OUT_OF_HEAP, || {
        ends_with_hook(7);
        drop(large_file().unwrap());
    })
    .says(""),
    Role::new("a thread panics over a large file, and main gives up without a word", OUT_OF_HEAP, || {
        if thread::spawn(|| drop(large_file().unwrap())).join().is_err() {
            exit(1);
        }
    })
    .says(""),
    Role::new("a thread panics over a large file, and main says that it gives up", OUT_OF_HEAP, || {
        if thread::spawn(|| drop(large_file().unwrap())).join().is_err() {
            eprintln!("the reader has died");
            exit(1);
        }
    })
    .says(""),
    Role::new(
        "a thread panics over a large file, another one does without, and main gives up without a word",
        OUT_OF_HEAP,
        || {
            let has_failed = thread::spawn(|| drop(large_file().unwrap())).join().is_err();
            let _ = thread::spawn(fill::handled_refusal).join();
            if has_failed {
                exit(1);
            }
        },
    )
    .says(""),
    Role::new("a scoped thread panics over a large file", OUT_OF_HEAP, || {
        thread::scope(|scope| {
            scope.spawn(|| drop(large_file().unwrap()));
        });
    })
    .says(""),
    Role::new("a panic over a large file is caught, and main says that the job failed", OUT_OF_HEAP, || {
        if std::panic::catch_unwind(|| drop(large_file().unwrap())).is_err() {
            eprintln!("the job has failed");
            exit(1);
        }
    })
    .says(""),
    Role::new("a panic over a large file poisons what main needs", OUT_OF_HEAP, || {
        let shared = std::sync::Mutex::new(0);
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let _locked = shared.lock();
                drop(large_file().unwrap());
            });
            let _ = reader.join();
        });
        *shared.lock().unwrap() += 1;
    })
    .says(""),
    Role::new("a panic over a large file leaves a channel without a sender", OUT_OF_HEAP, || {
        let (send, receive) = std::sync::mpsc::channel();
        thread::spawn(move || send.send(large_file().unwrap()));
        black_box(receive.recv().unwrap());
    })
    .says(""),
    Role::new(
        "a panic over a large file takes long, and another thread is refused more meanwhile",
        OUT_OF_HEAP,
        || {
            static HAS_SAID: Barrier = Barrier::new(2);
            static WAS_REFUSED: Barrier = Barrier::new(2);
            let say = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                say(panic);
                if thread::current().name() == Some("reader") {
                    HAS_SAID.wait();
                    WAS_REFUSED.wait();
                }
            }));
            let (send, receive) = std::sync::mpsc::channel();
            let reader = move || send.send(large_file().unwrap());
            thread::Builder::new().name("reader".into()).spawn(reader).unwrap();
            HAS_SAID.wait();
            // As long as a backtrace takes at most, where a processor is wanting.
            thread::sleep(Duration::from_millis(2500));
            black_box(Vec::<u8>::new().try_reserve(black_box(TOO_MUCH))).unwrap_err();
            WAS_REFUSED.wait();
            black_box(receive.recv().unwrap());
        },
    )
    .says(""),
    Role::new(
        "a file is too large, which stderr is told, a summary on stdout and exit 1",
        OUT_OF_HEAP,
        || {
            if let Err(error) = large_file() {
                eprintln!("large: cannot be read: {error}");
                println!("Files processed: 0/1");
                println!("Total saved: 0 bytes (0.00%)");
                exit(1);
            }
        },
    )
    .says("")
    .needs_no_arena(),
    Role::exits("a file is too large, which stdout is told, and what stdout is told then is why", 4, || {
        if let Err(error) = large_file() {
            println!("large: {error}");
            println!("going on without it");
            println!("the settings are wrong");
            exit(4);
        }
    })
    .handling()
    .prints("the settings are wrong"),
    Role::new("a file is too large, a word on stdout and exit 1", OUT_OF_HEAP, || {
        if let Err(error) = large_file() {
            println!("cannot load: {error}");
            exit(1);
        }
    })
    .prints(""),
    Role::new("C is refused, and its caller says what it could not have", OUT_OF_HEAP, || {
        if c_block().is_null() {
            eprintln!("Error: failed to initialize the codec");
            exit(1);
        }
    })
    .says(""),
    Role::new("C is refused, and exits 3 at once", OUT_OF_HEAP, || {
        if c_block().is_null() {
            exit(3);
        }
    }),
    Role::new("C is refused, and aborts", OUT_OF_HEAP, || {
        if c_block().is_null() {
            abort();
        }
    }),
    Role::new("C is refused, and its caller panics", OUT_OF_HEAP, || {
        assert!(!c_block().is_null(), "no handle")
    })
    .says(""),
    Role::new("C is refused, and does not check", OUT_OF_HEAP, || {
        // SAFETY: none: the crash is what this role is for.
        unsafe { libc::memset(c_block(), 1, 8) };
    }),
    Role::new("C is refused in a thread, and does not check", OUT_OF_HEAP, || {
        // SAFETY: none: the crash is what this role is for.
        let _ = thread::spawn(|| unsafe { libc::memset(c_block(), 1, 8) } as usize).join();
    }),
    Role::new("C is refused, and asserts that it is not", OUT_OF_HEAP, || {
        assert_in_c(c"block != NULL", c_block())
    }),
    Role::new("a mapping is refused, unwrap", OUT_OF_MAPPINGS, || large_mapping().unwrap()).says(""),
    Role::new("a destructor panics while a panic over a large file unwinds", OUT_OF_HEAP, || {
        let _flushes = PanicsWhenDropped;
        drop(large_file().unwrap());
    })
    .says("")
    .needs_unwinding(),
    Role::is_killed(
        "a panic over a large file is caught, and a destructor panics in another",
        libc::SIGABRT,
        || {
            let _ = std::panic::catch_unwind(|| drop(large_file().unwrap()));
            let _flushes = PanicsWhenDropped;
            panic!("no row {}", black_box(7));
        },
    )
    .needs_unwinding()
    // Less than what is asked for, and room for a backtrace.
    .limit("152Mi")
    .handling()
    .says("not flushed"),
    Role::exits(
        "a panic over a large file is caught, and the lock that is met was poisoned before",
        101,
        || {
            let lock = Mutex::new(());
            poison(&lock);
            let _ = std::panic::catch_unwind(|| drop(large_file().unwrap()));
            drop(lock.lock().unwrap());
        },
    )
    .needs_unwinding()
    // Less than what is asked for, and room for a backtrace.
    .limit("152Mi")
    .handling()
    .says("PoisonError"),
    Role::exits(
        "a panic over a large file is caught, and the lock that is met is poisoned after it",
        101,
        || {
            let lock = Mutex::new(());
            let _ = std::panic::catch_unwind(|| drop(large_file().unwrap()));
            poison(&lock);
            drop(lock.lock().unwrap());
        },
    )
    .needs_unwinding()
    // Less than what is asked for, and room for a backtrace.
    .limit("152Mi")
    .handling()
    .says("PoisonError"),
    Role::new("a panic over a large file poisons a lock, and it is met", OUT_OF_HEAP, || {
        let lock = Mutex::new(());
        let _ = std::panic::catch_unwind(|| {
            let _held = lock.lock();
            drop(large_file().unwrap());
        });
        drop(lock.lock().unwrap());
    })
    .needs_unwinding()
    .says(""),
    Role::exits(
        "a panic over a large file is caught, then one about something else, and a hook tells both in its own way",
        101,
        || {
            std::panic::set_hook(Box::new(|panic| {
                eprintln!("The program has crashed: {}", panic.payload().downcast_ref::<String>().map_or("?", String::as_str));
            }));
            let _ = std::panic::catch_unwind(|| drop(large_file().unwrap()));
            panic!("no row {}", black_box(7));
        },
    )
    .needs_unwinding()
    .handling()
    .says("no row 7"),
    Role::is_killed(
        "a panic over a large file is caught, then one about something else, which a hook tells and aborts",
        libc::SIGABRT,
        || {
            let _ = std::panic::catch_unwind(|| drop(large_file().unwrap()));
            std::panic::set_hook(Box::new(|panic| {
                eprintln!("{panic}");
                abort()
            }));
            panic!("no row {}", black_box(7));
        },
    )
    .needs_unwinding()
    // Less than what is asked for, and room for a backtrace.
    .limit("152Mi")
    .handling()
    .says("no row 7"),
    Role::exits("a panic over a large file is caught in a thread that works on, and main says 4", 4, || {
        let (has_caught, is_caught) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let _ = std::panic::catch_unwind(|| drop(large_file().unwrap()));
            let _ = has_caught.send(());
            loop {
                thread::park();
            }
        });
        let _ = is_caught.recv();
        exit(4);
    })
    .needs_unwinding()
    // Less than what is asked for, and room for a backtrace.
    .limit("152Mi")
    .handling()
    .says("OutOfMemory"),
    Role::exits("a panic over a large file is caught, and a thread is joined that ended before", 101, || {
        let thread = thread::spawn(|| std::panic::resume_unwind(Box::new(7)));
        while !thread.is_finished() {
            thread::yield_now();
        }
        let _ = std::panic::catch_unwind(|| drop(large_file().unwrap()));
        thread.join().unwrap();
    })
    .needs_unwinding()
    // Less than what is asked for, and room for a backtrace.
    .limit("152Mi")
    .handling()
    .says("Any { .. }"),
    Role::exits(
        "a panic over a large file is caught, and a channel has nobody at its other end",
        101,
        || {
            let (_, receiver) = std::sync::mpsc::channel::<()>();
            let _ = std::panic::catch_unwind(|| drop(large_file().unwrap()));
            receiver.recv().unwrap();
        },
    )
    .needs_unwinding()
    // Less than what is asked for, and room for a backtrace.
    .limit("152Mi")
    .handling()
    .says("RecvError"),
    // Handled, and ended for another reason later.
    Role::exits("a thread panics over a large file, and main does without it and says 4 later", 4, || {
        let _ = thread::spawn(|| drop(large_file().unwrap())).join();
        work();
        exit(4);
    })
    .needs_unwinding()
    // Less than what is asked for, and room for a backtrace.
    .limit("152Mi")
    .needs_memory_back()
    .handling()
    .says("OutOfMemory"),
    Role::exits("a thread panics over a large file, and main then misses a file", 4, || {
        let _ = thread::spawn(|| drop(large_file().unwrap())).join();
        eprintln!("rows.csv: No such file or directory");
        exit(4);
    })
    .needs_unwinding()
    // Less than what is asked for, and room for a backtrace.
    .limit("152Mi")
    .needs_memory_back()
    .handling()
    .says("rows.csv"),
    Role::exits("a panic over a large file is caught, and main then fails at something else", 4, || {
        let _ = std::panic::catch_unwind(|| drop(large_file().unwrap()));
        eprintln!("failed to read the settings");
        exit(4);
    })
    .needs_unwinding()
    // Less than what is asked for, and room for a backtrace.
    .limit("152Mi")
    .needs_memory_back()
    .handling()
    .says("the settings"),
    Role::exits("a panic over a large file is caught, and a job fails after work", 4, || {
        let _ = std::panic::catch_unwind(|| drop(large_file().unwrap()));
        work();
        eprintln!("the job has failed");
        exit(4);
    })
    .needs_unwinding()
    // Less than what is asked for, and room for a backtrace.
    .limit("152Mi")
    .needs_memory_back()
    .handling()
    .says("the job has failed"),
    Role::exits("a size that no process can have, unwrap", 101, || {
        Vec::<u8>::new().try_reserve_exact(black_box(isize::MAX as usize)).unwrap();
    })
    .where_panics_abort(super::ABORTED)
    .handling()
    .says("AllocError")
    // Room for a backtrace.
    .limit("152Mi")
    .needs_no_arena(),
    Role::exits("a panic hook of the program's own ends it over something else", 7, || {
        assert!(large_file().is_err());
        ends_with_hook(7);
        let none: [u32; 0] = [];
        black_box(black_box(&none)[black_box(1)]);
    })
    .handling()
    .says("index out of bounds"),
    Role::exits("a file is too large, handled, then rows that speak of memory and exit 1", 1, || {
        assert!(large_file().is_err());
        (0..8).for_each(|row| println!("row {row}"));
        println!("row 8: out of memory in line 3");
        exit(1);
    })
    .handling()
    .prints("row 8"),
    Role::exits("a file is too large, handled, and the code of a panic at once", 101, || {
        assert!(large_file().is_err());
        exit(101);
    })
    .handling(),
    Role::exits("a file is too large, handled, then work and exit 3", 3, || {
        assert!(large_file().is_err());
        work();
        exit(3);
    })
    .handling(),
    Role::exits("a file is too large, logged, then work and exit 3 with other words", 3, || {
        eprintln!("cannot load all of it: {}", large_file().unwrap_err());
        work();
        eprintln!("bad configuration");
        exit(3);
    })
    .handling()
    .says("bad configuration"),
    Role::exits("C is refused, handled, then work and exit 3", 3, || {
        assert!(c_block().is_null());
        work();
        exit(3);
    })
    .handling(),
    Role::exits("C is refused, handled, and exit 3 a moment later with other words", 3, || {
        assert!(c_block().is_null());
        thread::sleep(std::time::Duration::from_millis(1500));
        eprintln!("bad configuration");
        exit(3);
    })
    .handling()
    .says("bad configuration"),
    Role::is_killed("C is refused, handled, and a moment later a write to null", libc::SIGSEGV, || {
        assert!(c_block().is_null());
        thread::sleep(std::time::Duration::from_millis(1500));
        // SAFETY: none: the crash is what this role is for.
        unsafe { libc::memset(black_box(std::ptr::null_mut()), 1, 8) };
    })
    .handling(),
    Role::exits("a panic over a large file is caught, and a child is forked that says 101", 0, || {
        let _ = std::panic::catch_unwind(|| drop(large_file().unwrap()));
        // SAFETY: there is no other thread, so the child may do anything.
        let child = unsafe { libc::fork() };
        if child == 0 {
            exit(101);
        }
        let mut status = 0;
        // SAFETY: `status` is writable during the call.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(libc::WEXITSTATUS(status), 101);
    })
    .needs_unwinding()
    // Less than what is asked for, and room for a backtrace.
    .limit("152Mi")
    .handling()
    .says("OutOfMemory"),
    Role::exits("a panic over a large file is caught, and the program goes on and says 3", 3, || {
        let _ = std::panic::catch_unwind(|| drop(large_file().unwrap()));
        exit(3);
    })
    .needs_unwinding()
    // Less than what is asked for, and room for a backtrace.
    .limit("152Mi")
    .handling()
    .says("OutOfMemory"),
    Role::is_killed("C is refused, handled, then work and a write to null", libc::SIGSEGV, || {
        assert!(c_block().is_null());
        work();
        // SAFETY: none: the crash is what this role is for.
        unsafe { libc::memset(black_box(std::ptr::null_mut()), 1, 8) };
    })
    .handling(),
    Role::is_killed("C is refused, handled, and asserts something else", libc::SIGABRT, || {
        assert!(c_block().is_null());
        assert_in_c(c"rows == 4", std::ptr::null_mut());
    })
    .handling()
    .says("rows == 4"),
    Role::is_killed("C is refused, handled, then work and a block that it asserts", libc::SIGABRT, || {
        assert!(c_block().is_null());
        work();
        assert_in_c(c"block", std::ptr::null_mut());
    })
    .handling()
    .says("block"),
    Role::exits("C is refused, handled, and at once the disk is full, unwrap", 101, || {
        assert!(c_block().is_null());
        std::fs::write("/dev/full", "a row").unwrap();
    })
    .where_panics_abort(ABORTED)
    // Less than what is asked for, and room for a backtrace.
    .limit("152Mi")
    .handling()
    .says("StorageFull"),
    Role::exits("C is refused, handled, and at once a file may not grow, a word and exit 1", 1, || {
        assert!(c_block().is_null());
        if let Err(error) = write_more_than_files_may_have() {
            eprintln!("cannot create the index: {error}");
            exit(1);
        }
    })
    .handling()
    .says("File too large"),
    Role::is_killed("C is refused, handled, then a stack overflow", libc::SIGABRT, || {
        assert!(c_block().is_null());
        black_box(super::own_fate::without_end(1));
    })
    .handling()
    .says("has overflowed its stack"),
];

/// Panics end the program by this code, after a word on stderr.
fn ends_with_hook(code: i32) {
    std::panic::set_hook(Box::new(move |panic| {
        eprintln!("crash: {panic}");
        exit(code)
    }));
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("not flushed");
    }
}

/// A panic about no memory poisons it, and says nothing.
fn poison(lock: &Mutex<()>) {
    let _ = thread::scope(|scope| {
        let holder = scope.spawn(|| {
            let _held = lock.lock();
            std::panic::resume_unwind(Box::new(7));
        });
        holder.join()
    });
}

/// A file of nothing but a hole, read whole.
fn large_file() -> std::io::Result<Vec<u8>> {
    let path = std::env::current_dir()?.join("large");
    File::create(&path).and_then(|file| file.set_len(TOO_MUCH as u64)).expect("room for a hole");
    std::fs::read(path)
}

/// What a C library asks for, from the C library's heap.
fn c_block() -> *mut c_void {
    // SAFETY: malloc takes any size.
    black_box(unsafe { libc::malloc(black_box(TOO_MUCH)) })
}

/// More than stdout, stderr and the report come to.
fn write_more_than_files_may_have() -> std::io::Result<()> {
    const MOST: usize = 16 << 10;
    let limit = libc::rlimit { rlim_cur: MOST as u64, rlim_max: MOST as u64 };
    // SAFETY: readable during the call.
    unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) };
    // SAFETY: takes no pointer of ours.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    std::fs::write("index", vec![0; MOST + 1])
}

fn large_mapping() -> std::io::Result<()> {
    fill::map(TOO_MUCH).map(drop).ok_or_else(std::io::Error::last_os_error)
}

/// What `assert(expression)` does in C where it does not hold, as it is for a block that there is not.
fn assert_in_c(expression: &'static std::ffi::CStr, block: *mut c_void) {
    unsafe extern "C" {
        fn __assert_fail(
            expression: *const std::ffi::c_char,
            file: *const std::ffi::c_char,
            line: std::ffi::c_uint,
            function: *const std::ffi::c_char,
        ) -> !;
    }
    if black_box(block).is_null() {
        // SAFETY: three C strings.
        unsafe { __assert_fail(expression.as_ptr(), c"errors.c".as_ptr(), 7, c"main".as_ptr()) }
    }
}

extern "C" fn reads_a_large_file() {
    drop(large_file().unwrap());
}
