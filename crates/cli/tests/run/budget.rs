//! `--budget`: what several processes may have together. Nobody here waits for time: who holds memory holds it until what has to
//! happen meanwhile has happened.

use crate::add;
use crate::c;
use crate::memory_group::Group;
use crate::resident;
use crate::skip::skipped;
use crate::started::{PATIENCE, Seen, launcher, seen};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::ffi::{CStr, CString, c_char};
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

/// A directory for the marks by which the processes of a test know of each other.
struct Marks(PathBuf);

impl Marks {
    fn new(name: &str) -> Marks {
        let path = std::env::temp_dir().join(format!("oomguard-budget-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Marks(path)
    }
}

impl Drop for Marks {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn mark(marks: &Path, kind: &str) {
    fs::write(marks.join(format!("{kind}-{}", std::process::id())), "").unwrap();
}

/// Waits until there are so many marks of that kind.
fn wait_for(marks: &Path, kind: &str, count: usize) {
    let started = Instant::now();
    let is_one = |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with(kind);
    while fs::read_dir(marks).unwrap().flatten().map(is_one).filter(|is| *is).count() < count {
        assert!(started.elapsed() < PATIENCE, "{count} of {kind} do not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// One of `all` who want so many MiB each at the same moment. Who gets them holds them until so many others have been refused.
pub fn want(marks: &Path, mib: usize, all: usize, refused: usize) {
    mark(marks, "here");
    wait_for(marks, "here", all);
    let mut block: Vec<u8> = Vec::new();
    if block.try_reserve_exact(mib << 20).is_err() {
        mark(marks, "refused");
        return println!("refused");
    }
    block.resize(mib << 20, 1);
    black_box(&mut block);
    wait_for(marks, "refused", refused);
}

/// One of `all` who want so many MiB of shared memory each at the same moment, of that kind, and hold them for a while.
pub fn want_shared(marks: &Path, mib: usize, all: usize, kind: &str) {
    /// Longer than it takes to be found out.
    const WHILE: Duration = Duration::from_millis(300);
    mark(marks, "here");
    wait_for(marks, "here", all);
    let bytes = mib << 20;
    let Some(at) = resident::map_shared(kind, bytes) else { return println!("refused") };
    resident::touch(at, bytes);
    std::thread::sleep(WHILE);
    println!("has it");
}

/// Asks for a limit as the source of a program in C does, and says which holds then, and whose it is.
pub fn arm(limit: &str) {
    let find = |name: &CStr| {
        // SAFETY: a string; the library is preloaded.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
        assert!(!found.is_null(), "{name:?}");
        found
    };
    // SAFETY: this is how oomguard.h declares it.
    let arm: extern "C" fn(*const c_char) -> i32 = unsafe { std::mem::transmute(find(c"oomguard_arm")) };
    // SAFETY: as above.
    let status: extern "C" fn(*mut u64, usize) -> i32 =
        unsafe { std::mem::transmute(find(c"oomguard_status")) };
    let limit = CString::new(limit).unwrap();
    // size, limit, in_use, headroom, refusals, measure and source.
    let mut words = [0u64; 6];
    assert_eq!((arm(limit.as_ptr()), status(words.as_mut_ptr(), size_of_val(&words))), (0, 0));
    println!("{} {}", words[1], words[5] >> 32);
}

/// Holds so many MiB until it is killed.
pub fn hold(marks: &Path, mib: usize) {
    let block = black_box(vec![1u8; mib << 20]);
    mark(marks, "holds");
    std::thread::sleep(PATIENCE);
    drop(block);
}

/// The same in a child that is the first process of a namespace of its own.
pub fn hold_apart(marks: &Path, mib: usize) {
    // SAFETY: takes no pointer.
    if unsafe { libc::unshare(libc::CLONE_NEWPID) } != 0 {
        return mark(marks, "holds");
    }
    // SAFETY: there is no other thread, so the child may do anything.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: takes no pointer here.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            hold(marks, mib);
        }
        // SAFETY: nothing is to be told.
        child => drop(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }),
    }
}

fn run(options: &[&str], command: &[&str]) -> Command {
    let mut launcher = launcher();
    launcher.arg("run").args(options).arg("--").args(command);
    launcher
}

/// `script` with this program as `$0`, in a budget.
fn script(options: &[&str], script: &str, arguments: &[&str]) -> Seen {
    let this = std::env::current_exe().unwrap();
    let command = [&["/bin/sh", "-c", script, this.to_str().unwrap()], arguments].concat();
    seen(&mut run(options, &command))
}

fn role(options: &[&str], role: &[&str]) -> Seen {
    let this = std::env::current_exe().unwrap();
    seen(&mut run(options, &[&[this.to_str().unwrap(), "role"], role].concat()))
}

fn reports(seen: &Seen) -> Vec<Value> {
    let lines = seen.stderr.lines().filter(|line| line.starts_with("{\"oomguard\""));
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn report(seen: &Seen) -> Value {
    let reports = reports(seen);
    assert_eq!(reports.len(), 1, "{}", seen.stderr);
    reports.into_iter().next().unwrap()
}

const FOUR: &str = "for n in 1 2 3 4; do \"$0\" role want \"$@\" & eval p$n=$!; done; \
                    for n in 1 2 3 4; do eval wait \\$p$n; echo $?; done";

/// `want MARKS MIB ALL HOW`: one of ALL who want so many MiB each at the same moment, and are static. HOW: by `malloc`; `over` what is
/// reserved, as Go's runtime does; of `shared` memory, or of what is `allocated` for a file first; by `fork`, in a child; or `handled`, with a signal before it gets them.
const STATIC: &str = r#"
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
static const char *marks;
static void mark(const char *kind)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s-%d", marks, kind, getpid());
    close(open(path, O_CREAT | O_WRONLY, 0600));
}
static void handle(int signal) { (void)signal; mark("handled"); }
int main(int count, char **words)
{
    (void)count;
    marks = words[2];
    size_t bytes = (size_t)atol(words[3]) << 20;
    int all = atoi(words[4]), here = 0, status = 0;
    const char *how = words[5];
    signal(SIGUSR1, handle);
    mark("here");
    while (here < all) {
        DIR *directory = opendir(marks);
        here = 0;
        for (struct dirent *entry; (entry = readdir(directory));)
            here += !strncmp(entry->d_name, "here", 4);
        closedir(directory);
        usleep(2000);
    }
    if (!strcmp(how, "fork") && fork())
        return wait(&status) < 0 ? 3 : WEXITSTATUS(status);
    char *block;
    if (!strcmp(how, "over")) {
        char *place = mmap(0, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        block = mmap(place, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        if (block == MAP_FAILED)
            block = 0;
    } else if (!strcmp(how, "shared") || !strcmp(how, "allocated")) {
        int file = -1, flags = MAP_SHARED | MAP_ANONYMOUS;
        if (!strcmp(how, "allocated")) {
            file = memfd_create("static", 0);
            flags = MAP_SHARED;
            if (fallocate(file, 0, 0, (off_t)bytes)) {
                perror("cannot go on");
                return 1;
            }
        }
        block = mmap(0, bytes, PROT_READ | PROT_WRITE, flags, file, 0);
        if (block == MAP_FAILED)
            block = 0;
    } else
        block = malloc(bytes);
    if (!block) {
        perror("cannot go on");
        return 1;
    }
    memset(block, 7, bytes);
    mark("has");
    usleep(100000);
    puts("got it");
    return 0;
}
"#;

/// Compiles a static program; `None` where that cannot be done here.
fn static_program(place: &Path) -> Option<PathBuf> {
    let (source, program) = (place.join("static.c"), place.join("static"));
    fs::write(&source, STATIC).unwrap();
    let mut compiler = Command::new(c::c()?);
    let output = compiler.args(["-static", "-O1", "-o"]).arg(&program).arg(&source).output().unwrap();
    if !output.status.success() {
        skipped("no static C library is here");
        return None;
    }
    Some(program)
}

/// A child of vfork(2) sets a filter for its own system calls; then its parent wants what there is room for.
const FILTERING_CHILD: &str = r#"
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void)
{
    struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = { 1, &allow };
    int status;
    if (vfork() == 0) {
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
            _exit(9);
        execl("/bin/true", "true", (char *)0);
        _exit(8);
    }
    if (wait(&status) < 0 || status)
        return 7;
    puts(malloc(60 << 20) ? "got" : "refused");
    return 0;
}
"#;

/// A forked child sees its parent's handlers for SIGURG, by which it is told to stand still where nobody may trace it, and its own.
const URGENT_CHILD: &str = r#"
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
static volatile int heard;
static void hear(int signal) { heard++; }
int main(void)
{
    int status;
    signal(SIGURG, SIG_DFL);
    for (int generation = 0; generation < 2; generation++) {
        if (fork() != 0) {
            printf("%d", wait(&status) > 0 && status == 0);
            return status != 0;
        }
        struct sigaction now;
        if (sigaction(SIGURG, 0, &now) || now.sa_handler != SIG_DFL || raise(SIGURG))
            _exit(1);
        if (signal(SIGURG, hear) != SIG_DFL || raise(SIGURG) || heard != 1)
            _exit(2);
        if (signal(SIGURG, SIG_DFL) != hear || raise(SIGURG) || heard != 1)
            _exit(3);
        heard = 0;
    }
    execl("/bin/sh", "sh", "-c", "kill -URG $$", (char *)0);
    _exit(4);
}
"#;

/// Loads a library, and then takes memory until there is no more, by the MiB.
const LOADER: &str = "#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(int count, char **words) {
    if (!dlopen(words[1], RTLD_NOW)) { puts(dlerror()); return 1; }
    int blocks = 0;
    for (char *block; (block = malloc(1 << 20)); blocks++) memset(block, 1, 1 << 20);
    printf(\"%d\\n\", blocks);
    return 0;
}
";

/// Has loaded what its second word names, or has not found it; then it, or a thread of its own, asks for more than there is.
const ASKER: &str = r#"#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
static int by_thread;
static char *by_mapping(void) {
    char *block = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return block == MAP_FAILED ? NULL : block;
}
static void *ask(void *none) {
    char *block = by_thread ? NULL : malloc(1 << 30);
    if (block) memset(block, 1, 1 << 30);
    for (int n = 0; by_thread && n < 1000 && (block = by_mapping()); n++) memset(block, 1, 1 << 20);
    if (!block) puts("coped");
    fflush(stdout);
    exit(0);
}
int main(int count, char **words) {
    pthread_t thread;
    dlopen(words[2], RTLD_NOW);
    by_thread = !strcmp(words[1], "thread");
    if (!by_thread) ask(NULL);
    pthread_create(&thread, NULL, ask, NULL);
    pthread_join(thread, NULL);
}
"#;

/// Two threads load at once: the first one's library, its first word, looks up something while the second one waits for it.
const TWO_LOADERS: &str = r#"#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
static volatile int waiter;
static pthread_t second;
static char **libraries;
static void *load(void *none) {
    waiter = syscall(SYS_gettid);
    if (!dlopen(libraries[2], RTLD_NOW)) puts(dlerror());
    return NULL;
}
void constructed(void) {
    char path[64], text[256] = "";
    pthread_create(&second, NULL, load, NULL);
    while (!waiter) usleep(1000);
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", waiter);
    while (!strstr(text, ") S")) {
        FILE *file = fopen(path, "r");
        if (!fgets(text, sizeof text, file)) text[0] = 0;
        fclose(file);
    }
    dlsym(RTLD_DEFAULT, "malloc");
}
int main(int count, char **words) {
    libraries = words;
    if (!dlopen(words[1], RTLD_NOW)) puts(dlerror());
    pthread_join(second, NULL);
    for (int n = 0; n < 1000; n++) {
        void *library = dlopen(words[2], RTLD_NOW);
        if (!library) { puts(dlerror()); return 1; }
        dlclose(library);
    }
    puts("loaded");
    return 0;
}
"#;

fn compile(compiler: &Path, place: &Path, source: &str, name: &str, options: &[&str]) -> PathBuf {
    let (from, to) = (place.join(name).with_extension("c"), place.join(name));
    fs::write(&from, source).unwrap();
    c::compile(Command::new(compiler).arg(from).arg("-o").arg(&to).args(options));
    to
}

/// `make -j` of so many files that each take a compiler some 110 MiB, little by little.
fn build(place: &Path, compiler: &Path, options: &[&str], files: usize) -> Option<Seen> {
    if !Command::new("make").arg("--version").output().is_ok_and(|output| output.status.success()) {
        skipped("no make is here");
        return None;
    }
    let function = |n: usize| {
        format!(
            "int f{n}(int a) {{ int s = a; for (int i = 0; i < a; i++) {{ s += i * {n}; if (s > {n}) s -= a * {n}; else s ^= i; \
             switch (s & 3) {{ case 0: s += 1; break; case 1: s *= 3; break; case 2: s -= {n}; break; }} }} return s; }}\n"
        )
    };
    fs::write(place.join("large.c"), (0..1800).map(function).collect::<String>()).unwrap();
    let objects: Vec<String> = (0..files).map(|n| format!("{n}.o")).collect();
    let rules = format!(
        ".PHONY: all\nall: {}\n%.o: large.c\n\t{} -c -o $@ $<\n",
        objects.join(" "),
        compiler.display()
    );
    fs::write(place.join("Makefile"), rules).unwrap();
    let jobs = format!("-j{files}");
    let seen = seen(&mut run(options, &["make", "-s", &jobs, "-C", place.to_str().unwrap()]));
    let built = objects.iter().filter(|object| place.join(object).exists()).count();
    assert_eq!((seen.code, built), (Some(0), files), "{}", seen.stderr);
    Some(seen)
}

/// Is interrupted again and again while it maps shared memory, by a handler that jumps out; then threads are cancelled that
/// allocate some. It holds nothing of it, and wants as many MiB as it is told.
const JUMPER: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>
#define SOME (16l << 20)
static sigjmp_buf out;
static int file, rounds;
static void jump(int signal) { siglongjmp(out, signal); }
static void *allocate(void *nothing) {
    for (;; __atomic_fetch_add(&rounds, 1, __ATOMIC_SEQ_CST)) {
        if (fallocate(file, 0, 0, SOME)) exit(2);
        if (ftruncate(file, 0)) exit(3);
    }
    return nothing;
}
int main(int count, char **words) {
    const int kind = PROT_READ | PROT_WRITE;
    char *place = mmap(0, SOME, kind, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    signal(SIGALRM, jump);
    for (volatile int turn = 0; turn < 400; turn++) {
        if (sigsetjmp(out, 1)) continue;
        struct itimerval once = {{0, 0}, {0, 50 + turn * 7 % 200}};
        setitimer(ITIMER_REAL, &once, 0);
        while (mmap(place, SOME, kind, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == place) {}
        return 4;
    }
    file = memfd_create("some", 0);
    for (int turn = 0; turn < 40; turn++) {
        pthread_t thread;
        int before = __atomic_load_n(&rounds, __ATOMIC_SEQ_CST);
        if (pthread_create(&thread, 0, allocate, 0)) return 5;
        while (__atomic_load_n(&rounds, __ATOMIC_SEQ_CST) == before) usleep(turn * 50);
        if (pthread_cancel(thread) || pthread_join(thread, 0) || ftruncate(file, 0)) return 6;
    }
    if (mmap(0, strtol(words[1], 0, 10) << 20, kind, MAP_SHARED | MAP_ANONYMOUS, -1, 0) == MAP_FAILED) return 7;
    return puts("got it") < 0;
}
"#;

/// Its child holds 120 MiB while a thread wants 150: what the main thread is told until it does, while it waits, and afterwards.
const WAITER: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <oomguard.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
static int (*ask)(struct oomguard_status *, size_t);
static uint64_t waiting_ms(void) {
    struct oomguard_status status;
    if (ask(&status, sizeof status) || status.size != sizeof status) _exit(3);
    return status.waiting_ms;
}
static void *want(void *nothing) {
    return malloc(150 << 20);
}
int main(void) {
    pthread_t thread;
    void *block;
    int ends[2], child, is_silent;
    *(void **)&ask = dlsym(RTLD_DEFAULT, "oomguard_status");
    if (!ask || pipe(ends)) return 2;
    if (!(child = fork())) {
        memset(malloc(120 << 20), 1, 120 << 20);
        return write(ends[1], "", 1) + pause();
    }
    if (read(ends[0], &block, 1) != 1) return 4;
    is_silent = waiting_ms() == OOMGUARD_UNKNOWN;
    if (pthread_create(&thread, 0, want, 0)) return 5;
    while (waiting_ms() == OOMGUARD_UNKNOWN || waiting_ms() < 20) usleep(1000);
    kill(child, SIGKILL);
    waitpid(child, 0, 0);
    pthread_join(thread, &block);
    return printf("%d %d %d", is_silent, !!block, waiting_ms() == OOMGUARD_UNKNOWN) < 0;
}
"#;

/// `program MARK`: its first thread ends, and another one holds 60 MiB.
const HEADLESS: &str = r#"
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static const char *mark;
static void *hold(void *first) {
    pthread_join(*(pthread_t *)first, 0);
    memset(malloc(60 << 20), 1, 60 << 20);
    creat(mark, 0600);
    return pause(), first;
}
int main(int count, char **words) {
    static pthread_t first, second;
    mark = words[1];
    first = pthread_self();
    if (pthread_create(&second, 0, hold, &first)) return 2;
    pthread_exit(0);
}
"#;

pub fn add_to(trials: &mut Vec<Trial>) {
    add(trials, "a_process_keeps_what_it_has_when_its_first_thread_ends", || {
        let place = Marks::new("headless");
        let Some(compiler) = c::c() else { return };
        let program = compile(&compiler, &place.0, HEADLESS, "program", &["-pthread"]);
        let both = "\"$1\" \"$2/it-holds\" & p=$!; while ! [ -e \"$2/it-holds\" ]; do kill -0 $p || exit 9; sleep .01; done; \
                    \"$0\" role want \"$2\" 60 1 0; kill -9 $p";
        let arguments = [&program, &place.0].map(|path| path.to_str().unwrap());
        let seen = script(&["--budget", "100Mi", "--patience", "100ms"], both, &arguments);
        assert_eq!((seen.code, seen.stdout.as_str()), (Some(0), "refused\n"), "{}", seen.stderr);
    });
    add(trials, "the_status_tells_for_how_long_a_thread_waits", || {
        let place = Marks::new("waiter");
        let Some(compiler) = c::c() else { return };
        let header = concat!("-I", env!("CARGO_MANIFEST_DIR"), "/../../include");
        let program = compile(&compiler, &place.0, WAITER, "program", &["-pthread", "-ldl", header]);
        let seen = seen(&mut run(&["--budget", "200Mi", "--patience", "1min"], &[program.to_str().unwrap()]));
        assert_eq!((seen.code, seen.stdout.as_str()), (Some(0), "1 1 1"), "{}", seen.stderr);
    });
    add(trials, "who_jumps_out_of_a_question_has_pledged_nothing", || {
        let place = Marks::new("jumper");
        let Some(compiler) = c::c() else { return };
        let program = compile(&compiler, &place.0, JUMPER, "program", &["-pthread"]);
        let command = [program.to_str().unwrap(), "350"];
        let seen = seen(&mut run(&["--budget", "400Mi", "--patience", "0"], &command));
        assert_eq!((seen.code, seen.stdout.as_str()), (Some(0), "got it\n"), "{}", seen.stderr);
    });
    add(trials, "a_static_program_waits_for_others_to_end", || {
        let place = Marks::new("static");
        let Some(program) = static_program(&place.0) else { return };
        let shell = "for n in 1 2 3 4; do \"$0\" want \"$@\" & eval p$n=$!; done; \
                     for n in 1 2 3 4; do eval wait \\$p$n; echo $?; done";
        // Its own limit of the moment is far below what the keeper needs that starts them.
        let spawning = "import os, sys; program, *words = sys.argv[1:]; \
                        started = [os.posix_spawn(program, [program, 'want', *words], os.environ) for n in range(4)]; \
                        print(*(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in started), sep='\\n')";
        for (starter, script, how) in [
            ("/bin/sh", shell, "malloc"),
            ("/bin/sh", shell, "fork"),
            ("/bin/sh", shell, "over"),
            ("/bin/sh", shell, "shared"),
            ("/bin/sh", shell, "allocated"),
            ("python3", spawning, "malloc"),
        ] {
            let marks = Marks::new(&format!("static-{how}"));
            let command = [
                starter,
                "-c",
                script,
                program.to_str().unwrap(),
                marks.0.to_str().unwrap(),
                "150",
                "4",
                how,
            ];
            let seen =
                seen(&mut run(&["--budget", "200Mi", "--patience", "60s", "--report", "fd:2"], &command));
            let codes: Vec<&str> = seen.stdout.lines().filter(|line| *line != "got it").collect();
            assert_eq!((seen.code, codes), (Some(0), vec!["0"; 4]), "{how}: {}", seen.stderr);
            assert!(reports(&seen).is_empty(), "{how}: {}", seen.stderr);
        }
    });
    add(trials, "a_static_program_is_told_whose_memory_it_was", || {
        let place = Marks::new("static-refused");
        let Some(program) = static_program(&place.0) else { return };
        for how in ["malloc", "over", "shared", "allocated"] {
            let marks = Marks::new(&format!("static-refused-{how}"));
            let one = "\"$0\" role hold-marked \"$1\" 120 & p=$!; while ! ls \"$1\"/holds-* >/dev/null 2>&1; do sleep .01; done; \
                       \"$2\" want \"$1\" 120 1 \"$3\"; code=$?; kill -9 $p; wait $p 2>/dev/null; exit $code";
            let arguments = [marks.0.to_str().unwrap(), program.to_str().unwrap(), how];
            let seen =
                script(&["--budget", "200Mi", "--patience", "200ms", "--report", "fd:2"], one, &arguments);
            assert_eq!(seen.code, Some(198), "{how}: {}", seen.stderr);
            let report = report(&seen);
            assert_eq!(
                (&report["limit_source"], &report["budget"], &report["evidence"], &report["program"]),
                (&json!("budget"), &json!(200 * MIB), &json!("outside"), &json!("static")),
                "{how}: {report}"
            );
            assert!(report["waited_ms"].as_u64().unwrap() >= 200, "{how}: {report}");
            let line = seen.stderr.lines().find(|line| line.contains("the 200 MiB budget is used up: "));
            let line = line.unwrap_or_else(|| panic!("{how}: {}", seen.stderr));
            assert!(line.matches(" MiB").count() >= 2 && line.contains("; waited "), "{how}: {line}");
        }
    });
    add(trials, "a_static_program_that_waits_heeds_signals", || {
        let place = Marks::new("static-signal");
        let Some(program) = static_program(&place.0) else { return };
        for how in ["malloc", "over"] {
            let marks = Marks::new(&format!("static-signal-{how}"));
            let one = "\"$0\" role hold-marked \"$1\" 120 & p=$!; while ! ls \"$1\"/holds-* >/dev/null 2>&1; do sleep .01; done; \
                       \"$2\" want \"$1\" 120 1 \"$3\" & n=$!; \
                       while ! \"$4\" top --json | tr '{' '\\n' | grep \"\\\"pid\\\":$n,\" | grep -q '\"waiting_ms\":[0-9]'; do kill -0 $n || exit 8; sleep .02; done; \
                       kill -USR1 $n; while ! ls \"$1\"/handled-* >/dev/null 2>&1; do kill -0 $n || exit 7; sleep .01; done; \
                       kill -9 $p; wait $p 2>/dev/null; wait $n";
            let arguments =
                [marks.0.to_str().unwrap(), program.to_str().unwrap(), how, env!("CARGO_BIN_EXE_oomguard")];
            let seen = script(&["--budget", "200Mi", "--patience", "60s"], one, &arguments);
            assert_eq!((seen.code, seen.stdout.as_str()), (Some(0), "got it\n"), "{how}: {}", seen.stderr);
        }
    });
    add(trials, "compilers_that_grow_little_by_little_wait_for_each_other", || {
        let place = Marks::new("make");
        let Some(compiler) = c::c() else { return };
        let options = ["--budget", "260Mi", "--patience", "60s", "--report", "fd:2"];
        if let Some(seen) = build(&place.0, &compiler, &options, 4) {
            assert!(reports(&seen).is_empty(), "{}", seen.stderr);
        }
    });
    add(trials, "who_finds_no_room_in_the_budget_waits_for_others_to_end", || {
        let marks = Marks::new("waits");
        let options = ["--budget", "200Mi", "--patience", "60s"];
        let seen = script(&options, FOUR, &[marks.0.to_str().unwrap(), "120", "4", "0"]);
        assert_eq!((seen.code, seen.stdout.as_str()), (Some(0), "0\n0\n0\n0\n"), "{}", seen.stderr);
    });
    add(trials, "who_wants_shared_memory_waits_as_well", || {
        let four = "for n in 1 2 3 4; do \"$0\" role want-shared \"$@\" & eval p$n=$!; done; \
                    for n in 1 2 3 4; do eval wait \\$p$n; echo $?; done";
        for kind in ["anonymous", "memfd", "file", "allocated"] {
            let marks = Marks::new(&format!("shared-{kind}"));
            let options = ["--budget", "200Mi", "--patience", "60s", "--report", "fd:2"];
            let seen = script(&options, four, &[marks.0.to_str().unwrap(), "120", "4", kind]);
            let mut lines: Vec<&str> = seen.stdout.lines().collect();
            lines.sort_unstable();
            let expected = ["0", "0", "0", "0", "has it", "has it", "has it", "has it"];
            assert_eq!(lines, expected, "{kind}: {}", seen.stderr);
            assert!(reports(&seen).is_empty(), "{kind}: {}", seen.stderr);
        }
    });
    add(trials, "shared_memory_that_there_is_no_room_for_is_refused_as_other_memory", || {
        for kind in ["anonymous", "memfd", "file", "allocated"] {
            let marks = Marks::new(&format!("shared-refused-{kind}"));
            let one = "\"$0\" role hold-marked \"$1\" 120 & p=$!; while ! ls \"$1\"/holds-* >/dev/null 2>&1; do sleep .01; done; \
                       \"$0\" role want-shared \"$1\" 120 1 \"$2\"; code=$?; kill -9 $p; wait $p 2>/dev/null; exit $code";
            let options = ["--budget", "200Mi", "--patience", "200ms", "--report", "fd:2"];
            let seen = script(&options, one, &[marks.0.to_str().unwrap(), kind]);
            // Whoever copes has nothing to tell.
            assert_eq!((seen.code, seen.stdout.as_str()), (Some(0), "refused\n"), "{kind}: {}", seen.stderr);
            assert!(reports(&seen).is_empty(), "{kind}: {}", seen.stderr);
        }
    });
    add(trials, "who_waits_is_not_refused_while_another_fills_what_it_was_granted", || {
        let marks = Marks::new("fills");
        // For longer than the patience lasts, a little at a time.
        let fills = "
import mmap, sys, time
block, part = mmap.mmap(-1, 152 << 20, flags=mmap.MAP_PRIVATE), b'1' * 1024
for at in range(0, len(block), 4 << 20):
    block[at:at + (4 << 20):4096] = part
    open(sys.argv[1] + '/fills', 'w').close()
    time.sleep(.12)
";
        let wants = "
import os, sys, time
while not os.path.exists(sys.argv[1] + '/fills'):
    time.sleep(.01)
try:
    block = bytearray(120 << 20)
    print('got it')
except MemoryError:
    print('refused')
";
        let both = "python3 -c \"$2\" \"$1\" & python3 -c \"$3\" \"$1\"; wait";
        let arguments = [marks.0.to_str().unwrap(), fills, wants];
        let seen = script(&["--budget", "200Mi", "--patience", "2s"], both, &arguments);
        assert_eq!((seen.code, seen.stdout.as_str()), (Some(0), "got it\n"), "{}", seen.stderr);
    });
    add(trials, "without_patience_who_asks_is_refused_at_once", || {
        let marks = Marks::new("impatient");
        let options = ["--budget", "200Mi", "--patience", "0"];
        let seen = script(&options, FOUR, &[marks.0.to_str().unwrap(), "120", "4", "3"]);
        let mut codes: Vec<&str> = seen.stdout.lines().collect();
        codes.sort_unstable();
        assert_eq!(codes, ["0", "0", "0", "0", "refused", "refused", "refused"], "{}", seen.stderr);
    });
    add(trials, "when_nothing_moves_a_waiter_is_refused_and_told_whose_memory_it_was", || {
        let marks = Marks::new("refused");
        let one = "\"$0\" role hold-marked \"$1\" 120 & p=$!; while ! ls \"$1\"/holds-* >/dev/null 2>&1; do sleep .01; done; \
                   \"$0\" role need 120; code=$?; kill -9 $p; wait $p 2>/dev/null; exit $code";
        let options = ["--budget", "200Mi", "--patience", "200ms", "--report", "fd:2"];
        let seen = script(&options, one, &[marks.0.to_str().unwrap()]);
        assert_eq!(seen.code, Some(198), "{}", seen.stderr);
        let report = report(&seen);
        assert_eq!(
            (&report["limit_source"], &report["budget"], &report["measure"]),
            (&json!("budget"), &json!(200 * MIB), &json!("resident")),
            "{report}"
        );
        assert!(report["waited_ms"].as_u64().unwrap() >= 200, "{report}");
        assert!(report["budget_used"].as_u64().unwrap() <= 200 * MIB, "{report}");
        let line = seen.stderr.lines().find(|line| line.contains("the 200 MiB budget is used up: "));
        let line = line.unwrap_or_else(|| panic!("{}", seen.stderr));
        assert!(line.matches(" MiB").count() >= 3 && line.contains("; waited "), "{line}");
        let lines = seen.stderr.lines().filter(|line| line.starts_with("oomguard: ")).count();
        assert!(lines <= 6, "{}", seen.stderr);
    });
    add(trials, "more_than_the_whole_budget_is_refused_without_waiting", || {
        let seen = role(&["--budget", "100Mi", "--patience", "1h", "--report", "fd:2"], &["cope"]);
        assert_eq!((seen.code, seen.stdout.as_str()), (Some(0), "refused\n"), "{}", seen.stderr);
        let seen = role(&["--budget", "100Mi", "--patience", "1s", "--report", "fd:2"], &["need", "200"]);
        assert_eq!(seen.code, Some(198), "{}", seen.stderr);
        assert_eq!(report(&seen)["limit_source"], "budget", "{}", seen.stderr);
    });
    add(trials, "the_limit_is_the_most_that_one_process_may_have_of_the_budget", || {
        let options = ["--budget", "200Mi", "-m", "50Mi", "--report", "fd:2"];
        let seen = role(&options, &["need", "100"]);
        assert_eq!(seen.code, Some(198), "{}", seen.stderr);
        let report = report(&seen);
        assert_eq!(
            (&report["limit_source"], &report["limit"], &report["waited_ms"]),
            (&json!("environment"), &json!(50 * MIB), &json!(0)),
            "{report}"
        );
    });
    add(trials, "what_the_source_says_holds_in_a_budget_unless_the_launcher_was_told_another_limit", || {
        // As oomguard.h numbers them.
        let [environment, source, budget] = [1, 2, 5];
        for (options, mib, who) in [
            (&["--budget", "200Mi"][..], 64, source),
            (&["--budget", "200Mi", "-m", "100Mi"], 100, environment),
            (&["--budget", "50Mi"], 50, budget),
        ] {
            let seen = role(options, &["arm", "64Mi"]);
            let expected = format!("{} {who}\n", mib * MIB);
            assert_eq!((seen.code, seen.stdout), (Some(0), expected), "{options:?}: {}", seen.stderr);
        }
    });
    add(trials, "what_a_killed_process_had_is_there_for_the_next", || {
        let marks = Marks::new("killed");
        let many = "for n in 1 2 3 4 5 6; do rm -f \"$1\"/holds-*; \"$0\" role hold-marked \"$1\" 150 & p=$!; \
                    while ! ls \"$1\"/holds-* >/dev/null 2>&1; do kill -0 $p || exit 9; sleep .01; done; \
                    kill -9 $p; wait $p 2>/dev/null; done; echo all";
        let options = ["--budget", "200Mi", "--patience", "60s"];
        let seen = script(&options, many, &[marks.0.to_str().unwrap()]);
        assert_eq!((seen.code, seen.stdout.as_str()), (Some(0), "all\n"), "{}", seen.stderr);
    });
    add(trials, "what_children_share_with_their_parent_is_charged_once", || {
        let seen = role(&["--budget", "200Mi"], &["share"]);
        assert_eq!((seen.code, seen.stdout.as_str()), (Some(0), "shared\n"), "{}", seen.stderr);
    });
    add(trials, "who_overflows_the_budget_without_asking_is_asked_to_leave", || {
        for (kind, evidence) in [("memfd", "exact"), ("later", "exact"), ("blocked", "outside")] {
            let seen = role(&["--budget", "100Mi", "--report", "fd:2"], &["hold", kind, "512"]);
            assert_eq!(seen.code, Some(198), "{kind}: {}", seen.stderr);
            let report = report(&seen);
            assert_eq!(
                (&report["cause"], &report["evidence"]),
                (&json!("asked_to_leave"), &json!(evidence)),
                "{kind}: {report}"
            );
        }
    });
    add(trials, "who_has_to_leave_for_what_it_wrote_to_is_told_with_that", || {
        let program = "
import os, signal
block = bytearray(b'1') * (80 << 20)
ready, tells = os.pipe()
def child(mib):
    pid = os.fork()
    if pid == 0:
        for at in range(0, mib << 20, 4096):
            block[at] = 2
        os.write(tells, b'.')
        signal.pause()
    return pid
children = [child(80)]
os.read(ready, 1)
children.append(child(60))
left, status = os.wait()
for pid in children:
    if pid != left:
        os.kill(pid, signal.SIGKILL)
print(left, status >> 8)
";
        let seen = seen(&mut run(&["--budget", "200Mi"], &["python3", "-c", program]));
        let (pid, code) = seen.stdout.trim().split_once(' ').unwrap_or_else(|| panic!("{}", seen.stderr));
        assert_eq!(code, "198", "{}", seen.stderr);
        let line =
            seen.stderr.lines().find(|line| line.contains("the 200 MiB budget was about to overflow: "));
        let line = line.unwrap_or_else(|| panic!("{}", seen.stderr));
        let named = line.split_once(&format!("python3 ({pid}) ")).map(|(_, rest)| rest);
        let mib = named.and_then(|rest| rest.split_once(" MiB")).and_then(|(size, _)| size.parse().ok());
        assert!(mib.is_some_and(|mib: f64| mib > 40.0), "{line}");
    });
    add(trials, "who_waits_is_refused_before_somebody_has_to_leave", || {
        // The child writes to what it has from its parent: nobody asks for that.
        let program = "
import os
MIB = 1 << 20
def touched(block, mib):
    block[:mib * MIB:4096] = bytes([1 + block[0]]) * (mib * MIB // 4096)
    return block
own = touched(bytearray(70 * MIB), 70)
(ready, tells), (go, lets) = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    more = touched(bytearray(105 * MIB), 105)
    os.write(tells, b'.')
    os.read(go, 1)
    touched(own, 24)
    os.read(go, 1)
    os._exit(0)
os.read(ready, 1)
os.write(lets, b'.')
try:
    own = [own, bytearray(60 * MIB)]
    print('got it')
except MemoryError:
    print('refused')
os.write(lets, b'.')
print(os.waitpid(child, 0)[1])
";
        let seen = seen(&mut run(&["--budget", "200Mi", "--patience", "60s"], &["python3", "-c", program]));
        assert_eq!((seen.code, seen.stdout.as_str()), (Some(0), "refused\n0\n"), "{}", seen.stderr);
    });
    add(trials, "who_starts_a_thread_has_its_stack_and_not_the_whole_budget", || {
        let program = "
import resource, threading
done = threading.Event()
threads = [threading.Thread(target=done.wait) for turn in range(4)]
for thread in threads:
    thread.start()
data = next(int(line.split()[1]) << 10 for line in open('/proc/self/status') if line.startswith('VmData:'))
print(len(threads), (resource.getrlimit(resource.RLIMIT_DATA)[0] - data) >> 20)
done.set()
";
        let seen = seen(&mut run(&["--budget", "2Gi"], &["python3", "-c", program]));
        assert_eq!(seen.code, Some(0), "{}", seen.stderr);
        let left: Vec<i64> = seen.stdout.split_whitespace().map(|number| number.parse().unwrap()).collect();
        assert!(left[0] == 4 && (-1..256).contains(&left[1]), "{}", seen.stdout);
    });
    add(trials, "who_is_refused_a_mapping_is_told_so_whoever_was_looked_for_meanwhile", || {
        // The first to be refused ends while others wait, who find it gone.
        let program = "
import mmap, os, time
for turn in range(4):
    if os.fork() == 0:
        try:
            block = mmap.mmap(-1, 300 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            os.write(1, b'%d\\n' % error.errno)
            os._exit(0)
        for at in range(0, 300 << 20, 4096):
            block[at] = 1
        time.sleep(2)
        os._exit(0)
for turn in range(4):
    os.wait()
";
        let seen = seen(&mut run(&["--budget", "400Mi"], &["python3", "-c", program]));
        assert_eq!(seen.code, Some(0), "{}", seen.stderr);
        let refused: Vec<&str> = seen.stdout.lines().collect();
        assert!(!refused.is_empty() && refused.iter().all(|errno| *errno == "12"), "{}", seen.stdout);
    });
    add(trials, "what_is_charged_to_another_container_counts_in_the_budget", || {
        let groups = ["launcher", "command"].map(|name| Group::new(name, "1G"));
        let [Ok(launcher), Ok(command)] = &groups else {
            return skipped("no cgroup of version 1 can be made here");
        };
        // Of four that write to what they share with their parent, who leaves first?
        let program = "
import os, signal, sys
with open(sys.argv[1], 'w') as group:
    group.write('0')
block = bytearray(b'x') * (40 << 20)
children = []
for turn in range(4):
    children.append(os.fork())
    if children[-1] == 0:
        signal.alarm(50)
        for at in range(0, len(block), 4096):
            block[at] = 2
        signal.pause()
first, status = os.wait()
for child in children:
    if child != first:
        os.kill(child, signal.SIGKILL)
print(os.WEXITSTATUS(status))
";
        let [of_launcher, of_command] =
            [launcher, command].map(|group| group.path().join("cgroup.procs").display().to_string());
        let begins = "echo 0 > \"$0\" && exec \"$@\"";
        let launch = [env!("CARGO_BIN_EXE_oomguard"), "run", "--budget", "100Mi", "--"];
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", begins, &of_launcher]).args(launch).args(["python3", "-c", program, &of_command]);
        let seen = seen(&mut shell);
        assert_eq!((seen.code, &*seen.stdout), (Some(0), "198\n"), "{}", seen.stderr);
    });
    add(trials, "a_launcher_in_a_budget_joins_it", || {
        let launcher = env!("CARGO_BIN_EXE_oomguard");
        let this = std::env::current_exe().unwrap();
        let inner = [launcher, "run", "--budget", "1Gi", "--", this.to_str().unwrap(), "role", "need", "150"];
        let seen = seen(&mut run(&["--budget", "100Mi", "--report", "fd:2"], &inner));
        assert_eq!(seen.code, Some(198), "{}", seen.stderr);
        assert_eq!(report(&seen)["budget"], 100 * MIB, "{}", seen.stderr);
    });
    add(trials, "the_environment_can_ask_for_a_budget", || {
        let this = std::env::current_exe().unwrap();
        let mut command = run(&["--report", "fd:2"], &[this.to_str().unwrap(), "role", "need", "200"]);
        let seen = seen(command.env("OOMGUARD_BUDGET", "100Mi").env("OOMGUARD_PATIENCE", "0"));
        assert_eq!(seen.code, Some(198), "{}", seen.stderr);
        assert_eq!(report(&seen)["budget"], 100 * MIB, "{}", seen.stderr);
    });
    add(trials, "what_the_options_say_holds_whatever_the_environment_does", || {
        let says = ["/bin/sh", "-c", "echo $OOMGUARD_BUDGET $OOMGUARD_PATIENCE"];
        for variable in ["nonsense", "1Gi"] {
            let mut command = run(&["--budget", "100Mi", "--patience", "2s"], &says);
            let seen = seen(command.env("OOMGUARD_BUDGET", variable).env("OOMGUARD_PATIENCE", variable));
            assert_eq!((seen.code, &*seen.stdout), (Some(0), "104857600 2000ms\n"), "{}", seen.stderr);
        }
    });
    add(trials, "another_try_in_a_budget_begins_when_there_is_room", || {
        let marks = Marks::new("retry");
        let again = "\"$0\" role hold-marked \"$1\" 120 & p=$!; \
                     while ! ls \"$1\"/holds-* >/dev/null 2>&1; do kill -0 $p || exit 9; sleep .01; done; \
                     \"$2\" run --retries 1 -- \"$0\" role need 120 & n=$!; \
                     while ! \"$2\" top --json | tr '{' '\\n' | grep 'run --retries 1 ' | grep -q '\"waiting_ms\":[0-9]'; do kill -0 $n || exit 8; sleep .02; done; \
                     kill -9 $p; wait $p 2>/dev/null; wait $n";
        let arguments = [marks.0.to_str().unwrap(), env!("CARGO_BIN_EXE_oomguard")];
        let seen = script(&["--budget", "200Mi", "--patience", "0"], again, &arguments);
        assert_eq!(seen.code, Some(0), "{}", seen.stderr);
        assert!(seen.stderr.contains("try 2 of 2"), "{}", seen.stderr);
    });
    add(trials, "a_child_that_filters_its_own_calls_leaves_its_parent_as_it_is", || {
        let place = Marks::new("filter");
        let Some(compiler) = c::c() else { return };
        let program = compile(&compiler, &place.0, FILTERING_CHILD, "program", &[]);
        let seen = seen(&mut run(&["--budget", "100Mi", "--patience", "0"], &[program.to_str().unwrap()]));
        assert_eq!((seen.code, seen.stdout.as_str()), (Some(0), "got\n"), "{}", seen.stderr);
    });
    add(trials, "a_forked_childs_signals_are_its_own", || {
        let Some(compiler) = c::c() else { return };
        let place = Marks::new("urgent");
        let program = compile(&compiler, &place.0, URGENT_CHILD, "program", &[]);
        // Its parent may have been started with that signal ignored.
        for before in [":", "trap '' URG"] {
            let exec = format!("{before}; exec \"$0\"");
            let seen =
                seen(&mut run(&["--budget", "100Mi"], &["sh", "-c", &exec, program.to_str().unwrap()]));
            assert_eq!((seen.code, seen.stdout.as_str()), (Some(0), "11"), "{before}: {}", seen.stderr);
        }
    });
    // As PyTorch and cuBLAS are: hundreds of MiB of data, in several libraries, of which hardly any is touched.
    add(trials, "libraries_are_loaded_whose_data_is_larger_than_the_limit_and_untouched", || {
        let place = Marks::new("library");
        let Some(compiler) = c::c() else { return };
        let compile =
            |source: &str, name: &str, options: &[&str]| compile(&compiler, &place.0, source, name, options);
        let here = format!("-L{0}", place.0.display());
        let needs = |name: &str| {
            format!("char {name}_block[200 << 20]; char *{name}(void) {{ return {name}_block; }}")
        };
        compile(&needs("one"), "libone.so", &["-shared", "-fPIC"]);
        compile(&needs("two"), "libtwo.so", &["-shared", "-fPIC"]);
        let both = "char *one(void), *two(void); char *both(void) { return one() + (two() != 0); }";
        let path = format!("-Wl,-rpath,{}", place.0.display());
        let library = compile(both, "both.so", &["-shared", "-fPIC", &here, "-lone", "-ltwo", &path]);
        let program = compile(LOADER, "program", &["-ldl"]);
        let command = [program.to_str().unwrap(), library.to_str().unwrap()];
        for options in [["--budget", "100Mi"], ["--limit", "100Mi"]] {
            let seen = seen(&mut run(&options, &command));
            assert_eq!(seen.code, Some(0), "{options:?}: {}{}", seen.stdout, seen.stderr);
            let blocks: usize = seen.stdout.trim().parse().unwrap();
            assert!((80..=102).contains(&blocks), "{options:?}: {blocks} MiB");
        }
        let construct =
            "void constructed(void); __attribute__((constructor)) void call(void) { constructed(); }";
        let first = compile(construct, "first.so", &["-shared", "-fPIC"]);
        let program = compile(TWO_LOADERS, "loaders", &["-rdynamic", "-pthread", "-ldl"]);
        let command = [&program, &first, &library].map(|path| path.to_str().unwrap());
        let seen = seen(&mut run(&["--limit", "100Mi"], &command));
        assert_eq!((seen.code, seen.stdout.as_str()), (Some(0), "loaded\n"), "{}", seen.stderr);
    });
    add(trials, "what_is_asked_for_once_a_library_is_loaded_is_refused_as_ever", || {
        let place = Marks::new("asker");
        let Some(compiler) = c::c() else { return };
        let program = compile(&compiler, &place.0, ASKER, "program", &["-pthread", "-ldl"]);
        for (who, library) in [("itself", "./none.so"), ("itself", "libm.so.6"), ("thread", "./none.so")] {
            let command = [program.to_str().unwrap(), who, library];
            let seen = seen(&mut run(&["--limit", "64Mi"], &command));
            assert_eq!((seen.code, seen.stdout.as_str()), (Some(0), "coped\n"), "{who}: {}", seen.stderr);
        }
    });
    add(trials, "who_may_not_ask_is_left_to_a_look", || {
        let seen = role(&["--budget", "300Mi"], &["probe-and-need", "60"]);
        assert_eq!(seen.code, Some(0), "{}", seen.stderr);
    });
    add(trials, "top_tells_who_holds_what", || {
        let marks = Marks::new("top");
        let look = "\"$0\" role hold-marked \"$1\" 120 & p=$!; \
                    while ! ls \"$1\"/holds-* >/dev/null 2>&1; do kill -0 $p || exit 9; sleep .01; done; \
                    \"$2\" top --json; \"$2\" top --once; kill -9 $p; wait $p 2>/dev/null; echo $p";
        let arguments = [marks.0.to_str().unwrap(), env!("CARGO_BIN_EXE_oomguard")];
        let seen = script(&["--budget", "200Mi"], look, &arguments);
        assert_eq!(seen.code, Some(0), "{}", seen.stderr);
        let told: Value = serde_json::from_str(seen.stdout.lines().next().unwrap()).unwrap();
        let pid: u64 = seen.stdout.lines().last().unwrap().parse().unwrap();
        let holds = |budget: &&Value| {
            budget["processes"].as_array().unwrap().iter().any(|process| process["pid"] == pid)
        };
        let budget = told["budgets"].as_array().unwrap().iter().find(holds).unwrap();
        assert_eq!(budget["budget"], 200 * MIB, "{told}");
        let holder = budget["processes"].as_array().unwrap().iter().find(|process| process["pid"] == pid);
        assert!(holder.unwrap()["lease"].as_u64().unwrap() >= 120 * MIB, "{told}");
        assert!(seen.stdout.contains("budget 200 MiB: "), "{}", seen.stdout);
    });
    add(
        trials,
        "a_child_in_another_pid_namespace_holds_what_it_holds_and_the_first_process_here_nothing",
        || {
            let marks = Marks::new("apart");
            let look = "\"$0\" role hold-apart \"$1\" 60 & p=$!; \
                    while ! ls \"$1\"/holds-* >/dev/null 2>&1; do kill -0 $p || exit 9; sleep .01; done; \
                    \"$2\" top --json; kill -9 $p; wait $p 2>/dev/null; echo $p";
            let arguments = [marks.0.to_str().unwrap(), env!("CARGO_BIN_EXE_oomguard")];
            let seen = script(&["--budget", "200Mi"], look, &arguments);
            assert_eq!(seen.code, Some(0), "{}", seen.stderr);
            if !marks.0.join("holds-1").exists() {
                return skipped("unshare(CLONE_NEWPID): not allowed here");
            }
            let told: Value = serde_json::from_str(seen.stdout.lines().next().unwrap()).unwrap();
            let parent: u64 = seen.stdout.lines().last().unwrap().parse().unwrap();
            let budgets = told["budgets"].as_array().unwrap().iter();
            let all = budgets.map(|budget| budget["processes"].as_array().unwrap());
            let all =
                all.into_iter().find(|all| all.iter().any(|one| one["pid"] == parent)).expect("our budget");
            assert!(!all.iter().any(|one| one["pid"] == 1), "{told}");
            let holds = |one: &&Value| one["lease"].as_u64().is_some_and(|lease| lease >= 60 * MIB);
            assert_eq!(all.iter().filter(holds).count(), 1, "{told}");
        },
    );
    add(trials, "what_cannot_be_a_budget_is_refused", || {
        for (options, word) in [
            (&["--budget", "12Q"][..], "write bytes"),
            (&["--budget", "100Mi", "--patience", "soon"], "accepted: 0, or a whole number"),
            (&["--budget", "100Mi", "--measure", "data"], "what is resident"),
            (&["--budget", "100Mi", "--hard"], "no hard limit can be held in a budget"),
        ] {
            let seen = seen(&mut run(options, &["true"]));
            assert!(
                seen.code == Some(125) && seen.stderr.contains(word),
                "{options:?} {:?}: {}",
                seen.code,
                seen.stderr
            );
        }
    });
}
