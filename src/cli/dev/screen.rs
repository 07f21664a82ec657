//! The output of `mailkite dev`: prose on a terminal, or one JSON line for each event.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};

use serde_json::{Value, json};

use super::{DOMAIN, Options, Ready};
use crate::cli::text::{columns, cut, fit, size, wait};
use crate::clock::{Clock, Timestamp};
use crate::event_bus::Activity;

/// Messages remembered until their webhook is settled.
const REMEMBERED: usize = 1_000;
/// Columns for the text of a step.
const STEP_WIDTH: usize = 66;
/// Columns before the addresses: time and mark.
const LEAD: usize = 12;
/// Columns of a size and the outcome of a usual delivery, with the gaps before them.
const TAIL: usize = 26;

/// Writes to standard output.
pub(crate) struct Screen {
    json: bool,
    colour: bool,
    accepted: HashMap<String, Mail>,
}

/// The parts of a mail that lines show.
struct Mail {
    from: String,
    to: String,
    subject: String,
    octets: u64,
}

impl Screen {
    pub(crate) fn new(json: bool) -> Self {
        let colour = !json && std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { json, colour, accepted: HashMap::new() }
    }

    fn line(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        // The reader of our output may be gone; the server goes on.
        drop(writeln!(out, "{text}").and_then(|()| out.flush()));
    }

