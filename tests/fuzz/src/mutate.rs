//! A small seeded mutator: the same seed and corpus give the same inputs.

/// Inputs are kept below this, so that many are tried.
const MAX_INPUT: usize = 64 * 1024;
const ODD: [u8; 16] =
    [0, b'\r', b'\n', b'.', b'"', b'\\', b'=', b'?', b'<', b'>', b'@', b';', b'(', 0x7f, 0x80, 0xff];

/// Makes inputs from a corpus.
pub struct Mutator {
    state: u64,
    corpus: Vec<Vec<u8>>,
    dictionary: &'static [&'static [u8]],
    unchanged: usize,
}

impl Mutator {
    /// The corpus itself comes first, unchanged.
    pub fn new(seed: u64, corpus: Vec<Vec<u8>>, dictionary: &'static [&'static [u8]]) -> Self {
        assert!(!corpus.is_empty());
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, corpus, dictionary, unchanged: 0 }
    }

    /// The next input.
    pub fn next_input(&mut self) -> Vec<u8> {
        if let Some(input) = self.corpus.get(self.unchanged) {
            self.unchanged += 1;
            return input.clone();
        }
        let chosen = self.below(self.corpus.len());
        let mut input = self.corpus[chosen].clone();
        for _ in 0..=self.below(8) {
            self.mutate(&mut input);
        }
        input.truncate(MAX_INPUT);
        input
    }

    fn mutate(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        let end = (at + 1 + self.below(32)).min(input.len());
        match self.below(10) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 if at < input.len() => input[at] = ODD[self.below(ODD.len())],
            2 => input.insert(at, ODD[self.below(ODD.len())]),
            3 if at < end => drop(input.drain(at..end)),
            4 if at < end => {
                let piece = input[at..end].to_vec();
                let most = if self.below(50) == 0 { 1000 } else { 4 };
                let times = 1 + self.below(most);
                let again = piece.repeat(times);
                input.splice(at..at, again);
            }
            5 => {
                let other = self.below(self.corpus.len());
                let tail = self.corpus[other].clone();
                let from = self.below(tail.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&tail[from..]);
            }
            6 => input.truncate(at),
            _ if !self.dictionary.is_empty() => {
                let word = self.dictionary[self.below(self.dictionary.len())];
                input.splice(at..at, word.iter().copied());
            }
            _ => {}
        }
        input.truncate(MAX_INPUT);
    }

    /// A number below `bound`, by xorshift.
    fn below(&mut self, bound: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        if bound == 0 { 0 } else { (self.state % bound as u64) as usize }
    }
}
