//! Domains that several accounts want: who has proven one, and what falls to the winner.

use std::time::Duration;

use hickory_resolver::proto::rr::RecordType;
use mailkite::testing::config::Signup;
use serde_json::{Value, json};

use super::lifecycle::{Bench, DAY, NOW, add, flags, row, verify};
use crate::support::server::{DEADLINE, HOSTNAME};

#[tokio::test]
async fn where_anybody_may_sign_up_a_domain_also_needs_the_accounts_own_key() {
    let bench = Bench::with(|config| config.auth.signup = Signup::Open).await;
    let added = bench.published(&bench.owner, "acme.dev").await;
    let other = bench.account("other@example.com").await;
    add(&other, "acme.dev").await;
    // Its MX is there for all to see, yet the key is somebody else's.
    let verified = verify(&other, "acme.dev").await;
    assert_eq!(
        (&verified["status"], &verified["checks"]["mx"], &verified["checks"]["dkim"]),
        (&json!("pending"), &json!(true), &json!(false))
    );
    assert_eq!(bench.rcpt("a@acme.dev").await, 450);
    let name = added["dns"][2]["name"].as_str().unwrap();
    bench.dns.remove(name);
    assert_eq!(verify(&bench.owner, "acme.dev").await["status"], "pending");
    bench.dns.txt(name, added["dns"][2]["value"].as_str().unwrap());
    assert_eq!(verify(&bench.owner, "acme.dev").await["status"], "verified");
    other.post_nothing("/api/domains/acme.dev/verify").await.expect_error(409, "domain_taken");
}

#[tokio::test]
async fn a_proof_whose_record_is_gone_wins_no_domain() {
    let bench = Bench::with(|config| config.auth.signup = Signup::Open).await;
    let added = add(&bench.owner, "acme.dev").await;
    let key = &added["dns"][2];
    bench.dns.txt(key["name"].as_str().unwrap(), key["value"].as_str().unwrap());
    assert_eq!(flags(&row(&bench.owner, "acme.dev").await), [false; 4]);
    assert_eq!(verify(&bench.owner, "acme.dev").await["status"], "pending", "its mail goes elsewhere");
    // The name changes hands, and who has it now points its mail here.
    bench.dns.remove(key["name"].as_str().unwrap()).mx("acme.dev", 10, HOSTNAME);
    let verified = verify(&bench.owner, "acme.dev").await;
    assert_eq!((&verified["status"], &verified["checks"]["dkim"]), (&json!("pending"), &json!(false)));
    assert_eq!(flags(&row(&bench.owner, "acme.dev").await), [true, false, true, false]);
    bench.server.stop().await;
}

#[tokio::test]
async fn the_first_who_proves_a_domain_has_it() {
    let bench = Bench::new().await;
    let other = bench.account("other@example.com").await;
    for api in [&bench.owner, &other] {
        add(api, "acme.dev").await;
    }
    let below = add(&bench.owner, "sub.acme.dev").await;
    let theirs = other.get("/api/domains/acme.dev").await.expect(200);
    bench.publish(&theirs);
    assert_eq!(verify(&other, "acme.dev").await["status"], "verified");
    let asked = bench.dns.asked().len();
    for name in ["acme.dev", "sub.acme.dev"] {
        bench.publish(&below);
        bench.owner.post_nothing(&format!("/api/domains/{name}/verify")).await.expect_error(409, "domain_taken");
        let row = row(&bench.owner, name).await;
        assert_eq!((flags(&row), &row["checked_at"], &row["status"]), ([false; 4], &Value::Null, &json!("pending")));
    }
    assert_eq!(bench.dns.asked().len(), asked, "nothing is looked up for that");
    let theirs = row(&other, "acme.dev").await["user_id"].clone();
    bench.server.accepted("a@acme.dev", "Whose").await;
    let messages = other.get("/api/messages").await.expect(200);
    assert_eq!(messages.as_array().map(Vec::len), Some(1), "{theirs}");
    // What was proven later, above it, takes nothing away from it.
    other.delete("/api/domains/acme.dev").await.expect(200);
    assert_eq!(verify(&bench.owner, "sub.acme.dev").await["status"], "verified");
    bench.dns.remove("mailkite._domainkey.acme.dev");
    bench.published(&other, "acme.dev").await;
    assert_eq!(verify(&other, "acme.dev").await["status"], "verified");
    assert_eq!(verify(&bench.owner, "sub.acme.dev").await["status"], "verified");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_who_prove_a_domain_at_once_one_has_it() {
    let bench = Bench::new().await;
    let other = bench.account("other@example.com").await;
    for round in 0..4 {
        let name = format!("race{round}.dev");
        bench.published(&bench.owner, &name).await;
        // Both keys stand in DNS.
        bench.published(&other, &name).await;
        let path = format!("/api/domains/{name}/verify");
        let (mine, theirs) = tokio::join!(bench.owner.post_nothing(&path), other.post_nothing(&path));
        let mut statuses = [mine.status, theirs.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409], "{name}");
        let lost = if mine.status == 409 { mine } else { theirs };
        lost.expect_error(409, "domain_taken");
    }
}

