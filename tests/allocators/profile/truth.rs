//! Sampled against exact: programs that do real work hold what they made, and the shares of their five largest sites
//! are compared with those of dhat's account of every allocation at the same moment, which sits under the guard and
//! walks stacks with the C compiler's own unwinder.
//!
//! The stacks of the two begin in different calls, so they are compared by the names of the functions of this program,
//! without those that belong to either account.

use crate::{add, worker};
use libtest_mimic::Trial;
use oomguard::supervisor::{Ended, Profile, Site};
use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::HashMap;
use std::ffi::c_void;
use std::hint::black_box;
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// As many samples as a death at 512 MiB has with the usual distance, from a heap that is made sooner.
const EVERY: u64 = 16 << 10;
const SEEDS: usize = 20;
/// How far a share may be from the exact one.
const TOLERANCE: f64 = 0.05;
/// Names that are compared, from the allocation outwards: within what the profiler keeps.
const COMPARED: usize = 24;

/// Makes something, and what it made.
type Program = fn() -> Box<dyn std::any::Any>;

const PROGRAMS: [(&str, Program); 3] = [("json", load_json), ("index", index_text), ("join", join_tables)];

pub fn add_to(trials: &mut Vec<Trial>) {
    add(trials, "the_largest_sites_of_a_json_loader_are_told_truly", || compare("json"));
    add(trials, "the_largest_sites_of_a_text_index_are_told_truly", || compare("index"));
    add(trials, "the_largest_sites_of_a_table_join_are_told_truly", || compare("join"));
}

type Shares = HashMap<Vec<String>, f64>;

fn compare(program: &str) {
    let mut names = Names::default();
    let (exact, held) = exact_shares(program, &mut names);
    let mut largest: Vec<_> = exact.iter().collect();
    largest.sort_by(|a, b| b.1.total_cmp(a.1));
    largest.truncate(5);
    assert!(*largest[0].1 > 0.1, "no site stands out: {largest:#?}");
    let mut worst = 0.0f64;
    for seed in 0..SEEDS {
        let ended = worker(&["program", program], "2GiB").profile_every(EVERY).run_to_end().unwrap();
        let profile = profile_of(&ended);
        let off = profile.live_bytes as f64 / held as f64 - 1.0;
        assert!(off.abs() < 0.02, "counted {} of {held}", profile.live_bytes);
        let sampled = sampled_shares(profile, &mut names);
        for (stack, share) in &largest {
            let found = sampled.get(*stack).copied().unwrap_or(0.0);
            worst = worst.max((found - **share).abs());
            assert!(
                (found - **share).abs() <= TOLERANCE,
                "run {seed}: {:.1} % instead of {:.1} % for {stack:#?}",
                found * 100.0,
                **share * 100.0
            );
        }
    }
    let told: Vec<_> = largest.iter().map(|(_, share)| format!("{:.1} %", **share * 100.0)).collect();
    println!(
        "{program}: {held} bytes held, largest sites {told:?}, furthest off {:.2} points",
        worst * 100.0
    );
}

fn profile_of(ended: &Ended) -> &Profile {
    assert!(ended.outcome.is_success(), "{ended}\n{}", String::from_utf8_lossy(&ended.stderr));
    ended.last_look.as_ref().and_then(|look| look.profile()).expect("a profile")
}

fn sampled_shares(profile: &Profile, names: &mut Names) -> Shares {
    let mut shares = Shares::new();
    let program = std::env::current_exe().unwrap();
    for site in &profile.sites {
        *shares.entry(names.of_stack(program_offsets(profile, site, &program))).or_default() +=
            profile.share(site);
    }
    shares
}

/// The part of a site's stack that is in this program, as the file's own addresses: the worker was loaded elsewhere.
pub fn program_offsets(profile: &Profile, site: &Site, program: &Path) -> impl Iterator<Item = u64> {
    site.frames.iter().filter_map(move |frame| {
        let module = profile.module_of(*frame)?;
        (module.path.as_deref() == Some(program)).then_some(frame - module.bias)
    })
}

