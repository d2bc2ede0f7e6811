//! Where events go: JSON or text, standard output or the terminal that a line is being typed on.

use std::io::{self, IsTerminal as _, Write as _};

use crate::{
    event::{Event, Stamped, now_unix_ns},
    render::{self, Stream, Tone},
};

/// Prints above the line that is being typed.
pub type AboveInput = Box<dyn FnMut(String) + Send>;

/// Prints events, each flushed at once.
pub struct Printer {
    json: bool,
    colour: bool,
    above_input: Option<AboveInput>,
}

impl Printer {
    /// Prints to standard output and error.
    pub fn new(json: bool) -> Self {
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { json, colour, above_input: None }
    }

    /// Prints above the line that is being typed on a terminal.
    #[must_use]
    pub fn above(mut self, above_input: Option<AboveInput>) -> Self {
        self.above_input = above_input;
        self
    }

    /// Prints an event that happened now.
    pub fn print(&mut self, event: &Event) {
        self.print_at(event, now_unix_ns());
    }

    /// Prints an event that was read at a time.
    pub fn print_at(&mut self, event: &Event, unix_ns: u64) {
        if self.json {
            self.line(Stream::Data, Tone::Plain, &Stamped { event, unix_ns }.to_string());
        } else if let Some((stream, tone, line)) = render::line(event) {
            self.line(stream, tone, &line);
        }
    }

    /// Prints an event with JSON only, where people are told of it in another way.
    pub fn print_json(&mut self, event: &Event) {
        if self.json {
            self.print(event);
        }
    }

    /// Prints some text that is not an event; nothing with JSON.
    pub fn talk(&mut self, text: &str) {
        if !self.json {
            self.line(Stream::Talk, Tone::Plain, text);
        }
    }

    fn line(&mut self, stream: Stream, tone: Tone, line: &str) {
        let terminal = match (&self.above_input, stream) {
            (Some(_), _) => true,
            (None, Stream::Data) => io::stdout().is_terminal(),
            (None, Stream::Talk) => io::stderr().is_terminal(),
        };
        let mut text = if self.colour && terminal { render::colour(line, tone) } else { line.to_owned() };
        text.push('\n');
        // A reader that went away is noticed at the next line of input, not here.
        match (&mut self.above_input, stream) {
            (Some(above), _) => above(text),
            (None, Stream::Data) => {
                let mut out = io::stdout().lock();
                let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
            }
            (None, Stream::Talk) => {
                let _ = io::stderr().write_all(text.as_bytes());
            }
        }
    }
}
