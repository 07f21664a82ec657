//! Limits of remote hosts: size, 8-bit mail, EHLO itself.

use mailkite::testing::outbound::{DeliveryRequest, Destination, Verdict};

use super::transport::{ADA, MAIL, NOW, ParseDomain as _, Rig, flow, only, patient, request, verdicts};
use crate::support::remote_host::{HostAction, HostConfig, RemoteHost};

#[tokio::test]
async fn what_a_host_cannot_take_is_not_tried() {
    let limited = |extensions| HostConfig { extensions, ..HostConfig::default() };
    let small = RemoteHost::with(limited(vec!["PIPELINING", "SIZE 10"])).await;
    let done = Rig::to(&small, patient()).await.send(ADA, MAIL).await;
    assert_eq!(only(&done), (Verdict::Bounced, None, "5.3.4 the message is larger than the remote host takes"));
    let mut plain = RemoteHost::with(limited(vec!["PIPELINING"])).await;
    let rig = Rig::to(&plain, patient()).await;
    let done = rig.send(&["jörg@remote.test"], MAIL).await;
    assert_eq!(only(&done).2, "5.6.7 the remote host takes no international addresses");
    let done = rig.send(ADA, "Subject: ü\r\n\r\n".as_bytes()).await;
    let helpless = "5.6.3 the remote host takes no 8-bit mail, and this cannot be written in 7 bits";
    assert_eq!(only(&done).2, helpless);
    let done = rig.send(&["jörg@remote.test", "ada@remote.test"], MAIL).await;
    assert_eq!(verdicts(&done), [Verdict::Bounced, Verdict::Sent], "the others get it");
    assert_eq!(plain.next_mail().await.recipients(), ADA);
    let mut able = RemoteHost::start().await;
    let rig = Rig::to(&able, patient()).await;
    let done = rig.send(&["jörg@remote.test"], "Subject: ü\r\n\r\n".as_bytes()).await;
    assert_eq!(only(&done).0, Verdict::Sent);
    assert_eq!(able.next_mail().await.mail, "MAIL FROM:<bounce@acme.test> SIZE=15 BODY=8BITMIME SMTPUTF8");
}

#[tokio::test]
async fn a_host_of_7_bits_gets_8_bit_mail_in_base64() {
    let mut plain = RemoteHost::with(HostConfig { extensions: vec!["PIPELINING"], ..HostConfig::default() }).await;
    let rig = Rig::to(&plain, patient()).await;
    let mail = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nüber\r\n";
    let done = rig.send(ADA, mail.as_bytes()).await;
    assert_eq!(only(&done).0, Verdict::Sent);
    let taken = plain.next_mail().await;
    assert_eq!(taken.mail, "MAIL FROM:<bounce@acme.test>");
    let recoded = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\nw7xiZXINCg==\r\n";
    assert_eq!(String::from_utf8(taken.data()).unwrap(), recoded);
}

#[tokio::test]
async fn the_null_reverse_path_goes_out_as_it_is() {
    let mut remote = RemoteHost::with(HostConfig { extensions: vec![], ..HostConfig::default() }).await;
    let rig = Rig::to(&remote, patient()).await;
    let null_sender = DeliveryRequest { reverse_path: None, ..request(ADA, MAIL) };
    let done =
        rig.transport.transmit(&flow(), &Destination::Domain("remote.test".parse_domain()), null_sender, NOW).await;
    assert_eq!(only(&done).0, Verdict::Sent);
    assert_eq!(remote.next_mail().await.mail, "MAIL FROM:<>");
}

#[tokio::test]
async fn an_old_host_is_greeted_with_helo() {
    let script = |command: &str, _: usize| {
        command.starts_with("EHLO").then(|| HostAction::Send("500 5.5.1 what\r\n".to_owned()))
    };
    let mut remote = RemoteHost::scripted(script).await;
    let rig = Rig::to(&remote, patient()).await;
    assert_eq!(only(&rig.send(ADA, MAIL).await).0, Verdict::Sent);
    assert_eq!(remote.next_mail().await.mail, "MAIL FROM:<bounce@acme.test>");
}
