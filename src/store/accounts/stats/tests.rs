//! The figures compared with plain queries over every row, and their cost.

#![expect(clippy::unwrap_used, reason = "tests may panic")]

use proptest::prelude::*;
use rusqlite::StatementStatus;

use super::*;
use crate::id::{AccountRowId, RowId};
use crate::store::migrate;

const STEPS: Steps = Steps { from: Timestamp::from_millis(600_000), step_ms: 300_000, count: 4 };

fn database() -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch(migrate::SCHEMA).unwrap();
    connection.pragma_update(None, "foreign_keys", true).unwrap();
    for account in [1, 2] {
        connection
            .execute(
                "INSERT INTO account (id, public_id, email, created_at) VALUES (?1, 'usr_' || ?1, ?1 || '@b.c', 0)",
                [account],
            )
            .unwrap();
    }
    connection
}

fn insert_message(connection: &Connection, id: i64, account: AccountRowId, direction: &str, status: &str, at: i64) {
    connection
        .execute(
            "INSERT OR IGNORE INTO message (id, public_id, account_id, direction, status, mail_from, from_addr, to_addr,
                                            trace, size, received_at)
             VALUES (?1, 'msg_' || ?1, ?2, ?3, ?4, '', 'a@b.c', 'd@b.c', '', 1, ?5)",
            params![id, account, direction, status, at],
        )
        .unwrap();
}

fn insert_delivery(connection: &Connection, id: i64, account: AccountRowId, status: &str, at: i64) {
    connection
        .execute(
            "INSERT OR IGNORE INTO delivery (id, public_id, account_id, message_id, event_id, event_type, url, status,
                                             created_at, updated_at)
             VALUES (?1, 'dlv_' || ?1, ?2, ?1, 'msg_' || ?1, 'email.received', 'http://c.test/', ?3, ?4, ?4)",
            params![id, account, status, at],
        )
        .unwrap();
}

/// Computes one figure from the rows themselves.
fn truth(connection: &Connection, source: &str, account: AccountRowId) -> u64 {
    connection
        .query_row(&format!("SELECT count(*) FROM {source} AND account_id = ?1"), [account], |row| row.get(0))
        .unwrap()
}

fn assert_true(connection: &Connection) {
    for account in [1, 2] {
        let counts = count(connection, RowId::new(account), STEPS).unwrap();
        for (at, step) in (0_i64..).zip(counts) {
            let from = STEPS.from.as_millis() + at * STEPS.step_ms;
            let within = |time: &str| format!("{time} >= {from} AND {time} < {}", from + STEPS.step_ms);
            let messages = |which: &str| format!("message WHERE {} AND {which}", within("received_at"));
            let deliveries = |which: &str| format!("delivery WHERE {} AND {which}", within("created_at"));
            let rows = Counts {
                received: truth(connection, &messages("direction = 'inbound'"), RowId::new(account)),
                sent: truth(connection, &messages("direction = 'outbound'"), RowId::new(account)),
                bounced: truth(
                    connection,
                    &messages("direction = 'outbound' AND status IN ('bounced', 'failed')"),
                    RowId::new(account),
                ),
                delivered: truth(connection, &deliveries("status = 'delivered'"), RowId::new(account)),
                failed: truth(connection, &deliveries("status = 'failed'"), RowId::new(account)),
            };
            assert_eq!(step, rows, "account {account}, step {at}");
        }
        let waiting = waiting(connection, RowId::new(account)).unwrap();
        assert_eq!(waiting.webhooks, truth(connection, "delivery WHERE status = 'pending'", RowId::new(account)));
        let unsent = "message WHERE direction = 'outbound' AND status IN ('queued', 'deferred')";
        assert_eq!(waiting.outbound, truth(connection, unsent, RowId::new(account)));
        let oldest: Option<i64> = connection
            .query_row(
                "SELECT min(at) FROM (
                   SELECT min(created_at) AS at FROM delivery WHERE status = 'pending' AND account_id = ?1 UNION ALL
                   SELECT min(received_at) FROM message
                   WHERE direction = 'outbound' AND status IN ('queued', 'deferred') AND account_id = ?1)",
                [account],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(waiting.oldest_at, oldest.map(Timestamp::from_millis));
    }
}

