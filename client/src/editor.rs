//! A line editor for one line at the bottom of a terminal, and the lines printed above it.
//!
//! Bytes go in, lines come out; what to show is a string. The terminal itself is [`crate::input`]'s. A line editor of
//! our own, since what is typed, pasted or sent by a program must never wait for the next key while others print.

use std::mem;

/// Lines remembered for the arrow keys; in memory only.
const HISTORY_MAX: usize = 100;

/// Characters of one line; more are dropped.
const CHARACTERS_MAX: usize = 65_536;

const PROMPT: &str = "> ";

/// Erases the line and goes to its begin.
pub const ERASE: &str = "\r\u{1b}[K";

/// What came of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Act {
    /// A line was entered.
    Line(String),
    /// The user ended the input.
    End,
}

/// The line that is being typed.
#[derive(Default)]
pub struct Editor {
    line: Vec<char>,
    cursor: usize,
    history: Vec<String>,
    /// Which line of the history is shown, counted from the end; 0 is the new one.
    recalled: usize,
    /// Bytes of a character or an escape sequence that is not complete.
    pending: Vec<u8>,
}

impl Editor {
    /// Takes what was typed.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Act> {
        let mut acts = Vec::new();
        for byte in bytes {
            self.pending.push(*byte);
            if self.pending[0] == 0x1b {
                self.escape();
            } else if let Some(key) = self.character() {
                acts.extend(self.key(key));
            }
        }
        acts
    }

    /// The character that the pending bytes make, if they make one; bytes that never will are dropped.
    fn character(&mut self) -> Option<char> {
        match std::str::from_utf8(&self.pending) {
            Ok(text) => {
                let key = text.chars().next();
                self.pending.clear();
                key
            }
            Err(error) => {
                if error.error_len().is_some() {
                    self.pending.clear();
                }
                None
            }
        }
    }

    fn key(&mut self, key: char) -> Option<Act> {
        match key {
            '\r' | '\n' => return Some(Act::Line(self.enter())),
            '\u{4}' if self.line.is_empty() => return Some(Act::End),
            '\u{4}' => self.delete(),
            '\u{8}' | '\u{7f}' if self.cursor > 0 => {
                self.cursor -= 1;
                self.line.remove(self.cursor);
            }
            '\u{1}' => self.cursor = 0,
            '\u{5}' => self.cursor = self.line.len(),
            '\u{b}' => self.line.truncate(self.cursor),
            '\u{15}' => drop(self.line.drain(..mem::take(&mut self.cursor))),
            '\u{17}' => {
                let before = &self.line[..self.cursor];
                let kept = before.iter().rposition(|c| !c.is_whitespace()).unwrap_or(0);
                let start = before[..kept].iter().rposition(|c| c.is_whitespace()).map_or(0, |space| space + 1);
                self.line.drain(start..self.cursor);
                self.cursor = start;
            }
            control if control.is_control() => {}
            typed if self.line.len() < CHARACTERS_MAX => {
                self.line.insert(self.cursor, typed);
                self.cursor += 1;
            }
            _ => {}
        }
        None
    }

    /// Carries out an escape sequence once it is complete.
    fn escape(&mut self) {
        match &self.pending[1..] {
            [] | [b'[' | b'O'] => return,
            [b'[', .., last] if !(0x40..=0x7e).contains(last) && self.pending.len() < 16 => return,
            [b'[' | b'O', b'A'] => self.recall(self.recalled + 1),
            [b'[' | b'O', b'B'] => self.recall(self.recalled.saturating_sub(1)),
            [b'[' | b'O', b'C'] => self.cursor = (self.cursor + 1).min(self.line.len()),
            [b'[' | b'O', b'D'] => self.cursor = self.cursor.saturating_sub(1),
            [b'[' | b'O', b'H'] | [b'[', b'1', b'~'] => self.cursor = 0,
            [b'[' | b'O', b'F'] | [b'[', b'4', b'~'] => self.cursor = self.line.len(),
            [b'[', b'3', b'~'] => self.delete(),
            _ => {}
        }
        self.pending.clear();
    }

    fn delete(&mut self) {
        if self.cursor < self.line.len() {
            self.line.remove(self.cursor);
        }
    }

    fn enter(&mut self) -> String {
        let line: String = mem::take(&mut self.line).into_iter().collect();
        self.cursor = 0;
        self.recalled = 0;
        if !line.trim().is_empty() && self.history.last() != Some(&line) {
            self.history.push(line.clone());
        }
        if self.history.len() > HISTORY_MAX {
            self.history.remove(0);
        }
        line
    }

    fn recall(&mut self, back: usize) {
        if back > self.history.len() {
            return;
        }
        self.recalled = back;
        let text = if back == 0 { "" } else { &self.history[self.history.len() - back] };
        self.line = text.chars().collect();
        self.cursor = self.line.len();
    }

    /// The prompt and as much of the line around the cursor as fits, with the cursor put where it belongs.
    pub fn show(&self, columns: usize) -> String {
        // Whatever may be wide counts double, so that the line never wraps.
        let width = |c: &char| if u32::from(*c) < 0x300 { 1 } else { 2 };
        let mut room = columns.saturating_sub(PROMPT.len() + 1);
        let mut fits = |c: &&char| {
            let fits = width(c) <= room;
            room = if fits { room - width(c) } else { 0 };
            fits
        };
        let mut before: Vec<char> = self.line[..self.cursor].iter().rev().take_while(&mut fits).copied().collect();
        before.reverse();
        let after: String = self.line[self.cursor..].iter().take_while(&mut fits).collect();
        let before: String = before.into_iter().collect();
        format!("{ERASE}{PROMPT}{before}\u{1b}7{after}\u{1b}8")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(editor: &mut Editor, text: &str) -> Vec<Act> {
        editor.feed(text.as_bytes())
    }

    fn line(text: &str) -> Vec<Act> {
        vec![Act::Line(text.into())]
    }

    #[test]
    fn lines_that_come_at_once_are_all_entered() {
        let mut editor = Editor::default();
        let both = [Act::Line("/tell bob hé".into()), Act::Line("/quit".into())];
        assert_eq!(typed(&mut editor, "/tell bob hé\r/quit\rre"), both);
        assert_eq!(typed(&mut editor, "st\n"), line("rest"));
    }

    #[test]
    fn a_line_can_be_edited_in_the_middle_and_recalled() {
        let mut editor = Editor::default();
        assert_eq!(typed(&mut editor, "helo\u{1b}[Dl\r"), line("hello"));
        assert_eq!(typed(&mut editor, "one two \u{17}three\u{7f}\u{7f}\r"), line("one thr"));
        assert_eq!(typed(&mut editor, "\u{1b}[A\u{1b}[A\u{1}x\u{5}y\r"), line("xhelloy"));
        assert_eq!(typed(&mut editor, "abc\u{1b}[D\u{15}\u{1b}[3~\r"), line(""));
        assert_eq!(typed(&mut editor, "\u{1b}[1;5Cx\u{1b}OFy\r"), line("xy"), "unknown sequences are passed over");
    }

    #[test]
    fn ctrl_d_ends_an_empty_line_only_and_broken_bytes_are_dropped() {
        let mut editor = Editor::default();
        assert_eq!(typed(&mut editor, "a\u{4}"), []);
        assert_eq!(editor.feed(b"\xff\xc3"), []);
        assert_eq!(editor.feed(b"\xa9\r"), line("aé"));
        assert_eq!(typed(&mut editor, "\u{4}"), [Act::End]);
    }

    #[test]
    fn what_does_not_fit_is_cut_around_the_cursor() {
        let mut editor = Editor::default();
        typed(&mut editor, "0123456789");
        assert_eq!(editor.show(8), format!("{ERASE}> 56789\u{1b}7\u{1b}8"));
        typed(&mut editor, "\u{1}");
        assert_eq!(editor.show(8), format!("{ERASE}> \u{1b}701234\u{1b}8"));
    }
}
