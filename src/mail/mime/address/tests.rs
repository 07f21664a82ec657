//! Address lists as senders write them, malformed ones, and hostile ones.

use super::*;

fn read(raw: &str) -> Vec<(String, Option<String>)> {
    let mut out = Vec::new();
    parse(raw.as_bytes(), 100, &mut out);
    out.into_iter().map(|named| (named.address, named.name)).collect()
}

fn one(raw: &str, address: &str, name: Option<&str>) {
    assert_eq!(read(raw), [(address.to_owned(), name.map(str::to_owned))], "{raw}");
}

#[test]
fn mailboxes_are_read_in_every_form_senders_write() {
    one("ada@Example.COM", "ada@example.com", None);
    one("Ada Lovelace <ada@example.com>", "ada@example.com", Some("Ada Lovelace"));
    one("\"Lovelace, \\\"Ada\\\"\" <ada@example.com>", "ada@example.com", Some("Lovelace, \"Ada\""));
    one("ada@example.com (Ada Lovelace)", "ada@example.com", Some("Ada Lovelace"));
    one("Ada (the (first)) Lovelace<ada@example.com>", "ada@example.com", Some("Ada (the (first)) Lovelace"));
    one("=?utf-8?Q?Doe,_J=C3=B6rg?= <j@example.com>", "j@example.com", Some("Doe, J\u{f6}rg"));
    one("\"=?utf-8?B?w6Q=?=\" <j@example.com>", "j@example.com", Some("\u{e4}"));
    one("ceo@bank.example <thief@example.com>", "thief@example.com", Some("ceo@bank.example"));
    one("<@relay.example,@other.example:ada@example.com>", "ada@example.com", None);
    one("\"ada lovelace\"@example.com", "\"ada lovelace\"@example.com", None);
    one("Ada <ada@b\u{fc}cher.example>", "ada@xn--bcher-kva.example", Some("Ada"));
    one("ada@[192.0.2.1]", "ada@[192.0.2.1]", None);
    one("Ada <ada@\r\n example.com>", "ada@example.com", Some("Ada"));
    one("Ada < ada (home) @ example . com (x) >", "ada@example.com", Some("Ada"));
    one("ada @ example.com", "ada@example.com", None);
    one("Ada <<ada@example.com>>", "ada@example.com", Some("Ada"));
    one("Ada <ada@example.com", "ada@example.com", Some("Ada"));
    one("\"Ada <ada@example.com>", "ada@example.com", Some("Ada"));
    one("5\" Pipes > Co <ada@example.com>", "ada@example.com", Some("5 Pipes Co"));
    one("Ada \"Lovelace <ada@example.com>", "ada@example.com", Some("Ada Lovelace"));
}

#[test]
fn a_name_may_hold_what_it_should_have_quoted() {
    one("Fuller, Jo <jo@example.com>", "jo@example.com", Some("Fuller, Jo"));
    one("Fuller, Jo, PhD <jo@example.com>", "jo@example.com", Some("Fuller, Jo, PhD"));
    one("HowlHouse: A Centre for Theatre <w@example.com>", "w@example.com", Some("HowlHouse: A Centre for Theatre"));
    one("Support (Billing) <a@example.com>", "a@example.com", Some("Support (Billing)"));
    one("(Billing) <a@example.com>", "a@example.com", Some("Billing"));
    one("Ann <a@example.com> (home)", "a@example.com", Some("Ann"));
    one("A; B <a@example.com>", "a@example.com", Some("A; B"));
    one("=?utf-8?Q?M=C3=BCller?=, Jo <jo@example.com>", "jo@example.com", Some("Müller, Jo"));
    one("Team: a@example.com", "a@example.com", None);
    one("bob, a@example.com", "a@example.com", None);
    let both = read("Fuller, Jo <jo@x.example>, Ann <ann@x.example>");
    assert_eq!(both.iter().map(|(_, name)| name.as_deref()).collect::<Vec<_>>(), [Some("Fuller, Jo"), Some("Ann")]);
    let both = read("a@x.example, Jo <jo@x.example>");
    assert_eq!(both.iter().map(|(_, name)| name.as_deref()).collect::<Vec<_>>(), [None, Some("Jo")]);
    assert_eq!(read("a@x.example; b@x.example").len(), 2);
    assert_eq!(read("Team: Ann <ann@x.example>, b@x.example;").len(), 2);
}

