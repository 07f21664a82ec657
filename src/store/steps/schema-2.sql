CREATE TABLE account (
  id INTEGER PRIMARY KEY,
  public_id TEXT NOT NULL UNIQUE,
  email TEXT NOT NULL UNIQUE,
  is_admin INTEGER NOT NULL DEFAULT 0 CHECK (is_admin IN (0, 1)),
  email_verified INTEGER NOT NULL DEFAULT 0 CHECK (email_verified IN (0, 1)),
  created_at INTEGER NOT NULL,
  password_hash TEXT,
  google_subject TEXT,
  avatar_url TEXT,
  webhook_secret_sealed BLOB,
  previous_webhook_secret_sealed BLOB,
  previous_webhook_secret_until INTEGER
) STRICT;
CREATE UNIQUE INDEX account_by_google_subject ON account (google_subject) WHERE google_subject IS NOT NULL;
CREATE TABLE setup_token (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  token_sealed BLOB NOT NULL
) STRICT;
CREATE TABLE api_key (
  id INTEGER PRIMARY KEY,
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  key_hash BLOB NOT NULL UNIQUE,
  key_sealed BLOB NOT NULL,
  created_at INTEGER NOT NULL,
  public_id TEXT,
  domain_id INTEGER REFERENCES domain (id) ON DELETE CASCADE,
  name TEXT,
  last_used_at INTEGER
) STRICT;
CREATE INDEX api_key_by_account ON api_key (account_id);
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
CREATE TABLE blocked_sender (
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  email TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (account_id, email)
) STRICT, WITHOUT ROWID;
CREATE TABLE domain (
  id INTEGER PRIMARY KEY,
  public_id TEXT NOT NULL UNIQUE,
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  name TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('pending', 'verified')),
  mx_verified INTEGER NOT NULL DEFAULT 0 CHECK (mx_verified IN (0, 1)),
  spf_verified INTEGER NOT NULL DEFAULT 0 CHECK (spf_verified IN (0, 1)),
  dkim_verified INTEGER NOT NULL DEFAULT 0 CHECK (dkim_verified IN (0, 1)),
  dmarc_verified INTEGER NOT NULL DEFAULT 0 CHECK (dmarc_verified IN (0, 1)),
  retention_days INTEGER CHECK (retention_days BETWEEN 1 AND 3650),
  created_at INTEGER NOT NULL,
  zero_retention INTEGER NOT NULL DEFAULT 0 CHECK (zero_retention IN (0, 1)),
  tracking_webhook_url TEXT,
  webhook_events TEXT,
  checked_at INTEGER,
  verified_at INTEGER,
  UNIQUE (account_id, name)
) STRICT;
CREATE UNIQUE INDEX domain_verified_by_name ON domain (name) WHERE status = 'verified';
CREATE INDEX domain_by_name ON domain (name);
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
CREATE TABLE route (
  id INTEGER PRIMARY KEY,
  public_id TEXT NOT NULL UNIQUE,
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  domain_id INTEGER REFERENCES domain (id) ON DELETE CASCADE,
  match_pattern TEXT NOT NULL,
  action TEXT NOT NULL CHECK (action IN ('webhook', 'forward', 'store', 'drop')),
  destination TEXT,
  ack_mode TEXT CHECK (ack_mode IN ('lenient', 'ack', 'control')),
  active INTEGER NOT NULL DEFAULT 1 CHECK (active IN (0, 1)),
  is_domain_webhook INTEGER NOT NULL DEFAULT 0 CHECK (is_domain_webhook IN (0, 1)),
  secret_sealed BLOB,
  previous_secret_sealed BLOB,
  previous_valid_until INTEGER,
  last_status TEXT,
  last_status_code INTEGER,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX route_by_account ON route (account_id, id);
CREATE UNIQUE INDEX route_domain_webhook ON route (domain_id) WHERE is_domain_webhook = 1;
CREATE TABLE raw (
  id INTEGER PRIMARY KEY,
  size INTEGER NOT NULL,
  data BLOB,
  compressed INTEGER NOT NULL DEFAULT 0 CHECK (compressed IN (0, 1)),
  file TEXT,
  created_at INTEGER NOT NULL,
  CHECK ((data IS NULL) <> (file IS NULL))
) STRICT;
CREATE INDEX raw_file ON raw (file) WHERE file IS NOT NULL;
CREATE TABLE message (
  id INTEGER PRIMARY KEY,
  public_id TEXT NOT NULL UNIQUE,
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  domain_id INTEGER,
  route_id TEXT,
  direction TEXT NOT NULL CHECK (direction IN ('inbound', 'outbound')),
  status TEXT NOT NULL CHECK (status IN ('received', 'dropped')),
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
CREATE UNIQUE INDEX message_by_time ON message (account_id, received_at);
CREATE INDEX message_by_domain ON message (domain_id, received_at) WHERE domain_id IS NOT NULL;
CREATE INDEX message_dropped ON message (account_id, received_at) WHERE status = 'dropped';
CREATE INDEX message_outbound ON message (account_id, received_at) WHERE direction = 'outbound';
CREATE INDEX message_raw ON message (raw_id) WHERE raw_id IS NOT NULL;
CREATE TABLE attachment (
  message_id INTEGER NOT NULL REFERENCES message (id) ON DELETE CASCADE,
  idx INTEGER NOT NULL,
  filename TEXT, content_type TEXT, charset TEXT, content_id TEXT,
  disposition TEXT CHECK (disposition IN ('attachment', 'inline')),
  size INTEGER NOT NULL,
  part_offset INTEGER NOT NULL,
  part_length INTEGER NOT NULL,
  encoding TEXT NOT NULL CHECK (encoding IN ('identity', 'base64', 'quoted-printable')),
  PRIMARY KEY (message_id, idx)
) STRICT, WITHOUT ROWID;
CREATE TABLE recent (
  fingerprint INTEGER PRIMARY KEY,
  message_id INTEGER NOT NULL
) STRICT;
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
CREATE TABLE message_thread (
  thread_hash INTEGER NOT NULL,
  message_id INTEGER NOT NULL,
  PRIMARY KEY (thread_hash, message_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE search_state (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  indexed_to INTEGER NOT NULL
) STRICT;
INSERT INTO search_state (only, indexed_to) VALUES (1, 0);
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
CREATE TABLE delivery (
  id INTEGER PRIMARY KEY,
  public_id TEXT NOT NULL UNIQUE,
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  message_id INTEGER,
  route_id TEXT,
  event_id TEXT NOT NULL,
  event_type TEXT NOT NULL,
  url TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('pending', 'delivered', 'failed')),
  attempts INTEGER NOT NULL DEFAULT 0,
  last_status_code INTEGER,
  last_error TEXT,
  next_attempt_at INTEGER,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX delivery_by_message ON delivery (message_id);
CREATE TABLE attempt (
  id INTEGER PRIMARY KEY,
  public_id TEXT NOT NULL,
  delivery_id INTEGER NOT NULL REFERENCES delivery (id) ON DELETE CASCADE,
  attempt INTEGER NOT NULL,
  manual INTEGER NOT NULL CHECK (manual IN (0, 1)),
  request_url TEXT NOT NULL,
  request_headers TEXT NOT NULL,
  status_code INTEGER,
  response_headers TEXT,
  response_body BLOB,
  response_truncated INTEGER NOT NULL CHECK (response_truncated IN (0, 1)),
  error TEXT,
  duration_ms INTEGER NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX attempt_by_delivery ON attempt (delivery_id, attempt);
CREATE TABLE passing (
  id INTEGER PRIMARY KEY,
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  route_id TEXT NOT NULL,
  event TEXT NOT NULL,
  raw_id INTEGER NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX passing_raw ON passing (raw_id);
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
