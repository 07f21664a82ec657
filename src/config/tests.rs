//! Tests of what a configuration file may contain, and of the problems reported otherwise.

#![expect(clippy::unwrap_used, reason = "tests may panic")]

use std::fs;

use toml::de::DeTable;

use super::load::read;
use super::{Config, Outbound, Signup, Smtp, UnknownRecipients};

const EXAMPLE: &str = include_str!("../../mailkite.toml.example");
const REQUIRED: &str = "hostname = \"mx.example.com\"\npublic_url = \"https://mail.example.com\"\n";

fn problems(text: &str) -> Vec<String> {
    Config::parse(&format!("{REQUIRED}{text}")).unwrap_err().iter().map(ToString::to_string).collect()
}

fn good(text: &str) -> Config {
    Config::parse(&format!("{REQUIRED}{text}")).unwrap()
}

/// Returns the example with its commented settings switched on: `#key = value`, no space after the sign.
fn example_switched_on() -> String {
    let on = |line: &str| match line.strip_prefix('#') {
        Some(setting) if setting.starts_with(|first: char| first.is_ascii_lowercase()) => setting.to_owned(),
        _ => line.to_owned(),
    };
    EXAMPLE.lines().map(on).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_file_is_the_defaults() {
    let example = Config::parse(EXAMPLE).unwrap();
    let defaults = Config {
        hostname: "mail.example.com".to_owned(),
        public_url: "https://mail.example.com".to_owned(),
        ..Config::default()
    };
    assert_eq!(example, defaults);
}

#[test]
fn the_example_file_names_every_setting_and_no_other() {
    let text = example_switched_on();
    let reading = read(&text, None);
    assert_eq!(reading.problems, []);
    let (table, _) = DeTable::parse_recoverable(&text);
    for key in reading.known {
        let (sections, last) = key.rsplit_once('.').map_or((None, key.as_str()), |(above, last)| (Some(above), last));
        let mut sections = sections.into_iter().flat_map(|sections| sections.split('.'));
        let table = sections.try_fold(table.get_ref(), |table, section| table.get(section)?.get_ref().as_table());
        assert!(table.is_some_and(|table| table.contains_key(last)), "{key} is missing in mailkite.toml.example");
    }
}

#[test]
fn the_two_required_settings_suffice() {
    let config = good("");
    assert_eq!(config.hostname, "mx.example.com");
    assert_eq!(config.smtp, Smtp::default());
    let missing = Config::parse("").unwrap_err();
    assert_eq!(missing.iter().map(|problem| problem.key.as_str()).collect::<Vec<_>>(), ["hostname", "public_url"]);
}

#[test]
fn all_problems_come_at_once_in_the_order_of_lines() {
    let found = problems(
        "[smtp]\nlistn = [\"0.0.0.0:25\"]\nmax_recipients = 0\nmax_sessions = \"many\"\n[webhooks]\nretry = []\n",
    );
    assert_eq!(
        found,
        [
            "line 4: smtp.listn: there is no such setting; did you mean `smtp.listen`?",
            "line 5: smtp.max_recipients: must be a whole number from 100 to 10000 recipients, not 0",
            "line 6: smtp.max_sessions: must be a whole number from 1 to 100000 sessions, not \"many\"",
            "line 7: webhooks: there is no such setting; did you mean `webhook`?",
        ]
    );
}

#[test]
fn a_setting_in_the_wrong_section_is_sent_to_the_right_one() {
    let found = problems("[http]\nunknown_recipients = \"reject\"\n");
    let wanted = "there is no such setting; did you mean `smtp.unknown_recipients`, in the section [smtp]?";
    assert_eq!(found, [format!("line 4: http.unknown_recipients: {wanted}")]);
}

#[test]
fn text_that_is_not_toml_is_told_with_its_line_beside_other_problems() {
    let found = problems("data_dir = \n[smtp]\nmax_recipients = 0\n");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().any(|problem| problem.starts_with("line 3: this is not TOML: ")), "{found:?}");
    assert!(found.iter().any(|problem| problem.starts_with("line 5: smtp.max_recipients: ")), "{found:?}");
}

#[test]
fn a_section_given_as_a_value_and_a_value_given_as_a_section_are_refused() {
    assert!(problems("smtp = 5\n").concat().contains("write [smtp] on a line of its own"));
    assert!(problems("[data_dir]\nx = 1\n").concat().contains("must be text in quotes, not a section"));
}

