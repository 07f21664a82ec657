-- Version 2: the management API.
ALTER TABLE account ADD COLUMN password_hash TEXT;
ALTER TABLE account ADD COLUMN google_subject TEXT;
ALTER TABLE account ADD COLUMN avatar_url TEXT;
ALTER TABLE account ADD COLUMN webhook_secret_sealed BLOB;
ALTER TABLE account ADD COLUMN previous_webhook_secret_sealed BLOB;
ALTER TABLE account ADD COLUMN previous_webhook_secret_until INTEGER;
CREATE UNIQUE INDEX account_by_google_subject ON account (google_subject) WHERE google_subject IS NOT NULL;
CREATE TABLE setup_token (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  token_sealed BLOB NOT NULL
) STRICT;
ALTER TABLE api_key ADD COLUMN public_id TEXT;
ALTER TABLE api_key ADD COLUMN domain_id INTEGER REFERENCES domain (id) ON DELETE CASCADE;
ALTER TABLE api_key ADD COLUMN name TEXT;
ALTER TABLE api_key ADD COLUMN last_used_at INTEGER;
CREATE INDEX api_key_by_domain ON api_key (domain_id) WHERE domain_id IS NOT NULL;
CREATE UNIQUE INDEX api_key_public ON api_key (public_id) WHERE public_id IS NOT NULL;
CREATE TABLE session (
  id INTEGER PRIMARY KEY,
  jti TEXT NOT NULL UNIQUE,
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  client_address TEXT NOT NULL,
  user_agent TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX session_by_account ON session (account_id);
CREATE INDEX session_by_end ON session (expires_at);
CREATE TABLE email_verification (
  token_hash BLOB PRIMARY KEY,
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX email_verification_by_account ON email_verification (account_id);
CREATE TABLE notice (
  id INTEGER PRIMARY KEY,
  recipient TEXT NOT NULL,
  subject TEXT NOT NULL,
  text_sealed BLOB NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL
) STRICT;
ALTER TABLE domain ADD COLUMN zero_retention INTEGER NOT NULL DEFAULT 0 CHECK (zero_retention IN (0, 1));
ALTER TABLE domain ADD COLUMN tracking_webhook_url TEXT;
ALTER TABLE domain ADD COLUMN webhook_events TEXT;
ALTER TABLE domain ADD COLUMN checked_at INTEGER;
ALTER TABLE domain ADD COLUMN verified_at INTEGER;
UPDATE domain SET verified_at = created_at WHERE status = 'verified';
CREATE INDEX domain_by_check ON domain (checked_at);
CREATE TABLE dkim_key (
  domain_id INTEGER NOT NULL REFERENCES domain (id) ON DELETE CASCADE,
  algorithm TEXT NOT NULL CHECK (algorithm IN ('rsa', 'ed25519')),
  private_sealed BLOB NOT NULL,
  public_key TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (domain_id, algorithm)
) STRICT, WITHOUT ROWID;
CREATE TABLE dns_check (
  domain_id INTEGER NOT NULL REFERENCES domain (id) ON DELETE CASCADE,
  record TEXT NOT NULL CHECK (record IN ('mx', 'spf', 'dkim', 'dmarc', 'dkim_ed25519')),
  status TEXT NOT NULL CHECK (status IN ('ok', 'missing', 'mismatch', 'unchecked')),
  found TEXT NOT NULL,
  failures INTEGER NOT NULL DEFAULT 0,
  first_failed_at INTEGER,
  PRIMARY KEY (domain_id, record)
) STRICT, WITHOUT ROWID;
CREATE INDEX message_by_domain ON message (domain_id, received_at) WHERE domain_id IS NOT NULL;
CREATE INDEX message_dropped ON message (account_id, received_at) WHERE status = 'dropped';
CREATE INDEX message_outbound ON message (account_id, received_at) WHERE direction = 'outbound';
CREATE TABLE message_thread (
  thread_hash INTEGER NOT NULL,
  message_id INTEGER NOT NULL,
  PRIMARY KEY (thread_hash, message_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE upload (
  id INTEGER PRIMARY KEY,
  public_id TEXT NOT NULL UNIQUE,
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  filename TEXT NOT NULL,
  content_type TEXT NOT NULL,
  size INTEGER NOT NULL,
  file TEXT NOT NULL UNIQUE,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX upload_by_end ON upload (expires_at);
CREATE TABLE passing (
  id INTEGER PRIMARY KEY,
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  route_id TEXT NOT NULL,
  event TEXT NOT NULL,
  raw_id INTEGER NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX passing_raw ON passing (raw_id);
DROP TABLE message_search;
CREATE TABLE search_block (
  id INTEGER PRIMARY KEY,
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  oldest INTEGER NOT NULL,
  newest INTEGER NOT NULL,
  grams BLOB NOT NULL,
  entries BLOB NOT NULL,
  texts BLOB NOT NULL
) STRICT;
CREATE INDEX search_block_by_time ON search_block (account_id, newest, oldest);
UPDATE search_state SET indexed_to = 0;
ALTER TABLE job RENAME TO job_before;
DROP INDEX job_waiting;
DROP INDEX job_leased;
CREATE TABLE job (
  id INTEGER PRIMARY KEY,
  lane TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('webhook', 'passing')),
  subject_id INTEGER NOT NULL,
  run_at INTEGER NOT NULL,
  failures INTEGER NOT NULL DEFAULT 0,
  claims INTEGER NOT NULL DEFAULT 0,
  lease_until INTEGER
) STRICT;
CREATE INDEX job_waiting ON job (lane, run_at) WHERE lease_until IS NULL;
CREATE INDEX job_leased ON job (lease_until) WHERE lease_until IS NOT NULL;
CREATE INDEX job_by_subject ON job (subject_id);
INSERT INTO job (id, lane, kind, subject_id, run_at, failures, claims, lease_until)
  SELECT id, lane, kind, subject_id, run_at, failures, claims, lease_until FROM job_before;
DROP TABLE job_before;
CREATE TABLE idempotency (
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  path TEXT NOT NULL,
  idempotency_key TEXT NOT NULL,
  body_hash BLOB NOT NULL,
  status INTEGER NOT NULL,
  response BLOB NOT NULL,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (account_id, path, idempotency_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_time ON idempotency (created_at);
