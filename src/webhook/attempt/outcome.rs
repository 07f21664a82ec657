//! Judges an endpoint's answer: ack modes and Retry-After (contract 9.4 and 9.5).
//!
//! Pure. An attempt without an answer never gets here; its `last_error` value comes from `egress`.

use std::time::Duration;

use serde_json::Value;

use crate::clock::Timestamp;
use crate::store::webhooks::routes::AckMode;

/// Upper bound of the wait that Retry-After can request.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// An endpoint's answer, as far as it was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AnswerView<'a> {
    /// HTTP status.
    pub(crate) status: u16,
    pub(crate) headers: &'a [(String, String)],
    /// The first bytes of the body.
    pub(crate) body: &'a [u8],
    /// True if the body was longer than the part that was read.
    pub(crate) truncated: bool,
}

/// The judgement of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The endpoint accepted the event.
    Delivered {
        /// Its instructions for the stored message; always empty outside control mode.
        control: Control,
    },
    /// The endpoint did not accept the event.
    Rejected {
        reason: Reason,
        /// A lower bound for the wait before the next attempt, at most 24 h.
        retry_after: Option<Duration>,
    },
}

/// Instructions of a control body for the stored message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Control {
    /// Mark the message as spam.
    pub(crate) spam: bool,
    /// Delete its content.
    pub(crate) drop: bool,
    /// Add its sender to the account's block list.
    pub(crate) block_sender: bool,
}

/// The reason an answer is not a success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Not 2xx.
    HttpStatus,
    /// 2xx without the proof that ack mode requires.
    NoAck,
    /// 410: the endpoint never wants this event again, so there is no retry.
    Gone,
}

impl Reason {
    /// Returns the `last_error` value (contract 6.1).
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::HttpStatus => "http_status",
            Self::NoAck => "no_ack",
            Self::Gone => "gone",
        }
    }
}

/// Judges `answer` by `mode`; `now` converts the date form of Retry-After into a wait.
pub(crate) fn judge(mode: AckMode, answer: AnswerView<'_>, now: Timestamp) -> Outcome {
    let rejected = |reason, retry_after| Outcome::Rejected { reason, retry_after };
    match (answer.status, mode) {
        (410, _) => rejected(Reason::Gone, None),
        (429 | 503, _) => rejected(Reason::HttpStatus, retry_after(answer.headers, now)),
        (200..=299, AckMode::Lenient) => Outcome::Delivered { control: Control::default() },
        (200..=299, AckMode::Ack) if acknowledges(answer) => Outcome::Delivered { control: Control::default() },
        (200..=299, AckMode::Ack) => rejected(Reason::NoAck, None),
        (200..=299, AckMode::Control) => Outcome::Delivered { control: control(answer) },
        _ => rejected(Reason::HttpStatus, None),
    }
}

/// Returns true if judging an answer by `mode` takes its body. If not, a truncated body does no harm.
pub(crate) fn needs_body(mode: AckMode, answer: AnswerView<'_>) -> bool {
    mode == AckMode::Ack && (200..=299).contains(&answer.status) && !has_ack_header(answer)
}

fn has_ack_header(answer: AnswerView<'_>) -> bool {
    values(answer.headers, "x-mailkite-ack").any(|value| value.eq_ignore_ascii_case("ok"))
}

fn acknowledges(answer: AnswerView<'_>) -> bool {
    has_ack_header(answer) || json(answer).is_some_and(|body| word(&body, "status") == Some("ok"))
}

fn control(answer: AnswerView<'_>) -> Control {
    let Some(body) = json(answer) else { return Control::default() };
    let status = word(&body, "status");
    let mut actions = body.get("actions").and_then(Value::as_array).into_iter().flatten();
    Control {
        spam: status == Some("spam"),
        drop: status == Some("drop"),
        block_sender: actions.any(|action| word(action, "type") == Some("block-sender")),
    }
}

/// Parses the body as JSON. A truncated body is never JSON, even if its beginning would parse.
fn json(answer: AnswerView<'_>) -> Option<Value> {
    if answer.truncated { None } else { serde_json::from_slice(answer.body).ok() }
}

fn word<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get(key)?.as_str()
}

fn values<'a>(headers: &'a [(String, String)], name: &str) -> impl Iterator<Item = &'a str> {
    headers.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// Returns Retry-After (RFC 9110 §10.2.3), seconds or a date, as a wait from `now`; the first valid field counts.