#[test]
fn every_item_of_a_list_is_judged_on_its_own_line() {
    let found = problems("[smtp]\nlisten = [\n \"0.0.0.0:25\",\n \"0.0.0.0\",\n \"mx:25\",\n]\n");
    assert_eq!(found.len(), 2);
    assert!(found.concat().contains("line 6: smtp.listen: \"0.0.0.0\": the port is missing"), "{found:?}");
    assert!(found.concat().contains("line 7: smtp.listen: \"mx:25\": this is not an address"), "{found:?}");
    let bare = problems("[smtp]\nlisten = \"0.0.0.0:25\"\n");
    assert!(bare.concat().ends_with("write: listen = [\"0.0.0.0:25\"]"), "{bare:?}");
}

#[test]
fn values_are_read_as_meant() {
    let config = good(
        "[dns]\nservers = [\"9.9.9.9\", \"[::1]:5353\"]\n[webhook]\nretry = [\"50ms\", \"2h\", \"1d\"]\n\
         allow_networks = [\"10.0.0.0/8\", \"192.0.2.7\"]\n[metrics]\nlisten = \"off\"\n\
         [smtp]\nmax_message_bytes = 0x100_000\nunknown_recipients = \"reject\"\n[http]\nrate_limit = 0\n\
         [auth]\nsignup = \"closed\"\n[auth.google]\nclient_id = \"id\"\nclient_secret = \"s\"\n\
         redirect_uri = \"postmessage\"\ntoken_url = \"http://127.0.0.1:9/token\"\n",
    );
    assert_eq!((config.http.rate_limit, config.auth.signup), (0, Signup::Closed));
    let google = config.auth.google;
    assert_eq!((google.client_id.as_deref(), google.client_secret.as_deref()), (Some("id"), Some("s")));
    assert_eq!(google.redirect_uri.as_deref(), Some("postmessage"));
    assert_eq!(google.token_url, "http://127.0.0.1:9/token");
    assert_eq!(google.jwks_url, "https://www.googleapis.com/oauth2/v3/certs");
    assert_eq!(config.dns.servers, ["9.9.9.9:53".parse().unwrap(), "[::1]:5353".parse().unwrap()]);
    assert_eq!(
        config.webhook.retry.iter().map(|wait| wait.as_millis()).collect::<Vec<_>>(),
        [50, 7_200_000, 86_400_000]
    );
    assert_eq!(config.webhook.allow_networks, ["10.0.0.0/8".parse().unwrap(), "192.0.2.7/32".parse().unwrap()]);
    assert_eq!(config.metrics.listen, None);
    assert_eq!(config.smtp.max_message_bytes, 1_048_576);
    assert_eq!(config.smtp.unknown_recipients, UnknownRecipients::Reject);
}

#[test]
fn values_that_cannot_be_meant_are_refused() {
    for (text, words) in [
        ("[webhook]\nretry = [\"5\"]\n", "not a duration"),
        ("[webhook]\nretry = [5]\n", "not a duration"),
        ("[webhook]\nretry = [\"0s\"]\n", "no wait at all"),
        ("[webhook]\nretry = [\"99999999999999999999h\"]\n", "not a duration"),
        ("[webhook]\nretry = [\"31d\"]\n", "too long"),
        ("[webhook]\nallow_localhost = \"yes\"\n", "true or false"),
        ("[webhook]\nallow_networks = [\"10.0.0.1/8\"]\n", "write \"10.0.0.0/8\""),
        ("[smtp]\nmax_message_bytes = 26214400.0\n", "whole number"),
        ("[smtp]\nmax_message_bytes = -1\n", "whole number"),
        ("[smtp]\nmax_message_bytes = 99999999999999999999999\n", "whole number"),
        ("[smtp]\nunknown_recipients = \"bounce\"\n", "\"accept\", \"reject\""),
        ("[smtp]\nlisten = [\"127.0.0.1:8080\"]\n", "is taken by smtp.listen"),
        ("[log]\nlevel = \"loud\"\n", "\"error\", \"warn\""),
        ("[log]\nlevel = \"info,mailkite=loud\"\n", "or directives"),
        ("[spam]\nrspamd_url = \"localhost:11333\"\n", "not a web address"),
        ("[tls]\ncert_file = \"a.pem\"\n", "tls.key_file is missing"),
        ("[metrics]\ntoken = \"abc\"\n", "shorter than 16"),
        ("data_dir = \"\"\n", "is empty"),
        ("[auth]\nsignup = \"everybody\"\n", "\"first\", \"open\", \"closed\""),
        ("[auth]\ngoogle = true\n", "write [auth.google] on a line of its own"),
        ("[auth.google]\nclient_id = \"a\"\n", "auth.google.client_secret is missing"),
        ("[auth.google]\nclient_secret = \"a\"\n", "auth.google.client_id is missing"),
        ("[auth.google]\nclient_ids = \"a\"\n", "did you mean `auth.google.client_id`?"),
        ("[auth.google]\ntoken_url = \"http://oauth2.googleapis.com/token\"\n", "in the clear"),
        ("[auth.google]\njwks_url = \"googleapis.com/certs\"\n", "not a URL"),
        ("[auth.google]\nredirect_uri = \"app.example.com\"\n", "not a URL"),
        ("[http]\nrate_limit = -1\n", "whole number"),
    ] {
        let found = problems(text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found.concat().contains(words), "{text}: {found:?}");
    }
}