#[tokio::test]
async fn a_check_that_outlives_its_domain_proves_nothing_for_the_next() {
    let bench = Bench::new().await;
    let own = bench.published(&bench.owner, "mine.dev").await;
    // The look at this domain takes until its answer comes over the second attempt.
    bench.dns.silence("_dmarc.mine.dev");
    let path = format!("/api/domains/{}/verify", own["domain"]["id"].as_str().unwrap());
    let owner = bench.owner.clone();
    let looking = tokio::spawn(async move { owner.post_nothing(&path).await });
    let asked = async {
        while !bench.dns.asked().contains(&"_dmarc.mine.dev TXT".to_owned()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, asked).await.unwrap();
    bench.owner.delete("/api/domains/mine.dev").await.expect(200);
    let victim = add(&bench.owner, "victim.dev").await;
    looking.await.unwrap().expect_error(404, "not_found");
    let row = row(&bench.owner, "victim.dev").await;
    assert_eq!(row, victim["domain"], "the check was of the removed domain");
}

#[tokio::test]
async fn after_a_removal_the_next_has_to_prove_it_with_a_key_of_its_own() {
    let bench = Bench::with(|config| config.auth.signup = Signup::Open).await;
    bench.verified(&bench.owner, "acme.dev").await;
    let id = bench.server.accepted("a@acme.dev", "Before").await;
    bench.owner.delete("/api/domains/acme.dev").await.expect(200);
    assert_eq!(bench.rcpt("a@acme.dev").await, 550);
    let other = bench.account("other@example.com").await;
    let added = add(&other, "acme.dev").await;
    let verified = verify(&other, "acme.dev").await;
    assert_eq!((&verified["status"], &verified["checks"]["dkim"]), (&json!("pending"), &json!(false)));
    bench.dns.remove("mailkite._domainkey.acme.dev").remove("acme.dev").remove("_dmarc.acme.dev");
    bench.publish(&added);
    assert_eq!(verify(&other, "acme.dev").await["status"], "verified");
    bench.server.accepted("a@acme.dev", "After").await;
    let subjects =
        |rows: Value| rows.as_array().unwrap().iter().map(|row| row["subject"].clone()).collect::<Vec<_>>();
    assert_eq!(subjects(other.get("/api/messages").await.expect(200)), ["After"]);
    assert_eq!(subjects(bench.owner.get("/api/messages").await.expect(200)), ["Before"]);
    other.get(&format!("/api/messages/{id}")).await.expect_error(404, "not_found");
    // The same name of the same account is another domain too: a key for the new one does not see the old mail.
    bench.owner.get(&format!("/api/messages/{id}")).await.expect(200);
    let scoped = bench.scoped(&other, "acme.dev").await;
    assert_eq!(subjects(scoped.get("/api/messages").await.expect(200)), ["After"]);
}

#[tokio::test]
async fn an_mx_record_alone_proves_a_domain_to_the_first_account_and_to_no_other() {
    // Whatever the setting is today, there is another account that could claim.
    for signup in [Signup::First, Signup::Closed] {
        let bench = Bench::with(|config| config.auth.signup = signup).await;
        let (holder, next) = (bench.account("one@example.com").await, bench.account("two@example.com").await);
        bench.dns.mx("acme.dev", 10, HOSTNAME).mx("own.dev", 10, HOSTNAME);
        add(&bench.owner, "own.dev").await;
        assert_eq!(verify(&bench.owner, "own.dev").await["status"], "verified", "the first account");
        let added = add(&holder, "acme.dev").await;
        assert_eq!(verify(&holder, "acme.dev").await["status"], "pending", "never claimed before");
        bench.publish(&added);
        assert_eq!(verify(&holder, "acme.dev").await["status"], "verified");
        holder.delete("/api/domains/acme.dev").await.expect(200);
        bench.dns.remove("mailkite._domainkey.acme.dev");
        let added = add(&next, "acme.dev").await;
        let verified = verify(&next, "acme.dev").await;
        assert_eq!((&verified["status"], &verified["checks"]["mx"]), (&json!("pending"), &json!(true)));
        // A look of the server's own changes nothing either, nor does the next day.
        bench.server.clock.advance(DAY);
        bench.recheck().await;
        assert_eq!(row(&next, "acme.dev").await["status"], "pending");
        assert_eq!(bench.rcpt("a@acme.dev").await, 450);
        bench.publish(&added);
        assert_eq!(verify(&next, "acme.dev").await["status"], "verified");
        bench.server.stop().await;
    }
}

#[tokio::test]
async fn what_an_account_proved_of_a_domain_falls_when_another_wins_it() {
    let bench = Bench::new().await;
    let mine = bench.verified(&bench.owner, "acme.dev").await;
    bench.server.write(|tx, _, _| Ok(tx.execute("DELETE FROM domain WHERE name LIKE '%.test'", [])?)).await;
    // The MX goes for three days, the rest stays: it can still be sent from.
    bench.dns.without("acme.dev", RecordType::MX);
    for _ in 0..4 {
        assert_eq!(bench.recheck().await, usize::from(bench.server.clock.now().as_millis() > NOW));
        bench.server.clock.advance(DAY + Duration::from_millis(1));
    }
    assert_eq!(bench.recheck().await, 1);
    assert_eq!(flags(&row(&bench.owner, "acme.dev").await), [false, true, true, true]);
    let send = json!({"from": "ceo@acme.dev", "to": "a@remote.test", "subject": "x", "text": "y"});
    let mut later = send.clone();
    later["scheduledAt"] = json!("in 2 days");
    bench.owner.post("/v1/send", later).await.expect(202);
    // Somebody else proves it with a key of their own.
    let other = bench.account("other@example.com").await;
    let theirs = add(&other, "acme.dev").await;
    // Below it, and beside it, is sent from as well.
    for name in ["news.acme.dev", "newsacme.dev"] {
        bench.published(&bench.owner, name).await;
        bench.dns.without(name, RecordType::MX);
        assert_eq!(verify(&bench.owner, name).await["status"], "pending");
    }
    for record in mine["dns"].as_array().unwrap() {
        bench.dns.remove(record["name"].as_str().unwrap());
    }
    bench.publish(&theirs);
    assert_eq!(verify(&other, "acme.dev").await["status"], "verified");
    for name in ["acme.dev", "news.acme.dev"] {
        let row = row(&bench.owner, name).await;
        assert_eq!((flags(&row), &row["status"]), ([false; 4], &json!("pending")), "{name}");
    }
    assert_eq!(bench.owner.get("/v1/me").await.expect(200)["sendingDomains"], json!(["newsacme.dev"]));
    bench.owner.post("/v1/send", send.clone()).await.expect_error(403, "from_domain");
    for _ in 0..2 {
        bench.server.clock.advance(DAY + Duration::from_millis(1));
        assert_eq!(bench.recheck().await, 2, "nothing of it is looked at any more");
    }
    bench.server.until("SELECT status FROM message WHERE direction = 'outbound'", "failed".to_owned()).await;
    // Whatever the row says, who has the domain decides.
    let raised = "UPDATE domain SET spf_verified = 1, dkim_verified = 1 WHERE status = 'pending'";
    bench.server.write(move |tx, _, _| Ok(tx.execute(raised, [])?)).await;
    bench.owner.post("/v1/send", send.clone()).await.expect_error(403, "from_domain");
    let mut below = send.clone();
    below["from"] = json!("ceo@news.acme.dev");
    bench.owner.post("/v1/send", below).await.expect_error(403, "from_domain");
    other.post("/v1/send", send).await.expect(202);
    assert_eq!(verify(&other, "acme.dev").await["status"], "verified");
}
