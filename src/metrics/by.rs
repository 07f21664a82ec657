//! Figures for each value of one or two labels. All exist from the start, so that an increment is one atomic operation,
//! and a rate is known from the first event on.

use std::fmt;
use std::marker::PhantomData;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

use super::exposition::Exposition;
use super::labels::Label;

/// A counter for each value of a label.
#[derive(Debug)]
pub(crate) struct CounterBy<L> {
    counters: Vec<Counter>,
    label: PhantomData<L>,
}

impl<L: Label> Default for CounterBy<L> {
    fn default() -> Self {
        Self { counters: L::WORDS.iter().map(|_| Counter::default()).collect(), label: PhantomData }
    }
}

impl<L: Label> CounterBy<L> {
    /// Counts an event.
    pub(crate) fn add(&self, label: L) {
        if let Some(counter) = self.counters.get(label.index()) {
            counter.inc();
        }
    }

    pub(super) fn get(&self, label: L) -> u64 {
        self.counters.get(label.index()).map_or(0, Counter::get)
    }

    pub(super) fn expose(&self, exposition: &mut Exposition<'_>, name: &str, help: &str) -> fmt::Result {
        let values = L::WORDS.iter().zip(&self.counters);
        exposition.counters(name, help, values.map(|(word, counter)| ([(L::KEY, *word)], counter.get())))
    }
}

/// A counter for each pair of values of two labels.
#[derive(Debug)]
pub(crate) struct CounterByTwo<A, B> {
    /// All values of the second label for each of the first.
    counters: Vec<Counter>,
    labels: PhantomData<(A, B)>,
}

impl<A: Label, B: Label> Default for CounterByTwo<A, B> {
    fn default() -> Self {
        let count = A::WORDS.len() * B::WORDS.len();
        Self { counters: (0..count).map(|_| Counter::default()).collect(), labels: PhantomData }
    }
}

impl<A: Label, B: Label> CounterByTwo<A, B> {
    /// Counts an event.
    pub(crate) fn add(&self, first: A, second: B) {
        if let Some(counter) = self.counters.get(first.index() * B::WORDS.len() + second.index()) {
            counter.inc();
        }
    }

    /// Returns the count of a value of the second label, whatever the first.
    pub(super) fn sum(&self, second: B) -> u64 {
        self.counters.iter().skip(second.index()).step_by(B::WORDS.len()).map(Counter::get).sum()
    }

    pub(super) fn expose(&self, exposition: &mut Exposition<'_>, name: &str, help: &str) -> fmt::Result {
        let pairs = A::WORDS.iter().flat_map(|first| B::WORDS.iter().map(move |second| (*first, *second)));
        let values = pairs.zip(&self.counters);
        exposition.counters(
            name,
            help,
            values.map(|((first, second), counter)| ([(A::KEY, first), (B::KEY, second)], counter.get())),
        )
    }
}

/// A histogram for each of the first values of a label.
#[derive(Debug)]
pub(crate) struct HistogramBy<L> {
    histograms: Vec<Histogram>,
    label: PhantomData<L>,
}

impl<L: Label> HistogramBy<L> {
    pub(super) fn new(buckets: &[f64], values: usize) -> Self {
        let histogram = |_| Histogram::new(buckets.iter().copied());
        Self { histograms: (0..values).map(histogram).collect(), label: PhantomData }
    }

    /// Notes an observation.
    pub(crate) fn observe(&self, label: L, value: f64) {
        if let Some(histogram) = self.histograms.get(label.index()) {
            histogram.observe(value);
        }
    }

    pub(super) fn expose(&self, exposition: &mut Exposition<'_>, name: &str, help: &str) -> fmt::Result {
        exposition.histograms(name, help, L::KEY, L::WORDS.iter().copied().zip(&self.histograms))
    }
}
