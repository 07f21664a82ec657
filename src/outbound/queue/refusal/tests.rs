//! Replies of hosts in the field, and how they are classified.

use super::{ReplySource, Stage, classify, report_says_no_mailbox, requires_reverse_dns};
use crate::mail::status_code::EnhancedStatusCode;
use crate::outbound::Verdict;

/// Stage, reply code, text, and true where the mailbox does not exist or is disabled.
const REPLIES: &[(Stage, u16, &str, bool)] = &[
    (
        Stage::Rcpt,
        550,
        "5.1.1 The email account that you tried to reach does not exist. Please try 5.1.1 double-checking the recipient's email address for typos or 5.1.1 unnecessary spaces.",
        true,
    ),
    (Stage::Rcpt, 550, "5.2.1 The email account that you tried to reach is disabled.", true),
    (
        Stage::Rcpt,
        552,
        "5.2.2 The email account that you tried to reach is over quota. 5.2.2 https://support.google.com/mail/?p=OverQuotaPerm",
        false,
    ),
    (
        Stage::Data,
        550,
        "5.7.26 This mail has been blocked because the sender is unauthenticated. 5.7.26 Gmail requires all senders to authenticate with either SPF or DKIM.",
        false,
    ),
    (
        Stage::Data,
        550,
        "5.7.25 The IP address sending this message does not have a PTR record setup 5.7.25 blocked.",
        false,
    ),
    (
        Stage::Data,
        550,
        "5.7.1 [192.0.2.1] Our system has detected that this message is likely unsolicited mail. 5.7.1 blocked.",
        false,
    ),
    (
        Stage::Mail,
        550,
        "5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent. Please contact your Internet service provider since part of their network is on our block list (S3140).",
        false,
    ),
    (Stage::Rcpt, 550, "5.5.0 Requested action not taken: mailbox unavailable (S2017062302).", true),
    (Stage::Rcpt, 550, "5.7.511 Access denied, banned sender[192.0.2.1].", false),
    (Stage::Rcpt, 550, "5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", true),
    (Stage::Rcpt, 550, "5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup; authentication required", false),
    (
        Stage::Rcpt,
        554,
        "delivery error: dd This user doesn't have a yahoo.com account (x@yahoo.com) [0] - mta1.mail.yahoo.com",
        true,
    ),
    (
        Stage::Rcpt,
        554,
        "5.7.9 Message not accepted for policy reasons. See https://postmaster.yahooinc.com/error-codes",
        false,
    ),
    (
        Stage::Rcpt,
        553,
        "5.7.1 [BL21] Connections will not be accepted from 192.0.2.1, because the ip is in Spamhaus's list",
        false,
    ),
    (Stage::Rcpt, 550, "5.1.1 <x@icloud.com>: user does not exist", true),
    (
        Stage::Data,
        550,
        "5.7.1 [CS01] Message rejected due to local policy. Please visit https://support.apple.com/en-us/HT204137",
        false,
    ),
    (
        Stage::Rcpt,
        550,
        "Message was not accepted -- invalid mailbox.  Local mailbox x@mail.ru is unavailable: user not found",
        true,
    ),
    (Stage::Data, 550, "spam message rejected. Please visit http://help.mail.ru/notspam-support/", false),
    (Stage::Rcpt, 550, "Requested action not taken: mailbox unavailable", true),
    (
        Stage::Session,
        554,
        "gmx.net (mxgmx001) Nemesis ESMTP Service not available No SMTP service Bad DNS PTR resource record.",
        false,
    ),
    (
        Stage::Session,
        554,
        "IP=192.0.2.1 - A problem occurred. (Ask your postmaster for help or to contact tosa@rx.t-online.de to clarify.)",
        false,
    ),
    (
        Stage::Rcpt,
        550,
        "5.1.1 <x@example.net>: Recipient address rejected: User unknown in virtual mailbox table",
        true,
    ),
    (Stage::Rcpt, 554, "5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org", false),
    (Stage::Rcpt, 550, "5.1.1 <x@example.net>: blocked using bl.spamcop.net; see https://spamcop.net", false),
    (Stage::Rcpt, 554, "5.7.1 <x@example.net>: Relay access denied", false),
    (Stage::Rcpt, 504, "5.5.2 <mail>: Helo command rejected: need fully-qualified hostname", false),
    (Stage::Rcpt, 550, "5.1.8 <hi@example.com>: Sender address rejected: Domain not found", false),
    (Stage::Rcpt, 550, "5.7.25 Client host rejected: cannot find your reverse hostname, [192.0.2.1]", false),
    (Stage::Rcpt, 550, "Unrouteable address", true),
    (
        Stage::Rcpt,
        550,
        "Verification failed for <hi@example.com> The mail server could not deliver mail to hi@example.com. Sender verify failed",
        false,
    ),
    (Stage::Data, 550, "This message contains a virus", false),
    (Stage::Rcpt, 553, "sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)", false),
    (Stage::Rcpt, 550, "sorry, no mailbox here by that name (#5.1.1 - chkusr)", true),
    (Stage::Rcpt, 550, "5.1.1 <x@example.net>... User unknown", true),
    (Stage::Rcpt, 550, "permanent failure for one or more recipients (x@example.net:blocked)", false),
    (
        Stage::Rcpt,
        550,
        "csi.mimecast.org Poor Reputation Sender. - https://community.mimecast.com/docs/DOC-1369#550",
        false,
    ),
    (
        Stage::Rcpt,
        550,
        "5.7.1 Service unavailable; Client host [192.0.2.1] blocked using Proofpoint Dynamic Reputation",
        false,
    ),
    (Stage::Rcpt, 550, "5.1.1 User Unknown", true),
    (
        Stage::Session,
        554,
        "Your access to this mail system has been rejected due to the sending MTA's poor reputation.",
        false,
    ),
    (
        Stage::Mail,
        554,
        "resimta-po-01v.sys.comcast.net comcast 192.0.2.1 found on one or more DNSBLs, see http://postmaster.comcast.net/smtp-error-codes.php#BL000001",
        false,
    ),
    (Stage::Mail, 552, "5.3.4 Message size exceeds fixed maximum message size", false),
    (Stage::Data, 552, "Message too large", false),
    (Stage::Data, 550, "5.7.1 Email rejected per DMARC policy for example.com", false),
    (Stage::Mail, 550, "SPF check failed: 192.0.2.1 is not allowed to send mail from example.com", false),
    (Stage::Rcpt, 550, "5.7.23 SPF validation failed", false),
    (Stage::Data, 550, "DKIM signature verification failed", false),
    (Stage::Rcpt, 550, "Too many recipients received this hour", false),
    (Stage::Rcpt, 550, "Sending rate exceeded, slow down", false),
    (Stage::Mail, 550, "TLS is required by this server", false),
    (Stage::Rcpt, 550, "Authentication required for relay", false),
    (Stage::Rcpt, 530, "5.7.0 Authentication required", false),
    (Stage::Rcpt, 550, "5.2.1 Mailbox inactive", true),
    (Stage::Rcpt, 550, "Greylisted, please try again later", false),
    (Stage::Rcpt, 550, "Sender IP is blacklisted", false),
    (Stage::Rcpt, 550, "rejected because of poor reputation of 192.0.2.1", false),
    (Stage::Data, 550, "5.6.0 content rejected", false),
    (
        Stage::Data,
        552,
        "5.7.0 This message was blocked because its content presents a potential security issue.",
        false,
    ),
    (Stage::Rcpt, 501, "5.1.3 Bad recipient address syntax", true),
    (Stage::Rcpt, 551, "5.1.6 user has moved; please try y@example.net", true),
    (Stage::Rcpt, 550, "5.1.2 Host unknown", true),
    (Stage::Rcpt, 556, "5.1.10 domain does not accept mail", true),
    (
        Stage::Rcpt,
        550,
        "Requested action not taken: mailbox unavailable Reject due to policy restrictions. For explanation visit https://postmaster.web.de",
        false,
    ),
    (Stage::Rcpt, 550, "User not found: x@163.com", true),
    (Stage::Mail, 554, "DT:SPM 163 smtp1,policy violation", false),
    (Stage::Mail, 550, "Connection frequency limited. http://service.mail.qq.com/cgi-bin/help", false),
    (Stage::Data, 550, "This message was classified as SPAM and may not be delivered", false),
    (
        Stage::Rcpt,
        550,
        "JunkMail rejected - mail.example.com [192.0.2.1] is in an RBL, see https://www.spamcop.net/bl.shtml?192.0.2.1",
        false,
    ),
    (Stage::Rcpt, 550, "inconsistent or no DNS PTR record for 2001:db8::1 (see RFC 1912 2.1)", false),
    (Stage::Mail, 553, "sorry, your envelope sender is in my badmailfrom list (#5.7.1)", false),
    (Stage::Rcpt, 550, "Blocked by policy 5.7.1 see https://rbl.example/192.0.2.1", false),
    (Stage::Rcpt, 550, "#5.7.1 Your access to submit messages to this e-mail system has been rejected.", false),
    (Stage::Rcpt, 550, "User hi@example.com has exceeded its 24-hour sending limit.", false),
    (Stage::Data, 550, "Protocol violation", false),
    (Stage::Rcpt, 550, "No Such User Here", true),
    (Stage::Rcpt, 550, "5.1.1 no such user", true),
    (Stage::Rcpt, 550, "Rejected", false),
    (Stage::Rcpt, 550, "Administrative prohibition", false),
    (Stage::Rcpt, 554, "5.7.1 <x@example.net>: Recipient address rejected: Access denied", false),
    (Stage::Rcpt, 550, "5.4.1 Recipient address rejected: Access denied. AS(201806281)", false),
    (Stage::Rcpt, 550, "Verification failed; the policy of this host wants a reverse DNS entry", false),
    (Stage::Rcpt, 550, "IP 192.0.2.1 is blacklisted by EarthLink", false),
    (Stage::Rcpt, 550, "sorry, you must authenticate first", false),
    (Stage::Rcpt, 550, "Your host is not allowed to send mail to this domain", false),
    (Stage::Rcpt, 550, "Usuario desconocido", true),
    (Stage::Rcpt, 550, "Benutzer unbekannt", true),
    (Stage::Rcpt, 550, "Adresse inconnue", true),
    (Stage::Rcpt, 550, "x@example.net... No such person at this address", true),
    (Stage::Rcpt, 550, "5.1.1 sid=x; Address rejected x@example.net. See https://example.net/spam-policy", true),
    (Stage::Rcpt, 550, "5.1.0 Address rejected.", false),
    (Stage::Rcpt, 550, "You are banned", false),
    (Stage::Rcpt, 550, "listed in b.example.org", false),
    (Stage::Rcpt, 550, "Mail from this country is not wanted", false),
    (Stage::Rcpt, 550, "\u{412}\u{430}\u{448}\u{435} \u{43f}\u{438}\u{441}\u{44c}\u{43c}\u{43e}", false),
    (Stage::Rcpt, 550, "your server is no longer welcome", false),
    (Stage::Rcpt, 550, "MX not found for your domain", false),
    (Stage::Rcpt, 550, "<x@example.net>:blocked", false),
    (Stage::Rcpt, 550, "no account by that name here", true),
    (Stage::Rcpt, 551, "not local", true),
    (Stage::Rcpt, 550, "this person is no longer available", true),
    (Stage::Rcpt, 550, "<hi@example.com>, Return-path address does not exist", false),
    (Stage::Rcpt, 550, "The return path does not exist", false),
    (Stage::Rcpt, 550, "Your address hi@example.com does not exist (verified by callback)", false),
    (Stage::Rcpt, 550, "MAIL FROM address unknown: hi@example.com", false),
    (Stage::Rcpt, 550, "mailfrom <hi@example.com> user unknown at example.com", false),
    (Stage::Rcpt, 550, "<hi@example.com>... Envelope-From: user unknown", false),
    (Stage::Rcpt, 550, "Return address unknown user", false),
    (Stage::Rcpt, 550, "No such host: mail.example.com", false),
    (Stage::Rcpt, 550, "A or MX record for example.com does not exist", false),
    (Stage::Rcpt, 553, "<example.com> Domain must resolve: no such domain", false),
    (Stage::Rcpt, 550, "Domain of mail.example.com cannot be found", false),
    (Stage::Rcpt, 550, "Account hi@example.com is disabled from sending", false),
    (Stage::Rcpt, 550, "Mail service is disabled for maintenance, use another MX", false),
    (Stage::Rcpt, 550, "This feature is disabled", false),
    (Stage::Rcpt, 550, "5.1.1 Not subscribed: only members may post", false),
    (Stage::Rcpt, 550, "Absender unbekannt", false),
    (Stage::Rcpt, 550, "Adresse de l'exp\u{e9}diteur inconnue", false),
    (
        Stage::Rcpt,
        550,
        "\u{41e}\u{442}\u{43f}\u{440}\u{430}\u{432}\u{438}\u{442}\u{435}\u{43b}\u{44c} \u{43d}\u{435} \u{441}\u{443}\u{449}\u{435}\u{441}\u{442}\u{432}\u{443}\u{435}\u{442}",
        false,
    ),
    (Stage::Rcpt, 550, "User <x@example.net> unknown", true),
    (Stage::Rcpt, 550, "The recipient may contain a non-existent account, please check the recipient address.", true),
    (Stage::Rcpt, 550, "<x@example.net> is disabled", true),
    (Stage::Rcpt, 550, "This account has been disabled or discontinued [#102].", true),
    (Stage::Rcpt, 554, "The mailbox x@example.net was closed", true),
    (
        Stage::Rcpt,
        550,
        "5.1.1 <x@example.net>: Recipient address rejected: User unknown in relay recipient table",
        true,
    ),
    (Stage::Rcpt, 550, "", true),
    (Stage::Rcpt, 553, "", true),
    (Stage::Rcpt, 554, "", false),
];

