//! Formats the lines about mail, which are most of the log, in half the time that the subscriber's own formats take;
//! the result is the same. Every other event is left to those.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Json,
    /// Without colours.
    Human {
        with_time: bool,
    },
}

/// Formats events that stand outside of any span, as those about mail do; others go to `other`.
pub(super) struct LineFormat<F> {
    pub(super) style: Style,
    pub(super) other: F,
}

impl<S, N, F> FormatEvent<S, N> for LineFormat<F>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if !event.is_root() {
            return self.other.format_event(ctx, out, event);
        }
        let (level, target) = (event.metadata().level(), event.metadata().target());
        match self.style {
            Style::Json => {
                out.write_str("{\"timestamp\":\"")?;
                SystemTime.format_time(&mut out)?;
                write!(out, "\",\"level\":\"{level}\"")?;
            }
            Style::Human { with_time } => {
                if with_time {
                    SystemTime.format_time(&mut out)?;
                    out.write_char(' ')?;
                }
                write!(out, "{level:>5}")?;
            }
        }
        let mut fields = Fields { out: &mut out, style: self.style, result: Ok(()) };
        event.record(&mut fields);
        fields.result?;
        match self.style {
            Style::Json => {
                out.write_str(",\"target\":")?;
                write_quoted(&mut out, target)?;
                out.write_str("}\n")
            }
            Style::Human { .. } => out.write_char('\n'),
        }
    }
}

/// Writes the fields of an event.
struct Fields<'a, 'w> {
    out: &'a mut Writer<'w>,
    style: Style,
    result: fmt::Result,
}

impl Fields<'_, '_> {
    fn field(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>, Style) -> fmt::Result) {
        if self.result.is_ok() {
            self.result = self.name(field).and_then(|()| value(self.out, self.style));
        }
    }

    fn name(&mut self, field: &Field) -> fmt::Result {
        match self.style {
            Style::Json => {
                self.out.write_char(',')?;
                write_quoted(self.out, field.name())?;
                self.out.write_char(':')
            }
            Style::Human { .. } if field.name() == "message" => self.out.write_char(' '),
            Style::Human { .. } => {
                self.out.write_char(' ')?;
                self.out.write_str(field.name())?;
                self.out.write_char('=')
            }
        }
    }
}

impl Visit for Fields<'_, '_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        let is_message = field.name() == "message";
        self.field(field, |out, style| match style {
            Style::Human { .. } if is_message => out.write_str(value),
            _ => write_quoted(out, value),
        });
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.field(field, |out, _| write!(out, "{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.field(field, |out, style| match style {
            Style::Json => write_quoted(out, &format!("{value:?}")),
            Style::Human { .. } => write!(out, "{value:?}"),
        });
    }
}

/// Writes a text in quotes, as JSON has it.
fn write_quoted(out: &mut Writer<'_>, text: &str) -> fmt::Result {
    out.write_char('"')?;
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate().filter(|(_, byte)| matches!(byte, 0..b' ' | b'"' | b'\\')) {
        out.write_str(text.get(plain..at).unwrap_or_default())?;
        match byte {
            b'"' => out.write_str("\\\"")?,
            b'\\' => out.write_str("\\\\")?,
            _ => write!(out, "\\u{byte:04x}")?,
        }
        plain = at + 1;
    }
    out.write_str(text.get(plain..).unwrap_or_default())?;
    out.write_char('"')
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::format;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(octets)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The line of an event outside of any span, and of the same event as the subscriber's own format has it.
    fn lines(style: Style) -> [String; 2] {
        let written = |is_root: bool| {
            let buffer = Buffer::default();
            let writer = buffer.clone();
            let built = tracing_subscriber::fmt().with_ansi(false).without_time().with_writer(move || writer.clone());
            let json = format().json().flatten_event(true).without_time();
            let human = format().with_target(false).with_ansi(false).without_time();
            let event = || {
                let (text, number, nothing) = ("a \"b\" \\ ü \u{fffd}", 7_u64, None::<&str>);
                let shown = tracing::field::display("2001:db8::1");
                if is_root {
                    tracing::info!(target: "mail", parent: None, message = "mail accepted", shown, text, nothing, number);
                } else {
                    tracing::info!(target: "mail", message = "mail accepted", shown, text, nothing, number);
                }
            };
            match style {
                Style::Json => {
                    let lines = built.json().event_format(LineFormat { style, other: json });
                    tracing::subscriber::with_default(lines.finish(), event);
                }
                Style::Human { .. } => {
                    let lines = built.event_format(LineFormat { style, other: human });
                    tracing::subscriber::with_default(lines.finish(), event);
                }
            }
            let octets = buffer.0.lock().unwrap().clone();
            String::from_utf8(octets).unwrap()
        };
        [written(true), written(false)]
    }

    #[test]
    fn a_line_about_mail_is_what_the_subscriber_would_write() {
        let [ours, theirs] = lines(Style::Human { with_time: false });
        assert_eq!(ours, theirs);
        let [ours, theirs] = lines(Style::Json);
        // This one has its time.
        let (start, rest) = ours.split_once("Z\",").unwrap();
        assert!(start.starts_with("{\"timestamp\":\"2"), "{ours}");
        assert_eq!(format!("{{{rest}"), theirs);
    }
}