#[test]
fn what_programs_write_around_an_address_is_no_part_of_it() {
    for raw in [
        "Ann <\"ann@example.com\">",
        "Ann <'ann@example.com'>",
        "Ann <mailto:ann@example.com>",
        "Ann <MAILTO:ann@example.com?subject=x>",
        "Ann <<ann@example.com>>",
        "Ann < ann@example.com >",
        "Ann <ann@example.com",
    ] {
        one(raw, "ann@example.com", Some("Ann"));
    }
    one("'ann@example.com'", "ann@example.com", None);
    one("mailto:ann@example.com", "ann@example.com", None);
    one("\"ann@example.com\" <ann@example.com>", "ann@example.com", Some("ann@example.com"));
    assert!(
        read("<\"ceo@bank.example\"@evil.example>").iter().all(|(address, _)| address.ends_with("@evil.example"))
    );
}

#[test]
fn blanks_and_comments_around_the_dots_part_no_address() {
    for raw in [
        "ada@example .com",
        "ada@example. com",
        "ada@example(x).com",
        "ada (x) @ (y) example (a) . (b) com",
        "ada@example\r\n .com",
        "ada@example.\r\n\tcom (x)",
        "Team: ada@example .com;",
        "<ada@example (x) .com>",
    ] {
        assert_eq!(read(raw).first().map(|(address, _)| address.as_str()), Some("ada@example.com"), "{raw}");
        assert_eq!(read(raw).len(), 1, "{raw}");
    }
    one("Ada ada@example. com", "ada@example.com", Some("Ada"));
    one("ada . lovelace@example.com", "ada.lovelace@example.com", None);
    one("\"ada x\" . lovelace @example.com", "\"ada x.lovelace\"@example.com", None);
    one("<\"a\\\"b\" (x).c@example.com>", "\"a\\\"b.c\"@example.com", None);
}

#[test]
fn no_address_reaches_across_a_sign_without_its_partner() {
    for sign in ["\"", ">", "<", "(", ")", " > ", "\" ", " )", ">>", "(\"", "\"\"", "()"] {
        for rest in ["x", ".evil.example", " .evil.example", "-x.example"] {
            for address in read(&format!("ceo@bank.example{sign}{rest}")).iter().map(|(address, _)| address) {
                let joined = sign == "()" && rest.trim_start().starts_with('.'); // a comment
                assert!(joined || address == "ceo@bank.example", "{sign} {rest}: {address}");
            }
        }
    }
    assert_eq!(read("a@b.example\"c@d.example").len(), 2);
}

#[test]
fn lists_and_groups_name_every_member() {
    let members = read("a@x.example, Team: b@x.example, \"C\" <c@x.example>; d@x.example");
    assert_eq!(members.len(), 4);
    assert!(read("undisclosed-recipients:;").is_empty());
    assert_eq!(read("a@x.example\u{c},\u{b}, b@x.example").len(), 2);
    assert_eq!(read("<a@x.example> <b@x.example>").len(), 2);
}

#[test]
fn an_encoded_word_never_yields_an_address() {
    assert!(read("=?utf-8?Q?ceo=40bank.example?=").is_empty());
    assert!(read("=?utf-8?Q?ceo=40bank.example?= (Boss)").is_empty());
    assert!(read("=?utf-8?Q?ceo?=@bank.example").is_empty());
    assert!(read("=?utf-8?Q?ceo?= @ bank.example").is_empty());
    assert!(read("<=?utf-8?Q?ceo=40bank.example?=>").is_empty());
    assert!(read("<=?utf-8?Q?ceo?=@bank.example>").is_empty());
    one("=?utf-8?Q?<ceo=40bank.example>,?= <thief@example.com>", "thief@example.com", Some("<ceo@bank.example>,"));
}

#[test]
fn what_is_no_address_names_nobody() {
    for raw in [
        "",
        "Ada",
        "@example.com",
        "ada@",
        "<ada@exa mple>",
        "<a da@example>",
        "<ada@example (open>",
        "<a@b@c.example>",
        "<ada@-.>",
        "<a@b..c>",
        "<a\0@b.example>",
    ] {
        assert!(read(raw).is_empty(), "{raw}");
    }
}

#[test]
fn hostile_lists_take_linear_time() {
    for unit in
        ["\"\\", "(", "<", "=?a?q?", "[", ",", "a,", "a:", "a;", "(),", "a@b.example,", "\"", "<\"", "<\"\\\"> "]
    {
        let raw = unit.repeat(262_144 / unit.len());
        let start = std::time::Instant::now();
        let mut out = Vec::new();
        parse(raw.as_bytes(), 1000, &mut out);
        // Quadratic time would be minutes, linear time is a moment.
        assert!(start.elapsed().as_secs() < 60, "{unit}");
    }
}