fn retry_after(headers: &[(String, String)], now: Timestamp) -> Option<Duration> {
    let wait = |value: &str| {
        if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
            // A number that overflows still means a very long wait.
            return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
        }
        httpdate::parse_http_date(value).ok().map(|at| Timestamp::from(at).since(now))
    };
    values(headers, "retry-after").find_map(wait).map(|wait| wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(784_111_777_000);
    const NOTHING: Control = Control { spam: false, drop: false, block_sender: false };

    fn answer(mode: AckMode, status: u16, headers: &[(&str, &str)], body: &str) -> Outcome {
        let headers: Vec<_> = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        judge(mode, AnswerView { status, headers: &headers, body: body.as_bytes(), truncated: false }, NOW)
    }

    fn rejected(reason: Reason) -> Outcome {
        Outcome::Rejected { reason, retry_after: None }
    }

    fn delivered(control: Control) -> Outcome {
        Outcome::Delivered { control }
    }

    #[test]
    fn only_2xx_is_success_and_410_ends_it_in_every_mode() {
        for mode in [AckMode::Lenient, AckMode::Ack, AckMode::Control] {
            for status in [200, 201, 202, 204, 226, 299] {
                assert_eq!(answer(mode, status, &[], r#"{"status":"ok"}"#), delivered(NOTHING), "{mode:?} {status}");
            }
            for status in [100, 101, 199, 300, 301, 302, 304, 307, 308, 400, 401, 404, 429, 500, 503, 999] {
                let outcome = answer(mode, status, &[], r#"{"status":"ok"}"#);
                assert_eq!(outcome, rejected(Reason::HttpStatus), "{mode:?} {status}");
            }
            assert_eq!(answer(mode, 410, &[("retry-after", "5")], ""), rejected(Reason::Gone));
            assert_eq!(AckMode::from_word(mode.as_str()), Some(mode));
        }
        assert_eq!(AckMode::from_word("Lenient"), None);
    }

    #[test]
    fn ack_mode_wants_ok_in_body_or_header() {
        let ack = |headers: &[(&str, &str)], body| answer(AckMode::Ack, 200, headers, body);
        for body in [r#"{"status":"ok"}"#, r#" { "a": [1], "status" : "ok" } "#] {
            assert_eq!(ack(&[], body), delivered(NOTHING), "{body}");
        }
        assert_eq!(ack(&[("X-Mailkite-Ack", "ok")], ""), delivered(NOTHING));
        assert_eq!(ack(&[("x-mailkite-ack", " OK ")], "no"), delivered(NOTHING));
        for body in ["", "ok", "\"ok\"", "{}", "null", r#"["ok"]"#, r#"{"status":"OK"}"#, r#"{"status":true}"#] {
            assert_eq!(ack(&[], body), rejected(Reason::NoAck), "{body}");
        }
        for body in [r#"{"status":"spam"}"#, r#"{"status":"ok"} x"#, r#"{"status":"ok""#, r#"{"a":{"status":"ok"}}"#]
        {
            assert_eq!(ack(&[], body), rejected(Reason::NoAck), "{body}");
        }
        assert_eq!(ack(&[("x-mailkite-ack", "no")], ""), rejected(Reason::NoAck));
    }

    #[test]
    fn the_reply_helpers_of_the_official_client_have_their_effects() {
        let control = |body| answer(AckMode::Control, 200, &[], body);
        assert_eq!(control(mailkite_sdk::reply_ok()), delivered(NOTHING));
        assert_eq!(control(mailkite_sdk::reply_spam()), delivered(Control { spam: true, ..NOTHING }));
        assert_eq!(control(mailkite_sdk::reply_drop()), delivered(Control { drop: true, ..NOTHING }));
        let block = Control { block_sender: true, ..NOTHING };
        assert_eq!(control(mailkite_sdk::reply_block_sender()), delivered(block));
        let both = r#"{"actions":[7,{"type":"x"},{"type":"block-sender","a":1}],"status":"spam","z":null}"#;
        assert_eq!(control(both), delivered(Control { spam: true, ..block }));
        assert_eq!(answer(AckMode::Lenient, 200, &[], both), delivered(NOTHING));
        assert_eq!(answer(AckMode::Control, 500, &[], both), rejected(Reason::HttpStatus));
    }

    #[test]
    fn a_control_body_that_is_empty_unknown_or_invalid_accepts() {
        let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
        for body in ["", " ", "drop", "{\"status\":\"drop\"", "{\"status\":\"bounce\"}", "[]", "\u{feff}{}", &deep] {
            assert_eq!(answer(AckMode::Control, 200, &[], body), delivered(NOTHING));
        }
        for body in [r#"{"status":["drop"]}"#, r#"{"actions":"block-sender"}"#, r#"{"actions":["block-sender"]}"#] {
            assert_eq!(answer(AckMode::Control, 200, &[], body), delivered(NOTHING), "{body}");
        }
    }

    #[test]
    fn a_body_over_the_limit_neither_instructs_nor_acknowledges() {
        let cut = |body: &'static [u8]| AnswerView { status: 200, headers: &[], body, truncated: true };
        assert_eq!(judge(AckMode::Control, cut(br#"{"status":"drop"}"#), NOW), delivered(NOTHING));
        assert_eq!(judge(AckMode::Ack, cut(br#"{"status":"ok"}"#), NOW), rejected(Reason::NoAck));
    }

    #[test]
    fn retry_after_counts_on_429_and_503_only_in_every_form_and_is_clamped() {
        let wait = |status, value| match answer(AckMode::Lenient, status, &[("Retry-After", value)], "") {
            Outcome::Rejected { reason: Reason::HttpStatus, retry_after } => retry_after.map(|wait| wait.as_secs()),
            other => unreachable!("{other:?}"),
        };
        for (value, secs) in [
            ("120", Some(120)),
            ("0", Some(0)),
            ("86401", Some(86_400)),
            ("99999999999999999999999", Some(86_400)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:59:37 GMT", Some(600)),
            ("Sunday, 06-Nov-94 08:59:37 GMT", Some(600)),
            ("Sun Nov  6 08:59:37 1994", Some(600)),
            ("Mon, 06 Nov 2034 08:49:37 GMT", Some(86_400)),
            ("Sun, 06 Nov 1984 08:49:37 GMT", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(wait(429, value), secs, "{value}");
            assert_eq!(wait(503, value), secs, "{value}");
            assert_eq!(wait(500, value), None, "{value}");
        }
        let two = [("retry-after", "x"), ("retry-after", "7")];
        let waited = Outcome::Rejected { reason: Reason::HttpStatus, retry_after: Some(Duration::from_secs(7)) };
        assert_eq!(answer(AckMode::Ack, 503, &two, ""), waited);
    }
}
