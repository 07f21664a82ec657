-- Version 3: sending. Foreign keys are off while the steps run, so that what refers to a message stays.
CREATE TABLE owner_notice (
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  endpoint TEXT NOT NULL,
  noticed_at INTEGER NOT NULL,
  PRIMARY KEY (account_id, endpoint)
) STRICT, WITHOUT ROWID;
CREATE TABLE suppression (
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  email TEXT NOT NULL,
  reason TEXT NOT NULL CHECK (reason IN ('manual', 'unsubscribe', 'bounce', 'complaint')),
  note TEXT,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (account_id, email)
) STRICT, WITHOUT ROWID;
CREATE TABLE template (
  id INTEGER PRIMARY KEY,
  public_id TEXT NOT NULL UNIQUE,
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  name TEXT NOT NULL,
  category TEXT,
  subject TEXT, html TEXT, text TEXT,
  json TEXT, theme TEXT,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT;
CREATE TABLE submission (
  message_id INTEGER PRIMARY KEY REFERENCES message (id) ON DELETE CASCADE,
  header_to TEXT,
  metadata TEXT,
  scheduled_id TEXT,
  scheduled_at INTEGER,
  failure TEXT
) STRICT;
CREATE TABLE dispatch (
  id INTEGER PRIMARY KEY,
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  message_id INTEGER REFERENCES message (id) ON DELETE CASCADE,
  route_id TEXT,
  sending_domain TEXT NOT NULL,
  domain TEXT,
  reverse_path TEXT NOT NULL,
  prefix TEXT NOT NULL,
  raw_id INTEGER,
  queued_at INTEGER NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  attempted_at INTEGER,
  host TEXT,
  tls TEXT,
  transcript TEXT
) STRICT;
CREATE TABLE recipient (
  dispatch_id INTEGER NOT NULL REFERENCES dispatch (id) ON DELETE CASCADE,
  idx INTEGER NOT NULL,
  address TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('scheduled', 'canceled', 'queued', 'deferred', 'sent', 'bounced', 'failed')),
  smtp_code INTEGER,
  diagnostic TEXT,
  updated_at INTEGER NOT NULL,
  PRIMARY KEY (dispatch_id, idx)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX suppression_by_time ON suppression (account_id, created_at);
CREATE INDEX template_by_account ON template (account_id, id);
CREATE UNIQUE INDEX submission_scheduled ON submission (scheduled_id) WHERE scheduled_id IS NOT NULL;
CREATE INDEX dispatch_by_message ON dispatch (message_id) WHERE message_id IS NOT NULL;
CREATE INDEX dispatch_raw ON dispatch (raw_id) WHERE raw_id IS NOT NULL;
ALTER TABLE delivery ADD COLUMN domain_id INTEGER;
ALTER TABLE delivery ADD COLUMN payload TEXT;
CREATE INDEX delivery_payload ON delivery (created_at) WHERE payload IS NOT NULL;
CREATE TABLE message_after (
  id INTEGER PRIMARY KEY,
  public_id TEXT NOT NULL UNIQUE,
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  domain_id INTEGER,
  route_id TEXT,
  direction TEXT NOT NULL CHECK (direction IN ('inbound', 'outbound')),
  status TEXT NOT NULL CHECK (status IN
    ('received', 'dropped', 'scheduled', 'canceled', 'queued', 'deferred', 'sent', 'bounced', 'failed')),
  mail_from TEXT NOT NULL,
  from_addr TEXT NOT NULL,
  from_name TEXT,
  to_addr TEXT NOT NULL,
  to_name TEXT,
  subject TEXT,
  message_id_header TEXT,
  thread_id TEXT,
  spf TEXT, dkim TEXT, dmarc TEXT,
  spam TEXT CHECK (spam IN ('ham', 'spam')),
  spam_on_arrival TEXT CHECK (spam_on_arrival IN ('ham', 'spam')),
  trace TEXT NOT NULL,
  truncated INTEGER NOT NULL DEFAULT 0 CHECK (truncated IN (0, 1)),
  attachment_count INTEGER NOT NULL DEFAULT 0,
  size INTEGER NOT NULL,
  raw_id INTEGER,
  received_at INTEGER NOT NULL,
  body BLOB
) STRICT;
INSERT INTO message_after (id, public_id, account_id, domain_id, route_id, direction, status, mail_from, from_addr, from_name, to_addr,
to_name, subject, message_id_header, thread_id, spf, dkim, dmarc, spam, spam_on_arrival, trace, truncated,
attachment_count, size, raw_id, received_at, body)
  SELECT id, public_id, account_id, domain_id, route_id, direction, status, mail_from, from_addr, from_name, to_addr,
to_name, subject, message_id_header, thread_id, spf, dkim, dmarc, spam, spam_on_arrival, trace, truncated,
attachment_count, size, raw_id, received_at, body FROM message;
DROP TABLE message;
ALTER TABLE message_after RENAME TO message;
CREATE UNIQUE INDEX message_by_time ON message (account_id, received_at);
CREATE INDEX message_by_domain ON message (domain_id, received_at) WHERE domain_id IS NOT NULL;
CREATE INDEX message_dropped ON message (account_id, received_at) WHERE status = 'dropped';
CREATE INDEX message_outbound ON message (account_id, received_at) WHERE direction = 'outbound';
CREATE INDEX message_unsent ON message (account_id, status, received_at)
  WHERE direction = 'outbound' AND status <> 'sent';
CREATE INDEX message_raw ON message (raw_id) WHERE raw_id IS NOT NULL;
CREATE TABLE job_after (
  id INTEGER PRIMARY KEY,
  lane TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('webhook', 'passing', 'dispatch', 'release', 'notice')),
  subject_id INTEGER NOT NULL,
  run_at INTEGER NOT NULL,
  failures INTEGER NOT NULL DEFAULT 0,
  claims INTEGER NOT NULL DEFAULT 0,
  lease_until INTEGER
) STRICT;
INSERT INTO job_after (id, lane, kind, subject_id, run_at, failures, claims, lease_until) SELECT id, lane, kind, subject_id, run_at, failures, claims, lease_until FROM job;
DROP TABLE job;
ALTER TABLE job_after RENAME TO job;
CREATE INDEX job_waiting ON job (lane, run_at) WHERE lease_until IS NULL;
CREATE INDEX job_leased ON job (lease_until) WHERE lease_until IS NOT NULL;
CREATE INDEX job_by_subject ON job (subject_id);
INSERT INTO job (lane, kind, subject_id, run_at)
  SELECT 'smtp:' || lower(substr(recipient, instr(recipient, '@') + 1)), 'notice', id, created_at FROM notice;
