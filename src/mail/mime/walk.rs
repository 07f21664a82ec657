//! Finds the structure of a message (RFC 2046 §5.1) in one pass over the raw bytes, without recursion or copies.
//!
//! A nested message is a leaf like any other, so depth comes from multiparts alone. Limits are enforced here, before
//! any part is decoded.

use std::collections::HashMap;
use std::ops::Range;

use memchr::memmem;

use super::Limits;
use super::header::{Field, Fields, is_field_of_part};
use super::params::ParameterizedValue;
use super::words;

/// Longer delimiter lines are text (RFC 2046 §5.1.1 allows a boundary of 70 characters).
const MAX_DELIMITER: usize = 300;
/// Maximum multiparts parsed by a boundary that they do not declare; each of them is scanned twice.
const MAX_GUESSED_BOUNDARIES: usize = 8;
/// Maximum lines before the first part of such a multipart; with more of them it is a text that quotes a part.
const MAX_PREAMBLE_LINES: usize = 3;

/// The role of a multipart for its children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parent {
    /// No multipart: the part is the message itself.
    Root,
    /// RFC 2046 §5.1.4.
    Alternative,
    /// RFC 2387.
    Related,
    /// RFC 2046 §5.1.5: children are messages by default.
    Digest,
    /// `multipart/mixed` and all others, which are treated alike (RFC 2046 §5.1.7).
    Mixed,
}

/// The raw header fields of a part that describe its body.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PartHeader<'x> {
    pub(crate) content_type: Option<&'x [u8]>,
    pub(crate) disposition: Option<&'x [u8]>,
    pub(crate) encoding: Option<&'x [u8]>,
    pub(crate) content_id: Option<&'x [u8]>,
}

impl<'x> PartHeader<'x> {
    /// Keeps the field if it is one of these; the first of repeated fields counts.
    fn take(&mut self, field: &Field<'x>) {
        let slot = match field.name.len() {
            12 if field.is("Content-Type") => &mut self.content_type,
            19 if field.is("Content-Disposition") => &mut self.disposition,
            25 if field.is("Content-Transfer-Encoding") => &mut self.encoding,
            10 if field.is("Content-ID") => &mut self.content_id,
            _ => return,
        };
        slot.get_or_insert(field.value);
    }

    /// Returns the Content-ID without its angle brackets.
    pub(crate) fn content_id(&self) -> Option<String> {
        bare_id(&words::decode_text(self.content_id?))
    }
}

fn bare_id(id: &str) -> Option<String> {
    let id = id.trim_matches(['<', '>', ' ']);
    (!id.is_empty() && id.len() <= 998).then(|| id.to_owned())
}

/// A part without children.
#[derive(Debug)]
pub(crate) struct Leaf<'x> {
    pub(crate) header: PartHeader<'x>,
    /// Range of its body in the raw message.
    pub(crate) body: Range<usize>,
    pub(crate) parent: Parent,
    /// True for the first child of its parent, and for the root that a multipart/related names (RFC 2387 §3.2).
    pub(crate) first: bool,
    pub(crate) kind: LeafKind,
}

/// A part with children.
#[derive(Debug)]
pub(crate) struct Multipart<'x> {
    pub(crate) header: PartHeader<'x>,
    /// Range of its body in the raw message, including its children.
    pub(crate) body: Range<usize>,
}

/// The interpretation of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeafKind {
    /// As its header declares.
    Declared,
    /// A multipart in which no part began: displayed as text.
    EmptyMultipart,
    /// A multipart that was not opened because of a limit.
    UnopenedMultipart,
}

/// The structure of a message.
#[derive(Debug, Default)]
pub(crate) struct Structure<'x> {
    pub(crate) leaves: Vec<Leaf<'x>>,
    /// Opened multiparts, in the order in which they end.
    pub(crate) multiparts: Vec<Multipart<'x>>,
    /// Range of each part's header, the message's first, in order, with the declared Content-Type.
    pub(crate) headers: Vec<(Range<usize>, Option<&'x [u8]>)>,
    /// Offset of the message header.
    pub(crate) header_offset: usize,
    /// Offset of the message body.
    pub(crate) body_offset: usize,
    /// True if the message header exceeded a limit.
    pub(crate) header_truncated: bool,
    /// True if the message header has lines that are not fields.
    pub(crate) has_stray_lines: bool,
    /// True if a limit ended the walk early.
    pub(crate) truncated: bool,
}

struct OpenMultipart<'x> {
    /// Empty if none is declared.
    boundary: Vec<u8>,
    kind: Parent,
    /// The Content-ID of the root part of a multipart/related.
    start: Option<String>,
    header: PartHeader<'x>,
    body: usize,
    parent: Parent,
    first: bool,
    children: usize,
}

struct Delimiter {
    line: Range<usize>,
    level: usize,
    closing: bool,
}

