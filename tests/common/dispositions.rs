//! What this process was started with: `nohup` and background jobs of scripts ignore signals, which every program below
//! them inherits.

/// Lets signals do what they do unless told otherwise. Called before there are threads.
pub fn reset() {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGTSTP] {
        // SAFETY: no handler is installed, and none is taken away that this program has.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}
