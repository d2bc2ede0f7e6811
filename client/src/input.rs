//! Lines that the user types or a program pipes in.
//!
//! On a terminal the line editor reads, and what is printed meanwhile goes above the line. Nothing typed is written
//! to disk. Otherwise lines are read as they come.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use rustix::termios::{self, LocalModes, OptionalActions, Termios};
use socp::limits::MESSAGE_STATEMENT_BYTES_MAX;
use tokio::sync::mpsc;

use crate::{
    editor::{Act, ERASE, Editor},
    failure::Failure,
    printer::AboveInput,
};

/// Lines read ahead; then the one who pipes waits.
const LINES_AHEAD: usize = 16;

/// Bytes of one line; the rest of a longer one is taken for the next.
const LINE_BYTES_MAX: u64 = MESSAGE_STATEMENT_BYTES_MAX as u64;

/// Columns of a terminal that does not tell.
const COLUMNS: usize = 80;

/// The lines, the way to print above them, and the terminal to put back as it was.
pub struct Input {
    /// Lines; closed at the end of input.
    pub lines: mpsc::Receiver<String>,
    /// How to print while a line is typed; `None` unless on a terminal.
    pub above: Option<AboveInput>,
    /// Restores the terminal when dropped.
    pub terminal: Option<Terminal>,
}

/// Begins to read.
pub fn open(json: bool) -> Result<Input, Failure> {
    let (sender, lines) = mpsc::channel(LINES_AHEAD);
    let edits = io::stdin().is_terminal() && io::stdout().is_terminal() && !json;
    if !edits {
        spawn(move || pipe_lines(&sender))?;
        return Ok(Input { lines, above: None, terminal: None });
    }
    let editor = Arc::new(Mutex::new(Editor::default()));
    let terminal = Terminal::take(editor.clone())?;
    let typed = editor.clone();
    spawn(move || edit_lines(&typed, &sender))?;
    let above: AboveInput = Box::new(move |text| {
        let editor = lock(&editor);
        write(&format!("{ERASE}{text}{}", editor.show(columns())));
    });
    Ok(Input { lines, above: Some(above), terminal: Some(terminal) })
}

fn pipe_lines(sender: &mpsc::Sender<String>) {
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
}

fn edit_lines(editor: &Mutex<Editor>, sender: &mpsc::Sender<String>) {
    let mut bytes = [0; 1024];
    write(&lock(editor).show(columns()));
    loop {
        let count = match io::stdin().lock().read(&mut bytes) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let acts = {
            let mut editor = lock(editor);
            let acts = editor.feed(&bytes[..count]);
            let entered: String = acts.iter().map(entered).collect();
            write(&format!("{ERASE}{entered}{}", editor.show(columns())));
            acts
        };
        for act in acts {
            let taken = match act {
                Act::Line(line) => sender.blocking_send(line).is_ok(),
                Act::End => false,
            };
            if !taken {
                return;
            }
        }
    }
}

/// What stays on the screen of a line that was entered.
fn entered(act: &Act) -> String {
    match act {
        Act::Line(line) if !line.is_empty() => format!("> {line}\n"),
        Act::Line(_) | Act::End => String::new(),
    }
}

fn lock(editor: &Mutex<Editor>) -> MutexGuard<'_, Editor> {
    editor.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn columns() -> usize {
    let size = termios::tcgetwinsize(io::stdout());
    size.ok().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(COLUMNS)
}

fn spawn(read: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let started = thread::Builder::new().name("input".into()).spawn(read);
    started.map(drop).map_err(|error| Failure::failed(format!("cannot start a thread: {error}")))
}

/// A terminal that gives bytes as they are typed, without echo; as it was when dropped.
pub struct Terminal {
    before: Termios,
    editor: Arc<Mutex<Editor>>,
}

impl Terminal {
    fn take(editor: Arc<Mutex<Editor>>) -> Result<Self, Failure> {
        let failed = |error| Failure::failed(format!("cannot use the terminal: {error}"));
        let before = termios::tcgetattr(io::stdin()).map_err(failed)?;
        let mut raw = before.clone();
        // Signals stay: Ctrl-C ends the program in good order.
        raw.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Self { before, editor })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The thread may still wait for a key; held, it shows no prompt any more.
        let _editor = lock(&self.editor);
        write(ERASE);
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}