#[test]
fn only_a_mailbox_that_is_gone_is_suppressed() {
    for (stage, code, text, gone) in REPLIES {
        let from = |source| classify(source, *stage, *code, &format!("{code} {text}"));
        assert_eq!(from(ReplySource::MailHost).no_mailbox, *gone, "{code} {text}");
        // A smarthost has to say it by a code.
        let by_code = *gone && text.contains("5.1.");
        assert_eq!(from(ReplySource::Smarthost).no_mailbox, by_code, "a smarthost: {code} {text}");
        let temporary = classify(ReplySource::MailHost, *stage, code - 100, text);
        assert_eq!((temporary.verdict, temporary.no_mailbox), (Verdict::Deferred, false), "{code} {text}");
    }
}

#[test]
fn a_refusal_at_any_other_command_is_not_about_the_mailbox() {
    for (_, code, text, _) in REPLIES {
        for stage in [Stage::Session, Stage::Mail, Stage::Data] {
            assert!(!classify(ReplySource::MailHost, stage, *code, text).no_mailbox, "{stage:?} {code} {text}");
        }
    }
}

#[test]
fn a_temporary_refusal_is_deferred_whatever_its_code() {
    for (stage, code, text) in [
        (Stage::Mail, 550, "Connection frequency limited"),
        (Stage::Rcpt, 552, "5.5.3 Too many recipients"),
        (Stage::Rcpt, 550, "User hi@example.com has exceeded its 24-hour sending limit."),
        (Stage::Rcpt, 550, "Greylisted, please try again later"),
        (Stage::Data, 554, "5.7.1 rate limit exceeded"),
        (Stage::Rcpt, 550, "5.2.0 x@example.net Greylisted, try again in 5 minutes"),
        (Stage::Mail, 530, "5.7.0 Must issue a STARTTLS command first"),
        (Stage::Rcpt, 550, "5.7.10 Encryption needed"),
        (Stage::Rcpt, 554, "5.7.1 <x@example.net>: TLS is required"),
        (Stage::Session, 554, "no SMTP service here"),
        (Stage::Session, 550, "5.7.1 blocked"),
    ] {
        assert_eq!(classify(ReplySource::MailHost, stage, code, text).verdict, Verdict::Deferred, "{text}");
    }
    for (code, text) in [
        (552, "5.2.2 mailbox full, try again later"),
        (552, "5.3.4 message size exceeds fixed limit"),
        (550, "5.1.1 no such user, temporarily or not"),
        (554, "5.7.1 spam"),
        (554, "5.6.0 collateral"),
    ] {
        assert_eq!(classify(ReplySource::MailHost, Stage::Rcpt, code, text).verdict, Verdict::Bounced, "{text}");
    }
}

