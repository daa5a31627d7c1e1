//! Lines of a file that may have been cut short, with their numbers.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::bufread::MultiGzDecoder;
use thiserror::Error;

/// The name of the standard input as a file.
const STDIN: &str = "-";

/// How data starts that gzip compressed.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Characters of a reason that are shown: it may quote a line of megabytes.
const LONGEST_REASON: usize = 300;

/// How files start that are no text, and what they are.
const OTHERS: [(&[u8], &str); 6] = [
    (b"PK\x03\x04", "a zip archive: unpack it first"),
    (b"\xfd7zXZ", "compressed by xz: unpack it first"),
    (b"BZh", "compressed by bzip2: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: unpack it first"),
    (b"\xff\xfe", "text in UTF-16: convert it to UTF-8 first"),
    (b"\xfe\xff", "text in UTF-16: convert it to UTF-8 first"),
];

/// What some editors put at the start of a text.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// No writer produces longer lines; a file without line ends must not fill the memory.
const MAX_LINE: u64 = 64 << 20;

/// Why a recording cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file cannot be opened or read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the system call.
        source: std::io::Error,
    },
    /// A line is invalid.
    #[error("{}:{line}: {what}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
}

/// One line of a file.
pub(super) struct Line {
    pub(super) text: String,
    pub(super) number: u64,
    /// Whether it has no line end: it may be incomplete.
    pub(super) cut: bool,
}

/// The lines of a file, one at a time.
pub(super) struct Lines {
    path: PathBuf,
    input: Box<dyn BufRead>,
    number: u64,
    bytes: u64,
}

impl Lines {
    /// Opens a file; `-` is the standard input.
    pub(super) fn open(path: &Path) -> Result<Self, ReadError> {
        if path.as_os_str() == STDIN {
            return Self::of(Path::new("standard input"), io::stdin());
        }
        let file =
            File::open(path).map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
        Self::of(path, file)
    }

    fn of(path: &Path, file: impl Read + 'static) -> Result<Self, ReadError> {
        let mut input = BufReader::with_capacity(1 << 16, file);
        let start =
            input.fill_buf().map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
        if let Some((_, what)) = OTHERS.iter().find(|(magic, _)| start.starts_with(magic)) {
            let what = format!("it is {what}");
            return Err(ReadError::Corrupt { path: path.to_owned(), line: 1, what });
        }
        if start.starts_with(&GZIP) {
            let inflated = BufReader::with_capacity(1 << 16, MultiGzDecoder::new(input));
            return Ok(Self::from_input(path, Box::new(inflated)));
        }
        Ok(Self::from_input(path, Box::new(input)))
    }

    /// Lines of `input`; errors name it `path`.
    pub(super) fn from_input(path: &Path, input: Box<dyn BufRead>) -> Self {
        Self { path: path.to_owned(), input, number: 0, bytes: 0 }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes read so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next line without its end; `None` at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<Line>, ReadError> {
        let mut bytes = Vec::new();
        let mut input = (&mut self.input).take(MAX_LINE);
        let read = input
            .read_until(b'\n', &mut bytes)
            .map_err(|source| ReadError::Io { path: self.path.clone(), source })?;
        if read == 0 {
            return match self.number {
                0 => Err(self.corrupt(1, "the file is empty")),
                _ => Ok(None),
            };
        }
        self.number += 1;
        if self.number == 1 && bytes.starts_with(BYTE_ORDER_MARK) {
            bytes.drain(..BYTE_ORDER_MARK.len());
        }
        self.bytes += read as u64;
        if read as u64 == MAX_LINE {
            return Err(self.corrupt(self.number, "line is longer than 64 MiB"));
        }
        let cut = bytes.last() != Some(&b'\n');
        while matches!(bytes.last(), Some(b'\n' | b'\r')) {
            bytes.pop();
        }
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            // The file may have been cut in the middle of a character.
            Err(error) if cut => String::from_utf8_lossy(error.as_bytes()).into_owned(),
            Err(_) => return Err(self.corrupt(self.number, "line is not text (UTF-8)")),
        };
        Ok(Some(Line { text, number: self.number, cut }))
    }

    pub(super) fn corrupt(&self, line: u64, what: impl Into<String>) -> ReadError {
        let mut what: String = what.into();
        if let Some((end, _)) = what.char_indices().nth(LONGEST_REASON) {
            what.truncate(end);
            what.push_str("..");
        }
        ReadError::Corrupt { path: self.path.clone(), line, what }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &'static [u8]) -> Vec<(String, bool)> {
        let mut lines = Lines::from_input(Path::new("x.hlog"), Box::new(bytes));
        let mut all = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            all.push((line.text, line.cut));
        }
        assert_eq!(lines.bytes(), bytes.len() as u64);
        all
    }

    #[test]
    fn the_last_line_may_lack_its_end() {
        let empty = Lines::from_input(Path::new("x.hlog"), Box::new(&b""[..])).next().err();
        assert_eq!(empty.unwrap().to_string(), "x.hlog:1: the file is empty");
        assert_eq!(lines(b"\xef\xbb\xbfa\n"), [("a", false)].map(own));
        assert_eq!(lines(b"a\r\n\nb"), [("a", false), ("", false), ("b", true)].map(own));
        assert_eq!(lines(b"a\xc3"), [("a\u{fffd}", true)].map(own));
    }

    fn own((text, cut): (&str, bool)) -> (String, bool) {
        (text.to_owned(), cut)
    }

    #[test]
    fn errors_name_file_and_line() {
        let mut lines = Lines::from_input(Path::new("x.hlog"), Box::new(&b"a\n\xff\n"[..]));
        lines.next().unwrap();
        let error = lines.next().err().unwrap();
        assert_eq!(error.to_string(), "x.hlog:2: line is not text (UTF-8)");
        let error = Lines::open(Path::new("/nonexistent")).err().unwrap();
        assert_eq!(error.to_string(), "cannot read /nonexistent");
    }
}
