//! How each kind of value is read: a TOML value becomes a typed one, or a sentence says what to write instead.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeValue;
use tracing_subscriber::EnvFilter;
use url::Url;

use super::read::Reading;
use crate::mail::address::Domain;

const LOOPBACK_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// The value as a person wrote it, short enough for a sentence.
pub(super) fn shown(value: &DeValue<'_>) -> String {
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

/// Any text but the empty one.
pub(super) fn text(value: &DeValue<'_>) -> Reading<String> {
    match value.as_str() {
        Some("") => Err("is empty; write a value or remove the line".to_owned()),
        Some(text) if text.contains(char::is_control) => Err("contains a control character; remove it".to_owned()),
        Some(text) => Ok(text.to_owned()),
        None => Err(format!("must be text in quotes, not {}", shown(value))),
    }
}

pub(super) fn truth(value: &DeValue<'_>) -> Reading<bool> {
    value.as_bool().ok_or_else(|| format!("must be true or false (without quotes), not {}", shown(value)))
}

/// A whole number within `range`; `unit` stands behind the numbers in the sentence.
pub(super) fn number<T: TryFrom<u64>>(range: RangeInclusive<u64>, unit: &str) -> impl Fn(&DeValue<'_>) -> Reading<T> {
    move |value| {
        let number = value.as_integer().map(|digits| u64::from_str_radix(digits.as_str(), digits.radix()));
        let fitting = number.and_then(Result::ok).filter(|number| range.contains(number));
        fitting.and_then(|number| T::try_from(number).ok()).ok_or_else(|| {
            let (low, high) = range.clone().into_inner();
            format!("must be a whole number from {low} to {high} {unit}, not {}", shown(value))
        })
    }
}

/// One of a few words.
pub(super) fn choice<T: Copy>(words: &'static [(&'static str, T)]) -> impl Fn(&DeValue<'_>) -> Reading<T> {
    move |value| {
        let found = words.iter().find(|(word, _)| Some(*word) == value.as_str());
        found.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            format!("must be one of {}, not {}", words.join(", "), shown(value))
        })
    }
}

/// An address and port to listen on.
pub(super) fn socket(value: &DeValue<'_>) -> Reading<SocketAddr> {
    let text = text(value)?;
    text.parse().map_err(|_| {
        let hint = if text.parse::<IpAddr>().is_ok() { "the port is missing" } else { "that is no address and port" };
        format!("{text:?}: {hint}; write an IP address and a port, such as \"0.0.0.0:25\" or \"[::]:25\"")
    })
}

/// [`socket`], or the word `off`.
pub(super) fn socket_or_off(value: &DeValue<'_>) -> Reading<Option<SocketAddr>> {
    if value.as_str() == Some("off") { Ok(None) } else { socket(value).map(Some) }
}

/// The address of a DNS server; the port may be left out.
pub(super) fn dns_server(value: &DeValue<'_>) -> Reading<SocketAddr> {
    let text = text(value)?;
    let bare = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53));
    bare.or_else(|_| text.parse()).map_err(|_| {
        format!("{text:?} is no address of a DNS server; write an IP address, such as \"9.9.9.9\" or \"[::1]:5353\"")
    })
}

/// A network; a single address is the network of itself.
pub(super) fn network(value: &DeValue<'_>) -> Reading<IpNet> {
    let text = text(value)?;
    let single = text.parse::<IpAddr>().map(IpNet::from);
    let network: IpNet = single.or_else(|_| text.parse()).map_err(|_| {
        format!(
            "{text:?} is no network; write an address with a prefix length, such as \"10.0.0.0/8\" or \"fd00::/8\""
        )
    })?;
    if network.trunc() == network {
        Ok(network)
    } else {
        Err(format!("{text:?} names one address in a network; write \"{}\" for all of it", network.trunc()))
    }
}

