//! A block of searchable text: some hundred messages of one account, case-folded, one after another. Pure; [`super`]
//! handles the rows.
//!
//! A walk over blocks reads text at the speed of memory, where a walk over message rows would read all their columns,
//! and its cost is bounded by the account's own mail whatever the needle. The `grams` of a block rule out most needles
//! that it does not hold, so that its text need not be read at all.

use crate::id::DomainRowId;
use memchr::memmem;

/// Octets of text at which a block is full.
pub(crate) const FULL: usize = 64 * 1024;
/// Follows each field. UTF-8 never contains it, so no needle reaches from one field into the next.
const END: u8 = 0xFF;
/// Octets of an entry: its millisecond, its domain, the end of its text.
const ENTRY: usize = 20;
/// Domain of a message that has none.
const NO_DOMAIN: i64 = 0;
/// Domain of a message that was removed.
const GONE: DomainRowId = DomainRowId::new(-1);
/// Octets of the longest gram: four, because nearly every run of three digits is somewhere in a block.
const GRAM: usize = 4;
/// Octets of `grams`, minimum and maximum: a bit for each octet of a full block's text.
const GRAMS: (usize, usize) = (64, 8 * 1024);

/// Folds case, so that texts that differ only in case become equal.
///
/// Each character is folded by itself, by its upper case: `ß` becomes `ss`, and both small sigmas are one.
pub(crate) fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

/// A text to search for.
pub(crate) struct Needle {
    folded: String,
    finder: memmem::Finder<'static>,
}

impl Needle {
    /// Prepares the text given by the client, which is not empty.
    pub(crate) fn new(text: &str) -> Self {
        let folded = fold(text);
        let finder = memmem::Finder::new(folded.as_bytes()).into_owned();
        Self { folded, finder }
    }

    /// Returns true if a text that is in no block yet contains it.
    pub(crate) fn is_in(&self, text: &str) -> bool {
        self.finder.find(fold(text).as_bytes()).is_some()
    }

    /// Returns true if a block with these `grams` may contain it.
    pub(crate) fn may_be_in(&self, grams: &[u8]) -> bool {
        let needle = self.folded.as_bytes();
        needle.windows(needle.len().clamp(1, GRAM)).all(|gram| {
            let (octet, bit) = place(gram, grams.len());
            grams.get(octet).is_some_and(|found| found & bit != 0)
        })
    }

    /// Returns the entries of a block whose text contains it, oldest first.
    pub(crate) fn entries(&self, block: &Stored<'_>) -> Vec<Entry> {
        let mut found = Vec::new();
        let mut from = 0;
        let mut entries = block.entries();
        while let Some(at) = block.texts.get(from..).and_then(|rest| self.finder.find(rest)) {
            let Some(entry) = entries.find(|entry| entry.end > from + at) else { break };
            from = entry.end;
            found.push(entry);
        }
        found
    }
}

/// One message in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Millisecond of the message, which identifies it within its account.
    pub(crate) received_at: i64,
    /// Domain of the message; none for the host name itself.
    pub(crate) domain: Option<DomainRowId>,
    end: usize,
}

/// A block as stored in its row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored<'a> {
    /// [`ENTRY`] octets for each message, by age.
    pub(crate) entries: &'a [u8],
    /// The texts in the same order.
    pub(crate) texts: &'a [u8],
}

