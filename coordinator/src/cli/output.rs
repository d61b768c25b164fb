//! What a command prints: lines for a person, or the API's own JSON.
//!
//! Much of it was said by a server, which may be a customer's in the wrong hands: nothing reaches the
//! terminal that a terminal would obey. In JSON such letters are escaped, so a program loses nothing.

use std::io::{self, Write as _};

use serde::Serialize;

use super::{CommandFailed, client::CallFailed};
use crate::causes::chain;

/// Standard output in the form that was asked for.
#[derive(Debug)]
pub struct Output {
    json: bool,
}

impl Output {
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    pub fn wants_json(&self) -> bool {
        self.json
    }

    /// The answer as JSON if that was asked for, else as the lines.
    pub fn show<T: Serialize>(
        &mut self,
        answer: &T,
        lines: impl FnOnce(&T) -> Vec<String>,
    ) -> Result<(), CommandFailed> {
        if self.json {
            return self.json(answer);
        }
        for line in lines(answer) {
            self.line(&line)?;
        }
        Ok(())
    }

    pub fn json(&mut self, value: &impl Serialize) -> Result<(), CommandFailed> {
        let text = serde_json::to_string_pretty(value).map_err(io::Error::from)?;
        self.line(&escaped(&text))
    }

    /// As JSON in one line, so that a program can follow.
    pub fn json_line(&mut self, value: &impl Serialize) -> Result<(), CommandFailed> {
        let text = serde_json::to_string(value).map_err(io::Error::from)?;
        self.line(&escaped(&text))
    }

    pub fn line(&mut self, text: &str) -> Result<(), CommandFailed> {
        writeln!(io::stdout().lock(), "{}", printable(text)).map_err(Into::into)
    }

    /// Says on standard error what went wrong.
    pub fn complain(&self, error: &CommandFailed) {
        let text = match error {
            CommandFailed::Call(CallFailed::Refused(problem)) if self.json => {
                escaped(&serde_json::to_string_pretty(problem).unwrap_or_default())
            }
            CommandFailed::Call(CallFailed::Refused(problem)) => {
                let faults = problem
                    .errors
                    .iter()
                    .map(|fault| format!("\n  {}: {}", fault.pointer, fault.detail));
                format!(
                    "tidepool: {error} ({}){}",
                    problem.code,
                    faults.collect::<String>()
                )
            }
            _ => format!("tidepool: {}", chain(error)),
        };
        // With standard error gone there is nobody left to tell.
        drop(writeln!(io::stderr().lock(), "{}", printable(&text)));
    }
}

/// The text without what a terminal would obey: control characters but line ends and tabs (C0, DEL
/// and C1) become U+FFFD.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|letter| match letter {
            '\n' | '\t' => letter,
            _ if letter.is_control() => char::REPLACEMENT_CHARACTER,
            _ => letter,
        })
        .collect()
}

/// JSON text with the control characters escaped that `serde_json` leaves as they are: DEL and C1.
fn escaped(json: &str) -> String {
    use std::fmt::Write as _;
    json.chars().fold(String::new(), |mut text, letter| {
        if letter.is_control() && letter != '\n' {
            write!(text, "\\u{:04x}", u32::from(letter)).expect("writing to a string cannot fail");
        } else {
            text.push(letter);
        }
        text
    })
}

/// Rows as lines with aligned columns.
pub fn table(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    rows.iter()
        .map(|row| {
            let cells = row.iter().zip(&widths);
            let padded: Vec<String> = cells
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            let line = padded.join("  ");
            line.trim_end().to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
        assert_eq!(
            table(&[row("a", "b"), row("long", "c")]),
            ["a     b", "long  c"]
        );
    }

    #[test]
    fn a_server_cannot_talk_to_the_terminal() {
        let said = "a\tb\n\x1b]0;title\x07\u{9b}31m\x7f\r end é 🐚";
        assert_eq!(
            printable(said),
            "a\tb\n\u{fffd}]0;title\u{fffd}\u{fffd}31m\u{fffd}\u{fffd} end é 🐚"
        );
    }

    #[test]
    fn json_carries_every_letter_and_shows_no_control() {
        let value = serde_json::json!({"line": "\x1b[2J\u{9b}31m\x7f\r\n é"});
        let text = escaped(&serde_json::to_string_pretty(&value).unwrap());
        assert_eq!(printable(&text), text);
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            value
        );
    }
}
