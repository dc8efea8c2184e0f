//! A program hears of pressure once per crossing, by callback and by descriptor, before anything is refused.

use oomguard::{PressureFd, Registration, on_pressure};
use std::hint::black_box;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

oomguard::guard!(limit = "1GiB", measure = data);

static HALF: AtomicU32 = AtomicU32::new(0);
static MOST: AtomicU32 = AtomicU32::new(0);
static TAKEN_BACK: AtomicU32 = AtomicU32::new(0);
/// Crossings of 0.15 and of 0.7, which 200 MiB more or less make.
static LOW: AtomicU32 = AtomicU32::new(0);
static HIGH: AtomicU32 = AtomicU32::new(0);

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < until, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn told() -> (u32, u32) {
    (HALF.load(Ordering::Relaxed), MOST.load(Ordering::Relaxed))
}

/// Until the watching thread has looked twice: it is shown crossings of a fraction that counts them.
fn let_it_look(counter: &AtomicU32) {
    let before = counter.load(Ordering::Relaxed);
    wait_for("a look", || {
        let block = black_box(vec![1u8; 200 << 20]);
        std::thread::sleep(Duration::from_millis(60));
        drop(block);
        std::thread::sleep(Duration::from_millis(60));
        counter.load(Ordering::Relaxed) > before + 1
    });
}

fn is_readable(fd: &PressureFd) -> bool {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, writable during the call.
    unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
}

#[test]
fn each_crossing_is_told_once() {
    on_pressure(0.5, || panic!("a panic ends nothing")).unwrap();
    on_pressure(0.5, || {
        HALF.fetch_add(1, Ordering::Relaxed);
        black_box(vec![1u8; 1000]);
    })
    .unwrap();
    on_pressure(0.9, || {
        MOST.fetch_add(1, Ordering::Relaxed);
    })
    .unwrap();
    for (fraction, counter) in [(0.15, &LOW), (0.7, &HIGH)] {
        on_pressure(fraction, || {
            counter.fetch_add(1, Ordering::Relaxed);
        })
        .unwrap();
    }
    let taken_back = Registration::on_pressure(0.5, || {
        TAKEN_BACK.fetch_add(1, Ordering::Relaxed);
    });
    let taken_back = taken_back.unwrap();
    assert!(taken_back.is_in_effect());
    let fd = PressureFd::new(0.5).unwrap();
    drop(PressureFd::new(0.5).unwrap());
    assert_eq!(told(), (0, 0));
    assert!(!is_readable(&fd) && fd.take().unwrap() == 0);
    for crossing in 1..=3 {
        let block = black_box(vec![1u8; 600 << 20]);
        wait_for("the crossing of a half", || told().0 == crossing && is_readable(&fd));
        // It is above all the while, and not told again.
        let_it_look(&HIGH);
        assert_eq!(told(), (crossing, 0));
        drop(block);
        let_it_look(&LOW);
        assert_eq!(told(), (crossing, 0));
        assert_eq!(fd.take().unwrap(), 1);
        assert!(!is_readable(&fd));
    }
    assert_eq!(TAKEN_BACK.load(Ordering::Relaxed), 3);
    drop(taken_back);
    let block = black_box(vec![1u8; 940 << 20]);
    wait_for("the crossing of nine tenths", || told() == (4, 1));
    // It would have been told before those that were registered earlier.
    assert_eq!(TAKEN_BACK.load(Ordering::Relaxed), 3, "not any more");
    drop(block);
    assert_eq!(oomguard::status().refusals, 0);
}

#[test]
fn what_is_no_fraction_is_refused() {
    for wrong in [0.0, -1.0, 1.01, f64::NAN, f64::INFINITY] {
        let error = on_pressure(wrong, || ()).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("write 0.8 for 80 %"), "{error}");
    }
}
