CREATE TABLE account (
  id INTEGER PRIMARY KEY,
  public_id TEXT NOT NULL UNIQUE,
  email TEXT NOT NULL UNIQUE,
  is_admin INTEGER NOT NULL DEFAULT 0 CHECK (is_admin IN (0, 1)),
  email_verified INTEGER NOT NULL DEFAULT 0 CHECK (email_verified IN (0, 1)),
  created_at INTEGER NOT NULL
) STRICT;
CREATE TABLE api_key (
  id INTEGER PRIMARY KEY,
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  key_hash BLOB NOT NULL UNIQUE,
  key_sealed BLOB NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX api_key_by_account ON api_key (account_id);
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
  UNIQUE (account_id, name)
) STRICT;
CREATE UNIQUE INDEX domain_verified_by_name ON domain (name) WHERE status = 'verified';
CREATE INDEX domain_by_name ON domain (name);
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
  body BLOB,
  received_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX message_by_time ON message (account_id, received_at);
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
CREATE VIRTUAL TABLE message_search USING fts5 (
  from_addr, to_addr, subject,
  content = '', contentless_delete = 1, tokenize = 'trigram'
);
CREATE TABLE search_state (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  indexed_to INTEGER NOT NULL
) STRICT;
INSERT INTO search_state (only, indexed_to) VALUES (1, 0);
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
CREATE TABLE job (
  id INTEGER PRIMARY KEY,
  lane TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('webhook')),
  subject_id INTEGER NOT NULL,
  run_at INTEGER NOT NULL,
  failures INTEGER NOT NULL DEFAULT 0,
  claims INTEGER NOT NULL DEFAULT 0,
  lease_until INTEGER
) STRICT;
CREATE INDEX job_waiting ON job (lane, run_at) WHERE lease_until IS NULL;
CREATE INDEX job_leased ON job (lease_until) WHERE lease_until IS NOT NULL;