#[test]
fn a_host_may_require_the_tls_that_failed() {
    for (stage, code, text) in [
        (Stage::Mail, 530, "530 5.7.0 Must issue a STARTTLS command first"),
        (Stage::Mail, 554, "554 5.7.0 TLS required"),
        (Stage::Rcpt, 550, "550 5.7.10 Encryption needed"),
        (Stage::Rcpt, 550, "550 no"),
        (Stage::Data, 554, "554 not like this"),
    ] {
        let found = classify(ReplySource::MailHostWithoutTls, stage, code, text);
        assert_eq!((found.verdict, found.no_mailbox), (Verdict::Deferred, false), "{text}");
    }
    let gone = classify(ReplySource::MailHostWithoutTls, Stage::Rcpt, 550, "550 5.1.1 no such user");
    assert_eq!((gone.verdict, gone.no_mailbox), (Verdict::Bounced, true));
}

#[test]
fn a_report_has_to_say_by_its_status_that_there_is_no_mailbox() {
    let gone = |text: &str| report_says_no_mailbox(None, text);
    for text in ["5.1.1", "550 5.1.1 no such user", "550-5.1.10 no mail", "5.1.6"] {
        assert!(gone(text), "{text}");
    }
    for text in [
        "550 no such user",
        "5.2.1",
        "5.1.8",
        "550 5.7.1 5.1.1",
        "4.1.1",
        "returned as undeliverable",
        "5.1.1 blocked as spam",
    ] {
        assert!(!gone(text), "{text}");
    }
    let by_status = |status: &str, text: &str| report_says_no_mailbox(status.parse().ok(), text);
    assert!(by_status("5.1.1", "") && by_status("5.1.1", "550 5.2.1 disabled"));
    assert!(by_status("5.0.0", "550 5.1.1 no such user"), "it names no condition");
    assert_eq!("5.0.0".parse(), Ok(EnhancedStatusCode::UNDEFINED));
    for (status, text) in [("5.7.1", "550 5.1.1 no such user"), ("5.0.0", ""), ("5.1.1", "550 5.7.1 blocked")] {
        assert!(!by_status(status, text), "{status} {text}");
    }
}

