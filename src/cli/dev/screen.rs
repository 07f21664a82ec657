//! What `mailkite dev` shows: calm prose on a terminal, or one JSON line for each event.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};

use serde_json::{Value, json};

use super::{Options, Ready};
use crate::activity::Activity;
use crate::clock::{Clock, Timestamp};

/// Messages remembered until their first attempt.
const REMEMBERED: usize = 1_000;
const NAME_WIDTH: usize = 24;
const SUBJECT_WIDTH: usize = 26;

/// The terminal, or whoever reads the lines.
pub struct Screen {
    json: bool,
    colour: bool,
    accepted: HashMap<String, String>,
}

impl Screen {
    /// A screen on standard output.
    pub fn new(json: bool) -> Self {
        let colour = !json && std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { json, colour, accepted: HashMap::new() }
    }

    fn line(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        // Whoever read our lines may be gone; the server goes on.
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

    /// The server is up.
    pub fn ready(&self, ready: &Ready, options: &Options, fresh: bool) {
        if self.json {
            return self.line(&serde_json::to_string(ready).unwrap_or_default());
        }
        let title = self.paint("1", "mailkite");
        self.line(&format!("\n{title} {} dev\n", env!("CARGO_PKG_VERSION")));
        let state = if fresh { "new" } else { "as it was" };
        let webhook = options.forward.as_deref().unwrap_or("built-in receiver");
        let rows = [
            ("mail", format!("{} for *@{}", ready.smtp, ready.domain)),
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

    /// Something worth a word.
    pub fn note(&self, text: &str) {
        self.prose(&format!("  {} {text}", self.paint("33", "!")));
    }

    /// The first mail is on its way.
    pub fn sample_begins(&self) {
        self.prose(&format!("\n{}\n", self.paint("1", "A first mail, from this process to itself")));
    }

    /// One step of the first mail.
    pub fn step(&mut self, good: bool, name: &str, text: &str) {
        self.prose(&format!("  {} {} {}", self.mark(good), self.paint("2", &format!("{name:<9}")), cut(text, 66)));
    }

    /// A further line of a step.
    pub fn more(&mut self, text: &str) {
        self.prose(&format!("              {}", cut(text, 66)));
    }

    /// What to do next; every command works as pasted.
    pub fn next_steps(&self, ready: &Ready) {
        let (host, port) = ready.smtp.rsplit_once(':').unwrap_or((&ready.smtp, "25"));
        self.prose(&format!("\n{}\n", self.paint("1", "Now you")));
        let steps = [
            (
                "Send a mail",
                format!(
                    "swaks --server {host} --port {port} \\\n    --from you@example.com --to hello@{} \\\n    --header 'Subject: Hi' --body 'Does it branch?'",
                    ready.domain
                ),
            ),
            (
                "or with curl alone",
                format!(
                    "printf 'Subject: Hi\\r\\n\\r\\nDoes it branch?\\r\\n' | curl -s smtp://{} \\\n    --mail-from you@example.com --mail-rcpt hello@{} -T -",
                    ready.smtp, ready.domain
                ),
            ),
            (
                "See what arrived",
                format!("curl -s {}/api/messages \\\n    -H 'Authorization: Bearer {}'", ready.http, ready.api_key),
            ),
            ("Get the webhooks yourself", "mailkite dev --forward http://localhost:3000/your/hook".to_owned()),
            ("Open the dashboard", format!("{}/", ready.http)),
        ];
        for (name, command) in steps {
            self.prose(&format!("  {}\n    {command}\n", self.paint("2", name)));
        }
        self.prose("Waiting for mail. Ctrl-C stops.\n");
    }

    /// A mail was accepted, or a webhook attempted.
    pub fn activity(&mut self, event: &Activity) {
        if self.json {
            return self.line(&as_json(event).to_string());
        }
        match event {
            Activity::Accepted { message_id, from, to, subject, size: octets, deliveries, .. } => {
                let names = format!("{} → {}", cut(from, NAME_WIDTH), cut(to, NAME_WIDTH));
                let text = format!(
                    "{names}  {}  {}",
                    cut(subject.as_deref().unwrap_or("(no subject)"), SUBJECT_WIDTH),
                    size(*octets)
                );
                if *deliveries == 0 {
                    return self.line(&format!("{}  {text}  stored", self.time()));
                }
                if self.accepted.len() >= REMEMBERED {
                    self.accepted.clear();
                }
                self.accepted.insert(message_id.clone(), text);
            }
            Activity::Attempted { message_id, status, .. } => {
                let text = self.accepted.remove(message_id).unwrap_or_else(|| message_id.clone());
                self.line(&format!(
                    "{}  {} {text}  {}",
                    self.time(),
                    self.mark(*status == "delivered"),
                    outcome(event)
                ));
            }
        }
    }

    /// More happened than could be shown.
    pub fn missed(&self, count: u64) {
        if self.json {
            return self.line(&json!({"event": "missed", "count": count}).to_string());
        }
        self.note(&format!("{count} events went by too fast to be shown"));
    }

    /// The end.
    pub fn stopped(&self) {
        self.prose("\nStopped. Everything accepted is on disk.");
    }

    fn time(&self) -> String {
        let clock: String = Clock::System.now().iso().chars().skip(11).take(8).collect();
        self.paint("2", &clock)
    }
}

/// How an attempt ended, in a few words.
fn outcome(event: &Activity) -> String {
    let Activity::Attempted { attempt, status_code, error, status, duration_ms, next_attempt_at, .. } = event else {
        return String::new();
    };
    let answer = match (status_code, error) {
        (Some(code), Some("http_status") | None) => code.to_string(),
        (Some(code), Some(word)) => format!("{code} {word}"),
        (None, word) => word.unwrap_or("no answer").to_owned(),
    };
    let number = if *attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
    let next = match next_attempt_at {
        Some(at) => {
            let wait = Timestamp::from_millis(*at).since(Clock::System.now());
            format!(", again in {} s", wait.as_secs().max(1))
        }
        None if *status == "failed" => ", given up".to_owned(),
        None => String::new(),
    };
    format!("{answer} in {duration_ms} ms{number}{next}")
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
    }
}

/// Octets for people.
pub fn size(octets: u64) -> String {
    match octets {
        0..1_000 => format!("{octets} B"),
        1_000..1_000_000 => format!("{}.{} kB", octets / 1_000, octets % 1_000 / 100),
        _ => format!("{}.{} MB", octets / 1_000_000, octets % 1_000_000 / 100_000),
    }
}

/// Mail text made safe for a terminal, at most `width` characters: no control and no bidirectional characters.
fn cut(text: &str, width: usize) -> String {
    let bidi = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{61c}');
    let safe: Vec<char> = text.chars().filter(|c| !c.is_control() && !bidi(*c)).collect();
    if safe.len() <= width {
        return safe.into_iter().collect();
    }
    safe.into_iter().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_text_cannot_command_the_terminal() {
        assert_eq!(cut("a\u{1b}[31mb\u{202e}c\r\nd", 80), "a[31mbcd");
        assert_eq!(cut("abcdef", 4), "abc…");
    }
}
