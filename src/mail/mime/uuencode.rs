//! Decodes uuencode, in which some programs still send files: `begin 644 name`, lines of up to 45 octets preceded by
//! their count, `end`. A file without its first or last line is still decoded; text around it is skipped.

use std::ops::Range;

use memchr::memmem;

/// Data lines have 61 characters; anything beyond this limit is dropped.
const MAX_LINE: usize = 200;
/// A file must begin within so many octets of a body to be recognized.
const MAX_PREFACE: usize = 4096;

/// Decodes lines that arrive in pieces of any size.
#[derive(Clone, Debug)]
pub(crate) struct LineDecoder {
    line: Vec<u8>,
    ended: bool,
}

impl LineDecoder {
    /// Starts at the beginning of a part.
    pub(crate) const fn new() -> Self {
        Self { line: Vec::new(), ended: false }
    }

    /// Decodes the complete lines so far and appends them to `out`.
    pub(crate) fn feed(&mut self, raw: &[u8], out: &mut Vec<u8>) {
        for piece in raw.split_inclusive(|byte| *byte == b'\n') {
            let room = MAX_LINE.saturating_sub(self.line.len());
            self.line.extend_from_slice(piece.get(..room).unwrap_or(piece));
            if piece.ends_with(b"\n") {
                self.end_of_line(out);
            }
        }
    }

    /// Decodes the text after the last line break.
    pub(crate) fn finish(mut self, out: &mut Vec<u8>) {
        self.end_of_line(out);
    }

    fn end_of_line(&mut self, out: &mut Vec<u8>) {
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line == b"end" {
            self.ended = true;
        } else if !self.ended && name_of(line).is_none() {
            out.extend(decode_line(line).unwrap_or_default());
        }
        self.line.clear();
    }
}

/// True if `body` contains a file.
pub(crate) fn has_file(body: &[u8]) -> bool {
    let mut lines = head(body);
    lines.any(|line| name_of(line).is_some() || decode_line(line).is_some_and(|octets| !octets.is_empty()))
}

/// True if `body` contains more than one file.
pub(crate) fn has_several_files(body: &[u8]) -> bool {
    lines(body).filter(|line| name_of(line).is_some()).nth(1).is_some()
}

/// True if `body` contains nothing but a file.
pub(crate) fn is_only_file(body: &[u8]) -> bool {
    let mut ended = false;
    lines(body).all(|line| {
        let fits =
            line.trim_ascii().is_empty() || (!ended && (name_of(line).is_some() || decode_line(line).is_some()));
        ended |= line == b"end";
        fits || line == b"end"
    })
}

/// Finds the next file in a text, from its first line to its last. It must be complete, since anything less may be
/// prose.
pub(crate) fn find_file(text: &[u8], from: usize) -> Option<Range<usize>> {
    let mut at = from;
    loop {
        let start = at + memmem::find(text.get(at..)?, b"begin ")?;
        at = start + 1;
        if text.get(..start)?.last().is_none_or(|before| *before == b'\n')
            && let Some(length) = length_of_file(text.get(start..)?)
        {
            return Some(start..start + length);
        }
    }
}

/// Returns the length of the file at the beginning of `text`, if it is complete.
fn length_of_file(text: &[u8]) -> Option<usize> {
    let (mut at, mut has_data) = (0, false);
    for piece in text.split_inclusive(|byte| *byte == b'\n') {
        let line = piece.strip_suffix(b"\n").unwrap_or(piece);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if at == 0 {
            name_of(line).filter(|name| !name.is_empty())?;
        } else if line == b"end" {
            return has_data.then_some(at + piece.len());
        } else if !line.is_empty() {
            has_data |= !decode_line(line)?.is_empty();
        }
        at += piece.len();
    }
    None
}

/// Returns the raw name of the file in `body`.
pub(crate) fn filename(body: &[u8]) -> Option<&[u8]> {
    head(body).find_map(name_of).filter(|name| !name.is_empty())
}