#[test]
fn host_names_become_lower_case_a_labels() {
    let host = |name: &str| Config::parse(&format!("hostname = {name:?}\npublic_url = \"https://a.example\"\n"));
    for (written, read) in [
        ("MX.Example.COM.", "mx.example.com"),
        ("post.bücher.example", "post.xn--bcher-kva.example"),
        ("localhost", "localhost"),
    ] {
        assert_eq!(host(written).unwrap().hostname, read);
    }
    for (written, words) in [
        ("192.0.2.1", "is an IP address"),
        ("[::1]", "is an IP address"),
        ("mx", "mx.example.com"),
        ("mx example.com", "not a host name"),
        ("mx_1.example.com", "not a host name"),
        ("mx..example.com", "not a host name"),
        ("mx.example.com:25", "without scheme, port"),
        ("https://mx.example.com", "without scheme, port"),
        ("mx.123", "last part"),
    ] {
        let found = host(written).unwrap_err();
        assert!(found.iter().any(|problem| problem.message.contains(words)), "{written}: {found:?}");
    }
}

#[test]
fn the_public_url_is_an_origin() {
    let url = |url: &str| Config::parse(&format!("hostname = \"a.example\"\npublic_url = {url:?}\n"));
    for (written, read) in [
        ("https://Mail.Example.com/", "https://mail.example.com"),
        ("https://mail.example.com:8443", "https://mail.example.com:8443"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://localhost:8080/", "http://localhost:8080"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
    ] {
        assert_eq!(url(written).unwrap().public_url, read);
    }
    for (written, words) in [
        ("mail.example.com", "not a URL"),
        ("ftp://mail.example.com", "not a web address"),
        ("https://mail.example.com/kite", "has a path"),
        ("https://mail.example.com?x", "has a query"),
        ("https://me:secret@mail.example.com", "user name or password"),
    ] {
        let found = url(written).unwrap_err();
        assert!(found.iter().any(|problem| problem.message.contains(words)), "{written}: {found:?}");
        assert!(!format!("{found:?}").contains("secret"), "{found:?}");
    }
}

#[test]
fn files_are_looked_for_beside_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mailkite.toml");
    let tls = "[tls]\ncert_file = \"cert.pem\"\nkey_file = \"key.pem\"\n";
    fs::write(&file, format!("{REQUIRED}data_dir = \"data\"\n{tls}")).unwrap();
    fs::write(folder.path().join("cert.pem"), "x").unwrap();
    let problems = Config::load(&file).unwrap_err();
    let [problem] = problems.as_slice() else { unreachable!("{problems:?}") };
    assert_eq!((problem.key.as_str(), problem.line), ("tls.key_file", Some(6)));
    fs::write(folder.path().join("key.pem"), "x").unwrap();
    let config = Config::load(&file).unwrap();
    assert_eq!(config.tls.cert_file, Some(folder.path().join("cert.pem")));
    assert_eq!(config.data_dir, folder.path().join("data"));
}

#[test]
fn a_file_that_is_not_utf8_is_told_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mailkite.toml");
    fs::write(&file, b"# a\n# caf\xe9\n").unwrap();
    let shown = format!("{:?}", Config::load(&file).unwrap_err());
    assert!(shown.contains("line: Some(2)") && shown.contains("UTF-8"), "{shown}");
}

#[test]
fn secrets_are_not_printed() {
    let config = good("[auth.google]\nclient_id = \"kite\"\nclient_secret = \"GOCSPX-0123\"\n");
    let shown = format!("{config:?}");
    assert!(shown.contains("kite") && !shown.contains("GOCSPX"), "{shown}");
    let config = good("[metrics]\ntoken = \"0123456789abcdef0123\"\n");
    assert!(!format!("{config:?}").contains("0123456789abcdef"));
}

