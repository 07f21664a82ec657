-- Version 5: limits per account, what is known of each object, and counters instead of scans.

-- How many rows an account has in tables that may hold many, kept by the triggers below: what limits ask for.
CREATE TABLE account_rows (
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  table_name TEXT NOT NULL,
  rows INTEGER NOT NULL,
  PRIMARY KEY (account_id, table_name)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER upload_added AFTER INSERT ON upload BEGIN
  INSERT INTO account_rows (account_id, table_name, rows) VALUES (NEW.account_id, 'upload', 1)
  ON CONFLICT (account_id, table_name) DO UPDATE SET rows = rows + 1;
END;
CREATE TRIGGER upload_removed AFTER DELETE ON upload BEGIN
  UPDATE account_rows SET rows = rows - 1 WHERE account_id = OLD.account_id AND table_name = 'upload';
END;
CREATE TRIGGER suppression_added AFTER INSERT ON suppression BEGIN
  INSERT INTO account_rows (account_id, table_name, rows) VALUES (NEW.account_id, 'suppression', 1)
  ON CONFLICT (account_id, table_name) DO UPDATE SET rows = rows + 1;
END;
CREATE TRIGGER suppression_removed AFTER DELETE ON suppression BEGIN
  UPDATE account_rows SET rows = rows - 1 WHERE account_id = OLD.account_id AND table_name = 'suppression';
END;
CREATE TRIGGER blocked_sender_added AFTER INSERT ON blocked_sender BEGIN
  INSERT INTO account_rows (account_id, table_name, rows) VALUES (NEW.account_id, 'blocked_sender', 1)
  ON CONFLICT (account_id, table_name) DO UPDATE SET rows = rows + 1;
END;
CREATE TRIGGER blocked_sender_removed AFTER DELETE ON blocked_sender BEGIN
  UPDATE account_rows SET rows = rows - 1 WHERE account_id = OLD.account_id AND table_name = 'blocked_sender';
END;
CREATE TRIGGER idempotency_added AFTER INSERT ON idempotency BEGIN
  INSERT INTO account_rows (account_id, table_name, rows) VALUES (NEW.account_id, 'idempotency', 1)
  ON CONFLICT (account_id, table_name) DO UPDATE SET rows = rows + 1;
END;
CREATE TRIGGER idempotency_removed AFTER DELETE ON idempotency BEGIN
  UPDATE account_rows SET rows = rows - 1 WHERE account_id = OLD.account_id AND table_name = 'idempotency';
END;
INSERT INTO account_rows (account_id, table_name, rows) SELECT account_id, 'upload', count(*) FROM upload GROUP BY account_id;
INSERT INTO account_rows (account_id, table_name, rows) SELECT account_id, 'suppression', count(*) FROM suppression GROUP BY account_id;
INSERT INTO account_rows (account_id, table_name, rows) SELECT account_id, 'blocked_sender', count(*) FROM blocked_sender GROUP BY account_id;
INSERT INTO account_rows (account_id, table_name, rows) SELECT account_id, 'idempotency', count(*) FROM idempotency GROUP BY account_id;
-- Forwarding: destinations prove themselves, routes say what becomes of mail whose author is not authenticated.
ALTER TABLE route ADD COLUMN on_auth_fail TEXT CHECK (on_auth_fail IN ('refuse', 'rewrite'));
CREATE TABLE forward_proof (
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  address TEXT NOT NULL,
  mailbox TEXT NOT NULL,
  token_hash BLOB NOT NULL,
  asked_at INTEGER NOT NULL,
  proven_at INTEGER,
  declined_at INTEGER,
  PRIMARY KEY (account_id, address)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX forward_proof_by_token ON forward_proof (token_hash);
CREATE INDEX forward_proof_by_mailbox ON forward_proof (mailbox, asked_at);

-- What an object was when it was written; NULL where an earlier version wrote it.
ALTER TABLE raw ADD COLUMN checksum INTEGER;
ALTER TABLE upload ADD COLUMN checksum INTEGER;