/// A span of time: a whole number and its unit.
pub(super) fn duration(value: &DeValue<'_>) -> Reading<Duration> {
    const LONGEST: Duration = Duration::from_secs(30 * 86_400);
    const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let text = value.as_str().unwrap_or_default();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let parts = text.split_at_checked(digits).and_then(|(number, unit)| {
        let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit)?;
        number.parse::<u64>().ok()?.checked_mul(*millis)
    });
    let wrong = "is no span of time; write a whole number and its unit (ms, s, m, h, d) in quotes, such as \"5m\"";
    match parts.map(Duration::from_millis) {
        None => Err(format!("{} {wrong}", shown(value))),
        Some(Duration::ZERO) => Err(format!("{text:?} is no time at all; write at least \"1ms\"")),
        Some(span) if span > LONGEST => Err(format!("{text:?} is too long; write at most \"30d\"")),
        Some(span) => Ok(span),
    }
}

/// A log level, or filter directives of `tracing-subscriber`.
pub(super) fn filter(value: &DeValue<'_>) -> Reading<String> {
    const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
    let text = text(value)?;
    // A bare word that is no level would pass as the name of a module, and log nothing.
    let levels = text.split(',').all(|part| part.contains('=') || LEVELS.contains(&part.trim()));
    if levels && EnvFilter::try_new(&text).is_ok() {
        return Ok(text);
    }
    let words = "must be \"error\", \"warn\", \"info\", \"debug\", \"trace\" or directives like \"info,mailkite::jobs=debug\"";
    Err(format!("{words}, not {text:?}"))
}

/// A host name that others can look up, as a lower-case A-label without final dot.
pub(super) fn hostname(value: &DeValue<'_>) -> Reading<String> {
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
        .map_err(|_| format!("{text:?} is no host name; letters, digits, hyphens and dots make one"))?;
    let top = name.rsplit('.').next().unwrap_or_default();
    if top.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{text:?} is no host name; its last part cannot be a number"));
    }
    if name == top && name != "localhost" {
        return Err(format!("{text:?} has no domain; write the full name, such as \"{name}.example.com\""));
    }
    Ok(name)
}

/// A name of two labels or more, underscores allowed, as a lower-case A-label without final dot.
pub(super) fn dns_name(value: &DeValue<'_>) -> Reading<String> {
    let text = text(value)?;
    match Domain::parse(&text) {
        Ok(name) if name.as_str().contains('.') => Ok(name.as_str().to_owned()),
        _ => Err(format!("{text:?} is no DNS name; write one such as \"_spf.example.com\"")),
    }
}

/// The origin of our own HTTP service, without trailing slash.
pub(super) fn public_url(value: &DeValue<'_>) -> Reading<String> {
    let (text, url) = http_url(value, "https://mail.example.com")?;
    if url.path() != "/" {
        return Err(format!(
            "{text:?} has a path; write scheme and host alone: \"{}\"",
            url.origin().ascii_serialization()
        ));
    }
    Ok(url.origin().ascii_serialization())
}

/// The base URL of another service, without trailing slash.
pub(super) fn service_url(value: &DeValue<'_>) -> Reading<String> {
    let (_, url) = http_url(value, "http://127.0.0.1:11333")?;
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// The URL of an endpoint that secrets are sent to: `https`, or `http` on this machine.
pub(super) fn secret_url(value: &DeValue<'_>) -> Reading<String> {
    let (text, url) = http_url(value, "https://oauth2.googleapis.com/token")?;
    if url.scheme() == "https" || url.host_str().is_some_and(|host| LOOPBACK_HOSTS.contains(&host)) {
        return Ok(url.into());
    }
    Err(format!(
        "{text:?} would send secrets in the clear; it has to begin with https:// unless it is on this machine"
    ))
}

/// Where a sign-in page of Google's returns to: a web address, or the word that its own script uses instead.
pub(super) fn redirect_uri(value: &DeValue<'_>) -> Reading<String> {
    if value.as_str() == Some("postmessage") {
        return text(value);
    }
    http_url(value, "https://app.example.com/signed-in").map(|(text, _)| text)
}

fn http_url(value: &DeValue<'_>, example: &str) -> Reading<(String, Url)> {
    let text = text(value)?;
    let url =
        Url::parse(&text).map_err(|error| format!("{text:?} is no URL ({error}); write one such as {example:?}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(format!("{text:?} is no web address; write one such as {example:?}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("contains a user name or password; remove it".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("{text:?} has a query or fragment; remove all from the ? or # on"));
    }
    Ok((text, url))
}
