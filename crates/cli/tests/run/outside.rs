//! Descendants that no guard gets into: static programs below dynamic ones, and the other way round; programs that are not
//! even loaded.

use crate::add;
use crate::skip::skipped;
use crate::started::{Seen, launcher, run_shell, seen, shell};
use libtest_mimic::Trial;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// `eat die`: of a refusal that it tells of. `eat say`: its own words, and a variable. `eat own CODE`: of itself. `eat log`: is refused something, writes much, gives
/// all back, and then tells that it dies of that. `eat touch`: the block that it did not get; `eat wild`: an address of no block's; `eat divide`: by
/// zero, so to speak. `eat start PROGRAM ARGS...`: as a shell does. `eat system COMMAND...`, and its kin: waits for each in its
/// way, and ends as the last one. `eat pipes COMMAND COMMAND`: for the second one first. `eat leave PROGRAM ARGS...`: sees that it is gone, and asks for nothing more. `eat execl PROGRAM WORD`, and its kin: as that
/// program, with many arguments.
const EAT: &str = r#"
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int count, char **words)
{
    setlocale(LC_ALL, "");
    if (!strcmp(words[1], "own"))
        return atoi(words[2]);
    if (!strcmp(words[1], "say"))
        return printf("%s %s %s %s\n", words[0], words[1], words[count - 1], getenv("EAT")) < 0;
    char *path = words[2], *word = words[3], *environment[] = {"EAT=eaten", 0};
    if (!strcmp(words[1], "execl"))
        execl(path, "eat", word, "2", "3", "4", "5", "6", "7", (char *)0);
    if (!strcmp(words[1], "execlp"))
        execlp(path, "eat", word, (char *)0);
    if (!strcmp(words[1], "execle"))
        execle(path, "eat", word, "2", "3", "4", "5", "6", "7", (char *)0, environment);
    if (!strncmp(words[1], "execl", 5))
        return 127;
    if (!strcmp(words[1], "start")) {
        int status;
        if (fork() == 0) {
            execvp(words[2], words + 2);
            _exit(126);
        }
        wait(&status);
        return WEXITSTATUS(status);
    }
    int status = -1;
    for (int place = 2; place < count && !strcmp(words[1], "system"); place++)
        status = system(words[place]);
    for (int place = 2; place < count && !strcmp(words[1], "pclose"); place++)
        status = pclose(popen(words[place], "r"));
    if (!strcmp(words[1], "pipes")) {
        FILE *first = popen(words[2], "r"), *second = popen(words[3], "r");
        while (fgetc(first) != EOF) {}
        pclose(second);
        status = pclose(first);
    }
    if (!strcmp(words[1], "system, pclose") && system(words[2]) != -1)
        status = pclose(popen(words[3], "r"));
    for (int place = 2; place < count && !strncmp(words[1], "syscall", 7); place++) {
        pid_t child = fork();
        siginfo_t end;
        if (child == 0) {
            execl("/bin/sh", "sh", "-c", words[place], (char *)0);
            _exit(126);
        }
        if (!strcmp(words[1], "syscall wait4"))
            syscall(SYS_wait4, child, &status, 0, 0);
        else if (syscall(SYS_waitid, P_PID, child, &end, WEXITED, 0) == 0)
            status = end.si_status << 8;
    }
    if (status >= 0)
        return WEXITSTATUS(status);
    if (!strcmp(words[1], "leave")) {
        int ends[2];
        char byte;
        if (pipe(ends))
            return 77;
        if (fork() == 0) {
            close(ends[0]);
            execv(words[2], words + 2);
            _exit(126);
        }
        close(ends[1]);
        return read(ends[0], &byte, 1) == 0 ? 5 : 77;
    }
    for (;;) {
        static char *held[64];
        static int count;
        char *block = malloc(1 << 20);
        if (!block && !strcmp(words[1], "survive"))
            return 0;
        if (!block && !strcmp(words[1], "touch"))
            *(volatile char *)block = 1;
        if (!block && !strcmp(words[1], "wild"))
            *(volatile char *)0x123456789000 = 1;
        if (!block && !strcmp(words[1], "divide"))
            return raise(SIGFPE);
        if (!block && !strcmp(words[1], "log"))
            for (int line = 0; line < 20000; line++)
                if (write(3, "row\n", 4) != 4)
                    return 77;
        if (!block && !strcmp(words[1], "log"))
            while (count)
                free(held[--count]);
        if (!block) {
            perror("malloc");
            return 5;
        }
        held[count++] = memset(block, 7, 1 << 20);
    }
}
"#;

