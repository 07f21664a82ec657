//! Headers that readers read differently: nothing in them is vouched for.

use mailkite::testing::mail::mime;
use mailkite::testing::mail::trace::Verdict;

use super::authentication::{Bench, MESSAGE};

#[tokio::test]
async fn text_slipped_in_where_readers_disagree_about_the_header_is_not_vouched_for() {
    let bench = Bench::new().await;
    let raw = bench.sign(MESSAGE, "example.com", &["From", "Subject"]);
    for slipped in
        ["\r\nPay to me\r\n", "\r\nPay to: me\r\n\r\n", "\r\n: pay to me\r\n\r\n", "\r\nP\u{e4}y: me\r\n\r\n"]
    {
        let forged = raw.replacen("\r\n\r\n", slipped, 1);
        assert!(mime::parse(forged.as_bytes()).text.unwrap().contains("me"), "{slipped}");
        let found = bench.verify("192.0.2.1", "a@example.com", &forged).await;
        let verdicts = (found.verdicts.dkim, found.verdicts.dmarc);
        assert_eq!(verdicts, (Some(Verdict::PermError), Some(Verdict::Fail)), "{slipped}");
    }
}

#[tokio::test]
async fn a_field_put_on_top_of_a_signed_one_is_not_vouched_for() {
    let bench = Bench::new().await;
    let message = MESSAGE.replace(
        "\r\n\r\n",
        "\r\nMessage-ID: <1@example.com>\r\nIn-Reply-To: <0@example.com>\r\nReply-To: ada@example.com\r\n\
         Date: Tue, 28 Jul 2026 00:00:00 +0000\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\
         Content-Transfer-Encoding: 7bit\r\nContent-Disposition: inline\r\nCc: bob@example.com\r\n\
         References: <0@example.com>\r\nSender: ada@example.com\r\n\r\n",
    );
    let names = [
        "From",
        "To",
        "Subject",
        "Message-ID",
        "In-Reply-To",
        "Reply-To",
        "Date",
        "MIME-Version",
        "Content-Type",
        "Content-Transfer-Encoding",
        "Content-Disposition",
        "Cc",
        "References",
        "Sender",
    ];
    let raw = bench.sign(&message, "example.com", &names);
    let found = bench.verify("192.0.2.1", "a@example.com", &raw).await;
    assert_eq!((found.verdicts.dkim, found.verdicts.dmarc), (Some(Verdict::Pass), Some(Verdict::Pass)));
    for name in names {
        for on_top in [format!("{name}: x@y.test\r\n"), format!("{}: x@y.test\r\n", name.to_uppercase())] {
            let found = bench.verify("192.0.2.1", "a@example.com", &format!("{on_top}{raw}")).await;
            assert_ne!(found.verdicts.dkim, Some(Verdict::Pass), "{on_top}");
            assert_ne!(found.verdicts.dmarc, Some(Verdict::Pass), "{on_top}");
        }
        // Our reader takes a name with a blank behind it for that field; who signed once more than there is did not.
        let twice: Vec<&str> = names.into_iter().chain([name]).collect();
        let oversigned = bench.sign(&message, "example.com", &twice);
        for on_top in [format!("{name} : x@y.test\r\n"), format!("{name}: x@y.test\r\n")] {
            let found = bench.verify("192.0.2.1", "a@example.com", &format!("{on_top}{oversigned}")).await;
            assert_ne!(found.verdicts.dkim, Some(Verdict::Pass), "{on_top}");
        }
        let found = bench.verify("192.0.2.1", "a@example.com", &oversigned).await;
        assert_eq!(found.verdicts.dkim, Some(Verdict::Pass), "{name} signed once more than it stands there");
    }
    // Both are covered, as they are: nothing was put on top.
    let both = bench.sign(&format!("Subject: First\r\n{MESSAGE}"), "example.com", &["From", "Subject", "Subject"]);
    let found = bench.verify("192.0.2.1", "a@example.com", &both).await;
    assert_eq!(found.verdicts.dkim, Some(Verdict::Pass));
    // Fields that may stand often do.
    let found = bench.verify("192.0.2.1", "a@example.com", &format!("Received: x\r\nReceived: y\r\n{raw}")).await;
    assert_eq!(found.verdicts.dkim, Some(Verdict::Pass));
}

