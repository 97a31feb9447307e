//! The command that runs beside the mirror: started, waited for, told of signals.
//!
//! On a terminal it stays in our process group, as a shell's foreground job does: Ctrl-C and Ctrl-Z reach it from the terminal, and only what
//! is sent to us alone is passed on. Elsewhere it has a process group of its own, and every signal goes to all of that.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};
use tokio::signal::unix::{self, SignalKind};
use tracing::debug;

/// The exit code of a command that is not there, and of one that cannot be run: a shell's.
const NOT_FOUND: u8 = 127;
const NOT_RUNNABLE: u8 = 126;
/// What a shell adds to the number of the signal that ended a command.
const BY_SIGNAL: i32 = 128;

/// The signals that ask us to end.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: unix::Signal,
    quit: unix::Signal,
    terminate: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    /// From now on none of them ends the process.
    pub(super) fn catch() -> io::Result<Self> {
        Ok(Self {
            interrupt: unix::signal(SignalKind::interrupt())?,
            quit: unix::signal(SignalKind::quit())?,
            terminate: unix::signal(SignalKind::terminate())?,
            hangup: unix::signal(SignalKind::hangup())?,
        })
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.quit.recv() => Signal::QUIT,
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.hangup.recv() => Signal::HUP,
        }
    }
}

/// Runs the command to its end, signals passed on. `Err`: what is wrong, and the exit code that says so.
pub(super) async fn run(
    command: &[OsString],
    environment: &[(&'static str, OsString)],
    signals: &mut Signals,
) -> Result<u8, (u8, String)> {
    let Some((program, arguments)) = command.split_first() else {
        return Err((NOT_FOUND, "there is no command".to_owned()));
    };
    let has_terminal = File::open("/dev/tty").is_ok();
    let mut starting = Command::new(program);
    starting
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)));
    if !has_terminal {
        starting.process_group(0);
    }
    let mut child = starting.spawn().map_err(|error| {
        let code = if error.kind() == io::ErrorKind::NotFound {
            NOT_FOUND
        } else {
            NOT_RUNNABLE
        };
        (code, format!("cannot run {}: {error}", program.display()))
    })?;
    loop {
        tokio::select! {
            ended = child.wait() => {
                let ended = ended.map_err(|error| (NOT_RUNNABLE, format!("cannot wait for the command: {error}")))?;
                return Ok(exit_code(ended));
            }
            signal = signals.next() => pass_on(&child, signal, has_terminal),
        }
    }
}

fn pass_on(child: &Child, signal: Signal, has_terminal: bool) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok());
    let Some(pid) = pid.and_then(Pid::from_raw) else {
        return;
    };
    let sent = if !has_terminal {
        kill_process_group(pid, signal)
    } else if matches!(signal, Signal::INT | Signal::QUIT) {
        // The terminal sent it to the command too; twice would end what wants to clean up first.
        Ok(())
    } else {
        kill_process(pid, signal)
    };
    if let Err(error) = sent {
        debug!(%error, "the command ended before the signal came");
    }
}

/// As a shell tells it.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| Some(BY_SIGNAL + status.signal()?))
        .unwrap_or(i32::from(u8::MAX));
    u8::try_from(code).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_a_shells() {
        for (raw, expected) in [(0, 0), (3 << 8, 3), (255 << 8, 255), (15, 143), (9, 137)] {
            assert_eq!(exit_code(ExitStatus::from_raw(raw)), expected);
        }
    }
}
