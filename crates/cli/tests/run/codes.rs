//! All exit codes and all signals that end a command, through the launcher.

use crate::add;
use crate::started::{State, in_state, run_shell, seen, shell};
use libtest_mimic::Trial;

pub fn add_to(trials: &mut Vec<Trial>) {
    add(trials, "every_exit_code_is_the_commands_own", || {
        for options in [&[][..], &["--no-preload"]] {
            for code in 0..=255 {
                let seen = seen(&mut run_shell(options, &format!("exit {code}")));
                assert_eq!((seen.code, seen.stderr.as_str()), (Some(code), ""), "exit {code} {options:?}");
            }
        }
    });
    add(trials, "a_command_ended_by_signal_n_gives_128_and_n", || {
        let mut ended = 0;
        const STOP: [i32; 4] = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
        for signal in (1..=64).filter(|signal| !STOP.contains(signal)) {
            let script = format!("kill -{signal} $$; echo lives");
            let without = seen(in_state(&mut shell(&script), State::default()));
            let Some(died_of) = without.signal else { continue };
            assert_eq!(died_of, signal);
            ended += 1;
            let with = seen(in_state(&mut run_shell(&[], &script), State::default()));
            assert_eq!(
                (with.code, with.signal, with.stdout.as_str(), with.stderr.as_str()),
                (Some(128 + signal), None, "", ""),
                "{signal}"
            );
        }
        // All but SIGCHLD, SIGCONT, SIGURG, SIGWINCH, those that stop, and perhaps two of the C library.
        assert!(ended >= 54, "{ended}");
    });
    add(trials, "a_signal_that_ends_nothing_ends_nothing", || {
        for signal in [libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH] {
            let seen = seen(&mut run_shell(&[], &format!("kill -{signal} $$; echo lives")));
            assert_eq!((seen.code, seen.stdout.as_str()), (Some(0), "lives\n"), "{signal}");
        }
    });
}