fn exact_shares(program: &str, names: &mut Names) -> (Shares, u64) {
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("dhat.json");
    let mut command = crate::role(&["program", program]);
    command.env(EXACTLY, &file).env("OOMGUARD_LIMIT", "off");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let start: u64 = String::from_utf8(output.stdout).unwrap().parse().unwrap();
    let end = start + std::fs::metadata(std::env::current_exe().unwrap()).unwrap().len();
    let account: Account = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    // `0x55d0c0de: function (file:line:column)`, once for each function that is inlined there.
    let address = |frame: &str| u64::from_str_radix(frame.split(':').next()?.strip_prefix("0x")?, 16).ok();
    let mut sums: HashMap<Vec<String>, u64> = HashMap::new();
    for point in &account.points {
        let mut stack: Vec<u64> =
            point.frames.iter().filter_map(|frame| address(&account.frames[*frame])).collect();
        stack.dedup();
        // Behind the program's end lie the libraries, which the parent cannot name.
        let offsets =
            stack.into_iter().filter(|frame| (start..end).contains(frame)).map(|frame| frame - start);
        *sums.entry(names.of_stack(offsets)).or_default() += point.bytes_at_end;
    }
    let all: u64 = sums.values().sum();
    (sums.into_iter().map(|(stack, bytes)| (stack, bytes as f64 / all as f64)).collect(), all)
}

/// What dhat writes, as far as it is read here.
#[derive(serde::Deserialize)]
struct Account {
    #[serde(rename = "pps")]
    points: Vec<Point>,
    #[serde(rename = "ftbl")]
    frames: Vec<String>,
}

#[derive(serde::Deserialize)]
struct Point {
    #[serde(rename = "eb")]
    bytes_at_end: u64,
    #[serde(rename = "fs")]
    frames: Vec<usize>,
}

/// The functions at addresses of this program, looked up once.
#[derive(Default)]
pub struct Names(HashMap<u64, Vec<String>>);

impl Names {
    /// Of the function that allocates only its own name: what was inlined into it may be told in less detail at the call
    /// that is sampled, where the compiler has made one of several, than at the allocation.
    pub fn of_stack(&mut self, offsets: impl Iterator<Item = u64>) -> Vec<String> {
        let frames: Vec<Vec<String>> =
            offsets.map(|offset| self.0.entry(offset).or_insert_with(|| names_at(offset)).clone()).collect();
        let own = frames.iter().rposition(|names| names.iter().any(|name| is_of_an_account(name)));
        let mut frames = frames.into_iter().skip(own.unwrap_or(0)).skip_while(|names| {
            names.last().is_none_or(|function| is_of_an_account(function) || is_of_the_interface(function))
        });
        let function = frames.next().and_then(|mut names| names.pop());
        function.into_iter().chain(frames.flatten()).take(COMPARED).collect()
    }
}

fn names_at(offset: u64) -> Vec<String> {
    let mut names = Vec::new();
    // The call, not what follows it.
    let address = (own_start() + offset - 1) as *mut c_void;
    backtrace::resolve(address, |symbol| {
        names.extend(symbol.name().map(|name| format!("{name:#}")));
    });
    names
}

/// The allocator's, the account's and the guard's own frames. They are innermost, so what lies inwards of one is theirs,
/// too, under whatever name: an optimized program's inlined functions are told without their path.
fn is_of_an_account(name: &str) -> bool {
    ["oomguard::", "truth::Exact", "dhat::", "new_backtrace_inner"].iter().any(|part| name.contains(part))
}

/// The standard library's way to the allocator, which the two do not keep the same part of.
fn is_of_the_interface(name: &str) -> bool {
    let name = name.split('<').next().and_then(|path| path.rsplit("::").next()).unwrap_or("");
    ["alloc", "alloc_zeroed", "realloc"].iter().any(|function| name.contains(function))
}

/// Where this program is loaded.
fn own_start() -> u64 {
    static START: LazyLock<u64> = LazyLock::new(|| {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let own = std::env::current_exe().unwrap();
        let first = maps.lines().find(|line| line.ends_with(own.to_str().unwrap())).unwrap();
        u64::from_str_radix(first.split('-').next().unwrap(), 16).unwrap()
    });
    *START
}

// --- The exact account ------------------------------------------------------------------------------------------------

/// Makes a program keep the exact account, and names the file that it goes to.
const EXACTLY: &str = "TEST_EXACTLY";

/// dhat, where the account is kept. A block that grows counts as a new one of the call that made it grow, as in the
/// profile: `realloc` is left to what [`GlobalAlloc`] makes of the other two.
pub struct Exact;

static ACCOUNTING: AtomicBool = AtomicBool::new(false);

