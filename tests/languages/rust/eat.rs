//! Ways of a Rust program without a guard to meet the end of its memory: `eat WAY [CODE]`. Built by rustc alone.

use std::collections::{BTreeMap, TryReserveError};
use std::hint::black_box;
use std::panic::{catch_unwind, resume_unwind, set_hook};
use std::process::exit;

fn eat() -> ! {
    let mut held: Vec<Vec<u8>> = Vec::new();
    loop {
        held.push(black_box(vec![7; 64 << 10]));
    }
}

fn eat_fallibly() -> Vec<Vec<u8>> {
    let mut held: Vec<Vec<u8>> = Vec::with_capacity(1 << 16);
    loop {
        let mut block = Vec::new();
        if block.try_reserve_exact(64 << 10).is_err() {
            return held;
        }
        block.resize(64 << 10, 7);
        held.push(block);
    }
}

fn refused() -> TryReserveError {
    Vec::<u8>::new().try_reserve_exact(black_box(1 << 40)).unwrap_err()
}

/// Panics, as it does not get what it needs.
fn panic_of_memory() {
    Err::<(), _>(refused()).unwrap();
}

extern "C" fn panic_in_c() {
    panic_of_memory();
}

extern "C" fn panic_in_c_of_other() {
    panic!("no header");
}

fn work() -> usize {
    let mut table = BTreeMap::new();
    for i in 0..4000_usize {
        table.insert((i % 100).to_string(), vec![i as u8; 16 << 10]);
    }
    table.iter().map(|(name, block)| name.len() + usize::from(block[0])).sum()
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let way = arguments.next().unwrap_or_default();
    let code = arguments.next().map_or(0, |code| code.parse().unwrap());
    println!("pid {}", std::process::id());
    match way.as_str() {
        "vec" => eat(),
        "small" => {
            let mut held = std::collections::LinkedList::new();
            loop {
                held.push_back(Box::new([7_u64; 4]));
            }
        }
        "grow" => {
            let mut block: Vec<u64> = Vec::new();
            loop {
                block.push(black_box(7));
            }
        }
        "thread" => drop(std::thread::spawn(|| eat()).join()),
        "threads" => loop {
            let (used, is_used) = std::sync::mpsc::channel::<()>();
            std::thread::spawn(move || {
                black_box([7u8; 1 << 20]);
                drop(used);
                loop {
                    std::thread::park();
                }
            });
            // Until it has used its stack.
            let _ = is_used.recv();
        },
        "no-thread" => drop(std::thread::Builder::new().stack_size(1 << 36).spawn(|| ()).unwrap()),
        "no-socket" => {
            use std::io::Read;
            let (mut one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
            one.set_nonblocking(true).unwrap();
            assert!(std::thread::Builder::new().stack_size(1 << 36).spawn(|| ()).is_err());
            one.read(&mut [0; 8]).unwrap();
        }
        "peers" => {
            // The thread that there is panics because the one that is refused ends what it sends to.
            let (send, receive) = std::sync::mpsc::sync_channel(0);
            let (held, is_held) = std::sync::mpsc::channel::<()>();
            std::thread::scope(move |scope| {
                let peer = scope.spawn(move || {
                    let _ = is_held.recv();
                    send.send(7).unwrap();
                });
                let _ends_with_this = (receive, held);
                let mut blocks: Vec<Vec<u8>> = Vec::with_capacity(1 << 10);
                loop {
                    let mut block = Vec::new();
                    if block.try_reserve_exact(1 << 20).is_err() {
                        break;
                    }
                    block.resize(1 << 20, 7);
                    blocks.push(block);
                }
                std::mem::forget(blocks);
                scope.spawn(|| ());
                drop(peer);
            });
        }
        "error" => {
            // As a program does that hands its error up to main.
            let held = eat_fallibly();
            let error = Vec::<u8>::new().try_reserve_exact(64 << 10).unwrap_err();
            drop(held);
            eprintln!("Error: {error}");
            exit(1)
        }
        "hung-up" => {
            // It copes, and fails at something else a moment later.
            drop(eat_fallibly());
            eprintln!("cache: out of memory");
            let (send, receive) = std::sync::mpsc::channel();
            drop(receive);
            send.send(7).unwrap();
        }
        "warned" => {
            eprintln!("warning: no cache: {}", refused());
            eprintln!("Error: bad configuration");
            exit(2)
        }
        "panic" => panic_of_memory(),
        // C calls it, and does not get it back.
        "called" => panic_in_c(),
        "called-other" => {
            drop(eat_fallibly());
            panic_in_c_of_other();
        }
        "thrown-on" => resume_unwind(catch_unwind(panic_of_memory).unwrap_err()),
        "thrown-on-by-another" => resume_unwind(std::thread::spawn(panic_of_memory).join().unwrap_err()),
        "traced" => {
            // As std tells of a function of many parts.
            set_hook(Box::new(|panic| {
                eprintln!("\nthread 'main' {panic}");
                eprintln!("stack backtrace:");
                for piece in ["   0: ", "alloc", "::", "TryReserveError", "\n", "             at ", "eat.rs:1:1", "\n"] {
                    eprint!("{piece}");
                }
            }));
            panic_of_memory();
        }
        // It copes with the panic, and ends by one of its own that says nothing.
        "caught" => {
            drop(catch_unwind(panic_of_memory));
            resume_unwind(Box::new(7));
        }
        "caught-by-another" => {
            drop(std::thread::spawn(panic_of_memory).join());
            resume_unwind(Box::new(String::from("no header")));
        }
        "caught-silent" => {
            drop(catch_unwind(panic_of_memory));
            eprintln!("on to the next one");
            set_hook(Box::new(|_| ()));
            panic!("{} has no header", way);
        }
        "silent" => {
            set_hook(Box::new(|_| ()));
            panic_of_memory();
        }
        // It copes, and ends by a panic about something else, of which its hook says nothing.
        "silent-other" => {
            set_hook(Box::new(|_| ()));
            drop(eat_fallibly());
            panic!("{} has no header", way);
        }
        // It copes, and throws something else past all hooks.
        "thrown-other" => {
            black_box(refused());
            resume_unwind(Box::new(7));
        }
        "thrown-error" => resume_unwind(Box::new(refused())),
        "thrown-io-error" => {
            black_box(eat_fallibly());
            resume_unwind(Box::new(std::io::Error::from(std::io::ErrorKind::OutOfMemory)));
        }
        "recover" => {
            drop(eat_fallibly());
            println!("recovered {}", work());
            exit(code)
        }
        "own" => {
            println!("own {}", work());
            exit(code)
        }
        _ => eprintln!("eat: no such way: {way}"),
    }
    exit(77)
}
