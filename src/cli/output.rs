//! What is printed: results to standard output, everything else to standard error.

use std::io::{IsTerminal as _, Write as _};

use indicatif::ProgressDrawTarget;

/// A line of a command's result.
pub(super) fn line(text: &str) {
    bytes(format!("{text}\n").as_bytes());
}

/// A command's result as it is. A reader that has gone away is no error.
pub(super) fn bytes(bytes: &[u8]) {
    let _reader_may_be_gone = std::io::stdout().write_all(bytes);
}

/// What went wrong.
pub(super) fn error(text: &str) {
    let _nobody_may_listen = writeln!(std::io::stderr(), "{text}");
}

/// What is perhaps not meant.
pub(super) fn warning(text: &str) {
    error(&format!("warning: {text}"));
}

/// Where bars are drawn: on the terminal, if standard error is one.
pub(super) fn bars() -> Option<ProgressDrawTarget> {
    let is_terminal = std::io::stderr().is_terminal();
    is_terminal.then(ProgressDrawTarget::stderr)
}