#[test]
fn a_refusal_of_the_client_is_host_wide() {
    let host_wide = |stage, code, text: &str| classify(ReplySource::MailHost, stage, code, text).host_wide;
    assert!(host_wide(Stage::Session, 554, "554 no"));
    assert!(host_wide(Stage::Rcpt, 421, "421 too many connections"));
    assert!(host_wide(Stage::Mail, 550, "550 your IP is blocked"));
    assert!(!host_wide(Stage::Rcpt, 550, "550 5.1.1 no such user"));
    for (stage, code, text) in [
        (Stage::Mail, 451, "451 4.7.1 Rate limited"),
        (Stage::Mail, 452, "452 4.3.1 Insufficient system storage"),
        (Stage::Rcpt, 451, "451 4.7.500 Server busy. Please try again later from [192.0.2.1]. (S77719)"),
        (Stage::Rcpt, 450, "450 4.7.1 Error: too much mail from 192.0.2.1"),
        (Stage::Data, 452, "452 4.5.3 Your message exceeded the concurrency limit"),
    ] {
        assert!(host_wide(stage, code, text), "{text}");
    }
    for (stage, code, text) in [
        (Stage::Rcpt, 452, "452 4.5.3 Too many recipients"),
        (
            Stage::Rcpt,
            450,
            "450 4.2.1 The user you are trying to contact is receiving mail at a rate that is too high",
        ),
        (Stage::Rcpt, 451, "451 4.7.1 Greylisted, please try again in 5 minutes"),
        (Stage::Rcpt, 452, "452 4.2.2 mailbox full"),
    ] {
        assert!(!host_wide(stage, code, text), "{text}");
    }
}

