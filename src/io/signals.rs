//! Unix signals: blocked in every thread, taken by one that waits for them.

use std::io;

/// What the operator's signals mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// SIGTERM or SIGINT: drain; the second one: stop.
    Stop,
    /// SIGHUP: reload the configuration.
    Reload,
    /// SIGUSR2: start the program anew; it takes over.
    Renew,
}

fn taken() -> libc::sigset_t {
    // SAFETY: `sigset_t` is plain data; sigemptyset and sigaddset write only into it.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR2] {
            libc::sigaddset(&mut set, signal);
        }
        set
    }
}

/// Blocks the signals in this thread and all that it starts from now on; to be called before the first one is started.
pub fn block() {
    let set = taken();
    // SAFETY: the set lives until the call returns; the old mask is not asked for.
    unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        // A peer that closes while we write is an error code, not a signal.
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    }
}

/// Starts the thread that waits for signals and tells each, until `tell` answers false.
///
/// # Errors
/// When the thread cannot be started.
pub fn wait(tell: impl Fn(Signal) -> bool + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let set = taken();
        loop {
            let mut signal = 0;
            // SAFETY: both pointers are to locals that outlive the call.
            if unsafe { libc::sigwait(&set, &mut signal) } != 0 {
                continue;
            }
            let meaning = match signal {
                libc::SIGHUP => Signal::Reload,
                libc::SIGUSR2 => Signal::Renew,
                _ => Signal::Stop,
            };
            if !tell(meaning) {
                return;
            }
        }
    })?;
    Ok(())
}