// SAFETY: passes everything on. Both take what the other has allocated, as both pass it on to System.
unsafe impl GlobalAlloc for Exact {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Relaxed: set by the only thread.
        if ACCOUNTING.load(Ordering::Relaxed) {
            // SAFETY: the caller's contract is the same.
            unsafe { dhat::Alloc.alloc(layout) }
        } else {
            // SAFETY: as above.
            unsafe { System.alloc(layout) }
        }
    }

    #[inline(never)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if ACCOUNTING.load(Ordering::Relaxed) {
            // SAFETY: the caller's contract is the same.
            unsafe { dhat::Alloc.dealloc(block, layout) }
        } else {
            // SAFETY: as above.
            unsafe { System.dealloc(block, layout) }
        }
    }
}

// --- The programs -----------------------------------------------------------------------------------------------------

pub fn play(name: &str) {
    let (_, program) = PROGRAMS.iter().find(|(program, _)| *program == name).expect("a program");
    let account = std::env::var_os(EXACTLY).map(|file| {
        ACCOUNTING.store(true, Ordering::Relaxed);
        dhat::Profiler::builder().trim_backtraces(None).file_name(file).build()
    });
    let held = black_box(program());
    if account.is_some() {
        print!("{}", own_start());
    }
    // Writes what is live now.
    drop(account);
    std::mem::forget(held);
}

/// Orders as text, and what serde_json makes of them.
fn load_json() -> Box<dyn std::any::Any> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut text = String::from("[");
    for order in 0..16_000 {
        if order > 0 {
            text.push(',');
        }
        let tags: Vec<String> =
            (0..random.usize(..6)).map(|_| format!("\"tag {}\"", random.u32(..1000))).collect();
        let note = "x".repeat(random.usize(..300));
        text += &format!(
            r#"{{"order":{order},"customer":{{"name":"customer {}","city":"city {}"}},"note":"{note}","tags":[{}]}}"#,
            random.u32(..5000),
            random.u32(..100),
            tags.join(",")
        );
    }
    text.push(']');
    let orders: serde_json::Value = serde_json::from_str(&text).expect("well-formed");
    Box::new((text, orders))
}

/// For each word of some documents, where it stands.
fn index_text() -> Box<dyn std::any::Any> {
    let mut random = fastrand::Rng::with_seed(2);
    let mut index: HashMap<String, Vec<(u32, u32)>> = HashMap::new();
    let mut titles = Vec::new();
    for document in 0..2_500 {
        titles.push(format!("document {document} {}", "t".repeat(random.usize(..2000))));
        let words: Vec<String> = (0..400).map(|_| format!("word{}", random.u32(..200).pow(2))).collect();
        for (position, word) in words.into_iter().enumerate() {
            index.entry(word).or_default().push((document, position as u32));
        }
        for rare in 0..20 {
            index
                .entry(format!("rare {document} {rare}"))
                .or_insert_with(|| Vec::with_capacity(8))
                .push((document, 0));
        }
    }
    Box::new((index, titles))
}

struct Customer {
    name: String,
    city: String,
}

struct Row {
    customer: String,
    city: String,
    article: String,
}

/// Two tables of comma-separated values, read and joined.
fn join_tables() -> Box<dyn std::any::Any> {
    let mut random = fastrand::Rng::with_seed(3);
    let customers: String =
        (0..20_000).map(|id| format!("{id},customer number {id},city of {}\n", random.u32(..300))).collect();
    let orders: String = (0..60_000)
        .map(|id| {
            format!("{},article {} in {}\n", random.u32(..20_000), id % 999, "y".repeat(random.usize(..200)))
        })
        .collect();
    let read = |text: &str| {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
        reader.records().map(|record| record.expect("well-formed")).collect::<Vec<csv::StringRecord>>()
    };
    let customers: HashMap<u32, Customer> = read(&customers)
        .iter()
        .map(|record| {
            (
                record[0].parse().expect("a number"),
                Customer { name: record[1].into(), city: record[2].into() },
            )
        })
        .collect();
    let orders = read(&orders);
    let joined: Vec<Row> = orders
        .iter()
        .map(|order| {
            let customer = &customers[&order[0].parse().expect("a number")];
            Row { customer: customer.name.clone(), city: customer.city.clone(), article: order[1].into() }
        })
        .collect();
    assert!(
        joined.iter().all(|row| !row.customer.is_empty() && !row.city.is_empty() && !row.article.is_empty())
    );
    Box::new((customers, orders, joined))
}
