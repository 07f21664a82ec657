//! Exposition of the metrics in OpenMetrics text and in the older Prometheus text, which the scraper chooses.
//!
//! Each part of the server that has figures implements [`Expose`]; `http/metrics.rs` lists the parts.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeMetric as _, MetricEncoder, NoLabelSet,
};
use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// The media type of OpenMetrics.
const OPEN_METRICS: &str = "application/openmetrics-text";

/// Format of the exposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    OpenMetrics,
    /// Prometheus text, version 0.0.4.
    Prometheus,
}

impl Format {
    /// Chooses a format by the value of an Accept field.
    pub(crate) fn accepted(accept: &str) -> Self {
        let is_open_metrics = |range: &str| {
            let mut parts = range.split(';').map(str::trim);
            let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(OPEN_METRICS));
            named && !parts.any(|part| part.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0)))
        };
        if accept.split(',').any(is_open_metrics) { Self::OpenMetrics } else { Self::Prometheus }
    }

    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
        }
    }
}

/// A part of the server that has figures.
pub(crate) trait Expose: Send + Sync + 'static {
    /// Writes its figures.
    ///
    /// # Errors
    /// The text cannot be written.
    fn expose(&self, exposition: &mut Exposition<'_>) -> fmt::Result;
}

impl<T: Expose> Expose for Arc<T> {
    fn expose(&self, exposition: &mut Exposition<'_>) -> fmt::Result {
        self.as_ref().expose(exposition)
    }
}

/// Returns the figures of all parts as text.
///
/// # Errors
/// The text cannot be written.
pub(crate) fn text(format: Format, parts: Vec<Box<dyn Expose>>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Parts { format, parts }));
    let mut text = String::with_capacity(64 * 1024);
    match format {
        Format::OpenMetrics => text::encode(&mut text, &registry)?,
        Format::Prometheus => prometheus_text::encode(&mut text, &registry)?,
    }
    Ok(text)
}

struct Parts {
    format: Format,
    parts: Vec<Box<dyn Expose>>,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("format", &self.format).finish_non_exhaustive()
    }
}

impl Collector for Parts {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut exposition = Exposition { encoder, format: self.format };
        self.parts.iter().try_for_each(|part| part.expose(&mut exposition))
    }
}

/// Writer of the figures. Names are complete: a counter's ends in `_total`.
pub(crate) struct Exposition<'e> {
    encoder: DescriptorEncoder<'e>,
    format: Format,
}

impl Exposition<'_> {
    /// Writes a counter.
    pub(crate) fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        count(&mut self.counter_family(name, help)?, value)
    }

    /// Writes a counter whose name without `_total` is that of a gauge. Names in OpenMetrics lack the suffix and would
    /// clash, so there it has no type.
    pub(crate) fn counter_beside_gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        match self.format {
            Format::OpenMetrics => {
                self.encoder.encode_descriptor(name, help, None, MetricType::Unknown)?.encode_gauge(&value)
            }
            Format::Prometheus => self.counter(name, help, value),
        }
    }

    /// Writes a counter of seconds.
    pub(crate) fn counter_of_seconds(&mut self, name: &str, help: &str, seconds: f64) -> fmt::Result {
        self.counter_family(name, help)?.encode_counter::<NoLabelSet, f64, f64>(&seconds, None)
    }

    /// Writes a counter for each set of labels.
    pub(crate) fn counters<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = ([(&'l str, &'l str); N], u64)>,
    ) -> fmt::Result {
        let mut family = self.counter_family(name, help)?;
        values.into_iter().try_for_each(|(labels, value)| count(&mut family.encode_family(&labels)?, value))
    }

    /// Writes a gauge.
    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    /// Writes a gauge for each set of labels.
    pub(crate) fn gauges<'l, V: EncodeGaugeValue, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = ([(&'l str, &'l str); N], V)>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        values.into_iter().try_for_each(|(labels, value)| family.encode_family(&labels)?.encode_gauge(&value))
    }

    /// Writes a histogram.
    pub(crate) fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) -> fmt::Result {
        histogram.encode(self.encoder.encode_descriptor(name, help, None, MetricType::Histogram)?)
    }

    /// Writes a histogram for each value of a label.
    pub(crate) fn histograms<'h>(
        &mut self,
        name: &str,
        help: &str,
        key: &str,
        values: impl IntoIterator<Item = (&'h str, &'h Histogram)>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        values.into_iter().try_for_each(|(word, histogram)| histogram.encode(family.encode_family(&[(key, word)])?))
    }

    fn counter_family<'s>(&'s mut self, name: &'s str, help: &str) -> Result<MetricEncoder<'s>, fmt::Error> {
        // The encoder adds the suffix again.
        let name = name.strip_suffix("_total").unwrap_or(name);
        self.encoder.encode_descriptor(name, help, None, MetricType::Counter)
    }
}

fn count(encoder: &mut MetricEncoder<'_>, value: u64) -> fmt::Result {
    encoder.encode_counter::<NoLabelSet, u64, f64>(&value, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sample;

    impl Expose for Sample {
        fn expose(&self, exposition: &mut Exposition<'_>) -> fmt::Result {
            exposition.gauge("sessions", "Open now.", 2_u64)?;
            exposition.counter_beside_gauge("sessions_total", "Opened.", 7)?;
            exposition.counters("mail_total", "Mail.", [([("kind", "a")], 1), ([("kind", "b")], 0)])
        }
    }

    #[test]
    fn a_scraper_gets_the_format_it_asks_for() {
        for (accept, format) in [
            ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4", Format::OpenMetrics),
            ("text/plain, Application/OpenMetrics-Text", Format::OpenMetrics),
            ("application/openmetrics-text; q=0.0, text/plain", Format::Prometheus),
            ("text/plain;version=0.0.4", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("", Format::Prometheus),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept:?}");
        }
    }

    #[test]
    fn no_name_of_open_metrics_stands_for_two_figures() {
        assert_eq!(
            text(Format::OpenMetrics, vec![Box::new(Sample)]).as_deref(),
            Ok("# HELP sessions Open now.\n# TYPE sessions gauge\nsessions 2\n\
                # HELP sessions_total Opened.\n# TYPE sessions_total unknown\nsessions_total 7\n\
                # HELP mail Mail.\n# TYPE mail counter\nmail_total{kind=\"a\"} 1\nmail_total{kind=\"b\"} 0\n# EOF\n")
        );
        assert_eq!(
            text(Format::Prometheus, vec![Box::new(Sample)]).as_deref(),
            Ok("# HELP sessions Open now.\n# TYPE sessions gauge\nsessions 2\n\
                # HELP sessions_total Opened.\n# TYPE sessions_total counter\nsessions_total 7\n\
                # HELP mail_total Mail.\n# TYPE mail_total counter\nmail_total{kind=\"a\"} 1\nmail_total{kind=\"b\"} 0\n")
        );
    }
}
