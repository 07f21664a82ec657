-- Version 5: limits per account, what is known of each object, and counters instead of scans.

ALTER TABLE message ADD COLUMN overhead INTEGER NOT NULL DEFAULT 2048;
ALTER TABLE message ADD COLUMN account_total INTEGER NOT NULL DEFAULT 0;
-- How many rows an account has in tables that may hold many, and the bytes in them, kept by the triggers below: what
-- limits ask for.
CREATE TABLE account_rows (
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  table_name TEXT NOT NULL,
  rows INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  PRIMARY KEY (account_id, table_name)
) STRICT, WITHOUT ROWID;
-- Bytes of messages: each message carries the sum of all that its account ever stored, so that accepting one writes no
-- counter; what is stored now is the latest sum, or `floor` where that one is gone, without what was removed.
CREATE TABLE message_bytes (
  account_id INTEGER PRIMARY KEY REFERENCES account (id) ON DELETE CASCADE,
  floor INTEGER NOT NULL,
  removed INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TRIGGER upload_added AFTER INSERT ON upload BEGIN
  INSERT INTO account_rows (account_id, table_name, rows, bytes) VALUES (NEW.account_id, 'upload', 1, NEW.size)
  ON CONFLICT (account_id, table_name) DO UPDATE SET rows = rows + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER upload_removed AFTER DELETE ON upload BEGIN
  UPDATE account_rows SET rows = rows - 1, bytes = bytes - (OLD.size)
  WHERE account_id = OLD.account_id AND table_name = 'upload';
END;
CREATE TRIGGER suppression_added AFTER INSERT ON suppression BEGIN
  INSERT INTO account_rows (account_id, table_name, rows, bytes)
  VALUES (NEW.account_id, 'suppression', 1, 200 + coalesce(octet_length(NEW.note), 0))
  ON CONFLICT (account_id, table_name) DO UPDATE SET rows = rows + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER suppression_removed AFTER DELETE ON suppression BEGIN
  UPDATE account_rows SET rows = rows - 1, bytes = bytes - (200 + coalesce(octet_length(OLD.note), 0))
  WHERE account_id = OLD.account_id AND table_name = 'suppression';
END;
CREATE TRIGGER blocked_sender_added AFTER INSERT ON blocked_sender BEGIN
  INSERT INTO account_rows (account_id, table_name, rows, bytes) VALUES (NEW.account_id, 'blocked_sender', 1, 200)
  ON CONFLICT (account_id, table_name) DO UPDATE SET rows = rows + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER blocked_sender_removed AFTER DELETE ON blocked_sender BEGIN
  UPDATE account_rows SET rows = rows - 1, bytes = bytes - (200)
  WHERE account_id = OLD.account_id AND table_name = 'blocked_sender';
END;
CREATE TRIGGER idempotency_added AFTER INSERT ON idempotency BEGIN
  INSERT INTO account_rows (account_id, table_name, rows, bytes)
  VALUES (NEW.account_id, 'idempotency', 1, 300 + octet_length(NEW.response))
  ON CONFLICT (account_id, table_name) DO UPDATE SET rows = rows + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER idempotency_removed AFTER DELETE ON idempotency BEGIN
  UPDATE account_rows SET rows = rows - 1, bytes = bytes - (300 + octet_length(OLD.response))
  WHERE account_id = OLD.account_id AND table_name = 'idempotency';
END;
CREATE TRIGGER template_added AFTER INSERT ON template BEGIN
  INSERT INTO account_rows (account_id, table_name, rows, bytes)
  VALUES (NEW.account_id, 'template', 1, 500 + coalesce(octet_length(NEW.html), 0)
    + coalesce(octet_length(NEW.text), 0)
      + coalesce(octet_length(NEW.json), 0) + coalesce(octet_length(NEW.theme), 0))
  ON CONFLICT (account_id, table_name) DO UPDATE SET rows = rows + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER template_removed AFTER DELETE ON template BEGIN
  UPDATE account_rows SET rows = rows - 1, bytes = bytes - (500 + coalesce(octet_length(OLD.html), 0)
    + coalesce(octet_length(OLD.text), 0)
      + coalesce(octet_length(OLD.json), 0) + coalesce(octet_length(OLD.theme), 0))
  WHERE account_id = OLD.account_id AND table_name = 'template';
END;
CREATE TRIGGER idempotency_changed AFTER UPDATE ON idempotency BEGIN
  UPDATE account_rows SET bytes = bytes + (300 + octet_length(NEW.response)) - (300 + octet_length(OLD.response))
  WHERE account_id = NEW.account_id AND table_name = 'idempotency';
END;
CREATE TRIGGER template_changed AFTER UPDATE ON template BEGIN
  UPDATE account_rows SET bytes = bytes + (500 + coalesce(octet_length(NEW.html), 0)
    + coalesce(octet_length(NEW.text), 0)
      + coalesce(octet_length(NEW.json), 0) + coalesce(octet_length(NEW.theme), 0)) - (500
    + coalesce(octet_length(OLD.html), 0) + coalesce(octet_length(OLD.text), 0)
      + coalesce(octet_length(OLD.json), 0) + coalesce(octet_length(OLD.theme), 0))
  WHERE account_id = NEW.account_id AND table_name = 'template';
END;
CREATE TRIGGER attempt_added AFTER INSERT ON attempt BEGIN
  INSERT INTO account_rows (account_id, table_name, rows, bytes)
  SELECT account_id, 'attempt', 1, 300 + octet_length(NEW.request_url) + octet_length(NEW.request_headers)
    + coalesce(octet_length(NEW.response_headers), 0) + coalesce(octet_length(NEW.response_body), 0)
  FROM delivery WHERE id = NEW.delivery_id
  ON CONFLICT (account_id, table_name) DO UPDATE SET rows = rows + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER attempt_removed AFTER DELETE ON attempt BEGIN
  UPDATE account_rows SET rows = rows - 1, bytes = bytes - (300 + octet_length(OLD.request_url) + octet_length(OLD.request_headers)
    + coalesce(octet_length(OLD.response_headers), 0) + coalesce(octet_length(OLD.response_body), 0))
  WHERE table_name = 'attempt' AND account_id = (SELECT account_id FROM delivery WHERE id = OLD.delivery_id);
END;
-- Attempts that go with their delivery do not find it any more.
CREATE TRIGGER delivery_removed BEFORE DELETE ON delivery BEGIN
  DELETE FROM attempt WHERE delivery_id = OLD.id;
END;
CREATE TRIGGER message_removed AFTER DELETE ON message
  WHEN EXISTS (SELECT 1 FROM account WHERE id = OLD.account_id) BEGIN
  INSERT INTO message_bytes (account_id, floor, removed)
  VALUES (OLD.account_id, OLD.account_total, OLD.overhead + iif(OLD.raw_id IS NULL, 0, OLD.size)
    + coalesce(octet_length(OLD.body), 0))
  ON CONFLICT (account_id) DO UPDATE SET floor = max(floor, excluded.floor), removed = removed + excluded.removed;
END;
CREATE TRIGGER message_shrunk AFTER UPDATE OF raw_id, body ON message BEGIN
  INSERT INTO message_bytes (account_id, floor, removed)
  VALUES (OLD.account_id, 0, (OLD.overhead + iif(OLD.raw_id IS NULL, 0, OLD.size)
    + coalesce(octet_length(OLD.body), 0))
    - (NEW.overhead + iif(NEW.raw_id IS NULL, 0, NEW.size) + coalesce(octet_length(NEW.body), 0)))
  ON CONFLICT (account_id) DO UPDATE SET removed = removed + excluded.removed;
END;
INSERT INTO account_rows (account_id, table_name, rows, bytes)
SELECT account_id, 'upload', count(*), sum(upload.size) FROM upload GROUP BY account_id;
INSERT INTO account_rows (account_id, table_name, rows, bytes)
SELECT account_id, 'suppression', count(*), sum(200 + coalesce(octet_length(suppression.note), 0))
    FROM suppression GROUP BY account_id;
INSERT INTO account_rows (account_id, table_name, rows, bytes)
SELECT account_id, 'blocked_sender', count(*), sum(200) FROM blocked_sender GROUP BY account_id;
INSERT INTO account_rows (account_id, table_name, rows, bytes)
SELECT account_id, 'idempotency', count(*), sum(300 + octet_length(idempotency.response))
    FROM idempotency GROUP BY account_id;
INSERT INTO account_rows (account_id, table_name, rows, bytes)
SELECT account_id, 'template', count(*), sum(500 + coalesce(octet_length(template.html), 0)
    + coalesce(octet_length(template.text), 0)
      + coalesce(octet_length(template.json), 0) + coalesce(octet_length(template.theme), 0))
    FROM template GROUP BY account_id;
INSERT INTO account_rows (account_id, table_name, rows, bytes)
SELECT delivery.account_id, 'attempt', count(*), sum(300 + octet_length(attempt.request_url) + octet_length(attempt.request_headers)
    + coalesce(octet_length(attempt.response_headers), 0) + coalesce(octet_length(attempt.response_body), 0))
FROM attempt JOIN delivery ON delivery.id = attempt.delivery_id GROUP BY delivery.account_id;
INSERT INTO message_bytes (account_id, floor, removed)
SELECT account_id, sum(message.overhead + iif(message.raw_id IS NULL, 0, message.size)
    + coalesce(octet_length(message.body), 0)), 0 FROM message GROUP BY account_id;
-- Forwarding: destinations prove themselves, routes say what becomes of mail whose author is not authenticated.
ALTER TABLE dispatch ADD COLUMN forwarding TEXT;
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
CREATE TABLE forward_mark (
  mark BLOB PRIMARY KEY,
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  sender TEXT NOT NULL,
  recipient TEXT NOT NULL,
  sent_at INTEGER NOT NULL,
  reported_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX forward_mark_by_time ON forward_mark (sent_at);
CREATE INDEX forward_mark_by_account ON forward_mark (account_id, reported_at) WHERE reported_at IS NOT NULL;
CREATE INDEX forward_mark_by_sender ON forward_mark (sender, reported_at) WHERE reported_at IS NOT NULL;
CREATE UNIQUE INDEX forward_proof_by_token ON forward_proof (token_hash);
CREATE INDEX forward_proof_by_mailbox ON forward_proof (mailbox, asked_at);

-- What an object was when it was written; NULL where an earlier version wrote it.
ALTER TABLE raw ADD COLUMN checksum INTEGER;
ALTER TABLE upload ADD COLUMN checksum INTEGER;

-- What the high-water mark beside the lock is compared with.
CREATE TABLE mark (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  database_id INTEGER NOT NULL,
  generation INTEGER NOT NULL
) STRICT;
INSERT INTO mark (only, database_id, generation) VALUES (1, 0, 0);

-- Why a message or an upload has no row.
CREATE TABLE removal (
  id INTEGER PRIMARY KEY,
  name_hash INTEGER NOT NULL,
  reason TEXT NOT NULL CHECK (reason IN ('api', 'retention', 'rule', 'delivered', 'undelivered')),
  removed_at INTEGER NOT NULL
) STRICT;

-- How many messages and deliveries of each kind there are, by the minute of the message or event: what the overview
-- shows, without a look at each. Kept by the triggers below in the transaction of every change; the sweep removes
-- minutes that no screen shows, unless something of them waits.
CREATE TABLE tally (
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  minute INTEGER NOT NULL,                       -- since 1970
  received INTEGER NOT NULL DEFAULT 0,
  sent INTEGER NOT NULL DEFAULT 0,               -- outbound, whatever became of them
  unsent INTEGER NOT NULL DEFAULT 0,             -- of these, queued or deferred
  bounced INTEGER NOT NULL DEFAULT 0,            -- of these, bounced or failed
  pending INTEGER NOT NULL DEFAULT 0,            -- deliveries
  delivered INTEGER NOT NULL DEFAULT 0,
  failed INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (account_id, minute)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER tally_received AFTER INSERT ON message WHEN NEW.direction = 'inbound' BEGIN
  INSERT INTO tally (account_id, minute, received) VALUES (NEW.account_id, NEW.received_at / 60000, 1)
  ON CONFLICT (account_id, minute) DO UPDATE SET received = received + 1;
END;
CREATE TRIGGER tally_sent AFTER INSERT ON message WHEN NEW.direction = 'outbound' BEGIN
  INSERT INTO tally (account_id, minute, sent, unsent, bounced)
  VALUES (NEW.account_id, NEW.received_at / 60000, 1, NEW.status IN ('queued', 'deferred'),
          NEW.status IN ('bounced', 'failed'))
  ON CONFLICT (account_id, minute) DO UPDATE
  SET sent = sent + 1, unsent = unsent + excluded.unsent, bounced = bounced + excluded.bounced;
END;
CREATE TRIGGER tally_sent_on AFTER UPDATE OF status ON message
WHEN NEW.direction = 'outbound' AND NEW.status <> OLD.status BEGIN
  INSERT INTO tally (account_id, minute, unsent, bounced)
  VALUES (NEW.account_id, NEW.received_at / 60000,
          (NEW.status IN ('queued', 'deferred')) - (OLD.status IN ('queued', 'deferred')),
          (NEW.status IN ('bounced', 'failed')) - (OLD.status IN ('bounced', 'failed')))
  ON CONFLICT (account_id, minute) DO UPDATE
  SET unsent = unsent + excluded.unsent, bounced = bounced + excluded.bounced;
END;
CREATE TRIGGER tally_removed AFTER DELETE ON message BEGIN
  UPDATE tally
  SET received = received - (OLD.direction = 'inbound'), sent = sent - (OLD.direction = 'outbound'),
      unsent = unsent - (OLD.direction = 'outbound' AND OLD.status IN ('queued', 'deferred')),
      bounced = bounced - (OLD.direction = 'outbound' AND OLD.status IN ('bounced', 'failed'))
  WHERE account_id = OLD.account_id AND minute = OLD.received_at / 60000;
END;
CREATE TRIGGER tally_delivery AFTER INSERT ON delivery BEGIN
  INSERT INTO tally (account_id, minute, pending, delivered, failed)
  VALUES (NEW.account_id, NEW.created_at / 60000, NEW.status = 'pending', NEW.status = 'delivered',
          NEW.status = 'failed')
  ON CONFLICT (account_id, minute) DO UPDATE
  SET pending = pending + excluded.pending, delivered = delivered + excluded.delivered,
      failed = failed + excluded.failed;
END;
CREATE TRIGGER tally_delivery_on AFTER UPDATE OF status ON delivery WHEN NEW.status <> OLD.status BEGIN
  INSERT INTO tally (account_id, minute, pending, delivered, failed)
  VALUES (NEW.account_id, NEW.created_at / 60000, (NEW.status = 'pending') - (OLD.status = 'pending'),
          (NEW.status = 'delivered') - (OLD.status = 'delivered'), (NEW.status = 'failed') - (OLD.status = 'failed'))
  ON CONFLICT (account_id, minute) DO UPDATE
  SET pending = pending + excluded.pending, delivered = delivered + excluded.delivered,
      failed = failed + excluded.failed;
END;
CREATE TRIGGER tally_delivery_removed AFTER DELETE ON delivery BEGIN
  UPDATE tally
  SET pending = pending - (OLD.status = 'pending'), delivered = delivered - (OLD.status = 'delivered'),
      failed = failed - (OLD.status = 'failed')
  WHERE account_id = OLD.account_id AND minute = OLD.created_at / 60000;
END;
INSERT INTO tally (account_id, minute, received, sent, unsent, bounced)
SELECT account_id, received_at / 60000, sum(direction = 'inbound'), sum(direction = 'outbound'),
       sum(direction = 'outbound' AND status IN ('queued', 'deferred')),
       sum(direction = 'outbound' AND status IN ('bounced', 'failed'))
FROM message GROUP BY account_id, received_at / 60000;
INSERT INTO tally (account_id, minute, pending, delivered, failed)
SELECT account_id, created_at / 60000, sum(status = 'pending'), sum(status = 'delivered'), sum(status = 'failed')
FROM delivery WHERE true GROUP BY account_id, created_at / 60000
ON CONFLICT (account_id, minute) DO UPDATE
SET pending = excluded.pending, delivered = excluded.delivered, failed = excluded.failed;

-- Jobs take turns by account within their lane.
ALTER TABLE job ADD COLUMN account_id INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN endpoint INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN queued_at INTEGER NOT NULL DEFAULT 0;
UPDATE job SET queued_at = run_at, account_id = coalesce(
  CASE kind
    WHEN 'webhook' THEN (SELECT account_id FROM delivery WHERE id = job.subject_id)
    WHEN 'passing' THEN (SELECT account_id FROM passing WHERE id = job.subject_id)
    WHEN 'dispatch' THEN (SELECT account_id FROM dispatch WHERE id = job.subject_id)
    WHEN 'release' THEN (SELECT account_id FROM message WHERE id = job.subject_id)
  END, 0);
DROP INDEX job_waiting;
CREATE INDEX job_waiting ON job (lane, account_id, endpoint, run_at) WHERE lease_until IS NULL;
CREATE TABLE attachment_after (
  message_id INTEGER NOT NULL REFERENCES message (id) ON DELETE CASCADE,
  idx INTEGER NOT NULL,
  filename TEXT, content_type TEXT, charset TEXT, content_id TEXT,
  disposition TEXT CHECK (disposition IN ('attachment', 'inline')),
  size INTEGER NOT NULL,
  part_offset INTEGER NOT NULL,
  part_length INTEGER NOT NULL,
  encoding TEXT NOT NULL CHECK (encoding IN ('identity', 'base64', 'quoted-printable', 'uuencode')),
  inner_offset INTEGER,
  PRIMARY KEY (message_id, idx)
) STRICT, WITHOUT ROWID;
INSERT INTO attachment_after (message_id, idx, filename, content_type, charset, content_id, disposition, size, part_offset,
part_length, encoding)
  SELECT message_id, idx, filename, content_type, charset, content_id, disposition, size, part_offset, part_length, encoding
  FROM attachment;
DROP TABLE attachment;
ALTER TABLE attachment_after RENAME TO attachment;

-- Ids that a domain's webhook had and has no more.
CREATE TABLE former_webhook (
  route_id TEXT PRIMARY KEY,
  domain_id INTEGER NOT NULL REFERENCES domain (id) ON DELETE CASCADE,
  removed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX former_webhook_by_domain ON former_webhook (domain_id, removed_at);
-- Lanes of mail whose hosts take nothing at the moment, for who looks.
CREATE TABLE lane_pause (
  lane TEXT PRIMARY KEY,
  until INTEGER NOT NULL,
  reason TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Who handed a message in hears what of it cannot be delivered.
ALTER TABLE submission ADD COLUMN return_to TEXT;