proptest! {
    #[test]
    fn figures_are_what_the_rows_say_whatever_happens_to_them(
        changes in proptest::collection::vec((0_u8..9, 0_i64..40, 0_usize..4, 0_i64..2_000_000), 1..120)
    ) {
        const SENT: [&str; 4] = ["queued", "deferred", "sent", "bounced"];
        const MADE: [&str; 4] = ["pending", "delivered", "failed", "pending"];
        let connection = database();
        for (change, id, state, at) in changes {
            let (account, sent, made) = (1 + id % 2, SENT.get(state).unwrap(), MADE.get(state).unwrap());
            let execute = |sql: &str, word: &str| connection.execute(sql, params![id, word]).map(drop).unwrap();
            match change {
                0 => insert_message(&connection, id, RowId::new(account), "inbound", "received", at),
                1 => insert_message(&connection, id, RowId::new(account), "outbound", sent, at),
                2 | 3 => insert_delivery(&connection, id, RowId::new(account), made, at),
                4 => execute("UPDATE message SET status = ?2 WHERE id = ?1 AND direction = 'outbound'", sent),
                5 | 6 => execute("UPDATE delivery SET status = ?2 WHERE id = ?1", made),
                7 => execute("DELETE FROM message WHERE id = ?1 AND ?2 = ?2", ""),
                _ => execute("DELETE FROM delivery WHERE id = ?1 AND ?2 = ?2", ""),
            }
        }
        assert_true(&connection);
    }
}

#[test]
fn a_transaction_that_is_undone_counts_for_nothing_and_an_account_takes_its_figures_along() {
    let mut connection = database();
    insert_message(&connection, 1, RowId::new(1), "inbound", "received", 700_000);
    let transaction = connection.transaction().unwrap();
    insert_message(&transaction, 2, RowId::new(1), "inbound", "received", 700_001);
    insert_delivery(&transaction, 2, RowId::new(1), "pending", 700_001);
    transaction.rollback().unwrap();
    assert_true(&connection);
    connection.execute("DELETE FROM account WHERE id = 1", []).unwrap();
    assert_true(&connection);
    assert_eq!(truth(&connection, "stats WHERE true", RowId::new(1)), 0);
}

#[test]
fn what_figures_cost_does_not_go_by_what_happened() {
    let cost = |each: i64| {
        let connection = database();
        for at in 0..each {
            insert_message(&connection, at, RowId::new(1), "inbound", "received", 700_000 + at);
            insert_delivery(
                &connection,
                at,
                RowId::new(1),
                if at % 2 == 0 { "pending" } else { "delivered" },
                700_000 + at,
            );
        }
        assert_true(&connection);
        let mut statement = connection.prepare(COUNT).unwrap();
        let rows = statement.query_map(params![1, 0, 100], |_| Ok(())).unwrap().count();
        (rows, statement.get_status(StatementStatus::VmStep), statement.get_status(StatementStatus::Sort))
    };
    let few = cost(3);
    assert_eq!(few.0, 1);
    assert_eq!(cost(3_000), few);
}

#[test]
fn minutes_out_of_range_go_unless_something_of_them_waits() {
    let connection = database();
    for (id, status) in [(1, "pending"), (2, "delivered")] {
        insert_delivery(&connection, id, RowId::new(1), status, id * 60_000);
    }
    insert_message(&connection, 3, RowId::new(2), "inbound", "received", KEPT_MILLIS);
    let now = Timestamp::from_millis(KEPT_MILLIS + 240_000);
    assert_eq!(forget_before(&connection, now, 100).unwrap(), 1);
    assert_eq!(waiting(&connection, RowId::new(1)).unwrap().webhooks, 1);
    assert_eq!(truth(&connection, "stats WHERE true", RowId::new(2)), 1);
    // Removing a row of a minute that the sweep took does not reduce another minute.
    connection.execute("DELETE FROM delivery WHERE id = 2", []).unwrap();
    assert_eq!(waiting(&connection, RowId::new(1)).unwrap().webhooks, 1);
    connection.execute("UPDATE delivery SET status = 'failed' WHERE id = 1", []).unwrap();
    assert_eq!(forget_before(&connection, now, 100).unwrap(), 1);
}
