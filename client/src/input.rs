//! Lines that the user types or a program pipes in.
//!
//! On a terminal a line editor reads, and what is printed meanwhile goes above the line. Nothing typed is written
//! to disk. Otherwise lines are read as they come.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Read as _},
    thread,
};

use rustyline::{DefaultEditor, ExternalPrinter as _};
use socp::limits::MESSAGE_STATEMENT_BYTES_MAX;
use tokio::sync::mpsc;

use crate::{failure::Failure, printer::AboveInput};

/// Lines read ahead; then the one who pipes waits.
const LINES_AHEAD: usize = 16;

/// Bytes of one line; the rest of a longer one is taken for the next.
const LINE_BYTES_MAX: u64 = MESSAGE_STATEMENT_BYTES_MAX as u64;

/// The lines, the way to print above them, and the terminal to put back as it was.
pub struct Input {
    /// Lines; closed at the end of input, and by Ctrl-C or Ctrl-D on a terminal.
    pub lines: mpsc::Receiver<String>,
    /// How to print while a line is typed; `None` unless on a terminal.
    pub above: Option<AboveInput>,
    /// Restores the terminal when dropped.
    pub terminal: Terminal,
}

/// Begins to read.
pub fn open(json: bool) -> Result<Input, Failure> {
    let terminal = Terminal::remember();
    let (sender, lines) = mpsc::channel(LINES_AHEAD);
    let edits = io::stdin().is_terminal() && io::stdout().is_terminal() && !json;
    let above = if edits { Some(edit_lines(sender)?) } else { pipe_lines(sender)? };
    Ok(Input { lines, above, terminal })
}

fn pipe_lines(sender: mpsc::Sender<String>) -> Result<Option<AboveInput>, Failure> {
    let read = move || {
        let mut input = io::stdin().lock();
        loop {
            let mut line = Vec::new();
            match input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let line = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    };
    spawn(read)?;
    Ok(None)
}

fn edit_lines(sender: mpsc::Sender<String>) -> Result<AboveInput, Failure> {
    let failed = |error| Failure::failed(format!("cannot use the terminal: {error}"));
    let mut editor = DefaultEditor::new().map_err(failed)?;
    let mut printer = editor.create_external_printer().map_err(failed)?;
    let read = move || {
        while let Ok(line) = editor.readline("> ") {
            let _ = editor.add_history_entry(&line);
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    };
    spawn(read)?;
    Ok(Box::new(move |text| {
        let _ = printer.print(text);
    }))
}

fn spawn(read: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let started = thread::Builder::new().name("input".into()).spawn(read);
    started.map(drop).map_err(|error| Failure::failed(format!("cannot start a thread: {error}")))
}

/// The terminal as it was at the start: the editor's thread may be in the middle of a line when the program ends.
pub struct Terminal {
    #[cfg(unix)]
    before: Option<nix::sys::termios::Termios>,
}

impl Terminal {
    fn remember() -> Self {
        Self {
            #[cfg(unix)]
            before: nix::sys::termios::tcgetattr(io::stdin()).ok(),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Some(before) = &self.before {
            let _ = nix::sys::termios::tcsetattr(io::stdin(), nix::sys::termios::SetArg::TCSANOW, before);
        }
    }
}
