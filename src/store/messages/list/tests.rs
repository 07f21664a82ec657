//! Lists compared with the results of plain queries, and the plans of their statements.

#![expect(clippy::unwrap_used, reason = "tests may panic")]

use super::*;
use crate::clock::Timestamp;
use crate::id::{AccountRowId, DomainRowId, MessageId, MessageRowId, RowId};
use crate::store::{messages, migrate};

/// Creates two accounts with a domain each.
fn database() -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch(migrate::SCHEMA).unwrap();
    connection
        .execute_batch(
            "INSERT INTO account (id, public_id, email, created_at)
               VALUES (1, 'usr_1', 'a@b.c', 0), (2, 'usr_2', 'd@e.f', 0);",
        )
        .unwrap();
    connection
}

fn store(
    connection: &Connection,
    account: AccountRowId,
    domain: Option<DomainRowId>,
    subject: &str,
    at: i64,
) -> MessageRowId {
    let at = Timestamp::from_millis(at);
    let new = messages::NewMessage {
        public_id: MessageId::new(at),
        account_id: account,
        domain_id: domain,
        route_id: None,
        mail_from: String::new(),
        from_addr: "ada@example.com".to_owned(),
        from_name: None,
        to_addr: "box@inbox.test".to_owned(),
        to_name: None,
        subject: Some(subject.to_owned()),
        message_id_header: None,
        thread_id: None,
        spf: None,
        dkim: None,
        dmarc: None,
        spam: None,
        trace: "trace".to_owned(),
        truncated: false,
        attachment_count: 0,
        size: 1,
        mail_data_id: RowId::new(1),
    };
    messages::insert(connection, &new, at).unwrap().0
}

fn everything(account: AccountRowId) -> Filter {
    Filter { account, before: None, after: None, limit: 7, search: None, domain: None, direction: None, status: None }
}

/// Follows the cursor to the end; returns the subjects in that order.
fn pages(connection: &Connection, mut filter: Filter) -> Vec<String> {
    let mut subjects = Vec::new();
    loop {
        let page = list(connection, &filter).unwrap();
        subjects.extend(page.iter().map(|row| row.subject.clone().unwrap()));
        match page.last() {
            Some(last) if page.len() == filter.limit as usize => filter.before = Some(last.received_at.as_millis()),
            _ => return subjects,
        }
    }
}

fn plan(connection: &Connection, statement: &str) -> String {
    let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {statement}")).unwrap();
    let parameters = vec![1_i64; statement.parameter_count()];
    let rows =
        statement.query_map(rusqlite::params_from_iter(parameters), |row| row.get::<_, String>("detail")).unwrap();
    rows.map(std::result::Result::unwrap).collect::<Vec<_>>().join("; ")
}

#[test]
fn cursors_skip_and_repeat_nothing_whatever_is_asked_for_and_wherever_the_index_ends() {
    let connection = database();
    for n in 0..90 {
        // Now and then the clock goes back by hours, and mail of another account arrives in between.
        let at = if n % 20 == 7 { 5_000_000 + n } else { 100_000_000 + n * 1_000 };
        let id = store(
            &connection,
            RowId::new(1),
            Some(RowId::new(1 + n % 3)),
            &format!("number {n:02} {}", if n % 2 == 0 { "even" } else { "odd" }),
            at,
        );
        if n % 5 == 0 {
            messages::mark_dropped(&connection, id).unwrap();
        } else if n % 5 == 1 {
            let status = if n % 4 == 1 { "bounced" } else { "sent" };
            let sent = "UPDATE message SET direction = 'outbound', status = ?2 WHERE id = ?1";
            connection.execute(sent, params![id, status]).unwrap();
        }
        store(&connection, RowId::new(2), Some(RowId::new(9)), "number of another", at);
    }
    let mut filters = Vec::new();
    for search in [None, Some("number"), Some("EVEN"), Some("r 1"), Some("4"), Some("absent"), Some("~")] {
        for domain in [None, Some(RowId::new(2)), Some(RowId::new(9))] {
            for status in [None, Some("dropped"), Some("received"), Some("sent"), Some("bounced")] {
                for direction in [None, Some(Direction::Inbound), Some(Direction::Outbound)] {
                    filters.push(Filter {
                        search: search.map(str::to_owned),
                        domain,
                        direction,
                        status: status.and_then(MessageStatus::from_word),
                        ..everything(RowId::new(1))
                    });
                }
            }
        }
    }
    for steps in [0, 1, 13, 40, 200] {
        for _ in 0..3 {
            search::fill(&connection, steps).unwrap();
        }
        for filter in &filters {
            let mut all = connection
                .prepare(
                    "SELECT subject FROM message WHERE account_id = 1
                       AND (?1 IS NULL OR instr(lower(subject), lower(?1)) > 0)
                       AND (?2 IS NULL OR domain_id = ?2) AND (?3 IS NULL OR status = ?3)
                       AND (?4 IS NULL OR direction = ?4)
                     ORDER BY received_at DESC",
                )
                .unwrap();
            let direction =
                filter.direction.map(|way| if way == Direction::Inbound { "inbound" } else { "outbound" });
            let all = all
                .query_map(params![filter.search, filter.domain, filter.status, direction], |row| row.get(0))
                .unwrap();
            let wanted: Vec<String> = all.map(std::result::Result::unwrap).collect();
            assert_eq!(pages(&connection, filter.clone()), wanted, "{filter:?}, filled by {steps}");
            let newer = Filter { after: Some(100_040_000), limit: 200, ..filter.clone() };
            let after = list(&connection, &newer).unwrap();
            assert!(after.iter().all(|row| row.received_at.as_millis() > 100_040_000), "{newer:?}");
        }
    }
    assert_eq!(pages(&connection, everything(RowId::new(2))).len(), 90);
}