/// A log forwarder, which once did without what it was refused, and may have said so: it passes on a line, or reads rows and waits
/// before it says by itself that memory is gone, or fails at something else.
const FORWARD: &str = r#"
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
extern ssize_t __pread64_chk(int, void *, size_t, off_t, size_t);
extern size_t __fread_chk(void *, size_t, size_t, size_t, FILE *);
static int ends[2];
static char line[256], much[1 << 16];
static void *pass_on(void *nobody)
{
    ssize_t len = read(ends[0], line, sizeof line);
    return len < 0 || write(2, line, len) < 0 ? line : nobody;
}
int main(int count, char **words)
{
    static const char own[] = "out of memory\n", others[] = "worker 7: out of memory\n", rows[] = "worker 7: rows\n";
    static const char missing[] = "worker: input.csv: No such file or directory\n";
    static char *held[64];
    struct timespec time = {.tv_nsec = 50000000};
    int is_passed_on = !strncmp(words[1], "pass on", 7), blocks = 0;
    pthread_t thread;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) || write(ends[1], is_passed_on ? others : rows, is_passed_on ? sizeof others - 1 : sizeof rows - 1) < 0)
        return 77;
    while ((held[blocks] = malloc(1 << 20)))
        memset(held[blocks++], 7, 1 << 20);
    for (int block = blocks / 2; block < blocks; block++)
        free(held[block]);
    if (count > 2 && write(2, own, sizeof own - 1) < 0)
        return 77;
    if (!strcmp(words[1], "pass on"))
        return pass_on(0) ? 77 : 3;
    if (!strncmp(words[1], "pass on by ", 11)) {
        struct iovec part = {line, sizeof line};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
        FILE *stream;
        ssize_t len = 0;
        int log = memfd_create("log", 0);
        if (pwrite(log, others, sizeof others, 0) < 0 || ftruncate(log, sizeof much))
            return 77;
        if (strstr(words[1], "preadv"))
            len = preadv(log, &part, 1, 0);
        else if (strstr(words[1], "readv"))
            len = readv(ends[0], &part, 1);
        else if (strstr(words[1], "recvfrom"))
            len = recvfrom(ends[0], line, sizeof line, 0, 0, 0);
        else if (strstr(words[1], "recvmsg"))
            len = recvmsg(ends[0], &message, 0);
        else if (strstr(words[1], "pread with room"))
            len = __pread64_chk(log, line, sizeof line, 0, sizeof line);
        else if (strstr(words[1], "pread"))
            len = pread(log, line, sizeof line, 0);
        else if (strstr(words[1], "fread")) {
            stream = fdopen(log, "r");
            if (strstr(words[1], "unlocked"))
                len = fread_unlocked(much, 1, sizeof much, stream);
            else if (strstr(words[1], "room"))
                len = __fread_chk(much, sizeof much, 1, sizeof much, stream);
            else
                len = fread(much, 1, sizeof much, stream);
            memcpy(line, much, sizeof others);
            return len != sizeof much || write(2, line, sizeof others - 1) < 0 ? 77 : 3;
        } else if (strstr(words[1], "fclose") && fgets(line, sizeof line, stream = fdopen(ends[0], "r")) && !fclose(stream))
            len = strlen(line);
        else if ((stream = popen("echo worker 7: out of memory", "r")) && fgets(line, sizeof line, stream) && !pclose(stream))
            len = strlen(line);
        return len <= 0 || write(2, line, len) < 0 ? 77 : 3;
    }
    if (!strcmp(words[1], "pass on, and say")) {
        ssize_t len = read(ends[0], line, sizeof line);
        strcpy(line + len, own);
        return write(2, line, strlen(line)) < 0 ? 77 : 3;
    }
    if (!strcmp(words[1], "pass on from a stream"))
        return !fgets(line, sizeof line, fdopen(ends[0], "r")) || fprintf(stderr, "log: %s", line) < 0 ? 77 : 3;
    if (!strcmp(words[1], "pass on in a thread"))
        return pthread_create(&thread, 0, pass_on, 0) || pthread_join(thread, 0) ? 77 : 3;
    nanosleep(&time, 0);
    if (read(ends[0], line, sizeof line) < 0)
        return 77;
    if (!strcmp(words[1], "fail"))
        return write(2, missing, sizeof missing - 1) < 0 ? 77 : 3;
    return write(2, own, sizeof own - 1) < 0 ? 77 : 3;
}
"#;