#[test]
fn refusals_for_want_of_reverse_dns() {
    for text in [
        "550 5.7.25 [2001:db8::1] The IP address sending this message does not have a PTR record setup",
        "450 4.7.25 Client host rejected: cannot find your hostname",
        "554 5.7.1 Our system has detected that this message does not meet IPv6 sending guidelines regarding PTR",
        "550 (#5.7.25) refused",
        "554 Reverse DNS lookup failed for 2001:db8::1",
        "550 no PTR for your address",
        "554 Bad DNS PTR resource record.",
        "550 FCrDNS check failed",
        "450 4.7.1 Client host rejected: cannot find your hostname, [2001:db8::1]",
        "550 Host name lookup failed for [2001:db8::1]",
        "550 5.7.1 IP name lookup failed 2001:db8::1",
        "550 5.7.1 IP name possibly forged [2001:db8::1]",
        "550 5.7.1 IPv6 client has no DNS name",
        "554 5.7.1 Your host 2001:db8::1 does not resolve",
    ] {
        assert!(requires_reverse_dns(text), "{text}");
    }
    for text in ["550 5.7.1 spam", "550 5.1.1 no such user", "550 15.7.250 odd", "452 4.2.2 full", ""] {
        assert!(!requires_reverse_dns(text), "{text}");
    }
}