#[test]
fn what_is_deleted_is_found_no_more_and_what_comes_after_it_is() {
    let connection = database();
    let ids: Vec<MessageRowId> =
        (0..5).map(|n| store(&connection, RowId::new(1), None, &format!("secret {n}"), n)).collect();
    let secrets =
        |needle: &str| pages(&connection, Filter { search: Some(needle.to_owned()), ..everything(RowId::new(1)) });
    search::fill(&connection, 100).unwrap();
    assert_eq!(secrets("secret").len(), 5);
    for id in ids.iter().skip(2) {
        messages::delete(&connection, *id).unwrap();
    }
    assert_eq!(secrets("secret"), ["secret 1", "secret 0"]);
    let texts: Vec<u8> = connection.query_row("SELECT texts FROM search_block", [], |row| row.get(0)).unwrap();
    assert!(memchr::memmem::find(&texts, b"secret 3").is_none(), "its text is gone with it");
    // With the row id of a message that was indexed, it would count as indexed too.
    let another = store(&connection, RowId::new(1), None, "another secret", 99);
    assert!(!ids.contains(&another));
    assert_eq!(secrets("another"), ["another secret"]);
    search::fill(&connection, 100).unwrap();
    assert_eq!(secrets("secret"), ["another secret", "secret 1", "secret 0"]);
    for id in ids.iter().take(2).chain([&another]) {
        messages::delete(&connection, *id).unwrap();
    }
    let blocks: i64 = connection.query_row("SELECT count(*) FROM search_block", [], |row| row.get(0)).unwrap();
    assert_eq!(blocks, 0, "a block goes with the last of its messages");
}

#[test]
fn few_at_a_time_fill_few_blocks() {
    let connection = database();
    for n in 0..400 {
        store(&connection, RowId::new(1), None, &format!("a subject of a usual length, number {n}"), n);
        search::fill(&connection, 10).unwrap();
    }
    let blocks: i64 = connection.query_row("SELECT count(*) FROM search_block", [], |row| row.get(0)).unwrap();
    assert!(blocks <= 12, "{blocks} blocks");
    let filter = Filter { limit: 1_000, search: Some("usual".to_owned()), ..everything(RowId::new(1)) };
    assert_eq!(list(&connection, &filter).unwrap().len(), 400);
}

#[test]
fn every_list_follows_an_index_and_sorts_nothing() {
    let connection = database();
    let time = "message_by_time (account_id=? AND received_at>? AND received_at<?)";
    let domain = "message_by_domain (domain_id=? AND received_at>? AND received_at<?)";
    let dropped = "message_dropped (account_id=? AND received_at>? AND received_at<?)";
    let outbound = "message_outbound (account_id=? AND received_at>? AND received_at<?)";
    let unsent = "message_unsent (account_id=? AND status=? AND received_at>? AND received_at<?)";
    for (order, index) in [
        (Order::All, time),
        (Order::Outbound, outbound),
        (Order::Unsent, unsent),
        (Order::Domain, domain),
        (Order::Dropped, dropped),
    ] {
        assert_eq!(plan(&connection, &order.statement()), format!("SEARCH message USING INDEX {index}"));
    }
    assert_eq!(
        plan(&connection, search::WALK),
        "SEARCH search_block USING INDEX search_block_by_time (account_id=? AND newest>?)"
    );
    let tail = plan(&connection, &format!("SELECT id FROM {TAIL}"));
    assert!(tail.starts_with("SEARCH message USING INTEGER PRIMARY KEY (rowid>?)"), "{tail}");
    let deliveries = "SELECT status, attempts, last_status_code FROM delivery WHERE message_id = ?1 ORDER BY id";
    assert_eq!(plan(&connection, deliveries), "SEARCH delivery USING INDEX delivery_by_message (message_id=?)");
}