/// It does without what it was refused. `mix MINE OTHERS first`: it says something, then another thread does, and it ends; without
/// `first`: the other one speaks before it.
const MIX: &str = r#"
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static char **words;
static atomic_int turn;
static void say(const char *text) { if (write(2, text, strlen(text)) < 0) _exit(77); }
static void *other(void *nobody)
{
    while (turn != 1) {}
    say(words[2]);
    turn = 2;
    for (;;) pause();
    return nobody;
}
int main(int count, char **all)
{
    static char *held[64];
    int blocks = 0;
    pthread_t thread;
    words = all;
    if (pthread_create(&thread, 0, other, 0)) return 77;
    while ((held[blocks] = malloc(1 << 20))) memset(held[blocks++], 7, 1 << 20);
    for (int block = blocks / 2; block < blocks; block++) free(held[block]);
    int is_first = !strcmp(words[3], "first");
    if (is_first) say(words[1]);
    turn = 1;
    while (turn != 2) {}
    if (!is_first) say(words[1]);
    return count == 4 ? 3 : 77;
}
"#;

/// It is refused something, keeps the rest or half of it, aborts, and jumps out of its handler, or leaves in it; silent, or with a word.
const JUMP: &str = r#"
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static sigjmp_buf back;
static void jump(int signal) { siglongjmp(back, signal); }
static void leave(int signal) { _exit(signal ? 3 : 77); }
int main(int count, char **words)
{
    static char *held[64];
    int blocks = 0;
    signal(SIGABRT, strcmp(words[1], "leave") ? jump : leave);
    while ((held[blocks] = malloc(1 << 20)))
        memset(held[blocks++], 7, 1 << 20);
    for (int block = blocks / 2; block < blocks && !strcmp(words[2], "half"); block++)
        free(held[block]);
    if (!sigsetjmp(back, 1))
        abort();
    if (count > 3 && write(2, "out of memory\n", 14) < 0)
        return 77;
    return 3;
}
"#;

/// It does without what it was refused, and reads: more than there is room for, nowhere, and where only reading is left to it.
const READ: &str = r#"
#include <errno.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int count, char **words)
{
    static char message[30000], small[4];
    char *page = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int ends[2], is_recv = !strcmp(words[1], "recv");
    if (page == MAP_FAILED || munmap(page + 4096, 4096) || socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) || malloc((size_t)1 << 40))
        return 77;
    if (write(ends[1], message, sizeof message) < 0)
        return 77;
    if (is_recv && recv(ends[0], 0, 0, MSG_PEEK | MSG_TRUNC) != sizeof message)
        return 4;
    if (is_recv && recv(ends[0], page + 4092, 4, MSG_PEEK | MSG_TRUNC) != sizeof message)
        return 5;
    if (!is_recv && (read(ends[0], 0, 4) >= 0 || errno != EFAULT || read(-1, small, 4) >= 0 || errno != EBADF))
        return 6;
    // The message is gone with the failed read(2).
    if (write(ends[1], message, sizeof message) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT))
        return 77;
    ssize_t len = read(ends[0], page + 4092, 4);
    return syscall(SYS_exit, len == 4 ? 0 : count);
}
"#;

/// It does without what it was refused, and then misses a file or a peer, or sleeps, without a word; or ends of what it was refused, and only
/// tidies up.
const MISS: &str = r#"
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
int main(int count, char **words)
{
    static char *held[64];
    struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = 1, .sin_addr.s_addr = 0x0100007f};
    struct timespec time = {.tv_sec = 1, .tv_nsec = 200000000};
    int blocks = 0;
    while (strcmp(words[1], "huge") && (held[blocks] = malloc(1 << 20)))
        memset(held[blocks++], 7, 1 << 20);
    if (!strcmp(words[1], "huge") && (held[0] = malloc((size_t)1 << 40)))
        return 77;
    if (!strcmp(words[1], "half"))
        for (int block = blocks / 2; block < blocks; block++)
            free(held[block]);
    if (!strcmp(words[2], "open"))
        return open("/nowhere/app.conf", O_RDONLY) < 0 ? 3 : count;
    if (!strcmp(words[2], "access"))
        return access("/nowhere/app.conf", R_OK) ? 3 : count;
    if (!strcmp(words[2], "connect"))
        return connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&peer, sizeof peer) ? 3 : count;
    if (!strcmp(words[2], "sleep"))
        return nanosleep(&time, 0) ? 77 : 3;
    if (!strcmp(words[2], "tidy up"))
        return isatty(0) || close(77) ? 3 : count;
    return 3;
}
"#;