/// Walks over the whole message; `top` is called with every field of its header.
pub(crate) fn walk<'x>(raw: &'x [u8], limits: &Limits, mut top: impl FnMut(&Field<'x>)) -> Structure<'x> {
    let mut walk = Walk {
        raw,
        limits,
        stack: Vec::new(),
        levels: BoundaryLevels::new(),
        out: Structure::default(),
        parts: 0,
        guessed_boundaries: 0,
    };
    let mut at = 0;
    loop {
        walk.parts += 1;
        if walk.parts > limits.max_parts {
            walk.out.truncated = true;
            let open = walk.stack.drain(..).map(|open| Multipart { header: open.header, body: open.body..raw.len() });
            walk.out.multiparts.extend(open);
            break;
        }
        let leaf = walk.begin_part(at, &mut top);
        match walk.next_part(leaf) {
            Some(next) => at = next,
            None => break,
        }
    }
    walk.out
}

/// Maps each boundary to the open multiparts that use it, the innermost last. RFC 2046 §5.1.2 requires unique
/// boundaries, but some senders reuse the boundary of the enclosing multipart.
type BoundaryLevels = HashMap<Vec<u8>, Vec<usize>>;

struct Walk<'x, 'l> {
    raw: &'x [u8],
    limits: &'l Limits,
    stack: Vec<OpenMultipart<'x>>,
    levels: BoundaryLevels,
    out: Structure<'x>,
    parts: usize,
    /// Boundaries guessed from the body so far.
    guessed_boundaries: usize,
}

impl<'x> Walk<'x, '_> {
    /// Parses the header of the part at `at`. A multipart is opened; anything else is a leaf with an end yet unknown.
    fn begin_part(&mut self, at: usize, top: &mut impl FnMut(&Field<'x>)) -> (usize, Option<Leaf<'x>>) {
        let mut header = PartHeader::default();
        let root = self.parts == 1;
        let mut fields =
            if root { Fields::new(self.raw, at, self.limits) } else { Fields::of_part(self.raw, at, self.limits) };
        while let Some(field) = fields.next(|line| delimiter(&self.levels, line).is_some()) {
            header.take(&field);
            if root {
                top(&field);
            }
        }
        let body = fields.body_offset();
        self.out.truncated |= fields.truncated;
        self.out.headers.push((at..body, header.content_type));
        if root {
            self.out.header_offset = fields.header_offset();
            self.out.body_offset = body;
            self.out.header_truncated = fields.truncated;
            self.out.has_stray_lines = fields.has_stray_lines;
        }
        let (parent, first) = match self.stack.last_mut() {
            Some(open) => {
                open.children += 1;
                let is_start = || open.start.is_some() && open.start == header.content_id();
                (open.kind, open.children == 1 || is_start())
            }
            None => (Parent::Root, true),
        };
        let mut reading = LeafKind::Declared;
        if let Some(content_type) = header.content_type.filter(|raw| is_multipart(raw)) {
            let content_type = ParameterizedValue::parse(content_type);
            let boundary = boundary(&content_type).unwrap_or_default();
            if self.stack.len() < self.limits.max_depth {
                if !boundary.is_empty() {
                    self.levels.entry(boundary.clone()).or_default().push(self.stack.len());
                }
                let kind = parent_kind(&content_type.main);
                let start =
                    content_type.get("start").as_deref().and_then(bare_id).filter(|_| kind == Parent::Related);
                self.stack.push(OpenMultipart { boundary, kind, start, header, body, parent, first, children: 0 });
                return (body, None);
            }
            self.out.truncated = true;
            reading = LeafKind::UnopenedMultipart;
        }
        (body, Some(Leaf { header, body: body..body, parent, first, kind: reading }))
    }

    /// Advances to the next delimiter that begins a part, closing those that end before it; `None` at the end of the
    /// message.
    fn next_part(&mut self, (body, mut leaf): (usize, Option<Leaf<'x>>)) -> Option<usize> {
        let mut at = body;
        loop {
            let found = self.find_delimiter(at);
            let end = found.as_ref().map_or(self.raw.len(), |found| self.before_line_break(found.line.start));
            if let Some(mut leaf) = leaf.take() {
                leaf.body.end = end.max(leaf.body.start);
                self.out.leaves.push(leaf);
            }
            if let Some(body) = self.reread_innermost(found.as_ref().map_or(0, |found| found.level + 1), end) {
                at = body;
                continue;
            }
            let Some(found) = found else {
                self.close_above(0, end);
                return None;
            };
            self.close_above(found.level + 1, end);
            if !found.closing {
                return Some(found.line.end);
            }
            self.close_above(found.level, end);
            at = found.line.end;
        }
    }

    /// Restarts the innermost multipart, if it is at `level` or deeper, no part began in it before `end`, and its
    /// body uses another boundary than the declared one. Returns the offset of its body.
    fn reread_innermost(&mut self, level: usize, end: usize) -> Option<usize> {
        let innermost = self.stack.len().checked_sub(1).filter(|innermost| *innermost >= level)?;
        let open = self.stack.last_mut().filter(|open| open.children == 0)?;
        let found = guess_boundary(self.raw.get(open.body..end)?)
            .filter(|_| self.guessed_boundaries < MAX_GUESSED_BOUNDARIES)?;
        self.guessed_boundaries += 1;
        let named = std::mem::replace(&mut open.boundary, found.to_vec());
        let body = open.body;
        self.unregister_boundary(&named);
        self.levels.entry(found.to_vec()).or_default().push(innermost);
        Some(body)
    }

    /// Removes the innermost multipart from the users of this boundary.
    fn unregister_boundary(&mut self, boundary: &[u8]) {
        if let Some(levels) = self.levels.get_mut(boundary) {
            levels.pop();
            if levels.is_empty() {
                self.levels.remove(boundary);
            }
        }
    }

    /// Closes the open multiparts from `level` on. One in which no part began is displayed as text.
    fn close_above(&mut self, level: usize, end: usize) {
        while self.stack.len() > level {
            let Some(open) = self.stack.pop() else { return };
            self.unregister_boundary(&open.boundary);
            let OpenMultipart { header, body, parent, first, .. } = open;
            let body = body..end.max(body);
            if open.children > 0 {
                self.out.multiparts.push(Multipart { header, body });
            } else {
                self.out.leaves.push(Leaf { header, body, parent, first, kind: LeafKind::EmptyMultipart });
            }
        }
    }

    /// Finds the next delimiter line from `at`, which is the beginning of a line.
    fn find_delimiter(&self, mut at: usize) -> Option<Delimiter> {
        if self.levels.is_empty() {
            return None;
        }
        loop {
            let rest = self.raw.get(at..)?;
            let start = if rest.starts_with(b"--") { at } else { at + memmem::find(rest, b"\n--")? + 1 };
            let rest = self.raw.get(start..)?;
            let length = memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
            if let Some((level, closing)) = delimiter(&self.levels, rest.get(..length).unwrap_or_default()) {
                return Some(Delimiter { line: start..start + length, level, closing });
            }
            at = start + length;
        }
    }

    /// RFC 2046 §5.1.1: the line break before a delimiter belongs to the delimiter.
    fn before_line_break(&self, at: usize) -> usize {
        let before = self.raw.get(..at).unwrap_or_default();
        let before = before.strip_suffix(b"\n").map_or(before, |line| line.strip_suffix(b"\r").unwrap_or(line));
        before.len()
    }
}

/// Returns the level whose delimiter `line` is, and true for a close delimiter. If several levels share a boundary,
/// the innermost ends first.
fn delimiter(levels: &BoundaryLevels, line: &[u8]) -> Option<(usize, bool)> {
    if levels.is_empty() || line.len() > MAX_DELIMITER {
        return None;
    }
    let line = line.strip_prefix(b"--")?.trim_ascii_end();
    let innermost = |boundary: &[u8]| levels.get(boundary).and_then(|levels| levels.last().copied());
    let open = innermost(line).map(|level| (level, false));
    open.or_else(|| innermost(line.strip_suffix(b"--")?).map(|level| (level, true)))
}

/// Guesses the boundary of a multipart from its body: that of a delimiter line at its beginning, if a delimiter with
/// it comes right before the header of a part. Senders and gateways truncate, alter or omit the parameter.
fn guess_boundary(body: &[u8]) -> Option<&[u8]> {
    let mut preamble = 0;
    let mut rest = body;
    while preamble <= MAX_PREAMBLE_LINES && !rest.is_empty() {
        let (line, after) = split_line(rest);
        rest = after;
        let boundary = line.strip_prefix(b"--").map(<[u8]>::trim_ascii_end).unwrap_or_default();
        if !boundary.is_empty() && line.len() <= MAX_DELIMITER && begins_part(boundary, after) {
            return Some(boundary);
        }
        preamble += usize::from(!line.trim_ascii().is_empty());
    }
    None
}

/// True if the header of a part begins at `after`, or after another delimiter with `boundary`.
fn begins_part(boundary: &[u8], mut after: &[u8]) -> bool {
    loop {
        if is_field_of_part(split_line(after).0) {
            return true;
        }
        let Some(found) = memmem::find(after, b"\n--") else { return false };
        let (line, rest) = split_line(after.get(found + 3..).unwrap_or_default());
        after = if line.trim_ascii_end() == boundary { rest } else { after.get(found + 1..).unwrap_or_default() };
    }
}

/// Splits `raw` after its first line break.
fn split_line(raw: &[u8]) -> (&[u8], &[u8]) {
    let length = memchr::memchr(b'\n', raw).map_or(raw.len(), |end| end + 1);
    raw.split_at_checked(length).unwrap_or((raw, &[]))
}

fn is_multipart(raw: &[u8]) -> bool {
    raw.trim_ascii_start().get(..10).is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/"))
}

fn boundary(content_type: &ParameterizedValue) -> Option<Vec<u8>> {
    let boundary = content_type.bytes("boundary")?.trim_ascii_end().to_vec();
    (!boundary.is_empty() && boundary.len() < MAX_DELIMITER - 6).then_some(boundary)
}

fn parent_kind(main: &str) -> Parent {
    match main {
        "multipart/alternative" => Parent::Alternative,
        "multipart/related" => Parent::Related,
        "multipart/digest" => Parent::Digest,
        _ => Parent::Mixed,
    }
}