impl<'a> Stored<'a> {
    fn entries(&self) -> impl Iterator<Item = Entry> + use<'a> {
        let (rows, _) = self.entries.as_chunks::<ENTRY>();
        rows.iter().map(|row| {
            let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, end @ ..] = *row;
            let domain = i64::from_le_bytes([i, j, k, l, m, n, o, p]);
            Entry {
                received_at: i64::from_le_bytes([a, b, c, d, e, f, g, h]),
                domain: (domain != NO_DOMAIN).then_some(DomainRowId::new(domain)),
                end: usize::try_from(u32::from_le_bytes(end)).unwrap_or(usize::MAX),
            }
        })
    }

    /// Returns its messages with their texts, without the removed ones.
    pub(crate) fn messages(&self) -> Vec<Message> {
        let mut from = 0;
        let message = |entry: Entry| {
            let text = self.texts.get(from..entry.end).unwrap_or_default().to_vec();
            from = entry.end;
            Message { received_at: entry.received_at, domain: entry.domain, text }
        };
        self.entries().map(message).filter(|message| message.domain != Some(GONE)).collect()
    }

    /// Returns both columns with one message wiped, of the same length as before; none if it is not here.
    pub(crate) fn without(&self, received_at: i64) -> Option<Wiped> {
        let mut from = 0;
        let (mut entries, mut texts) = (self.entries.to_vec(), self.texts.to_vec());
        let (mut is_here, mut others) = (false, 0);
        for (entry, row) in self.entries().zip(entries.as_chunks_mut::<ENTRY>().0) {
            let is_live = entry.domain != Some(GONE);
            if entry.received_at == received_at && is_live {
                is_here = true;
                row.iter_mut().skip(8).zip(GONE.get().to_le_bytes()).for_each(|(octet, gone)| *octet = gone);
                texts.get_mut(from..entry.end)?.fill(END);
            } else {
                others += usize::from(is_live);
            }
            from = entry.end;
        }
        is_here.then_some(Wiped { entries, texts, is_empty: others == 0 })
    }
}

/// A block after one of its messages was wiped.
#[derive(Debug)]
pub(crate) struct Wiped {
    pub(crate) entries: Vec<u8>,
    pub(crate) texts: Vec<u8>,
    /// True if that was its last message.
    pub(crate) is_empty: bool,
}

/// A message to be added to a block.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// Millisecond of the message.
    pub(crate) received_at: i64,
    domain: Option<DomainRowId>,
    text: Vec<u8>,
}

impl Message {
    /// Folds the searchable fields of a message.
    pub(crate) fn new(received_at: i64, domain: Option<DomainRowId>, fields: [&str; 3]) -> Self {
        let mut text = Vec::with_capacity(fields.iter().map(|field| field.len() + 1).sum());
        for field in fields {
            text.extend_from_slice(fold(field).as_bytes());
            text.push(END);
        }
        Self { received_at, domain, text }
    }

    /// Returns the octets of its text.
    pub(crate) fn size(&self) -> usize {
        self.text.len()
    }
}

/// A block to be stored.
#[derive(Debug)]
pub(crate) struct Block {
    /// Millisecond of its oldest message.
    pub(crate) oldest: i64,
    /// Millisecond of its newest message.
    pub(crate) newest: i64,
    /// Runs of one to four octets in its text, as a set that may give false positives.
    pub(crate) grams: Vec<u8>,
    pub(crate) entries: Vec<u8>,
    pub(crate) texts: Vec<u8>,
}

impl Block {
    /// Builds a block of these messages; none without any.
    pub(crate) fn of(mut messages: Vec<Message>) -> Option<Self> {
        messages.sort_by_key(|message| message.received_at);
        let (oldest, newest) = (messages.first()?.received_at, messages.last()?.received_at);
        let mut texts = Vec::with_capacity(messages.iter().map(Message::size).sum());
        let mut entries = Vec::with_capacity(messages.len() * ENTRY);
        for message in &messages {
            texts.extend_from_slice(&message.text);
            entries.extend(message.received_at.to_le_bytes());
            entries.extend(message.domain.map_or(NO_DOMAIN, DomainRowId::get).to_le_bytes());
            entries.extend(u32::try_from(texts.len()).unwrap_or(u32::MAX).to_le_bytes());
        }
        Some(Self { oldest, newest, grams: grams(&texts), entries, texts })
    }
}

fn grams(texts: &[u8]) -> Vec<u8> {
    let octets = (texts.len() / 8).next_power_of_two().clamp(GRAMS.0, GRAMS.1);
    let mut grams = vec![0; octets];
    for at in 0..texts.len() {
        for length in 1..=GRAM {
            let Some(gram) = texts.get(at..at + length) else { break };
            if gram.last() == Some(&END) {
                break;
            }
            let (octet, bit) = place(gram, octets);
            if let Some(found) = grams.get_mut(octet) {
                *found |= bit;
            }
        }
    }
    grams
}