#[test]
fn the_spf_include_may_begin_with_an_underscore_as_they_do() {
    let config = good("[dns]\nspf_include = \"_SPF.Example.com.\"\n");
    assert_eq!(config.dns.spf_include.as_deref(), Some("_spf.example.com"));
    for bad in ["spf", "a b.example", "http://spf.example.com", "192.0.2.1/24"] {
        let found = problems(&format!("[dns]\nspf_include = {bad:?}\n"));
        assert!(found.iter().any(|problem| problem.contains("is not a DNS name")), "{bad}: {found:?}");
    }
}

#[test]
fn source_addresses_are_addresses() {
    let config =
        good("[outbound]\nsource_addresses = [\"192.0.2.1\", \"2001:db8::1\"]\nipv6 = false\nhost_width = 5\n");
    let read: Vec<String> = config.outbound.source_addresses.iter().map(ToString::to_string).collect();
    assert_eq!(
        (read, config.outbound.ipv6, config.outbound.host_width),
        (vec!["192.0.2.1".to_owned(), "2001:db8::1".to_owned()], false, 5)
    );
    assert!(good("").outbound.ipv6);
    for bad in ["mail.example.com", "192.0.2.0/24", "0.0.0.0", "::", "224.0.0.1", "192.0.2.1:25"] {
        let found = problems(&format!("[outbound]\nsource_addresses = [{bad:?}]\n"));
        assert!(
            found.iter().any(|problem| problem.contains("is not an address of this machine")),
            "{bad}: {found:?}"
        );
    }
    assert!(!problems("[outbound]\nhost_width = 0\n").is_empty());
}

#[test]
fn a_paced_lane_is_no_wider_than_it_has_turns_in_five_minutes() {
    for (width, a_minute, paced) in [(4, 0, 4), (4, 1, 4), (64, 1, 5), (64, 10, 50), (64, 1_000, 64)] {
        let outbound = Outbound { lane_width: width, domain_rate_per_minute: a_minute, ..Outbound::default() };
        assert_eq!(outbound.paced_lane_width(), paced, "{width} {a_minute}");
    }
}

#[test]
fn smarthosts_are_read_for_all_mail_and_for_single_domains() {
    let config = good(
        "[outbound.smarthost]\nhost = \"SMTP.example.com\"\nsecurity = \"tls\"\n\
         [outbound.domain_smarthosts.\"Acme.dev\"]\nhost = \"10.0.0.5\"\nport = 25\nsecurity = \"none\"\n\
         username = \"u\"\npassword = \"p\"\nfallback = true\n",
    );
    let everywhere = config.outbound.smarthost_of("other.test").unwrap();
    assert_eq!((everywhere.host.as_str(), everywhere.port), ("smtp.example.com", 465));
    let acme = config.outbound.smarthost_of("acme.dev").unwrap();
    assert_eq!((acme.host.as_str(), acme.port, acme.fallback), ("10.0.0.5", 25, true));
    assert!(!format!("{config:?}").contains("\"p\""), "passwords are not printed");
}

#[test]
fn a_smarthost_that_cannot_be_meant_is_refused() {
    for (text, wanted) in [
        ("[outbound.smarthost]\nhost = \"a.test\"\nusername = \"u\"\n", "username and password go together"),
        (
            "[outbound.smarthost]\nhost = \"a.test\"\nsecurity = \"none\"\nusername = \"u\"\npassword = \"p\"\n",
            "in the clear",
        ),
        ("[outbound.smarthost]\nhost = \"a.test:25\"\n", "without port"),
        ("[outbound.smarthost]\nhots = \"a.test\"\n", "did you mean `outbound.smarthost.host`?"),
        ("[outbound.domain_smarthosts.\"acme.dev\"]\nport = 25\n", "host is missing"),
        ("[outbound.domain_smarthosts.\"a b\"]\nhost = \"a.test\"\n", "is not a domain"),
        ("[submission]\nlisten = [\"127.0.0.1:8080\"]\n", "127.0.0.1:8080 is taken by http.listen"),
        ("[outbound]\nport = 0\n", "from 1 to 65535"),
    ] {
        let found = problems(text);
        assert!(found.len() == 1 && found.concat().contains(wanted), "{text}: {found:?}");
    }
}