fn eat(compiler: &str, options: &[&str]) -> Option<(TempDir, PathBuf)> {
    compiled(EAT, compiler, options)
}

/// Compiles it; `None` where that cannot be done here.
fn compiled(text: &str, compiler: &str, options: &[&str]) -> Option<(TempDir, PathBuf)> {
    let directory = tempfile::tempdir().unwrap();
    let (source, program) = (directory.path().join("eat.c"), directory.path().join("eat"));
    std::fs::write(&source, text).unwrap();
    let mut command = Command::new(compiler);
    command.args(options).arg("-o").arg(&program).arg(&source).stderr(Stdio::null());
    match command.status() {
        Ok(status) if status.success() => Some((directory, program)),
        _ => {
            skipped(format!("{compiler} {options:?} is not there"));
            None
        }
    }
}

fn shell_code(script: &str) -> Option<i32> {
    seen(&mut shell(script)).code
}

fn told(seen: &Seen) -> Value {
    serde_json::from_str(seen.stderr.lines().last().unwrap()).unwrap()
}

fn reports(seen: &Seen) -> usize {
    seen.stderr.lines().filter(|line| line.starts_with("oomguard: out of memory: ")).count()
}

fn below(wrapper: &str, program: &Path, words: &str) -> Seen {
    let script = match wrapper {
        "shell" => format!("{} {words}; exit $?", program.display()),
        wrapper => format!("exec {wrapper} {} {words}", program.display()),
    };
    seen(&mut run_shell(&["-m", "64Mi", "--json"], &script))
}