/// Returns the position of a gram in a set of this many octets, a power of two.
fn place(gram: &[u8], octets: usize) -> (usize, u8) {
    let value = gram.iter().fold(1_u64, |value, octet| (value << 8) | u64::from(*octet));
    let hash = usize::try_from(value.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40).unwrap_or(0);
    ((hash >> 3) & octets.saturating_sub(1), 1 << (hash & 7))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;
    use crate::id::RowId;

    fn block(subjects: &[&str]) -> Block {
        let message =
            |(at, subject): (i64, &&str)| Message::new(at, Some(RowId::new(at)), ["a@b.c", "x@y.z", subject]);
        Block::of((1..).zip(subjects).map(message).collect()).unwrap()
    }

    fn found(block: &Block, needle: &str) -> Vec<i64> {
        let needle = Needle::new(needle);
        let stored = Stored { entries: &block.entries, texts: &block.texts };
        let found: Vec<i64> = needle.entries(&stored).iter().map(|entry| entry.received_at).collect();
        assert!(found.is_empty() || needle.may_be_in(&block.grams), "the grams deny what the text holds");
        found
    }

    #[test]
    fn a_needle_is_found_whatever_its_case_and_length() {
        let block = block(&["Straße nach Köln", "ΟΔΟΣ", "Hi", "\u{1f600} ok", "K\u{f6}ln"]);
        for (needle, wanted) in [
            ("strasse", vec![1]),
            ("STRAßE", vec![1]),
            ("KÖLN", vec![1, 5]),
            ("ö", vec![1, 5]),
            ("οδος", vec![2]),
            ("οδοσ", vec![2]),
            ("hi", vec![3]),
            ("\u{1f600}", vec![4]),
            ("@B.C", vec![1, 2, 3, 4, 5]),
            (".", vec![1, 2, 3, 4, 5]),
            ("a@b.cx", vec![]),
            ("%", vec![]),
            ("qqq", vec![]),
        ] {
            assert_eq!(found(&block, needle), wanted, "{needle}");
        }
    }

    #[test]
    fn a_block_tells_of_most_needles_that_it_does_not_hold_them() {
        let block = block(&["The engine", "The table"]);
        assert!(!Needle::new("zeppelin").may_be_in(&block.grams));
        let pairs = ('a'..='z').flat_map(|one| ('a'..='z').map(move |other| format!("{one}{other}")));
        let (held, absent): (Vec<_>, Vec<_>) = pairs.partition(|pair| !found(&block, pair).is_empty());
        let denied = absent.iter().filter(|pair| !Needle::new(pair).may_be_in(&block.grams)).count();
        assert!(denied * 10 > absent.len() * 8, "{denied} of {} beside {}", absent.len(), held.len());
    }

    #[test]
    fn what_is_wiped_out_is_in_no_octet_of_the_block() {
        let first = block(&["secret one", "open two"]);
        let stored = Stored { entries: &first.entries, texts: &first.texts };
        assert!(stored.without(9).is_none());
        let wiped = stored.without(1).unwrap();
        assert_eq!((wiped.entries.len(), wiped.texts.len()), (first.entries.len(), first.texts.len()));
        assert!(!wiped.is_empty && memmem::find(&wiped.texts, b"secret").is_none());
        let stored = Stored { entries: &wiped.entries, texts: &wiped.texts };
        assert_eq!(stored.messages().len(), 1);
        let rest = Block::of(stored.messages()).unwrap();
        assert_eq!((found(&rest, "secret"), found(&rest, "open"), found(&rest, "@b")), (vec![], vec![2], vec![2]));
        assert!(stored.without(1).is_none(), "it is gone already");
        assert!(stored.without(2).unwrap().is_empty);
    }
}
