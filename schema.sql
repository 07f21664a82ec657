-- The complete present schema of mailkite's database. A new database is created by this file as it is; an older one
-- is brought here by the steps in src/store/migrate.rs, and a test proves that both ways end the same.
--
-- Style: STRICT; singular names; `id` INTEGER PRIMARY KEY inside, AUTOINCREMENT where something may outlive the row and
-- still hold its id; `public_id` outside (contract 1.3); `*_at` are epoch milliseconds; NULL only where it means
-- something, and then the column says what. `*_sealed` is encrypted with the master key file, so a copy of this
-- database alone reveals no secret.

-- ------------------------------------------------------------------------------------------------- accounts

CREATE TABLE account (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  public_id TEXT NOT NULL UNIQUE,                -- usr_…
  email TEXT NOT NULL UNIQUE,                    -- trimmed and lower-cased
  is_admin INTEGER NOT NULL DEFAULT 0 CHECK (is_admin IN (0, 1)),   -- the owner of the installation
  email_verified INTEGER NOT NULL DEFAULT 0 CHECK (email_verified IN (0, 1)),
  created_at INTEGER NOT NULL,
  password_hash TEXT,                            -- Argon2id, PHC form; NULL: signs in with Google alone, or never did
  google_subject TEXT,                           -- NULL: no Google sign-in yet
  avatar_url TEXT,                               -- NULL: none known
  webhook_secret_sealed BLOB,                    -- signs tracking webhooks (contract 2.10); NULL: not made yet
  previous_webhook_secret_sealed BLOB,           -- NULL: never rotated
  previous_webhook_secret_until INTEGER,         -- until then both secrets sign (contract 9.3)
  signed_in_at INTEGER                           -- last sign-in; NULL: never signed in
) STRICT;
CREATE UNIQUE INDEX account_by_google_subject ON account (google_subject) WHERE google_subject IS NOT NULL;

-- Exists until there is an owner: proves that the first person to sign up operates this machine (contract 2.2).
CREATE TABLE setup_token (
  singleton INTEGER PRIMARY KEY CHECK (singleton = 1),
  token_sealed BLOB NOT NULL
) STRICT;

CREATE TABLE api_key (                           -- an account's own key, and its keys for one domain (contract 2.8)
  id INTEGER PRIMARY KEY,
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  key_hash BLOB NOT NULL UNIQUE,                 -- SHA-256 of the whole key, for the lookup of a credential
  key_sealed BLOB NOT NULL,                      -- the key itself, shown again by GET /api/keys
  created_at INTEGER NOT NULL,
  public_id TEXT,                                -- key_…; NULL: the account's own key
  domain_id INTEGER REFERENCES domain (id) ON DELETE CASCADE,        -- NULL: the account's own key
  name TEXT,                                     -- NULL: the account's own key
  last_used_at INTEGER                           -- to the minute; NULL: never used
) STRICT;
CREATE INDEX api_key_by_account ON api_key (account_id);
CREATE INDEX api_key_by_domain ON api_key (domain_id) WHERE domain_id IS NOT NULL;
CREATE UNIQUE INDEX api_key_public ON api_key (public_id) WHERE public_id IS NOT NULL;

