//! Runs a dialog script of `tests/dialogs` against a server.
//!
//! `C: text` is sent with CRLF and `C~ text` as it stands; lines that follow one another go out in one segment.
//! Both know `\r \n \t \0 \\ \xNN` and `{text*n}`. `S: text` is the next line from the server, where `*` stands for
//! anything; `S*n: text` is such a line n times. `TLS` makes the handshake, `CLOSED` is the end of the connection,
//! `STORED n` counts messages, `NEW` opens another connection. `# text` is a comment, `set key value` before all else
//! changes the configuration.

use mailkite::testing::clock::Clock;
use mailkite::testing::config::{Config, UnknownRecipients};

use super::server::Server;
use super::smtp::SmtpClient;

/// Runs one script; `name` is for its failures.
pub(crate) async fn run(name: &str, script: &str) {
    let server = Server::start_with(Clock::System, |config| {
        for line in script.lines().filter(|line| line.starts_with("set ")) {
            set(config, line, name);
        }
    })
    .await;
    let mut client = Some(SmtpClient::open(server.smtp).await);
    let mut pending = Vec::new();
    for (number, line) in script.lines().enumerate() {
        let place = format!("{name}:{}", number + 1);
        let is_sent = line.starts_with("C: ") || line.starts_with("C~ ") || line == "C:";
        if !is_sent && !pending.is_empty() {
            // The server may have closed already; what it said is checked below.
            drop(client.as_mut().unwrap().try_send(&std::mem::take(&mut pending)).await);
        }
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "" | "#" | "set" => {}
            "C:" => {
                pending.extend(expand(rest));
                pending.extend_from_slice(b"\r\n");
            }
            "C~" => pending.extend(expand(rest)),
            _ if word.starts_with('S') && word.ends_with(':') => {
                let times = word.trim_start_matches("S*").trim_end_matches(':').parse().unwrap_or(1);
                for _ in 0..times {
                    let said = client.as_mut().unwrap().line().await;
                    let said = said.unwrap_or_else(|error| panic!("{place}: {rest:?} was due: {error}"));
                    assert!(matches_pattern(&said, rest), "{place}:\n expected {rest}\n but got  {said}");
                }
            }
            "TLS" => client = Some(client.take().unwrap().into_tls().await),
            "CLOSED" => assert!(client.as_mut().unwrap().is_closed().await, "{place}: it is not closed"),
            "NEW" => client = Some(SmtpClient::open(server.smtp).await),
            "STORED" => {
                let stored: i64 = server.query("SELECT count(*) FROM message").await;
                assert_eq!(stored.to_string(), rest, "{place}: stored messages");
            }
            _ => panic!("{place}: not a line of a dialog: {line}"),
        }
    }
    drop(client);
    server.stop().await;
}

fn set(config: &mut Config, line: &str, name: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        ["set", "max_message_bytes", value] => config.smtp.max_message_bytes = value.parse().unwrap(),
        ["set", "max_recipients", value] => config.smtp.max_recipients = value.parse().unwrap(),
        ["set", "command_timeout_secs", value] => config.smtp.command_timeout_secs = value.parse().unwrap(),
        ["set", "data_timeout_secs", value] => config.smtp.data_timeout_secs = value.parse().unwrap(),
        ["set", "unknown_recipients", "reject"] => config.smtp.unknown_recipients = UnknownRecipients::Reject,
        _ => panic!("{name}: {line}"),
    }
}

/// Undoes escapes, then repetitions, from left to right.
fn expand(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        let Some((inside, behind)) = rest[start + 1..].split_once('}') else { break };
        bytes.extend(unescape(&rest[..start]));
        let (what, count) = inside.rsplit_once('*').unwrap();
        bytes.extend(unescape(what).repeat(count.parse().unwrap()));
        rest = behind;
    }
    bytes.extend(unescape(rest));
    bytes
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (&code, behind) = rest.split_first().unwrap();
        rest = behind;
        bytes.push(match code {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'0' => 0,
            b'\\' => b'\\',
            b'x' => {
                let (digits, behind) = rest.split_at(2);
                rest = behind;
                u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
            }
            other => panic!("\\{} is no escape", char::from(other)),
        });
    }
    bytes
}

/// True when a line is as expected, where each `*` stands for anything.
fn matches_pattern(said: &str, expected: &str) -> bool {
    let mut parts = expected.split('*');
    let Some(mut rest) = said.strip_prefix(parts.next().unwrap()) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}