#[tokio::test]
async fn a_from_that_readers_read_differently_passes_for_nobody() {
    let bench = Bench::new().await;
    let thief = format!("v=DKIM1; k=ed25519; p={}", bench.keys.encoded_public_key());
    for domain in ["evil.test", "bank.test.evil.test"] {
        bench.dns.txt(domain, "v=spf1 +all").txt(&format!("s1._domainkey.{domain}"), &thief);
    }
    bench.dns.txt("_dmarc.evil.test", "v=DMARC1; p=none").txt("_dmarc.bank.test", "v=DMARC1; p=reject");
    for author in [
        "ceo@bank.test\".evil.test",
        "ceo@bank.test>.evil.test",
        "ceo@bank.test).evil.test",
        "ceo@bank.test(.evil.test",
        "ceo@bank.test .evil.test",
        "<ceo@bank.test(x).evil.test>",
        "<ceo@bank.test\r\n .evil.test>",
        "\"CEO\" ceo@bank.test\".evil.test",
        "ceo@bank.test <x@evil.test>",
        "ceo@bank.test, x@evil.test",
        "<@bank.test:x@evil.test>",
        "<\"ceo@bank.test\"@evil.test>",
        "x@evil.test ceo@bank.test",
        "ceo@bank .test",
        "ceo@bank(x).test",
        "ceo@bank.\r\n test",
    ] {
        let mail = format!("From: {author}\r\nSubject: x\r\n\r\nPay to me.\r\n");
        let signed = bench.sign(&mail, "evil.test", &["From", "Subject"]);
        let found = bench.verify("192.0.2.66", "x@bank.test.evil.test", &signed).await;
        assert_eq!((found.verdicts.spf, found.verdicts.dkim), (Some(Verdict::Pass), Some(Verdict::Pass)), "{author}");
        let judged = found.verdicts.dmarc;
        assert!(matches!(judged, Some(Verdict::Fail | Verdict::PermError)), "{author}: {judged:?}");
        assert!(!found.aligned, "{author}");
    }
    // A domain is judged by its policy wherever its blanks stand.
    let found = bench.verify("192.0.2.66", "x@evil.test", "From: ceo@bank. test\r\n\r\nPay to me.\r\n").await;
    assert_eq!((found.verdicts.dmarc, found.enforced), (Some(Verdict::Fail), true));
}

#[tokio::test]
async fn a_line_of_an_mbox_file_on_top_hides_no_header() {
    let bench = Bench::new().await;
    let signed = bench.sign(MESSAGE, "example.com", &["From", "Subject"]);
    for line in
        ["From a", "From ", ">From a", ">From ", "From a@b.test Mon Nov 30 01:02:03 2026", ">From a@b.test Mon"]
    {
        let found = bench.verify("192.0.2.66", "x@evil.test", &format!("{line}\r\n{MESSAGE}")).await;
        let verdicts = (found.verdicts.dkim, found.verdicts.dmarc, found.enforced);
        assert_eq!(verdicts, (Some(Verdict::None), Some(Verdict::Fail), true), "{line}");
        let found = bench.verify("192.0.2.66", "x@evil.test", &format!("{line}\r\n{signed}")).await;
        let verdicts = (found.verdicts.dkim, found.verdicts.dmarc, found.aligned);
        assert_eq!(verdicts, (Some(Verdict::Pass), Some(Verdict::Pass), true), "{line}");
    }
    // Whatever else makes readers disagree about the header, nobody passes, whichever way the sender came.
    for line in ["junk", " x", ": x", "From\ta", ">>From a", "From a\r\nFrom b", "X\u{e9}: y", "FROM a", "Fr om: x"] {
        for raw in [
            format!("{line}\r\n{signed}"),
            signed.replacen("To: ", &format!("{line}\r\nTo: "), 1),
            signed.replacen("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"), 1),
        ] {
            // A line with a blank before it goes on from the one above.
            let is_plain = line == " x" && !raw.starts_with(line);
            let found = bench.verify("192.0.2.7", "a@example.com", &raw).await;
            let judged = found.verdicts.dmarc;
            assert!(is_plain || matches!(judged, Some(Verdict::PermError)), "{raw}: {judged:?}");
            assert!(is_plain || !found.aligned, "{raw}");
        }
    }
}

#[tokio::test]
async fn fields_behind_a_line_that_is_none_are_read_and_never_vouched_for() {
    let bench = Bench::new().await;
    let signed = bench.sign(MESSAGE, "example.com", &["From", "To", "Subject"]);
    let whole = bench.verify("192.0.2.7", "a@example.com", &signed).await;
    assert_eq!((whole.verdicts.dkim, whole.verdicts.dmarc), (Some(Verdict::Pass), Some(Verdict::Pass)));
    for line in ["junk", ": x", "X\u{e9}: y", "Fr om: x", "From a@b.test Mon Nov 30 01:02:03 2026", "\u{feff}"] {
        for field in ["Subject: Pay me", "From: ceo@bank.test", "Content-Type: text/html", "X-Any: y"] {
            for forged in [
                format!("{line}\r\n{field}\r\n{signed}"),
                format!("{field}\r\n{line}\r\n{signed}"),
                signed.replacen("To: ", &format!("{line}\r\n{field}\r\nTo: "), 1),
                signed.replacen("\r\n\r\n", &format!("\r\n{line}\r\n{field}\r\n\r\n"), 1),
            ] {
                // The separator of an mbox file on top is stepped over by everything, and its sender's host passes SPF.
                let on_top = forged.starts_with("From a@b.test");
                let (is_whole, by_spf) = (
                    on_top && (field == "X-Any: y" || field.starts_with("Content-Type")),
                    on_top && !field.starts_with("From"),
                );
                let found = bench.verify("192.0.2.7", "a@example.com", &forged).await;
                let text = mime::parse(forged.as_bytes()).text;
                assert!(field.contains("html") || text.unwrap().starts_with("Does"), "{forged}");
                assert!(is_whole || found.verdicts.dkim != Some(Verdict::Pass), "{forged}");
                assert!(by_spf || found.verdicts.dmarc != Some(Verdict::Pass), "{forged}");
                assert!(by_spf || !found.aligned, "{forged}");
            }
        }
    }
}