fn head(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    lines(body.get(..MAX_PREFACE).unwrap_or(body))
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// Returns the name in a line such as `begin 644 name`.
fn name_of(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(b"begin ")?.trim_ascii_start();
    let digits = rest.iter().take_while(|byte| (b'0'..=b'7').contains(*byte)).count();
    let name = rest.get(digits..)?;
    ((3..=5).contains(&digits) && matches!(name.first(), None | Some(b' '))).then(|| name.trim_ascii())
}

/// Decodes a line if its length matches its count. Trailing spaces, which represent zeros, may have been stripped;
/// some encoders append one character or a checksum.
fn decode_line(line: &[u8]) -> Option<Vec<u8>> {
    let (count, text) = line.split_first()?;
    let count = usize::from(value(*count)?);
    let length = count.div_ceil(3) * 4;
    if text.len() > length + 2 {
        return None;
    }
    let mut octets = Vec::with_capacity(count.div_ceil(3) * 3);
    let mut values = text.iter().take(length).copied().chain(std::iter::repeat(b' ')).take(length).map(value);
    while let Some(first) = values.next() {
        let (first, second, third, fourth) = (first?, values.next()??, values.next()??, values.next()??);
        octets.extend([first << 2 | second >> 4, second << 4 | third >> 2, third << 6 | fourth]);
    }
    octets.truncate(count);
    Some(octets)
}

const fn value(character: u8) -> Option<u8> {
    match character {
        b' '..=b'`' => Some((character - b' ') & 0x3f),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{LineDecoder, filename, find_file, has_file, has_several_files, is_only_file};

    fn file(raw: &str) -> String {
        let mut out = Vec::new();
        let mut lines = LineDecoder::new();
        lines.feed(raw.as_bytes(), &mut out);
        lines.finish(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn a_file_is_read_with_or_without_its_first_and_last_line() {
        for raw in [
            "begin 644 t.txt\r\n#0V%T\r\n`\r\nend\r\n",
            "begin 0644 t.txt\n#0V%T\n \nend\n",
            "see below\r\n\r\nbegin 644 t.txt\r\n#0V%T\r\n`\r\nend\r\n#0V%T\r\n",
            "begin 644 t.txt\n#0V%T\n\nend\n",
            "begin 644 t.txt\n#0V%T",
            "#0V%T\r\n`\r\n",
            "begin 644 t.txt\n#0V%TX\n`\nend",
        ] {
            assert_eq!(file(raw), "Cat", "{raw:?}");
            assert!(has_file(raw.as_bytes()), "{raw:?}");
        }
        assert_eq!(file("begin 644 zeros\n#\n`\nend"), "\0\0\0", "blanks at the end of a line were cut off");
        assert_eq!(filename(b"begin 644 an old name.txt\r\n"), Some(b"an old name.txt".as_slice()));
    }

    #[test]
    fn what_stands_around_a_file_is_seen() {
        let file = "begin 644 t.txt\r\n#0V%T\r\n`\r\nend\r\n";
        for alone in [file.to_owned(), format!("\r\n{file}\r\n"), "#0V%T\r\n`\r\n".to_owned()] {
            assert!(is_only_file(alone.as_bytes()) && !has_several_files(alone.as_bytes()), "{alone:?}");
        }
        for more in [format!("Dear Bob\r\n\r\n{file}"), format!("{file}Regards\r\n"), format!("{file}{file}")] {
            assert!(!is_only_file(more.as_bytes()), "{more:?}");
        }
        assert!(has_several_files(format!("{file}\r\n{file}").as_bytes()));
    }

    #[test]
    fn whole_files_are_found_in_a_text() {
        let file = "begin 644 t.txt\r\n#0V%T\r\n`\r\nend\r\n";
        let text = format!("see:\r\n\r\n{file}and\r\n{file}");
        let first = find_file(text.as_bytes(), 0);
        assert_eq!(first, Some(8..8 + file.len()));
        let second = 13 + file.len();
        assert_eq!(find_file(text.as_bytes(), 8 + file.len()), Some(second..second + file.len()));
        assert_eq!(find_file(text.as_bytes(), text.len()), None);
        for text in [
            "begin 644 t.txt\n#0V%T\n`\n",
            "begin 644 t.txt\nthe story\nend\n",
            "begin 644 t.txt\nend\n",
            "> begin 644 t.txt\n#0V%T\n`\nend\n",
            "begin 644\n#0V%T\n`\nend\n",
            "",
        ] {
            assert_eq!(find_file(text.as_bytes(), 0), None, "{text:?}");
        }
    }

    #[test]
    fn a_text_is_no_file() {
        assert!(!has_file(b"begin the day with a smile\r\nand end it so\r\n"));
        assert!(!has_file(b""));
        assert_eq!(filename(b"begin 644\r\n"), None);
    }
}
