//! What a worker finds when it starts: the limit, and otherwise what its command says.

use super::{add, limit, role, shell};
use libtest_mimic::Trial;
use oomguard::supervisor::{self, OnSupervisorDeath, Outcome, Profiling, SetLimit, Worker};
use oomguard::{Limit, Measure};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

pub fn add_to(trials: &mut Vec<Trial>) {
    add(trials, "any_program_gets_the_soft_limit_and_keeps_the_hard_one", any_program_gets_the_soft_limit);
    add(trials, "a_limit_can_come_after_exec", a_limit_can_come_after_exec);
    add(trials, "without_a_limit_nothing_is_limited", without_a_limit_nothing_is_limited);
    add(trials, "what_the_command_says_itself_holds", what_the_command_says_holds);
    add(trials, "a_cleared_environment_stays_clear_but_for_ours", a_cleared_environment_stays_clear);
    add(trials, "a_guarded_worker_closes_the_record_and_a_plain_one_sees_it", one_descriptor_more);
    add(trials, "hooks_run_before_the_limit_and_groups_stay", hooks_run_before_the_limit);
    add(trials, "a_small_guarded_parent_can_give_more_than_it_has", a_small_parent_can_give_more);
    add(trials, "a_limit_above_the_hard_one_is_cut_to_it", a_limit_above_the_hard_one_is_cut);
    add(trials, "piped_output_is_kept_up_to_its_bound", piped_output_is_kept_up_to_its_bound);
    add(trials, "a_guarded_program_is_started_without_a_fork", a_guarded_program_is_not_forked);
    add(trials, "a_token_that_is_too_long_is_refused", a_long_token_is_refused);
    add(trials, "a_worker_without_a_profiler_says_so", a_worker_without_a_profiler_says_so);
}

fn output(mut worker: Worker) -> String {
    let ended = worker.run_to_end().unwrap();
    assert!(ended.outcome.is_success(), "{ended}");
    String::from_utf8(ended.stdout).unwrap().trim().to_owned()
}

fn piped(mut command: Command) -> Worker {
    command.stdout(Stdio::piped());
    Worker::new(command)
}

fn any_program_gets_the_soft_limit() {
    let ask = || piped(shell("ulimit -Sv; ulimit -Hv; ulimit -Sd; ulimit -Hd"));
    let [soft_v, hard_v, soft_d, hard_d] = &output(ask()).lines().map(String::from).collect::<Vec<_>>()[..]
    else {
        panic!()
    };
    let with = output(ask().limit(limit("300MiB")));
    assert_eq!(with, format!("{}\n{hard_v}\n{soft_d}\n{hard_d}", 300 << 10));
    let with = output(ask().limit(limit("300MiB")).measure(Measure::Data));
    assert_eq!(with, format!("{soft_v}\n{hard_v}\n{}\n{hard_d}", 300 << 10));
    let with = output(ask().limit(Limit::Off));
    assert_eq!(with, format!("{hard_v}\n{hard_v}\n{soft_d}\n{hard_d}"));
}

fn a_limit_can_come_after_exec() {
    // Until it is there, and not for ever.
    const ASK: &str = "for i in $(seq 1000); do [ $(ulimit -Sv) = 307200 ] && break; sleep 0.05; done; \
                       ulimit -Sv; ulimit -Hv";
    let ask = || piped(shell(ASK));
    let before = output(ask().limit(limit("300MiB")));
    assert_eq!(output(ask().limit(limit("300MiB")).set_limit(SetLimit::AfterExec)), before);
    assert!(before.starts_with("307200\n"), "{before}");
}

fn without_a_limit_nothing_is_limited() {
    let names = output(piped(shell("env | grep ^OOMGUARD_ | cut -d= -f1 | sort")));
    assert_eq!(names, "OOMGUARD_RECORD\nOOMGUARD_TOKEN");
    let ended = Worker::new(shell("exit 0")).run_to_end().unwrap();
    assert_eq!((ended.limit, ended.last_look.is_none()), (None, true));
}

fn what_the_command_says_holds() {
    let mut command = role(&["eat"]);
    command.env("OOMGUARD_EXIT_CODE", "66").env("OOMGUARD_TOKEN", "theirs");
    let outcome = Worker::new(command).limit(limit("64MiB")).exit_code(77).token("ours").quiet().run();
    let Outcome::OutOfMemory(report) = outcome.unwrap() else { panic!() };
    assert_eq!((report.exit_code(), report.token().as_deref()), (66, Some("theirs")));

    let mut command = shell("env | grep ^OOMGUARD_ | cut -d= -f1 | sort");
    command.env_remove("OOMGUARD_TOKEN");
    assert_eq!(output(piped(command)), "OOMGUARD_RECORD");
}

fn a_cleared_environment_stays_clear() {
    let mut command = Command::new("/usr/bin/env");
    command.env_clear().env("MINE", "1");
    let names = output(piped(command).limit(limit("300MiB")));
    let mut names: Vec<&str> = names.lines().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    let ours = ["LIMIT", "MEASURE", "OUTER", "RECORD", "TOKEN"].map(|name| format!("OOMGUARD_{name}"));
    assert_eq!(names, [&["MINE".to_owned()][..], &ours].concat());
}