    fn prose(&self, text: &str) {
        if !self.json {
            self.line(text);
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn mark(&self, good: bool) -> String {
        if good { self.paint("32", "✓") } else { self.paint("31", "✗") }
    }

    /// Shows that the server is ready.
    pub(crate) fn ready(&self, ready: &Ready, options: &Options, is_new: bool) {
        if self.json {
            return self.line(&serde_json::to_string(ready).unwrap_or_default());
        }
        let title = self.paint("1", "mailkite");
        self.line(&format!("\n{title} {} dev\n", env!("CARGO_PKG_VERSION")));
        let state = if is_new { "new" } else { "existing" };
        let webhook = options.forward.as_deref().unwrap_or("built-in receiver");
        let rows = [
            ("mail", format!("{} for *@{}", ready.smtp, ready.domain)),
            ("submit", format!("{} (STARTTLS, password = API key)", ready.submission)),
            ("web", format!("{}/", ready.http)),
            ("data", format!("{} ({state})", options.data_dir.display())),
            ("webhook", webhook.to_owned()),
            ("secret", ready.webhook_secret.clone()),
            ("API key", ready.api_key.clone()),
        ];
        for (name, value) in rows {
            self.line(&format!("  {} {value}", self.paint("2", &format!("{name:<9}"))));
        }
    }

    /// Shows a remark.
    pub(crate) fn note(&self, text: &str) {
        self.prose(&format!("  {} {text}", self.paint("33", "!")));
    }

    /// Introduces the first mail.
    pub(crate) fn sample_begins(&self) {
        self.prose(&format!("\n{}\n", self.paint("1", "A first mail, from this process to itself")));
    }

    /// Shows one step of the first mail.
    pub(crate) fn step(&mut self, good: bool, name: &str, text: &str) {
        self.prose(&format!(
            "  {} {} {}",
            self.mark(good),
            self.paint("2", &format!("{name:<9}")),
            cut(text, STEP_WIDTH)
        ));
    }

    /// Shows a further line of a step.
    pub(crate) fn more(&mut self, text: &str) {
        self.prose(&format!("              {}", cut(text, STEP_WIDTH)));
    }

    /// Shows what to do next; every command works as pasted.
    pub(crate) fn next_steps(&self, ready: &Ready) {
        let (host, port) = ready.smtp.rsplit_once(':').unwrap_or((&ready.smtp, "25"));
        self.prose(&format!("\n{}\n", self.paint("1", "Now you")));
        let (smtp, submission, domain) = (&ready.smtp, &ready.submission, ready.domain);
        let program = std::env::args().next().unwrap_or_else(|| "mailkite".to_owned());
        let (http, key) = (&ready.http, &ready.api_key);
        let steps = [
            (
                "Send it a mail",
                format!(
                    "swaks --server {host} --port {port} \\\n    --from you@example.com --to hello@{domain} \\\n    \
                     --header 'Subject: Hi' --body 'Does it branch?'"
                ),
            ),
            (
                "or with curl alone",
                format!(
                    "printf 'Subject: Hi\\r\\n\\r\\nDoes it branch?\\r\\n' |\n    curl -s smtp://{smtp} -T - \\\n    \
                     --mail-from you@example.com --mail-rcpt hello@{domain}"
                ),
            ),
            ("See what arrived", format!("curl -s {http}/api/messages \\\n    -H 'Authorization: Bearer {key}'")),
            (
                "Send one from it; in dev mode mail is signed and captured, never sent",
                format!(
                    "curl -s {http}/v1/send -H 'Content-Type: application/json' \\\n    \
                     -d '{{\"from\":\"hello@{domain}\",\"to\":\"you@example.com\",\n        \
                     \"subject\":\"Re: Hi\",\"text\":\"It branches.\"}}' \\\n    \
                     -H 'Authorization: Bearer {key}'"
                ),
            ),
            (
                "or as a mail program would",
                format!(
                    "printf 'From: hello@{domain}\\r\\nSubject: Re: Hi\\r\\n\\r\\nIt does.\\r\\n' |\n    \
                     curl -s smtp://{submission} --ssl-reqd -k -T - \\\n    -u mailkite:{key} \\\n    \
                     --mail-from hello@{domain} --mail-rcpt you@example.com"
                ),
            ),
            ("Receive the webhooks yourself", format!("{program} dev --forward http://localhost:3000/hook")),
            ("Open the dashboard (this link signs in once)", ready.dashboard.clone()),
        ];
        for (name, command) in steps {
            self.prose(&format!("  {}\n    {command}\n", self.paint("2", name)));
        }
        self.prose("Waiting for mail. Ctrl-C stops.\n");
    }

    /// Shows an event.
    pub(crate) fn activity(&mut self, event: &Activity) {
        if self.json {
            return self.line(&as_json(event).to_string());
        }
        match event {
            Activity::Accepted { message_id, deliveries: 0, .. } => {
                self.remember(event);
                let mail = self.accepted.remove(message_id);
                let dot = self.paint("2", "·");
                self.mail_line(&dot, mail.as_ref(), message_id, "stored, no webhook");
            }
            Activity::Accepted { .. } => self.remember(event),
            Activity::Attempted { message_id, status, .. } => {
                let mark = self.mark(*status == "delivered");
                self.mail_line(&mark, self.accepted.get(message_id), message_id, &outcome(event));
                if *status != "pending" {
                    self.accepted.remove(message_id);
                }
            }
            Activity::Sent { .. } => self.sent_line(event),
            Activity::ZeroRetentionAttempted { message_id, status, status_code, error, .. } => {
                let answer =
                    status_code.map_or_else(|| error.unwrap_or("no answer").to_owned(), |code| code.to_string());
                self.mail_line(
                    &self.mark(*status == "delivered"),
                    None,
                    message_id,
                    &format!("{answer}, not stored"),
                );
            }
        }
    }

    /// Shows outgoing mail that was sent, captured, deferred or returned.
    fn sent_line(&self, event: &Activity) {
        let Activity::Sent { message_id, from, to, subject, status, captured, diagnostic, next_attempt_at, .. } =
            event
        else {
            return;
        };
        let outcome = match (*status, next_attempt_at) {
            ("sent", _) if *captured => "captured, not sent".to_owned(),
            ("sent", _) => "sent".to_owned(),
            (_, Some(at)) => {
                let again = wait(Timestamp::from_millis(*at).since(Clock::System.now()));
                format!("{diagnostic}, again in {again}")
            }
            (word, None) => format!("{word}: {diagnostic}"),
        };
        let mark = if *status == "sent" { self.paint("36", "↑") } else { self.mark(false) };
        let mail = Mail {
            from: if from.is_empty() { "<>".to_owned() } else { short(from).to_owned() },
            to: to.clone(),
            subject: subject.clone().unwrap_or_else(|| "(no subject)".to_owned()),
            octets: 0,
        };
        self.mail_line(&mark, Some(&mail), message_id.as_deref().unwrap_or_default(), &outcome);
    }

    /// Remembers the parts of a mail that the lines of its attempts will show.
    pub(crate) fn remember(&mut self, event: &Activity) {
        let Activity::Accepted { message_id, from, to, subject, size, .. } = event else { return };
        if self.accepted.len() >= REMEMBERED {
            self.accepted.clear();
        }
        let from = if from.is_empty() { "<>" } else { from };
        let mail = Mail {
            from: from.to_owned(),
            to: short(to).to_owned(),
            subject: subject.clone().unwrap_or_else(|| "(no subject)".to_owned()),
            octets: *size,
        };
        self.accepted.insert(message_id.clone(), mail);
    }

    /// Shows time, mark, addresses, subject, size and outcome; a long outcome takes the columns of the size and of
    /// the subject.
    fn mail_line(&self, mark: &str, mail: Option<&Mail>, message_id: &str, outcome: &str) {
        let time = self.time();
        let Some(mail) = mail else { return self.line(&format!("{time}  {mark} {message_id}  {outcome}")) };
        let usual = outcome.chars().count() <= TAIL - 12;
        let octets = if mail.octets == 0 { String::new() } else { size(mail.octets) };
        let tail = if usual { format!("{octets:>8}  {outcome}") } else { outcome.to_owned() };
        let wide = columns();
        let room = wide.saturating_sub(LEAD + 3 + tail.chars().count());
        let names = (wide.saturating_sub(LEAD + TAIL) * 4 / 7).clamp(20, 40).min(room * 2 / 3);
        let remaining = names.saturating_sub(3 + mail.from.chars().count());
        let to = cut(&mail.to, remaining.max(names / 3));
        let from = cut(&mail.from, names.saturating_sub(3 + to.chars().count()));
        let subject = self.paint("1", &fit(&mail.subject, room.saturating_sub(names)));
        self.line(&format!("{time}  {mark} {}  {subject} {tail}", fit(&format!("{from} → {to}"), names)));
    }

    /// Shows that events were missed.
    pub(crate) fn missed(&self, count: u64) {
        if self.json {
            return self.line(&json!({"event": "missed", "count": count}).to_string());
        }
        self.note(&format!("{count} events were too many to be shown"));
    }

    /// Shows that the server stopped.
    pub(crate) fn stopped(&self) {
        self.prose("\nStopped. Everything accepted is on disk.");
    }

    fn time(&self) -> String {
        let clock: String = Clock::System.now().iso().chars().skip(11).take(8).collect();
        self.paint("2", &clock)
    }
}

/// Strips the domain that nearly all mail of `mailkite dev` is for.
fn short(address: &str) -> &str {
    address.strip_suffix(DOMAIN).and_then(|rest| rest.strip_suffix('@')).unwrap_or(address)
}

/// Describes the outcome of an attempt in a few words.
fn outcome(event: &Activity) -> String {
    let Activity::Attempted { attempt, status_code, error, status, duration_ms, next_attempt_at, .. } = event else {
        return String::new();
    };
    let answer = match (status_code, error) {
        (Some(code), Some("http_status") | None) => code.to_string(),
        (Some(code), Some(word)) => format!("{code} {}", word.replace('_', " ")),
        (None, Some("connect")) => "no connection".to_owned(),
        (None, word) => word.unwrap_or("no answer").replace('_', " "),
    };
    let number = if *attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
    let next = match next_attempt_at {
        Some(at) => format!(", again in {}", wait(Timestamp::from_millis(*at).since(Clock::System.now()))),
        None if *status == "failed" => ", given up".to_owned(),
        None => format!(" in {duration_ms} ms"),
    };
    if *status == "delivered" { format!("{answer}{next}{number}") } else { format!("{answer}{number}{next}") }
}

fn as_json(event: &Activity) -> Value {
    match event {
        Activity::Accepted { message_id, from, to, subject, size, attachments, deliveries } => json!({
            "event": "accepted", "messageId": message_id, "from": from, "to": to, "subject": subject, "size": size,
            "attachments": attachments, "deliveries": deliveries,
        }),
        Activity::Attempted {
            delivery_id,
            message_id,
            url,
            attempt,
            status_code,
            error,
            status,
            duration_ms,
            next_attempt_at,
        } => json!({
            "event": "attempted", "deliveryId": delivery_id, "messageId": message_id, "url": url, "attempt": attempt,
            "statusCode": status_code, "error": error, "status": status, "durationMs": duration_ms,
            "nextAttemptAt": next_attempt_at,
        }),
        Activity::Sent { message_id, from, to, subject, status, diagnostic, host, next_attempt_at, captured: _ } => {
            json!({
                "event": "sent", "messageId": message_id, "from": from, "to": to, "subject": subject, "status": status,
                "diagnostic": diagnostic, "host": host, "nextAttemptAt": next_attempt_at,
            })
        }
        Activity::ZeroRetentionAttempted { message_id, url, status_code, error, status, duration_ms } => json!({
            "event": "passed", "messageId": message_id, "url": url, "statusCode": status_code, "error": error,
            "status": status, "durationMs": duration_ms,
        }),
    }
}
