-- Version 6: row ids that are never used twice, and the field's names.

-- AUTOINCREMENT changes nothing that is stored: it makes an insert look into sqlite_sequence as well, so the text of the
-- table's definition is edited in place. SQLite's documentation of ALTER TABLE (section 7) has this procedure for changes
-- that leave the content of the file alone; the other one, a new table with a copy of every row, would write all mail
-- again. Indices are renamed the same way, for making one anew reads its whole table. The ALTER TABLE statements below
-- raise SQLite's own schema version, upon which other connections read the edited text.
CREATE TABLE sequence (id INTEGER PRIMARY KEY AUTOINCREMENT);   -- brings sqlite_sequence, which stays
DROP TABLE sequence;
PRAGMA writable_schema = ON;
UPDATE sqlite_schema SET sql = replace(sql, 'id INTEGER PRIMARY KEY,', 'id INTEGER PRIMARY KEY AUTOINCREMENT,')
WHERE type = 'table' AND name IN ('message', 'delivery', 'dispatch', 'job', 'domain', 'notice', 'passing');
UPDATE sqlite_schema
SET sql = replace(replace(sql, '''passing''', '''zero_retention'''), '''release''', '''scheduled_send''')
WHERE type = 'table' AND name = 'job';
WITH renamed (earlier, present) AS (VALUES
  ('raw_file', 'mail_data_file'),
  ('message_raw', 'message_mail_data'),
  ('dispatch_raw', 'dispatch_mail_data'),
  ('passing_raw', 'zero_retention_delivery_mail_data'),
  ('submission_scheduled', 'outbound_detail_scheduled'),
  ('forward_proof_by_token', 'forward_destination_by_token'),
  ('forward_proof_by_mailbox', 'forward_destination_by_mailbox'),
  ('forward_mark_by_time', 'forwarded_message_by_time'),
  ('forward_mark_by_account', 'forwarded_message_by_account'),
  ('forward_mark_by_sender', 'forwarded_message_by_sender'))
UPDATE sqlite_schema SET name = present, sql = replace(sql, 'INDEX ' || earlier || ' ON', 'INDEX ' || present || ' ON')
FROM renamed WHERE type = 'index' AND name = earlier;
PRAGMA writable_schema = RESET;
UPDATE job SET kind = iif(kind = 'passing', 'zero_retention', 'scheduled_send') WHERE kind IN ('passing', 'release');

INSERT INTO sqlite_sequence (name, seq) SELECT 'message', max(id) FROM message HAVING max(id) > 0;
INSERT INTO sqlite_sequence (name, seq) SELECT 'delivery', max(id) FROM delivery HAVING max(id) > 0;
INSERT INTO sqlite_sequence (name, seq) SELECT 'dispatch', max(id) FROM dispatch HAVING max(id) > 0;
INSERT INTO sqlite_sequence (name, seq) SELECT 'job', max(id) FROM job HAVING max(id) > 0;
INSERT INTO sqlite_sequence (name, seq) SELECT 'notice', max(id) FROM notice HAVING max(id) > 0;
INSERT INTO sqlite_sequence (name, seq) SELECT 'passing', max(id) FROM passing HAVING max(id) > 0;
-- Messages outlive their domain and keep its id.
INSERT INTO sqlite_sequence (name, seq)
SELECT 'domain', max(id) FROM (
  SELECT max(id) AS id FROM domain
  UNION ALL
  SELECT max(domain_id) FROM message WHERE domain_id IS NOT NULL)
HAVING max(id) > 0;

ALTER TABLE raw RENAME TO mail_data;
ALTER TABLE message RENAME COLUMN raw_id TO mail_data_id;
ALTER TABLE dispatch RENAME COLUMN raw_id TO mail_data_id;
ALTER TABLE passing RENAME COLUMN raw_id TO mail_data_id;
ALTER TABLE passing RENAME TO zero_retention_delivery;
ALTER TABLE recent RENAME TO dedup_fingerprint;
ALTER TABLE submission RENAME TO outbound_detail;
ALTER TABLE forward_proof RENAME COLUMN asked_at TO mailed_at;
ALTER TABLE forward_proof RENAME COLUMN proven_at TO confirmed_at;
ALTER TABLE forward_proof RENAME TO forward_destination;
ALTER TABLE forward_mark RENAME COLUMN mark TO fingerprint;
ALTER TABLE forward_mark RENAME TO forwarded_message;
ALTER TABLE setup_token RENAME COLUMN only TO singleton;
ALTER TABLE search_state RENAME COLUMN only TO singleton;
ALTER TABLE mark RENAME COLUMN only TO singleton;

