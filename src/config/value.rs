//! Readers for each kind of value: return the typed value, or a sentence that says what to write instead.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeValue;
use tracing_subscriber::EnvFilter;
use url::Url;

use crate::mail::address::Domain;

/// The typed value, or what to tell the operator.
pub(super) type ReadResult<T> = Result<T, String>;

const LOOPBACK_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Formats the value as written, shortened to fit a sentence.
pub(super) fn display(value: &DeValue<'_>) -> String {
    const LONGEST: usize = 60;
    match value {
        DeValue::String(text) if text.chars().count() > LONGEST => {
            format!("{:?}…", text.chars().take(LONGEST).collect::<String>())
        }
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a section".to_owned(),
    }
}

/// Reads any non-empty text.
pub(super) fn text(value: &DeValue<'_>) -> ReadResult<String> {
    match value.as_str() {
        Some("") => Err("is empty; write a value or remove the line".to_owned()),
        Some(text) if text.contains(char::is_control) => Err("contains a control character; remove it".to_owned()),
        Some(text) => Ok(text.to_owned()),
        None => Err(format!("must be text in quotes, not {}", display(value))),
    }
}

pub(super) fn boolean(value: &DeValue<'_>) -> ReadResult<bool> {
    value.as_bool().ok_or_else(|| format!("must be true or false (without quotes), not {}", display(value)))
}

/// Reads a whole number within `range`; `unit` follows the numbers in the sentence.
pub(super) fn number<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
    unit: &str,
) -> impl Fn(&DeValue<'_>) -> ReadResult<T> {
    move |value| {
        let number = value.as_integer().map(|digits| u64::from_str_radix(digits.as_str(), digits.radix()));
        let fitting = number.and_then(Result::ok).filter(|number| range.contains(number));
        fitting.and_then(|number| T::try_from(number).ok()).ok_or_else(|| {
            let (low, high) = range.clone().into_inner();
            format!("must be a whole number from {low} to {high} {unit}, not {}", display(value))
        })
    }
}

/// Reads one of a few words.
pub(super) fn choice<T: Copy>(words: &'static [(&'static str, T)]) -> impl Fn(&DeValue<'_>) -> ReadResult<T> {
    move |value| {
        let found = words.iter().find(|(word, _)| Some(*word) == value.as_str());
        found.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            format!("must be one of {}, not {}", words.join(", "), display(value))
        })
    }
}

/// Reads an address and port to listen on.
pub(super) fn socket(value: &DeValue<'_>) -> ReadResult<SocketAddr> {
    let text = text(value)?;
    text.parse().map_err(|_| {
        let hint =
            if text.parse::<IpAddr>().is_ok() { "the port is missing" } else { "this is not an address and port" };
        format!("{text:?}: {hint}; write an IP address and a port, such as \"0.0.0.0:25\" or \"[::]:25\"")
    })
}

/// Reads a [`socket`], or the word `off`.
pub(super) fn socket_or_off(value: &DeValue<'_>) -> ReadResult<Option<SocketAddr>> {
    if value.as_str() == Some("off") { Ok(None) } else { socket(value).map(Some) }
}

/// Reads the address of a DNS server; the port is optional.
pub(super) fn dns_server(value: &DeValue<'_>) -> ReadResult<SocketAddr> {
    let text = text(value)?;
    let bare = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53));
    bare.or_else(|_| text.parse()).map_err(|_| {
        format!(
            "{text:?} is not the address of a DNS server; write an IP address, such as \"9.9.9.9\" or \"[::1]:5353\""
        )
    })
}

/// Reads a network; a single address is a network of its own.
pub(super) fn network(value: &DeValue<'_>) -> ReadResult<IpNet> {
    let text = text(value)?;
    let single = text.parse::<IpAddr>().map(IpNet::from);
    let network: IpNet = single.or_else(|_| text.parse()).map_err(|_| {
        format!(
            "{text:?} is not a network; write an address with a prefix length, such as \"10.0.0.0/8\" or \"fd00::/8\""
        )
    })?;
    if network.trunc() == network {
        Ok(network)
    } else {
        Err(format!("{text:?} is one address within a network; write \"{}\" for all of it", network.trunc()))
    }
}