pub fn add_to(trials: &mut Vec<Trial>) {
    let kinds: [(&str, &[&str]); 2] = [("cc", &["-static"]), ("musl-gcc", &["-static"])];
    for (compiler, options) in kinds {
        let name = format!("what_a_guarded_program_starts_is_seen_from_outside {compiler} {options:?}");
        let test = move || {
            let Some((_directory, program)) = eat(compiler, options) else { return };
            for wrapper in ["shell", "env", "nice", "timeout 50"] {
                let fallen = below(wrapper, &program, "die");
                assert_eq!((fallen.code, reports(&fallen)), (Some(198), 1), "{wrapper}: {}", fallen.stderr);
                let report = &told(&fallen)["report"];
                assert_eq!((&report["program"], &report["evidence"]), (&"eat".into(), &"outside".into()));
                assert_eq!((&report["thread"], &report["own_exit_code"]), (&"main".into(), &5.into()));
                assert!(fallen.stderr.contains("a larger --limit (-m)"), "{}", fallen.stderr);
                let own = below(wrapper, &program, "own 7");
                assert_eq!((own.code, reports(&own)), (Some(7), 0), "{wrapper}: {}", own.stderr);
                // Nothing of ours is in the way of another C library.
                assert!(!own.stderr.contains("ELF") && !own.stderr.contains("loading"), "{}", own.stderr);
            }
        };
        trials.push(Trial::test(name, move || {
            test();
            Ok(())
        }));
    }
    add(trials, "a_crash_that_has_nothing_to_do_with_what_was_refused_is_its_own", || {
        let Some((_directory, program)) = eat("cc", &["-static"]) else { return };
        for (way, code, count) in [("touch", 198, 1), ("wild", 139, 0), ("divide", 136, 0)] {
            let mut command = launcher();
            let fallen = seen(command.args(["run", "-m", "64Mi", "--json", "--"]).arg(&program).arg(way));
            assert_eq!((fallen.code, reports(&fallen)), (Some(code), count), "{way}: {}", fallen.stderr);
            assert!(told(&fallen)["refusals"].as_u64() >= Some(1), "{way}: {}", fallen.stderr);
        }
    });
    add(trials, "who_passes_on_what_another_program_says_does_not_end_of_it", || {
        for (options, is_dynamic) in [(&["-pthread"][..], true), (&["-pthread", "-static"], false)] {
            let Some((_directory, program)) = compiled(FORWARD, "cc", options) else { return };
            for (way, code) in [
                (&["pass on"][..], 3),
                (&["pass on from a stream"], 3),
                (&["pass on in a thread"], 3),
                (&["pass on by readv"], 3),
                (&["pass on by recvfrom"], 3),
                (&["pass on by recvmsg"], 3),
                (&["pass on by preadv"], 3),
                (&["pass on by pread"], 3),
                (&["pass on by pread with room"], 3),
                (&["pass on by fread"], 3),
                (&["pass on by fread with room"], 3),
                (&["pass on by fread unlocked"], 3),
                (&["pass on by fclose"], 3),
                (&["pass on by popen"], 3),
                (&["say"], 198),
                (&["pass on, and say"], 198),
                (&["pass on", "after its own words"], 198),
                (&["fail", "after its own words"], 3),
            ] {
                // What another thread says is not heard from outside.
                if !is_dynamic && way[0].ends_with("thread") {
                    continue;
                }
                let mut command = launcher();
                let seen = seen(command.args(["run", "-m", "48Mi", "--"]).arg(&program).args(way));
                assert_eq!(seen.code, Some(code), "{options:?} {way:?}: {}", seen.stderr);
            }
        }
    });
    add(trials, "who_jumps_out_of_an_abort_has_not_ended_of_what_led_to_it", || {
        for options in [&[][..], &["-static"]] {
            let Some((_directory, program)) = compiled(JUMP, "cc", options) else { continue };
            for (words, code) in [
                (&["jump", "full"][..], 3),
                (&["jump", "half"], 3),
                (&["jump", "full", "with a word"], 198),
                (&["leave", "full"], 198),
            ] {
                let mut command = launcher();
                let ended = seen(command.args(["run", "-m", "48Mi", "--"]).arg(&program).args(words));
                assert_eq!(ended.code, Some(code), "{options:?} {words:?}: {}", ended.stderr);
            }
        }
    });
    add(trials, "the_thread_that_ends_is_heard_whatever_others_say", || {
        let Some((_directory, program)) = compiled(MIX, "cc", &["-O1", "-pthread"]) else { return };
        let [memory, file] =
            ["worker 1: out of memory\n", "worker 2: input.csv: No such file or directory\n"];
        for (mine, others, code) in [(memory, file, 198), (file, memory, 3)] {
            for order in ["first", "last"] {
                let mut command = launcher();
                command.args(["run", "-m", "48Mi", "--"]).arg(&program).args([mine, others, order]);
                let ended = seen(&mut command);
                assert_eq!(ended.code, Some(code), "{order}: {}", ended.stderr);
            }
        }
    });
    add(trials, "who_reads_after_a_refusal_reads_as_ever", || {
        let Some((_directory, program)) = compiled(READ, "cc", &[]) else { return };
        for way in ["recv", "read"] {
            let mut command = launcher();
            let seen = seen(command.args(["run", "-m", "64Mi", "--"]).arg(&program).arg(way));
            assert_eq!(seen.code, Some(0), "{way}: {}", seen.stderr);
        }
    });
    add(trials, "who_misses_a_file_or_a_peer_in_silence_does_not_die_of_a_refusal_before", || {
        for (compiler, options) in [("cc", &[][..]), ("cc", &["-static"]), ("musl-gcc", &[])] {
            let Some((_directory, program)) = compiled(MISS, compiler, options) else { continue };
            for held in ["full", "half", "huge"] {
                for (then, code) in [
                    ("open", 3),
                    ("access", 3),
                    ("connect", 3),
                    ("sleep", 3),
                    ("tidy up", 198),
                    ("nothing", 198),
                ] {
                    if then == "sleep" && held != "full" {
                        continue;
                    }
                    let mut command = launcher();
                    command.args(["run", "-m", "48Mi", "--measure", "data", "--"]);
                    let seen = seen(command.arg(&program).args([held, then]));
                    assert_eq!(
                        seen.code,
                        Some(code),
                        "{compiler} {options:?} {held} {then}: {}",
                        seen.stderr
                    );
                }
            }
        }
    });
    add(trials, "what_a_wrapper_does_after_a_child_is_not_the_childs", || {
        let Some((_directory, program)) = eat("cc", &["-static"]) else { return };
        let at = program.display();
        for (script, code) in [
            (format!("{at} die || {at} own 5; exit $?"), 5),
            (format!("{at} die; {at} own 7; exit $?"), 7),
            (format!("{at} die; exec {at} own 5"), 5),
            (format!("{at} die; exec /bin/sh -c 'exit 5'"), 5),
            (format!("{at} die; exit $?"), 198),
        ] {
            // By one that has the guard, and by one that has not.
            let guarded = seen(&mut run_shell(&["-m", "64Mi"], &script));
            assert_eq!(guarded.code, Some(code), "{script}: {}", guarded.stderr);
            let mut command = launcher();
            command.args(["run", "-m", "64Mi", "--"]).arg(&program).args(["start", "/bin/sh", "-c", &script]);
            let followed = seen(&mut command);
            assert_eq!(followed.code, Some(code), "{script}: {}", followed.stderr);
        }
    });
    add(trials, "the_child_that_was_waited_for_last_is_the_one_whose_end_is_passed_on", || {
        let Some((_directory, program)) = eat("cc", &["-static"]) else { return };
        let Some((_other, dynamic)) = eat("cc", &[]) else { return };
        let [die, own] = ["die", "own 5"].map(|words| format!("{} {words}", program.display()));
        let try_it = |way: &str, commands: &[&String], code| {
            let mut command = launcher();
            command.args(["run", "-m", "64Mi", "--"]).arg(&dynamic).arg(way).args(commands);
            let ended = seen(&mut command);
            assert_eq!(ended.code, Some(code), "{way} {commands:?}: {}", ended.stderr);
        };
        for way in ["system", "pclose", "syscall wait4", "syscall waitid"] {
            for (commands, code) in [(&[&die][..], 198), (&[&own, &die], 198), (&[&die, &own], 5)] {
                try_it(way, commands, code);
            }
        }
        // Its shell has got over it. The next one is a shell, too: of that nothing is seen from outside.
        try_it("system, pclose", &[&format!("{die}; true"), &own], 5);
        try_it("system, pclose", &[&format!("{die}; true"), &"exit 5".to_owned()], 5);
        try_it("system, pclose", &[&format!("{own}; true"), &die], 198);
        // Another process's child falls meanwhile.
        let pipe = program.with_file_name("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let at = pipe.display();
        let elsewhere = format!("({die}; echo fell >{at}) & read word <{at}; exit 5");
        for way in ["system", "pclose"] {
            try_it(way, &[&elsewhere], 5);
        }
        // The first one has ended when the second one is waited for.
        let (fallen, other) = (format!("exec {die}"), "exit 7".to_owned());
        for (commands, code) in [([&fallen, &other], 198), ([&own, &other], 5), ([&own, &die], 5)] {
            try_it("pipes", &commands, code);
        }
    });
    add(trials, "who_ends_as_one_did_that_nobody_waited_for_has_its_own_reason", || {
        let Some((_directory, program)) = eat("cc", &["-static"]) else { return };
        let Some((_other, dynamic)) = eat("cc", &[]) else { return };
        let mut command = launcher();
        command.args(["run", "-m", "64Mi", "--json", "--"]).arg(&dynamic).arg("leave").arg(&program);
        let own = seen(command.arg("die"));
        assert_eq!((own.code, reports(&own)), (Some(5), 0), "{}", own.stderr);
        assert_eq!(told(&own)["descendants"][0]["program"], "eat", "{}", own.stderr);
    });
    add(trials, "who_is_in_another_network_namespace_is_seen_from_outside", || {
        let Some((_directory, program)) = eat("cc", &["-static"]) else { return };
        for wrapper in ["unshare -n", "unshare -U -r -n"] {
            if shell_code(&format!("{wrapper} true")) != Some(0) {
                skipped(format!("{wrapper}: not allowed here"));
                continue;
            }
            let fallen = below(wrapper, &program, "die");
            assert_eq!((fallen.code, reports(&fallen)), (Some(198), 1), "{wrapper}: {}", fallen.stderr);
            assert_eq!(below(wrapper, &program, "own 7").code, Some(7), "{wrapper}");
        }
    });
    add(trials, "who_is_in_another_pid_namespace_is_seen_from_outside", || {
        let Some((_directory, program)) = eat("cc", &["-static"]) else { return };
        let [die, own] = ["die", "own 5"].map(|words| format!("{} {words}", program.display()));
        let bubblewrap = "bwrap --unshare-pid --dev-bind / / --proc /proc";
        for wrapper in ["unshare -U -r -p -f", "unshare -U -r -p -f --mount-proc", bubblewrap] {
            if shell_code(&format!("{wrapper} true")) != Some(0) {
                skipped(format!("{wrapper}: not there, or not allowed here"));
                continue;
            }
            assert_eq!(below(wrapper, &program, "die").code, Some(198), "{wrapper}");
            for (script, code) in [
                (format!("{die}; exit $?"), 198),
                (format!("sh -c \"{die}; exit \\$?\"; exit $?"), 198),
                // Twins: it got over that one, and ends for its own reason, or as another child does.
                (format!("{die}; exit 7"), 7),
                (format!("{die}; {own}; exit $?"), 5),
            ] {
                let whole = format!("{wrapper} sh -c '{script}'");
                let ends = [(format!("exec {whole}"), code), (format!("{whole}; exit $?"), code)];
                for (script, code) in ends.into_iter().chain([(format!("{whole}; {own}; exit $?"), 5)]) {
                    let seen = seen(&mut run_shell(&["-m", "64Mi"], &script));
                    assert_eq!(seen.code, Some(code), "{script}: {}", seen.stderr);
                }
            }
        }
    });
    add(trials, "what_is_spawned_is_seen_from_outside", || {
        let Some((_directory, program)) = eat("cc", &["-static"]) else { return };
        // Python has posix_spawn(3) by its name.
        let spawn = |words: &str| {
            format!(
                "import os, sys\n\
                 words = ['eat'] + {words:?}.split()\n\
                 pid = os.posix_spawn({:?}, words, dict(os.environ, EAT='eaten'))\n\
                 sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))",
                program.display().to_string()
            )
        };
        if !Command::new("python3")
            .arg("--version")
            .stdout(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
        {
            return skipped("python3 is not there");
        }
        let run = |words: &str| {
            let mut command = launcher();
            seen(command.args(["run", "-m", "100Mi", "--json", "--", "python3", "-c", &spawn(words)]))
        };
        let fallen = run("die");
        assert_eq!((fallen.code, reports(&fallen)), (Some(198), 1), "{}", fallen.stderr);
        assert_eq!(told(&fallen)["report"]["program"], "eat");
        assert_eq!(run("own 7").code, Some(7));
        assert_eq!(run("say").stdout, "eat say say eaten\n");
    });
    add(trials, "what_a_guarded_program_becomes_by_a_list_of_arguments_is_seen_from_outside", || {
        let Some((_directory, program)) = eat("cc", &["-static"]) else { return };
        let Some((_other, dynamic)) = eat("cc", &[]) else { return };
        let become_it = |way: &str, file: &Path, word: &str| {
            let mut command = launcher();
            command.args(["run", "-m", "64Mi", "--json", "--"]).arg(&dynamic).arg(way).arg(file).arg(word);
            seen(command.env("EAT", "found"))
        };
        for (way, last, variable) in
            [("execl", "7", "found"), ("execlp", "say", "found"), ("execle", "7", "eaten")]
        {
            let fallen = become_it(way, &program, "die");
            assert_eq!((fallen.code, reports(&fallen)), (Some(198), 1), "{way}: {}", fallen.stderr);
            let evidence = &told(&fallen)["report"]["evidence"];
            assert_eq!(evidence, "outside", "{way}");
            let said = become_it(way, &program, "say");
            assert_eq!(said.stdout, format!("eat say {last} {variable}\n"), "{way}: {}", said.stderr);
            assert_eq!(become_it(way, Path::new("/no/such/program"), "say").code, Some(127), "{way}");
        }
    });
    add(trials, "an_end_from_outside_that_was_swallowed_counts_if_that_is_wanted", || {
        let Some((_directory, program)) = eat("cc", &["-static"]) else { return };
        let script = format!("{} die; exit 0", program.display());
        let plain = seen(&mut run_shell(&["-m", "64Mi", "--json"], &script));
        assert_eq!(plain.code, Some(0), "{}", plain.stderr);
        assert_eq!(told(&plain)["descendants"][0]["program"], "eat");
        let any = seen(&mut run_shell(&["-m", "64Mi", "--any-descendant"], &script));
        assert_eq!((any.code, reports(&any)), (Some(198), 1), "{}", any.stderr);
    });
    add(trials, "a_program_that_writes_much_before_it_says_what_it_dies_of_is_heard", || {
        let Some((directory, program)) = eat("cc", &["-static"]) else { return };
        let log = directory.path().join("log");
        let script = format!("exec {} log 3>{}", program.display(), log.display());
        let fallen = seen(&mut run_shell(&["-m", "64Mi", "--json"], &script));
        assert_eq!((fallen.code, reports(&fallen)), (Some(198), 1), "{}", fallen.stderr);
        assert_eq!(std::fs::metadata(&log).unwrap().len(), 80_000);
    });
    add(trials, "words_in_the_users_language_are_heard_from_outside", || {
        let Some((directory, program)) = eat("cc", &["-static"]) else { return };
        let locales =
            Command::new("locale").arg("-a").output().map(|output| output.stdout).unwrap_or_default();
        if !String::from_utf8_lossy(&locales).lines().any(|line| line == "de_DE.utf8") {
            return skipped("no German here");
        }
        // It gives all back before it says so.
        let log = directory.path().join("log");
        let script = format!("exec {} log 3>{}", program.display(), log.display());
        let mut command = run_shell(&["-m", "64Mi"], &script);
        let fallen = seen(command.env("LC_ALL", "de_DE.UTF-8"));
        assert_eq!((fallen.code, reports(&fallen)), (Some(198), 1), "{}", fallen.stderr);
        assert!(fallen.stderr.contains("malloc: Nicht"), "{}", fallen.stderr);
    });
    add(trials, "what_was_survived_is_told_from_outside", || {
        let Some((_directory, program)) = eat("cc", &["-static"]) else { return };
        let mut command = launcher();
        command.args(["run", "-m", "64Mi", "--json", "--"]).arg(&program).arg("survive");
        for survived in
            [seen(&mut command), below("env", &program, "survive"), below("shell", &program, "survive")]
        {
            assert_eq!(survived.code, Some(0), "{}", survived.stderr);
            assert!(told(&survived)["refusals"].as_u64() >= Some(1), "{}", survived.stderr);
            assert!(told(&survived)["last_refused"].as_u64() >= Some(1 << 20), "{}", survived.stderr);
        }
    });
    add(trials, "what_a_static_program_starts_speaks_for_itself", || {
        let Some((_directory, program)) = eat("cc", &["-static"]) else { return };
        let Some((_other, dynamic)) = eat("cc", &[]) else { return };
        for child in [&dynamic, &program] {
            let mut command = launcher();
            command.args(["run", "-m", "64Mi", "--json", "--"]).arg(&program).arg("start").arg(child);
            let fallen = seen(command.arg("die"));
            assert_eq!((fallen.code, reports(&fallen)), (Some(198), 1), "{}", fallen.stderr);
            let report = &told(&fallen)["report"];
            assert_ne!(report["pid"], told(&fallen)["pid"]);
            let from_outside = report["evidence"] == "outside";
            assert_eq!(from_outside, child == &program, "{report}");
        }
    });
    add(trials, "who_is_not_followed_is_not_in_the_way", || {
        let traced = seen(&mut run_shell(&["-m", "64Mi"], "grep TracerPid /proc/self/status"));
        assert_eq!(traced.stdout.trim(), "TracerPid:\t0", "{}", traced.stderr);
    });
    add(trials, "a_program_that_there_is_no_room_to_load_is_told_from_one_that_lacks_a_library", || {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("large.c"), "char large[64 << 20]; int give(void) { return large[0]; }").unwrap();
        std::fs::write(at("main.c"), "int give(void); int main(void) { return give(); }").unwrap();
        let compile = |arguments: &[&str]| {
            Command::new("cc")
                .args(arguments)
                .current_dir(directory.path())
                .status()
                .is_ok_and(|status| status.success())
        };
        let library = ["-shared", "-fPIC", "-o", "liblarge.so", "large.c"];
        let program = ["-o", "needy", "main.c", "-L.", "-llarge", "-Wl,-rpath,$ORIGIN"];
        if !compile(&library) || !compile(&program) {
            return skipped("no C compiler that makes libraries");
        }
        let needy = at("needy");
        let direct = |options: &[&str]| {
            let mut command = launcher();
            seen(command.arg("run").args(options).arg("--").arg(&needy))
        };
        let below =
            |options: &[&str]| seen(&mut run_shell(options, &format!("{}; exit $?", needy.display())));
        assert_eq!(direct(&["-m", "300Mi"]).code, Some(0));
        // What it never uses is not resident.
        for seen in [direct(&["-m", "32Mi"]), below(&["-m", "32Mi"])] {
            assert_eq!((seen.code, reports(&seen)), (Some(0), 0), "{}", seen.stderr);
        }
        let data = ["--measure", "data", "-m"];
        let starved = direct(&[&data[..], &["32Mi"]].concat());
        assert_eq!(starved.code, Some(125), "{}", starved.stderr);
        assert!(starved.stderr.contains("below what it needs to start"), "{}", starved.stderr);
        let starved = below(&[&data[..], &["32Mi", "--json"]].concat());
        assert_eq!((starved.code, reports(&starved)), (Some(198), 1), "{}", starved.stderr);
        assert_eq!(told(&starved)["report"]["program"], "needy");
        let retried =
            below(&[&data[..], &["32Mi", "--retries", "1", "--grow", "10", "--max-limit", "1Gi"]].concat());
        assert_eq!(retried.code, Some(0), "{}", retried.stderr);
        std::fs::remove_file(at("liblarge.so")).unwrap();
        for seen in [direct(&["-m", "32Mi"]), below(&["-m", "32Mi"]), direct(&["-m", "300Mi"])] {
            assert_eq!((seen.code, reports(&seen)), (Some(127), 0), "{}", seen.stderr);
        }
    });
}