DROP TRIGGER tally_received;
DROP TRIGGER tally_sent;
DROP TRIGGER tally_sent_on;
DROP TRIGGER tally_removed;
DROP TRIGGER tally_delivery;
DROP TRIGGER tally_delivery_on;
DROP TRIGGER tally_delivery_removed;
ALTER TABLE tally RENAME TO stats;
CREATE TRIGGER stats_received AFTER INSERT ON message WHEN NEW.direction = 'inbound' BEGIN
  INSERT INTO stats (account_id, minute, received) VALUES (NEW.account_id, NEW.received_at / 60000, 1)
  ON CONFLICT (account_id, minute) DO UPDATE SET received = received + 1;
END;
CREATE TRIGGER stats_sent AFTER INSERT ON message WHEN NEW.direction = 'outbound' BEGIN
  INSERT INTO stats (account_id, minute, sent, unsent, bounced)
  VALUES (NEW.account_id, NEW.received_at / 60000, 1, NEW.status IN ('queued', 'deferred'),
          NEW.status IN ('bounced', 'failed'))
  ON CONFLICT (account_id, minute) DO UPDATE
  SET sent = sent + 1, unsent = unsent + excluded.unsent, bounced = bounced + excluded.bounced;
END;
CREATE TRIGGER stats_sent_changed AFTER UPDATE OF status ON message
WHEN NEW.direction = 'outbound' AND NEW.status <> OLD.status BEGIN
  INSERT INTO stats (account_id, minute, unsent, bounced)
  VALUES (NEW.account_id, NEW.received_at / 60000,
          (NEW.status IN ('queued', 'deferred')) - (OLD.status IN ('queued', 'deferred')),
          (NEW.status IN ('bounced', 'failed')) - (OLD.status IN ('bounced', 'failed')))
  ON CONFLICT (account_id, minute) DO UPDATE
  SET unsent = unsent + excluded.unsent, bounced = bounced + excluded.bounced;
END;
CREATE TRIGGER stats_removed AFTER DELETE ON message BEGIN
  UPDATE stats
  SET received = received - (OLD.direction = 'inbound'), sent = sent - (OLD.direction = 'outbound'),
      unsent = unsent - (OLD.direction = 'outbound' AND OLD.status IN ('queued', 'deferred')),
      bounced = bounced - (OLD.direction = 'outbound' AND OLD.status IN ('bounced', 'failed'))
  WHERE account_id = OLD.account_id AND minute = OLD.received_at / 60000;
END;
CREATE TRIGGER stats_delivery AFTER INSERT ON delivery BEGIN
  INSERT INTO stats (account_id, minute, pending, delivered, failed)
  VALUES (NEW.account_id, NEW.created_at / 60000, NEW.status = 'pending', NEW.status = 'delivered',
          NEW.status = 'failed')
  ON CONFLICT (account_id, minute) DO UPDATE
  SET pending = pending + excluded.pending, delivered = delivered + excluded.delivered,
      failed = failed + excluded.failed;
END;
CREATE TRIGGER stats_delivery_changed AFTER UPDATE OF status ON delivery WHEN NEW.status <> OLD.status BEGIN
  INSERT INTO stats (account_id, minute, pending, delivered, failed)
  VALUES (NEW.account_id, NEW.created_at / 60000, (NEW.status = 'pending') - (OLD.status = 'pending'),
          (NEW.status = 'delivered') - (OLD.status = 'delivered'), (NEW.status = 'failed') - (OLD.status = 'failed'))
  ON CONFLICT (account_id, minute) DO UPDATE
  SET pending = pending + excluded.pending, delivered = delivered + excluded.delivered,
      failed = failed + excluded.failed;
END;
CREATE TRIGGER stats_delivery_removed AFTER DELETE ON delivery BEGIN
  UPDATE stats
  SET pending = pending - (OLD.status = 'pending'), delivered = delivered - (OLD.status = 'delivered'),
      failed = failed - (OLD.status = 'failed')
  WHERE account_id = OLD.account_id AND minute = OLD.created_at / 60000;
END;