fn one_descriptor_more() {
    // Whoever runs the tests may have left descriptors open, too.
    let plain = |mut command: Command| String::from_utf8(command.output().unwrap().stdout).unwrap();
    let guarded = || role(&["descriptors"]);
    assert_eq!(output(piped(guarded()).limit(limit("300MiB"))), plain(guarded()).trim());
    let high = || shell("for fd in /proc/self/fd/*; do [ ${fd##*/} -ge 100 ] && echo x; done; true");
    let before = plain(high()).lines().count();
    assert_eq!(output(piped(high())).lines().count(), before + 1);
    assert_eq!(output(piped(high()).watch_descendants()).lines().count(), before + 2);
}

fn hooks_run_before_the_limit() {
    let mut command = shell("ulimit -Sv; ps -o pgid= -p $$; echo $$; pwd");
    command.process_group(0).current_dir("/usr");
    let hook = || {
        // SAFETY: a fresh anonymous mapping of our own, more than the limit allows.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), 1 << 30, 0, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
        };
        if at == libc::MAP_FAILED { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: one system call.
    unsafe { command.pre_exec(hook) };
    let said = output(piped(command).limit(limit("300MiB")));
    let [soft, group, pid, directory] = said.lines().map(str::trim).collect::<Vec<_>>()[..] else {
        panic!("{said}")
    };
    assert_eq!((soft, group, directory), ("307200", pid, "/usr"));
}

fn a_small_parent_can_give_more() {
    let mut parent = role(&["small-parent", "150"]);
    parent.env("OOMGUARD_LIMIT", "60MiB");
    for measure in ["address-space", "data"] {
        parent.env("OOMGUARD_MEASURE", measure);
        let output = parent.output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim(),
            "succeeded: exit code 0\nsucceeded: exit code 0",
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

fn a_limit_above_the_hard_one_is_cut() {
    // The hard limit comes from a hook, as lowering this process's own could not be undone.
    let mut command = shell("ulimit -Sv; ulimit -Hv");
    let hook = || {
        let limit = libc::rlimit { rlim_cur: 200 << 20, rlim_max: 200 << 20 };
        // SAFETY: `limit` is readable during the call.
        if unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) } == 0 {
            Ok(())
        } else {
            Err(std::io::Error::last_os_error())
        }
    };
    // SAFETY: one system call.
    unsafe { command.pre_exec(hook) };
    assert_eq!(output(piped(command).limit(limit("300MiB"))), "204800\n204800");
}

fn piped_output_is_kept_up_to_its_bound() {
    let mut command = shell("head -c 3000000 /dev/zero; head -c 500000 /dev/zero >&2; echo end");
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::piped());
    let ended = Worker::new(command).keep_output(1_000_000).run_to_end().unwrap();
    assert!(ended.outcome.is_success(), "{ended}");
    assert_eq!((ended.stdout.len(), ended.stderr.len(), ended.output_cut), (1_000_000, 500_000, true));
}

/// Handlers of pthread_atfork(3) run before fork(2), and not before posix_spawn(3).
fn a_guarded_program_is_not_forked() {
    let forks = super::role(&["count-forks"]).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&forks.stdout),
        "guarded 0\nplain with a limit 1\nplain with a limit after exec 0\nplain without one 0\nguarded with a lifeline 1\n\
         known with a limit 0\nknown with all that is watched 0\n",
        "{}",
        String::from_utf8_lossy(&forks.stderr)
    );
}

pub fn count_forks() {
    use std::sync::atomic::{AtomicU32, Ordering};
    static FORKS: AtomicU32 = AtomicU32::new(0);
    unsafe extern "C" fn count() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    // SAFETY: the handler only counts.
    assert_eq!(unsafe { libc::pthread_atfork(Some(count), None, None) }, 0);
    let guarded = || Worker::new(super::unchecked_role(&["exit", "0"])).limit(limit("300MiB"));
    let plain = || Worker::new(Command::new("/bin/true"));
    let known = || Worker::new(supervisor::Command::new("/bin/true"));
    for (name, mut worker) in [
        ("guarded", guarded()),
        ("plain with a limit", plain().limit(limit("300MiB"))),
        ("plain with a limit after exec", plain().limit(limit("300MiB")).set_limit(SetLimit::AfterExec)),
        ("plain without one", plain()),
        ("guarded with a lifeline", guarded().watch_descendants()),
        ("known with a limit", known().limit(limit("300MiB"))),
        (
            "known with all that is watched",
            known().limit(limit("300MiB")).watch_descendants().on_supervisor_death(OnSupervisorDeath::Kill),
        ),
    ] {
        FORKS.store(0, Ordering::Relaxed);
        let ended = worker.run_to_end().unwrap();
        assert!(ended.outcome.is_success(), "{ended}");
        assert_eq!(ended.last_look.is_some(), name.starts_with("guarded"), "{name}");
        println!("{name} {}", FORKS.load(Ordering::Relaxed));
    }
}

fn a_long_token_is_refused() {
    let error = Worker::new(shell("exit 0")).token("x".repeat(65)).run().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}

fn a_worker_without_a_profiler_says_so() {
    let ended = Worker::new(role(&["exit", "0"])).profile().run_to_end().unwrap();
    assert!(ended.outcome.is_success(), "{ended}");
    let look = ended.last_look.expect("it is guarded");
    assert_eq!((look.profiling(), look.profile().is_none()), (Some(Profiling::NotCompiledIn), true));
}
