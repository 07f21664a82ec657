//! A block of searchable text: some hundred messages of one account, folded, one after another. Pure; the rows are
//! [`super`]'s business.
//!
//! A walk over blocks reads text at the speed of memory, where a walk over message rows would read all their columns,
//! and its cost is bounded by the account's own mail whatever the needle. The `grams` of a block tell of most needles
//! that it does not hold them, so that its text need not be read at all.

use crate::id::DomainRowId;
use memchr::memmem;

/// Octets of text at which a block is full.
pub(crate) const FULL: usize = 64 * 1024;
/// Stands after each field. No UTF-8 holds it, so no needle reaches from one field into the next.
const END: u8 = 0xFF;
/// Octets of an entry: its millisecond, its domain, where its text ends.
const ENTRY: usize = 20;
/// The domain of a message that has none.
const NO_DOMAIN: i64 = 0;
/// The domain of a message that is gone.
const GONE: DomainRowId = DomainRowId::new(-1);
/// Octets of the longest gram. Four, because nearly every run of three digits is somewhere in a block.
const GRAM: usize = 4;
/// Octets of `grams`, least and most: a bit for each octet of a full block's text.
const GRAMS: (usize, usize) = (64, 8 * 1024);

/// Folds case, so that texts that differ in case alone become equal.
///
/// Each character for itself, by its upper case: `ß` becomes `ss`, and both small sigmas are one.
pub(crate) fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

/// What is looked for.
pub(crate) struct Needle {
    folded: String,
    finder: memmem::Finder<'static>,
}

impl Needle {
    /// Of the text as the client gave it, which is not empty.
    pub(crate) fn new(text: &str) -> Self {
        let folded = fold(text);
        let finder = memmem::Finder::new(folded.as_bytes()).into_owned();
        Self { folded, finder }
    }

    /// Whether a text that is in no block yet holds it.
    pub(crate) fn is_in(&self, text: &str) -> bool {
        self.finder.find(fold(text).as_bytes()).is_some()
    }

    /// Whether a block with these `grams` may hold it.
    pub(crate) fn may_be_in(&self, grams: &[u8]) -> bool {
        let needle = self.folded.as_bytes();
        needle.windows(needle.len().clamp(1, GRAM)).all(|gram| {
            let (octet, bit) = place(gram, grams.len());
            grams.get(octet).is_some_and(|found| found & bit != 0)
        })
    }

    /// The entries of a block whose text holds it, oldest first.
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
    /// The message's millisecond, which names it within its account.
    pub(crate) received_at: i64,
    /// Its domain; none for the host name itself.
    pub(crate) domain: Option<DomainRowId>,
    end: usize,
}

/// A block as it lies in its row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored<'a> {
    /// For each message, by age, [`ENTRY`] octets.
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

    /// Its messages with their texts, without those that are gone.
    pub(crate) fn messages(&self) -> Vec<Message> {
        let mut from = 0;
        let message = |entry: Entry| {
            let text = self.texts.get(from..entry.end).unwrap_or_default().to_vec();
            from = entry.end;
            Message { received_at: entry.received_at, domain: entry.domain, text }
        };
        self.entries().map(message).filter(|message| message.domain != Some(GONE)).collect()
    }

    /// Both columns with one message wiped out, of the same length as before; none if it is not here.
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

/// A block after a message of it was wiped out.
#[derive(Debug)]
pub(crate) struct Wiped {
    /// The column of that name.
    pub(crate) entries: Vec<u8>,
    /// The column of that name.
    pub(crate) texts: Vec<u8>,
    /// Whether that was its last message.
    pub(crate) is_empty: bool,
}

/// A message on its way into a block.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// Its millisecond.
    pub(crate) received_at: i64,
    domain: Option<DomainRowId>,
    text: Vec<u8>,
}

impl Message {
    /// Folds what is searched of a message.
    pub(crate) fn new(received_at: i64, domain: Option<DomainRowId>, fields: [&str; 3]) -> Self {
        let mut text = Vec::with_capacity(fields.iter().map(|field| field.len() + 1).sum());
        for field in fields {
            text.extend_from_slice(fold(field).as_bytes());
            text.push(END);
        }
        Self { received_at, domain, text }
    }

    /// Octets of its text.
    pub(crate) fn size(&self) -> usize {
        self.text.len()
    }
}

/// A block on its way into its row.
#[derive(Debug)]
pub(crate) struct Block {
    /// The millisecond of its oldest message.
    pub(crate) oldest: i64,
    /// The millisecond of its newest message.
    pub(crate) newest: i64,
    /// Which runs of one to four octets its text holds, as a set that may err on the side of yes.
    pub(crate) grams: Vec<u8>,
    /// See [`Stored`].
    pub(crate) entries: Vec<u8>,
    /// See [`Stored`].
    pub(crate) texts: Vec<u8>,
}

impl Block {
    /// A block of these messages; none without any.
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

/// Where a set of so many octets, a power of two, keeps a gram.
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