/// Reads a duration: a whole number and its unit.
pub(super) fn duration(value: &DeValue<'_>) -> ReadResult<Duration> {
    const LONGEST: Duration = Duration::from_secs(30 * 86_400);
    const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let text = value.as_str().unwrap_or_default();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let parts = text.split_at_checked(digits).and_then(|(number, unit)| {
        let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit)?;
        number.parse::<u64>().ok()?.checked_mul(*millis)
    });
    let wrong = "is not a duration; write a whole number and its unit (ms, s, m, h, d) in quotes, such as \"5m\"";
    match parts.map(Duration::from_millis) {
        None => Err(format!("{} {wrong}", display(value))),
        Some(Duration::ZERO) => Err(format!("{text:?} is no wait at all; write at least \"1ms\"")),
        Some(span) if span > LONGEST => Err(format!("{text:?} is too long; write at most \"30d\"")),
        Some(span) => Ok(span),
    }
}

/// Reads a log level, or filter directives of `tracing-subscriber`.
pub(super) fn filter(value: &DeValue<'_>) -> ReadResult<String> {
    const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
    let text = text(value)?;
    // A bare word that is not a level would be taken for a module name, and log nothing.
    let levels = text.split(',').all(|part| part.contains('=') || LEVELS.contains(&part.trim()));
    if levels && EnvFilter::try_new(&text).is_ok() {
        return Ok(text);
    }
    let words = "must be \"error\", \"warn\", \"info\", \"debug\", \"trace\" or directives like \
                 \"info,mailkite::jobs=debug\"";
    Err(format!("{words}, not {text:?}"))
}

/// Reads a fully qualified host name as a lower-case A-label without final dot.
pub(super) fn hostname(value: &DeValue<'_>) -> ReadResult<String> {
    let text = text(value)?;
    let bare = text.strip_suffix('.').unwrap_or(&text);
    if bare.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        return Err(format!("{text:?} is an IP address; write the host name that its reverse DNS gives"));
    }
    if bare.contains(['/', ':', '@']) {
        return Err(format!(
            "{text:?}: write the name alone, without scheme, port or path, such as \"mail.example.com\""
        ));
    }
    let name = idna::domain_to_ascii_strict(bare)
        .map_err(|_| format!("{text:?} is not a host name; one consists of letters, digits, hyphens and dots"))?;
    let top = name.rsplit('.').next().unwrap_or_default();
    if top.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{text:?} is not a host name; its last part cannot be a number"));
    }
    if name == top && name != "localhost" {
        return Err(format!("{text:?} has no domain; write the full name, such as \"{name}.example.com\""));
    }
    Ok(name)
}

/// Reads a name of two labels or more, underscores allowed, as a lower-case A-label without final dot.
pub(super) fn dns_name(value: &DeValue<'_>) -> ReadResult<String> {
    let text = text(value)?;
    match Domain::parse(&text) {
        Ok(name) if name.as_str().contains('.') => Ok(name.as_str().to_owned()),
        _ => Err(format!("{text:?} is not a DNS name; write one such as \"_spf.example.com\"")),
    }
}

/// Reads the origin of our own HTTP service, without trailing slash.
pub(super) fn public_url(value: &DeValue<'_>) -> ReadResult<String> {
    let (text, url) = http_url(value, "https://mail.example.com")?;
    if url.path() != "/" {
        return Err(format!(
            "{text:?} has a path; write scheme and host alone: \"{}\"",
            url.origin().ascii_serialization()
        ));
    }
    Ok(url.origin().ascii_serialization())
}

/// Reads the base URL of another service, without trailing slash.
pub(super) fn service_url(value: &DeValue<'_>) -> ReadResult<String> {
    let (_, url) = http_url(value, "http://127.0.0.1:11333")?;
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// Reads the URL of an endpoint that receives secrets: `https`, or `http` on this machine.
pub(super) fn secret_url(value: &DeValue<'_>) -> ReadResult<String> {
    let (text, url) = http_url(value, "https://oauth2.googleapis.com/token")?;
    if url.scheme() == "https" || url.host_str().is_some_and(|host| LOOPBACK_HOSTS.contains(&host)) {
        return Ok(url.into());
    }
    Err(format!("{text:?} would send secrets in the clear; it must begin with https:// unless it is on this machine"))
}

/// Reads the redirect URI of a Google sign-in: a web address, or the word that Google's own script uses instead.
pub(super) fn redirect_uri(value: &DeValue<'_>) -> ReadResult<String> {
    if value.as_str() == Some("postmessage") {
        return text(value);
    }
    http_url(value, "https://app.example.com/signed-in").map(|(text, _)| text)
}

fn http_url(value: &DeValue<'_>, example: &str) -> ReadResult<(String, Url)> {
    let text = text(value)?;
    let url = Url::parse(&text)
        .map_err(|error| format!("{text:?} is not a URL ({error}); write one such as {example:?}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(format!("{text:?} is not a web address; write one such as {example:?}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("contains a user name or password; remove it".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("{text:?} has a query or fragment; remove all from the ? or # on"));
    }
    Ok((text, url))
}
