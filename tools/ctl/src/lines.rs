//! Lines of standard input, read on a thread of their own and never longer than they may be.
//!
//! In: a stream of bytes. Out: numbered lines without their ends, blank ones passed over, then the end, or a
//! line that is too long. Whoever takes them sets the pace: at most [`AHEAD_MAX`] lines are read ahead.
//! Called by push and ack.

use std::io::{BufRead, BufReader, Read};

use onrush_protocol::limits::BATCH_BYTES_MAX;
use tokio::sync::mpsc;

/// Longest line, bytes: no message is larger than a batch.
pub(crate) const LINE_BYTES_MAX: usize = BATCH_BYTES_MAX;
/// Lines that are read before somebody takes them.
const AHEAD_MAX: usize = 4096;
/// Bytes of the buffer between the system and us.
const READ_BYTES: usize = 1 << 16;

/// One line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Line {
    /// Counted from 1, blank ones too.
    pub(crate) number: u64,
    pub(crate) text: Vec<u8>,
    /// Bytes of the input up to its end.
    pub(crate) bytes_read: u64,
}

/// Why there are no more lines, although the input has not ended.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum LineError {
    /// A line that no message can be.
    #[error("line {number} is longer than {LINE_BYTES_MAX} bytes")]
    TooLong { number: u64 },
    /// The system could not read.
    #[error("standard input after line {number}: {reason}")]
    Read { number: u64, reason: String },
}

/// Lines of standard input. The thread ends with the input, or when nobody takes any more.
pub(crate) fn of_standard_input() -> mpsc::Receiver<Result<Line, LineError>> {
    let (sender, lines) = mpsc::channel(AHEAD_MAX);
    std::thread::spawn(move || {
        for line in Lines::new(std::io::stdin().lock()) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// Lines of any input.
struct Lines<R> {
    input: BufReader<R>,
    number: u64,
    bytes_read: u64,
    is_over: bool,
}

impl<R: Read> Lines<R> {
    fn new(input: R) -> Self {
        let input = BufReader::with_capacity(READ_BYTES, input);
        Self { input, number: 0, bytes_read: 0, is_over: false }
    }

    /// The next line, blank or not.
    fn read(&mut self) -> Result<Option<Vec<u8>>, LineError> {
        let mut text = Vec::new();
        let most = LINE_BYTES_MAX as u64 + 2;
        let read = (&mut self.input).take(most).read_until(b'\n', &mut text);
        let read = read
            .map_err(|error| LineError::Read { number: self.number, reason: error.to_string() })?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        self.bytes_read += read as u64;
        for end in [b'\n', b'\r'] {
            text.pop_if(|last| *last == end);
        }
        if text.len() > LINE_BYTES_MAX {
            return Err(LineError::TooLong { number: self.number });
        }
        Ok(Some(text))
    }
}

impl<R: Read> Iterator for Lines<R> {
    type Item = Result<Line, LineError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.is_over {
            match self.read() {
                Ok(Some(text)) if text.iter().all(u8::is_ascii_whitespace) => {}
                Ok(Some(text)) => {
                    let (number, bytes_read) = (self.number, self.bytes_read);
                    return Some(Ok(Line { number, text, bytes_read }));
                }
                Ok(None) => self.is_over = true,
                Err(error) => {
                    self.is_over = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &[u8]) -> Vec<Result<(u64, String), LineError>> {
        let found = Lines::new(input);
        found
            .map(|line| line.map(|line| (line.number, String::from_utf8(line.text).unwrap())))
            .collect()
    }

    #[test]
    fn blank_lines_are_counted_and_passed_over() {
        let found = lines(b"1\n\n  \n2\r\n3");
        let is = |number, text: &str| Ok((number, text.to_owned()));
        assert_eq!(found, [is(1, "1"), is(4, "2"), is(5, "3")]);
        assert!(lines(b"").is_empty());
    }

    #[test]
    fn a_line_that_is_too_long_ends_it_before_it_is_held() {
        let mut input = b"1\n".to_vec();
        input.resize(2 + LINE_BYTES_MAX, b'x');
        assert_eq!(lines(&input).len(), 2);
        input.resize(2 + LINE_BYTES_MAX + 1, b'x');
        input.extend_from_slice(b"\n3\n");
        assert_eq!(lines(&input), [Ok((1, "1".to_owned())), Err(LineError::TooLong { number: 2 })]);
    }
}
