//! Sampled against exact: programs that do real work hold what they made, and the shares of their five largest sites
//! are compared with those of an account of every allocation at the same moment, kept by the allocator under the guard
//! with stacks of the C compiler's own unwinder.
//!
//! The stacks of the two begin in different calls, so they are compared by the names of the functions of this program,
//! without those that belong to either account.

use crate::{add, worker};
use libtest_mimic::Trial;
use oomguard::supervisor::{Ended, Profile, Site};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex};

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
    let mut command = crate::role(&["program", program]);
    command.env(EXACTLY, "1").env("OOMGUARD_LIMIT", "off").stdout(Stdio::piped());
    let output = command.output().unwrap();
    assert!(output.status.success());
    let lines = String::from_utf8(output.stdout).unwrap();
    let mut sums: HashMap<Vec<String>, u64> = HashMap::new();
    for line in lines.lines() {
        let mut numbers = line.split(' ').map(|number| number.parse::<u64>().unwrap());
        let bytes = numbers.next().unwrap();
        *sums.entry(names.of_stack(numbers)).or_default() += bytes;
    }
    let all: u64 = sums.values().sum();
    (sums.into_iter().map(|(stack, bytes)| (stack, bytes as f64 / all as f64)).collect(), all)
}

/// The functions at addresses of this program, looked up once.
#[derive(Default)]
pub struct Names(HashMap<u64, Vec<String>>);

impl Names {
    pub fn of_stack(&mut self, offsets: impl Iterator<Item = u64>) -> Vec<String> {
        let names: Vec<String> = offsets
            .flat_map(|offset| self.0.entry(offset).or_insert_with(|| names_at(offset)).clone())
            .collect();
        let own = names.iter().rposition(|name| is_of_an_account(name)).map_or(0, |last| last + 1);
        names.into_iter().skip(own).skip_while(|name| is_of_the_interface(name)).take(COMPARED).collect()
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
    ["oomguard::", "truth::Exact", "truth::account", "truth::{impl"].iter().any(|part| name.contains(part))
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

/// Makes a program keep and print the exact account.
const EXACTLY: &str = "TEST_EXACTLY";

pub struct Exact;

static ACCOUNTING: AtomicBool = AtomicBool::new(false);

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

#[derive(Default)]
struct Account {
    live: HashMap<usize, (usize, usize)>,
    stacks: Vec<Vec<usize>>,
    numbers: HashMap<Vec<usize>, usize>,
}

static ACCOUNT: LazyLock<Mutex<Account>> = LazyLock::new(Mutex::default);

#[inline(never)]
fn account(change: impl FnOnce(&mut Account)) {
    if ACCOUNTING.load(Ordering::Relaxed) && !INSIDE.replace(true) {
        change(&mut ACCOUNT.lock().unwrap());
        INSIDE.set(false);
    }
}

impl Account {
    fn enter(&mut self, block: *mut u8, bytes: usize) {
        let mut stack = Vec::new();
        backtrace::trace(|frame| {
            stack.push(frame.ip() as usize);
            stack.len() < 64
        });
        let next = self.stacks.len();
        let number = *self.numbers.entry(stack).or_insert_with_key(|stack| {
            self.stacks.push(stack.clone());
            next
        });
        self.live.insert(block as usize, (bytes, number));
    }

    fn leave(&mut self, block: *mut u8) {
        self.live.remove(&(block as usize));
    }
}

// SAFETY: passes everything on; what it does besides allocates on its own account, which is not kept.
unsafe impl GlobalAlloc for Exact {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the same.
        let block = unsafe { System.alloc(layout) };
        account(|account| account.enter(block, layout.size()));
        block
    }

    #[inline(never)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the same.
        let block = unsafe { System.alloc_zeroed(layout) };
        account(|account| account.enter(block, layout.size()));
        block
    }

    #[inline(never)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        account(|account| account.leave(block));
        // SAFETY: the caller's contract is the same.
        unsafe { System.dealloc(block, layout) }
    }

    #[inline(never)]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        account(|account| account.leave(block));
        // SAFETY: the caller's contract is the same.
        let moved = unsafe { System.realloc(block, layout, bytes) };
        account(|account| account.enter(moved, bytes));
        moved
    }
}

fn print_account() {
    ACCOUNTING.store(false, Ordering::Relaxed);
    let account = ACCOUNT.lock().unwrap();
    let mut sums = vec![0; account.stacks.len()];
    account.live.values().for_each(|(bytes, stack)| sums[*stack] += bytes);
    let own = own_start() as usize;
    // Behind the program's end lie the libraries, which the parent cannot name.
    let program = own..own + std::fs::metadata("/proc/self/exe").unwrap().len() as usize;
    let mut out = std::io::stdout().lock();
    for (stack, bytes) in account.stacks.iter().zip(sums) {
        let frames =
            stack.iter().filter(|frame| program.contains(frame)).map(|frame| format!(" {}", frame - own));
        writeln!(out, "{bytes}{}", frames.collect::<String>()).unwrap();
    }
}

// --- The programs -----------------------------------------------------------------------------------------------------

pub fn play(name: &str) {
    let (_, program) = PROGRAMS.iter().find(|(program, _)| *program == name).expect("a program");
    let exactly = std::env::var_os(EXACTLY).is_some();
    if exactly {
        LazyLock::force(&ACCOUNT);
        ACCOUNTING.store(true, Ordering::Relaxed);
    }
    let held = black_box(program());
    if exactly {
        print_account();
    }
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