CREATE TABLE session (                           -- a login; its token is a JWT that names it (contract 1.4)
  id INTEGER PRIMARY KEY,
  jti TEXT NOT NULL UNIQUE,                      -- no capability: the token is signed
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  client_address TEXT NOT NULL,                  -- client address of the login
  user_agent TEXT NOT NULL,                      -- User-Agent; '': the client sent none
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX session_by_account ON session (account_id);
CREATE INDEX session_by_end ON session (expires_at);

CREATE TABLE email_verification (                -- a link that proves an account's address (contract 2.6)
  token_hash BLOB PRIMARY KEY,                   -- SHA-256 of the link's token
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  created_at INTEGER NOT NULL                    -- valid for 24 h, also after its first use
) STRICT, WITHOUT ROWID;
CREATE INDEX email_verification_by_account ON email_verification (account_id);

CREATE TABLE account_link (                      -- a link that opens an account once (contract 2.3, 2.6)
  token_hash BLOB PRIMARY KEY,                   -- SHA-256 of the link's token
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  purpose TEXT NOT NULL CHECK (purpose IN ('sign_in', 'password_reset')),
  expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX account_link_by_account ON account_link (account_id);

CREATE TABLE notice (                            -- mail queued by the appliance itself
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  recipient TEXT NOT NULL,
  subject TEXT NOT NULL,
  text_sealed BLOB NOT NULL,                     -- may contain a link that is a capability
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL                    -- pointless after this time
) STRICT;

-- Keys derived from master keys that `mailkite rotate-key` replaced: what they made is accepted for its lifetime.
CREATE TABLE former_key (
  id INTEGER PRIMARY KEY,
  purpose TEXT NOT NULL CHECK (purpose IN ('link', 'return_path', 'fingerprint')),
  key_sealed BLOB NOT NULL,
  replaced_at INTEGER NOT NULL
) STRICT;

-- Time of the last notice to an account that deliveries to an endpoint failed permanently: at most once a day
-- (contract 9.5).
CREATE TABLE owner_notice (
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  endpoint TEXT NOT NULL,                        -- the origin of its URL
  noticed_at INTEGER NOT NULL,
  PRIMARY KEY (account_id, endpoint)
) STRICT, WITHOUT ROWID;

CREATE TABLE blocked_sender (                    -- contract 9.4: later mail from it is stored as spam, no route runs
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  email TEXT NOT NULL,                           -- in canonical form, compared whole
  created_at INTEGER NOT NULL,
  PRIMARY KEY (account_id, email)
) STRICT, WITHOUT ROWID;

CREATE TABLE suppression (                       -- contract 8.4: nothing is sent to it
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  email TEXT NOT NULL,                           -- in canonical form, compared whole
  reason TEXT NOT NULL CHECK (reason IN ('manual', 'unsubscribe', 'bounce', 'complaint')),
  note TEXT,                                     -- NULL: none given
  created_at INTEGER NOT NULL,                   -- unique within the account: the cursor of its list
  PRIMARY KEY (account_id, email)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX suppression_by_time ON suppression (account_id, created_at);

CREATE TABLE template (                          -- contract 11; the built-in ones are in the program
  id INTEGER PRIMARY KEY,
  public_id TEXT NOT NULL UNIQUE,                -- tpl_…
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  name TEXT NOT NULL,
  category TEXT,                                 -- NULL, here and below: not given
  subject TEXT, html TEXT, text TEXT,
  json TEXT, theme TEXT,                         -- private to the editor; stored and returned unchanged
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX template_by_account ON template (account_id, id);

-- ------------------------------------------------------------------------------------------ domains and routes

CREATE TABLE domain (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  public_id TEXT NOT NULL UNIQUE,                -- dom_…
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  name TEXT NOT NULL,                            -- A-label, lower case, no final dot
  status TEXT NOT NULL CHECK (status IN ('pending', 'verified')),
  mx_verified INTEGER NOT NULL DEFAULT 0 CHECK (mx_verified IN (0, 1)),
  spf_verified INTEGER NOT NULL DEFAULT 0 CHECK (spf_verified IN (0, 1)),
  dkim_verified INTEGER NOT NULL DEFAULT 0 CHECK (dkim_verified IN (0, 1)),
  dmarc_verified INTEGER NOT NULL DEFAULT 0 CHECK (dmarc_verified IN (0, 1)),
  retention_days INTEGER CHECK (retention_days BETWEEN 1 AND 3650),  -- NULL: the installation's default
  created_at INTEGER NOT NULL,
  zero_retention INTEGER NOT NULL DEFAULT 0 CHECK (zero_retention IN (0, 1)),   -- contract 3.8
  tracking_webhook_url TEXT,                     -- NULL: none (contract 3.7)
  webhook_events TEXT,                           -- JSON: "all" or an array; NULL: no sending event is opted in
  checked_at INTEGER,                            -- last check of its DNS records; NULL: none yet
  verified_at INTEGER,                           -- time of its verification; NULL: pending
  UNIQUE (account_id, name)
) STRICT;
-- At most one account holds a name as verified; looked up by SMTP reception at every RCPT.
CREATE UNIQUE INDEX domain_verified_by_name ON domain (name) WHERE status = 'verified';
CREATE INDEX domain_by_name ON domain (name);
CREATE INDEX domain_by_check ON domain (checked_at);

CREATE TABLE dkim_key (                          -- two for each domain, created with it; more while they are rotated
  domain_id INTEGER NOT NULL REFERENCES domain (id) ON DELETE CASCADE,
  algorithm TEXT NOT NULL CHECK (algorithm IN ('rsa', 'ed25519')),
  state TEXT NOT NULL CHECK (state IN ('signing', 'next', 'retiring', 'retired')),   -- contract 3.9
  selector TEXT NOT NULL,
  private_sealed BLOB,                           -- PKCS #8 DER; NULL: retired
  public_key TEXT NOT NULL,                      -- base64, as in the record's p=
  created_at INTEGER NOT NULL,
  needed_at INTEGER,                             -- last time mail it signed was to be delivered; NULL unless retiring
  dns_status TEXT NOT NULL DEFAULT 'unchecked' CHECK (dns_status IN ('ok', 'missing', 'mismatch', 'unchecked')),
  dns_found TEXT NOT NULL DEFAULT '[]',          -- as in dns_check, which has those of the keys that sign
  PRIMARY KEY (domain_id, algorithm, state),
  UNIQUE (domain_id, selector)
) STRICT, WITHOUT ROWID;

CREATE TABLE dns_check (                         -- result of the last checks of one DNS record of a domain
  domain_id INTEGER NOT NULL REFERENCES domain (id) ON DELETE CASCADE,
  record TEXT NOT NULL CHECK (record IN ('mx', 'spf', 'dkim', 'dmarc', 'dkim_ed25519')),
  status TEXT NOT NULL CHECK (status IN ('ok', 'missing', 'mismatch', 'unchecked')),
  found TEXT NOT NULL,                           -- JSON array of the values in the DNS
  failures INTEGER NOT NULL DEFAULT 0,           -- failed checks in a row; a check without an answer does not count
  first_failed_at INTEGER,                       -- first of those failures; NULL: none
  PRIMARY KEY (domain_id, record)
) STRICT, WITHOUT ROWID;

CREATE TABLE route (
  id INTEGER PRIMARY KEY,
  public_id TEXT NOT NULL UNIQUE,                -- rte_…
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  domain_id INTEGER REFERENCES domain (id) ON DELETE CASCADE,        -- NULL: a regex, which has no domain
  match_pattern TEXT NOT NULL,
  action TEXT NOT NULL CHECK (action IN ('webhook', 'forward', 'store', 'drop')),
  destination TEXT,                              -- URL or address; NULL for store and drop
  ack_mode TEXT CHECK (ack_mode IN ('lenient', 'ack', 'control')),   -- NULL unless action is webhook
  active INTEGER NOT NULL DEFAULT 1 CHECK (active IN (0, 1)),
  is_domain_webhook INTEGER NOT NULL DEFAULT 0 CHECK (is_domain_webhook IN (0, 1)),
  secret_sealed BLOB,                            -- NULL unless action is webhook
  previous_secret_sealed BLOB,                   -- NULL: never rotated
  previous_valid_until INTEGER,                  -- until then both secrets sign (contract 9.3)
  last_status TEXT,                              -- NULL: not run yet
  last_status_code INTEGER,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  on_auth_fail TEXT CHECK (on_auth_fail IN ('refuse', 'rewrite'))    -- forward only; NULL: refuse
) STRICT;
CREATE INDEX route_by_account ON route (account_id, id);
CREATE UNIQUE INDEX route_domain_webhook ON route (domain_id) WHERE is_domain_webhook = 1;

-- Former ids of a domain's webhook: its deliveries still belong to the domain (contract 3.6).
CREATE TABLE former_webhook (
  route_id TEXT PRIMARY KEY,                     -- rte_…
  domain_id INTEGER NOT NULL REFERENCES domain (id) ON DELETE CASCADE,
  removed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX former_webhook_by_domain ON former_webhook (domain_id, removed_at);

CREATE TABLE forward_destination (               -- an address that an account would forward to (contract 4.6)
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  address TEXT NOT NULL,                         -- in its canonical form
  mailbox TEXT NOT NULL,                         -- the same without its + suffix, by which mails to it are counted
  token_hash BLOB NOT NULL,                      -- SHA-256 of the token of the link that was mailed last
  mailed_at INTEGER NOT NULL,                    -- time of that mail
  confirmed_at INTEGER,                          -- NULL: nobody confirmed it
  declined_at INTEGER,                           -- NULL: nobody declined
  PRIMARY KEY (account_id, address)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX forward_destination_by_token ON forward_destination (token_hash);
CREATE INDEX forward_destination_by_mailbox ON forward_destination (mailbox, mailed_at);

-- ---------------------------------------------------------------------------------------------------- messages

-- Mail data, once per SMTP transaction for all recipients: here when small and plain, else in a file of the object
-- store.
CREATE TABLE mail_data (
  id INTEGER PRIMARY KEY,
  size INTEGER NOT NULL,                         -- octets as received
  data BLOB,                                     -- NULL: in the file
  compressed INTEGER NOT NULL DEFAULT 0 CHECK (compressed IN (0, 1)),  -- data is zstd
  file TEXT,                                     -- NULL: in data; else the object's name
  checksum INTEGER,                              -- CRC-32 of the object; NULL: in data, or of an earlier version
  created_at INTEGER NOT NULL,
  CHECK ((data IS NULL) <> (file IS NULL))
) STRICT;
CREATE INDEX mail_data_file ON mail_data (file) WHERE file IS NOT NULL;

CREATE TABLE message (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  public_id TEXT NOT NULL UNIQUE,                -- msg_…
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  domain_id INTEGER,                             -- NULL: mail to the host name itself; may outlive its domain
  route_id TEXT,                                 -- public id of the route that decided (contract 5.2); NULL: none
  direction TEXT NOT NULL CHECK (direction IN ('inbound', 'outbound')),
  status TEXT NOT NULL CHECK (status IN         -- outbound: contract 8.5
    ('received', 'dropped', 'scheduled', 'canceled', 'queued', 'deferred', 'sent', 'bounced', 'failed')),
  mail_from TEXT NOT NULL,                       -- envelope sender; '' is the null reverse-path
  from_addr TEXT NOT NULL,
  from_name TEXT,                                -- NULL: the header gives none
  to_addr TEXT NOT NULL,                         -- the one envelope recipient; outbound: all of To and Cc
  to_name TEXT,                                  -- NULL: the header gives none for that address
  subject TEXT,                                  -- NULL: no such field
  message_id_header TEXT,                        -- NULL: no such field
  thread_id TEXT,                                -- NULL: neither In-Reply-To nor Message-ID
  spf TEXT, dkim TEXT, dmarc TEXT,               -- NULL: not checked (loopback, dev mode)
  spam TEXT CHECK (spam IN ('ham', 'spam')),     -- NULL: not checked; changed by control answers
  spam_on_arrival TEXT CHECK (spam_on_arrival IN ('ham', 'spam')),   -- reported in the payload, never changed
  trace TEXT NOT NULL,                           -- Received and Authentication-Results to prepend
  truncated INTEGER NOT NULL DEFAULT 0 CHECK (truncated IN (0, 1)),  -- MIME limits cut the parsing short
  attachment_count INTEGER NOT NULL DEFAULT 0,
  size INTEGER NOT NULL,                         -- octets as received
  mail_data_id INTEGER,                          -- NULL: the raw copy is gone (7 days, or dropped)
  received_at INTEGER NOT NULL,
  body BLOB,                                     -- zstd JSON of text, html, headers; NULL while the raw copy exists
  overhead INTEGER NOT NULL DEFAULT 2048,        -- bytes charged in addition to its mail data
  account_total INTEGER NOT NULL DEFAULT 0       -- bytes of all messages the account ever had, including this one
) STRICT;
-- For the list and its cursor (contract 1.8), the unique millisecond, and the account's latest message on acceptance.
CREATE UNIQUE INDEX message_by_time ON message (account_id, received_at);
-- The same for one domain, for the few messages that a receiver dropped, and for sent messages.
CREATE INDEX message_by_domain ON message (domain_id, received_at) WHERE domain_id IS NOT NULL;
CREATE INDEX message_dropped ON message (account_id, received_at) WHERE status = 'dropped';
CREATE INDEX message_outbound ON message (account_id, received_at) WHERE direction = 'outbound';
CREATE INDEX message_unsent ON message (account_id, status, received_at)
  WHERE direction = 'outbound' AND status <> 'sent';
-- Finds raw copies that are still in use, and those past their seven days.
CREATE INDEX message_mail_data ON message (mail_data_id) WHERE mail_data_id IS NOT NULL;

-- Mail that `mailkite import` stored, so that a repeated import leaves it out.
CREATE TABLE imported_message (
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  fingerprint BLOB NOT NULL,                     -- SHA-256 of the mail data
  message_id INTEGER NOT NULL REFERENCES message (id) ON DELETE CASCADE,
  PRIMARY KEY (account_id, fingerprint)
) STRICT, WITHOUT ROWID;
CREATE INDEX imported_message_by_message ON imported_message (message_id);

CREATE TABLE attachment (                        -- a slice of the mail data, decoded when served
  message_id INTEGER NOT NULL REFERENCES message (id) ON DELETE CASCADE,
  idx INTEGER NOT NULL,
  filename TEXT, content_type TEXT, charset TEXT, content_id TEXT,   -- NULL: the part gives none
  disposition TEXT CHECK (disposition IN ('attachment', 'inline')),
  size INTEGER NOT NULL,                         -- octets once decoded
  part_offset INTEGER NOT NULL,
  part_length INTEGER NOT NULL,
  encoding TEXT NOT NULL CHECK (encoding IN ('identity', 'base64', 'quoted-printable', 'uuencode')),
  inner_offset INTEGER,                          -- of a file in a winmail.dat, in the decoded part; NULL: whole part
  PRIMARY KEY (message_id, idx)
) STRICT, WITHOUT ROWID;

-- ----------------------------------------------------------------------------------------------------- sending

-- Details that few outbound messages have: several header recipients, metadata, a scheduled time, a failure.
CREATE TABLE outbound_detail (
  message_id INTEGER PRIMARY KEY REFERENCES message (id) ON DELETE CASCADE,
  header_to TEXT,                                -- JSON: To and Cc as shown in contract 5.3; NULL: one, in message
  metadata TEXT,                                 -- JSON object; NULL: none given
  scheduled_id TEXT,                             -- ssnd_…; NULL: was not scheduled
  scheduled_at INTEGER,                          -- NULL: was not scheduled
  failure TEXT,                                  -- reason for 'failed'; NULL: not failed
  return_to TEXT                                 -- address notified of delivery failures; NULL: webhooks alone
) STRICT;
CREATE UNIQUE INDEX outbound_detail_scheduled ON outbound_detail (scheduled_id) WHERE scheduled_id IS NOT NULL;

-- The part of a message that goes to one recipient, with its own bounce address, so that a bounce says nothing about
-- the other recipients. A forwarded message has one too.
CREATE TABLE dispatch (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  message_id INTEGER REFERENCES message (id) ON DELETE CASCADE,      -- NULL: forwarded, with nothing else stored
  route_id TEXT,                                 -- public id of the route that forwards; NULL: submitted
  sending_domain TEXT NOT NULL,                  -- selects the smarthost; for forwarded mail the recipient's domain
  domain TEXT,                                   -- recipient domain; NULL: a smarthost takes it
  reverse_path TEXT NOT NULL,                    -- '' is the null reverse-path
  prefix TEXT NOT NULL,                          -- header fields to prepend to the mail data
  mail_data_id INTEGER,                          -- NULL: every recipient is settled
  queued_at INTEGER NOT NULL,                    -- start of the queue lifetime
  attempts INTEGER NOT NULL DEFAULT 0,
  attempted_at INTEGER,                          -- NULL, here and below: not attempted yet
  host TEXT,                                     -- remote host that decided the last attempt; NULL: none was reached
  tls TEXT,                                      -- NULL: plain text
  transcript TEXT,                               -- SMTP dialog of the last attempt
  forwarding TEXT                                -- JSON: verified identities and the new From; NULL: sent from here
) STRICT;
CREATE INDEX dispatch_by_message ON dispatch (message_id) WHERE message_id IS NOT NULL;
CREATE INDEX dispatch_mail_data ON dispatch (mail_data_id) WHERE mail_data_id IS NOT NULL;

CREATE TABLE recipient (                         -- of a dispatch (contract 5.4)
  dispatch_id INTEGER NOT NULL REFERENCES dispatch (id) ON DELETE CASCADE,
  idx INTEGER NOT NULL,                          -- from 0, in the order in which the message names them
  address TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('scheduled', 'canceled', 'queued', 'deferred', 'sent', 'bounced', 'failed')),
  smtp_code INTEGER,                             -- NULL: no reply decided it
  diagnostic TEXT,                               -- NULL: not attempted yet
  updated_at INTEGER NOT NULL,
  PRIMARY KEY (dispatch_id, idx)
) STRICT, WITHOUT ROWID;

CREATE TABLE forwarded_message (                 -- a message forwarded with an SRS address (contract 5.1)
  fingerprint BLOB PRIMARY KEY,                  -- SHA-256 of the address and the Message-ID
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  sender TEXT NOT NULL,                          -- recipient of reports, in canonical form without a + suffix
  recipient TEXT NOT NULL,                       -- address that the message was forwarded to
  sent_at INTEGER NOT NULL,
  reported_at INTEGER                            -- NULL: its sender got no report
) STRICT, WITHOUT ROWID;
CREATE INDEX forwarded_message_by_time ON forwarded_message (sent_at);
CREATE INDEX forwarded_message_by_account ON forwarded_message (account_id, reported_at) WHERE reported_at IS NOT NULL;
CREATE INDEX forwarded_message_by_sender ON forwarded_message (sender, reported_at) WHERE reported_at IS NOT NULL;

-- --------------------------------------------------------------------------------------- derived from messages

-- Duplicate suppression (contract 5.1). The key is a span of four hours, then 48 bits of a keyed hash over sender,
-- recipient and bytes: the one random index on the accept path, kept small and random only within the present span.
CREATE TABLE dedup_fingerprint (
  fingerprint INTEGER PRIMARY KEY,
  message_id INTEGER NOT NULL                    -- row to answer the repeat with; also gives the time
) STRICT;

-- Substring search, filled in batches after acceptance; message ids above `search_state` are not indexed yet. A block
-- holds the searchable text of some hundred messages of one account, 64 KiB when it is full.
CREATE TABLE search_block (
  id INTEGER PRIMARY KEY,
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  oldest INTEGER NOT NULL,                       -- received_at of its messages, first and last
  newest INTEGER NOT NULL,
  grams BLOB NOT NULL,                           -- the runs of one to four octets in it, as a set of hashes
  entries BLOB NOT NULL,                         -- for each message, by age: received_at, domain_id, end of its text
  texts BLOB NOT NULL                            -- case folded; each field ends with 0xFF
) STRICT;
CREATE INDEX search_block_by_time ON search_block (account_id, newest, oldest);
-- Conversations, filled later with the search index: finds the mail of a thread without an index on the accept path.
CREATE TABLE message_thread (
  thread_hash INTEGER NOT NULL,                  -- 63 bits of a hash over account and thread id
  message_id INTEGER NOT NULL,
  PRIMARY KEY (thread_hash, message_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE search_state (
  singleton INTEGER PRIMARY KEY CHECK (singleton = 1),
  indexed_to INTEGER NOT NULL                    -- every message up to this id is in search_block and message_thread
) STRICT;
INSERT INTO search_state (singleton, indexed_to) VALUES (1, 0);

CREATE TABLE upload (                            -- a file uploaded by a client for a limited time (contract 7.2)
  id INTEGER PRIMARY KEY,
  public_id TEXT NOT NULL UNIQUE,                -- upl_…
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  filename TEXT NOT NULL,
  content_type TEXT NOT NULL,
  size INTEGER NOT NULL,
  file TEXT NOT NULL UNIQUE,                     -- the object's name
  checksum INTEGER,                              -- CRC-32 of the object; NULL: of an earlier version
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX upload_by_end ON upload (expires_at);

-- ----------------------------------------------------------------------------------------- deliveries and jobs

CREATE TABLE delivery (                          -- one event to one endpoint; retries update it (contract 6.1)
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  public_id TEXT NOT NULL UNIQUE,                -- dlv_…
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  message_id INTEGER,                            -- NULL: the event refers to no message
  route_id TEXT,                                 -- public id; NULL: a tracking webhook
  event_id TEXT NOT NULL,                        -- by which the receiver detects duplicates
  event_type TEXT NOT NULL,
  url TEXT NOT NULL,                             -- of the latest attempt
  status TEXT NOT NULL CHECK (status IN ('pending', 'delivered', 'failed')),
  attempts INTEGER NOT NULL DEFAULT 0,           -- recorded attempts
  last_status_code INTEGER,                      -- NULL: no attempt got a response
  last_error TEXT,                               -- NULL: the last attempt succeeded, or none yet
  next_attempt_at INTEGER,                       -- NULL: none is planned
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  domain_id INTEGER,                             -- owner of the tracking webhook; NULL: a route
  payload TEXT                                   -- of a sending event, for 45 days; NULL: made from the message
) STRICT;
CREATE INDEX delivery_by_message ON delivery (message_id);
-- For lists and counts by time, and for deliveries that are pending or failed.
CREATE INDEX delivery_by_time ON delivery (account_id, created_at);
CREATE INDEX delivery_unsettled ON delivery (account_id, status, created_at) WHERE status <> 'delivered';
CREATE INDEX delivery_payload ON delivery (created_at) WHERE payload IS NOT NULL;

CREATE TABLE attempt (                           -- kept for 45 days, the newest 200 of each delivery
  id INTEGER PRIMARY KEY,
  public_id TEXT NOT NULL,                       -- dla_…
  delivery_id INTEGER NOT NULL REFERENCES delivery (id) ON DELETE CASCADE,
  attempt INTEGER NOT NULL,                      -- from 1, including manual attempts
  manual INTEGER NOT NULL CHECK (manual IN (0, 1)),
  request_url TEXT NOT NULL,
  request_headers TEXT NOT NULL,                 -- JSON object; the body is rebuilt from the message
  status_code INTEGER,                           -- NULL: no HTTP answer
  response_headers TEXT,                         -- JSON object, as far as 8 KiB go; NULL: no HTTP answer
  response_body BLOB,                            -- at most 64 KiB; NULL: no HTTP answer
  response_truncated INTEGER NOT NULL CHECK (response_truncated IN (0, 1)),
  error TEXT,                                    -- the words of last_error; NULL: success
  duration_ms INTEGER NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX attempt_by_delivery ON attempt (delivery_id, attempt);

-- Zero retention (contract 3.8): mail on its way to one webhook, which is never stored in message or delivery. The row
-- is removed after its only attempt, and the raw copy with the last such row.
CREATE TABLE zero_retention_delivery (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  route_id TEXT NOT NULL,                        -- public id
  event TEXT NOT NULL,                           -- JSON: the payload without the mail's own content
  mail_data_id INTEGER NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX zero_retention_delivery_mail_data ON zero_retention_delivery (mail_data_id);

CREATE TABLE job (                               -- an attempt still to be made; a finished job has no row
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  lane TEXT NOT NULL,                            -- unit of throttling: an endpoint's origin or a recipient domain
  account_id INTEGER NOT NULL DEFAULT 0,         -- accounts are served in rotation within a lane; 0: the appliance
  endpoint INTEGER NOT NULL DEFAULT 0,           -- distinguishes the endpoints of a lane; 0 where there is one
  kind TEXT NOT NULL CHECK (kind IN ('webhook', 'zero_retention', 'dispatch', 'scheduled_send', 'notice')),
  subject_id INTEGER NOT NULL,                   -- a delivery, zero-retention mail, dispatch, scheduled message, notice
  run_at INTEGER NOT NULL,                       -- not before
  queued_at INTEGER NOT NULL DEFAULT 0,          -- first due: a retry schedule ends even if its flow pauses
  failures INTEGER NOT NULL DEFAULT 0,           -- attempts settled as deferred: the step of the retry schedule
  claims INTEGER NOT NULL DEFAULT 0,             -- claims since the last settlement; above 1 after a crash
  lease_until INTEGER                            -- NULL: waiting; else claimed until then
) STRICT;
CREATE INDEX job_waiting ON job (lane, account_id, endpoint, run_at) WHERE lease_until IS NULL;
CREATE INDEX job_leased ON job (lease_until) WHERE lease_until IS NOT NULL;
-- Finds the remaining job of a delivery, for a manual retry or removal.
CREATE INDEX job_by_subject ON job (subject_id);

CREATE TABLE lane_pause (                        -- mail lanes whose hosts accept nothing at the moment, for display
  lane TEXT PRIMARY KEY,
  until INTEGER NOT NULL,                        -- time at which one message tries them next
  reason TEXT NOT NULL                           -- reply of the host, or that it did not answer
) STRICT, WITHOUT ROWID;

-- Responses of POST /v1/send and /v1/send/batch by Idempotency-Key, kept for 24 hours (contract 1.11).
CREATE TABLE idempotency (
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  path TEXT NOT NULL,
  idempotency_key TEXT NOT NULL,
  body_hash BLOB NOT NULL,                       -- SHA-256 of the request's body
  status INTEGER NOT NULL,
  response BLOB NOT NULL,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (account_id, path, idempotency_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_time ON idempotency (created_at);

-- ------------------------------------------------------------------------------------------------------ limits

-- Numbers of an account's rows, and their bytes, in tables that may hold many, maintained by the triggers below for
-- the checks of limits.
CREATE TABLE account_rows (
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  table_name TEXT NOT NULL,
  rows INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  PRIMARY KEY (account_id, table_name)
) STRICT, WITHOUT ROWID;
-- Bytes of messages: each message carries the sum of all that its account ever stored, so that accepting one writes no
-- counter; the bytes stored now are the latest sum, or `floor` if that message is gone, minus the removed bytes.
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
-- Attempts removed together with their delivery no longer find it.
CREATE TRIGGER delivery_removed BEFORE DELETE ON delivery BEGIN
  DELETE FROM attempt WHERE delivery_id = OLD.id;
END;
CREATE TRIGGER message_removed AFTER DELETE ON message
  WHEN EXISTS (SELECT 1 FROM account WHERE id = OLD.account_id) BEGIN
  INSERT INTO message_bytes (account_id, floor, removed)
  VALUES (OLD.account_id, OLD.account_total, OLD.overhead + iif(OLD.mail_data_id IS NULL, 0, OLD.size)
    + coalesce(octet_length(OLD.body), 0))
  ON CONFLICT (account_id) DO UPDATE SET floor = max(floor, excluded.floor), removed = removed + excluded.removed;
END;
CREATE TRIGGER message_shrunk AFTER UPDATE OF mail_data_id, body ON message BEGIN
  INSERT INTO message_bytes (account_id, floor, removed)
  VALUES (OLD.account_id, 0, (OLD.overhead + iif(OLD.mail_data_id IS NULL, 0, OLD.size)
    + coalesce(octet_length(OLD.body), 0))
    - (NEW.overhead + iif(NEW.mail_data_id IS NULL, 0, NEW.size) + coalesce(octet_length(NEW.body), 0)))
  ON CONFLICT (account_id) DO UPDATE SET removed = removed + excluded.removed;
END;

-- ------------------------------------------------------------------------------------------ high-water mark

CREATE TABLE mark (                              -- compared with the high-water mark in the file beside the lock
  singleton INTEGER PRIMARY KEY CHECK (singleton = 1),
  database_id INTEGER NOT NULL,                  -- random; 0: not made yet
  generation INTEGER NOT NULL                    -- raised at each start and stop, and when the WAL is reset
) STRICT;
INSERT INTO mark (singleton, database_id, generation) VALUES (1, 0, 0);

CREATE TABLE removal (                           -- reason why a message or upload is gone, for 90 days, at most 500,000
  id INTEGER PRIMARY KEY,
  name_hash INTEGER NOT NULL,                    -- 64 bits of SHA-256 of its public id
  reason TEXT NOT NULL CHECK (reason IN ('api', 'retention', 'rule', 'delivered', 'undelivered')),
  removed_at INTEGER NOT NULL
) STRICT;

-- ---------------------------------------------------------------------------------------------------- stats

-- Numbers of messages and deliveries of each kind by the minute of the message or event, so that the overview does not
-- read every row. Maintained by the triggers below in the transaction of every change; the sweep removes minutes that
-- no screen shows, unless something of them is waiting.
CREATE TABLE stats (
  account_id INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  minute INTEGER NOT NULL,                       -- since 1970
  received INTEGER NOT NULL DEFAULT 0,
  sent INTEGER NOT NULL DEFAULT 0,               -- outbound, in any state
  unsent INTEGER NOT NULL DEFAULT 0,             -- of these, queued or deferred
  bounced INTEGER NOT NULL DEFAULT 0,            -- of these, bounced or failed
  pending INTEGER NOT NULL DEFAULT 0,            -- deliveries
  delivered INTEGER NOT NULL DEFAULT 0,
  failed INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (account_id, minute)
) STRICT, WITHOUT ROWID;
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
