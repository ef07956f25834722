-- The tables of the house. The same names and columns as migrations/postgres; types differ.
-- Times are milliseconds since 1970 of the machine's clock. Ids and hashes of keys are blobs of 16 bytes.
-- Text keys compare bytewise (BINARY), so that a prefix is a range. Statuses, causes and actions are the codes of host/message.rs and host/plugin.rs.

-- ---------------------------------------------------------------- the house

CREATE TABLE installation (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  secret BLOB NOT NULL,
  made_ms INTEGER NOT NULL
) STRICT;

-- One lease per host. number is never given twice; revision is the registry revision it runs on.
CREATE TABLE host (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  id BLOB NOT NULL UNIQUE,
  name TEXT NOT NULL,
  lease_until_ms INTEGER NOT NULL,
  revision INTEGER,
  wanted_feeds TEXT NOT NULL DEFAULT '[]',
  wanted_targets TEXT NOT NULL DEFAULT '[]'
) STRICT;

-- owner is a host's id; epoch rises at every change of owner.
CREATE TABLE feed (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE,
  lanes INTEGER NOT NULL,
  owner BLOB,
  epoch INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE target (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE
) STRICT;

-- ---------------------------------------------------------------- messages in

CREATE TABLE source_position (
  feed INTEGER NOT NULL,
  source_partition INTEGER NOT NULL,
  next_offset INTEGER NOT NULL,
  PRIMARY KEY (feed, source_partition)
) STRICT, WITHOUT ROWID;

-- Only translate and the leases touch it.
CREATE TABLE lane (
  feed INTEGER NOT NULL,
  lane INTEGER NOT NULL,
  owner BLOB,
  epoch INTEGER NOT NULL DEFAULT 0,
  cursor INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (feed, lane)
) STRICT, WITHOUT ROWID;

-- Only ingest touches it: the number of the lane's last row.
CREATE TABLE lane_tail (
  feed INTEGER NOT NULL,
  lane INTEGER NOT NULL,
  tail INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (feed, lane)
) STRICT, WITHOUT ROWID;

CREATE TABLE dedupe (
  feed INTEGER NOT NULL,
  hash BLOB NOT NULL,
  PRIMARY KEY (feed, hash)
) STRICT, WITHOUT ROWID;

-- Append only. key is the record's, ordering_key the pointers' value; headers null: none; payload null: a tombstone.
-- size is what host/message.rs counts, so that fetches are cut by bytes without reading payloads. status, code, reason: prejudged.
-- Small columns come first: SQLite reads a row from its start.
CREATE TABLE inbox (
  feed INTEGER NOT NULL,
  lane INTEGER NOT NULL,
  n INTEGER NOT NULL,
  source_offset INTEGER NOT NULL,
  received_ms INTEGER NOT NULL,
  timestamp_ms INTEGER,
  source_partition INTEGER NOT NULL,
  size INTEGER NOT NULL,
  id BLOB NOT NULL,
  key_hash BLOB NOT NULL,
  status INTEGER,
  source_table TEXT NOT NULL,
  ordering_key BLOB,
  code TEXT,
  reason TEXT,
  key BLOB,
  headers BLOB,
  payload BLOB,
  PRIMARY KEY (feed, lane, n)
) STRICT;

-- ---------------------------------------------------------------- work

-- Messages that their lane's cursor has passed unfinished.
CREATE TABLE work (
  feed INTEGER NOT NULL,
  lane INTEGER NOT NULL,
  n INTEGER NOT NULL,
  run INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  key_hash BLOB NOT NULL,
  status INTEGER NOT NULL,
  cause INTEGER NOT NULL,
  blocks INTEGER NOT NULL,
  due_ms INTEGER,
  waiting_since_ms INTEGER,
  activation INTEGER,
  settlement INTEGER NOT NULL,
  code TEXT NOT NULL,
  reason TEXT NOT NULL,
  PRIMARY KEY (feed, lane, n, run)
) STRICT, WITHOUT ROWID;
CREATE INDEX work_key ON work (feed, lane, key_hash, n);
CREATE INDEX work_due ON work (feed, lane, due_ms) WHERE due_ms IS NOT NULL;

-- What a message waits for. hash names the awaited thing (host/store/awaited.rs); for scans it names the collection (and index), and the
-- changed key or value must start with prefix.
CREATE TABLE wait (
  feed INTEGER NOT NULL,
  lane INTEGER NOT NULL,
  n INTEGER NOT NULL,
  run INTEGER NOT NULL,
  ordinal INTEGER NOT NULL,
  hash BLOB NOT NULL,
  prefix TEXT,
  request TEXT NOT NULL,
  PRIMARY KEY (feed, lane, n, run, ordinal)
) STRICT, WITHOUT ROWID;
CREATE INDEX wait_hash ON wait (hash);

-- The end of every message that was not simply handled at its first attempt.
CREATE TABLE outcome (
  feed INTEGER NOT NULL,
  lane INTEGER NOT NULL,
  n INTEGER NOT NULL,
  run INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  settlement INTEGER NOT NULL,
  activation INTEGER,
  now_ms INTEGER NOT NULL,
  status INTEGER NOT NULL,
  code TEXT NOT NULL,
  reason TEXT NOT NULL,
  PRIMARY KEY (feed, lane, n, run)
) STRICT, WITHOUT ROWID;

-- ---------------------------------------------------------------- settlements

-- The one row that orders all settlements.
CREATE TABLE settlement_guard (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  number INTEGER NOT NULL
) STRICT;
INSERT INTO settlement_guard (one, number) VALUES (1, 0);

CREATE TABLE settlement (
  number INTEGER PRIMARY KEY,
  batch INTEGER NOT NULL UNIQUE,
  host BLOB NOT NULL,
  at_ms INTEGER NOT NULL
) STRICT;

-- Provenance: which activation handled which stretch of a lane. activations: JSON, table to activation.
CREATE TABLE settled_range (
  feed INTEGER NOT NULL,
  lane INTEGER NOT NULL,
  to_n INTEGER NOT NULL,
  settlement INTEGER NOT NULL,
  from_n INTEGER NOT NULL,
  now_ms INTEGER NOT NULL,
  activations TEXT NOT NULL,
  PRIMARY KEY (feed, lane, to_n, settlement, from_n, now_ms)
) STRICT, WITHOUT ROWID;

-- Answers as the guest saw them, compressed.
CREATE TABLE answers (
  feed INTEGER NOT NULL,
  lane INTEGER NOT NULL,
  n INTEGER NOT NULL,
  run INTEGER NOT NULL,
  data BLOB NOT NULL,
  PRIMARY KEY (feed, lane, n, run)
) STRICT;

-- ---------------------------------------------------------------- messages out

-- Append only. batch joins settlement; position counts the outputs of the batch, ordinal those of the message.
CREATE TABLE output (
  target INTEGER NOT NULL,
  position INTEGER NOT NULL,
  batch INTEGER NOT NULL,
  n INTEGER NOT NULL,
  feed INTEGER NOT NULL,
  lane INTEGER NOT NULL,
  run INTEGER NOT NULL,
  ordinal INTEGER NOT NULL,
  activation INTEGER,
  version INTEGER,
  message BLOB NOT NULL,
  size INTEGER NOT NULL,
  action INTEGER NOT NULL,
  key BLOB,
  headers BLOB,
  payload BLOB,
  PRIMARY KEY (target, batch, position)
) STRICT;

-- Where publishing stands: the last output done.
CREATE TABLE target_cursor (
  target INTEGER PRIMARY KEY,
  owner BLOB,
  epoch INTEGER NOT NULL DEFAULT 0,
  taken_over INTEGER NOT NULL DEFAULT 0,
  settlement INTEGER NOT NULL DEFAULT 0,
  position INTEGER NOT NULL DEFAULT -1
) STRICT;

-- Outputs that a sink refused for good.
CREATE TABLE parked_output (
  target INTEGER NOT NULL,
  settlement INTEGER NOT NULL,
  position INTEGER NOT NULL,
  n INTEGER NOT NULL,
  feed INTEGER NOT NULL,
  lane INTEGER NOT NULL,
  run INTEGER NOT NULL,
  at_ms INTEGER NOT NULL,
  key BLOB,
  reason TEXT NOT NULL,
  PRIMARY KEY (target, settlement, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX parked_output_message ON parked_output (feed, lane, n);

-- ---------------------------------------------------------------- what plugins remember

-- value null: removed at that version. content hashes value and indexes: an equal write changes nothing.
-- indexes: JSON, the sorted pairs of the entry; null: none.
CREATE TABLE entry (
  collection TEXT NOT NULL,
  key TEXT NOT NULL,
  version INTEGER NOT NULL,
  content BLOB NOT NULL,
  indexes TEXT,
  value BLOB,
  PRIMARY KEY (collection, key)
) STRICT;

-- version rises with every change of the entry; removed rows stay, so that a range can be validated.
CREATE TABLE entry_index (
  collection TEXT NOT NULL,
  name TEXT NOT NULL,
  value TEXT NOT NULL,
  key TEXT NOT NULL,
  version INTEGER NOT NULL,
  removed INTEGER NOT NULL,
  PRIMARY KEY (collection, name, value, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE id_binding (
  namespace TEXT NOT NULL,
  key TEXT NOT NULL,
  id BLOB NOT NULL,
  version INTEGER NOT NULL,
  PRIMARY KEY (namespace, key),
  UNIQUE (namespace, id)
) STRICT, WITHOUT ROWID;

-- ---------------------------------------------------------------- plugins

CREATE TABLE component (
  digest BLOB PRIMARY KEY NOT NULL,
  size INTEGER NOT NULL,
  description TEXT NOT NULL,
  imports TEXT NOT NULL,
  pushed_ms INTEGER NOT NULL,
  pushed_by TEXT NOT NULL,
  bytes BLOB NOT NULL
) STRICT;

-- A component compiled for one engine.
CREATE TABLE artefact (
  digest BLOB NOT NULL,
  engine TEXT NOT NULL,
  bytes BLOB NOT NULL,
  PRIMARY KEY (digest, engine)
) STRICT;

-- The history; the newest id is the registry's revision.
CREATE TABLE activation (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  feed TEXT NOT NULL,
  source_table TEXT NOT NULL,
  digest BLOB NOT NULL,
  config TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  by_whom TEXT NOT NULL,
  why TEXT NOT NULL
) STRICT;

CREATE TABLE active (
  feed TEXT NOT NULL,
  source_table TEXT NOT NULL,
  activation INTEGER NOT NULL,
  PRIMARY KEY (feed, source_table)
) STRICT, WITHOUT ROWID;

-- What people ask for; the owner of the lane applies it inside its settlements.
CREATE TABLE action (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL,
  feed INTEGER NOT NULL,
  lane INTEGER NOT NULL,
  n INTEGER NOT NULL,
  at_ms INTEGER NOT NULL,
  by_whom TEXT NOT NULL,
  why TEXT NOT NULL,
  detail TEXT
) STRICT;

-- ---------------------------------------------------------------- for people

-- Every message as it stands now, in the numbers the host works with; seq is the order in which messages came.
CREATE VIEW message_state AS
SELECT
  i.rowid AS seq, i.feed AS feed_number, i.lane, i.n, i.id, f.name AS feed, i.source_table AS "table", i.source_partition AS "partition",
  i.source_offset AS "offset", i.ordering_key,
  CASE WHEN p.target IS NOT NULL THEN 6 ELSE coalesce(w.status, o.status, CASE WHEN i.n <= l.cursor THEN 1 ELSE 0 END) END AS status,
  CASE WHEN p.target IS NOT NULL THEN 'parked-output' ELSE nullif(coalesce(w.code, o.code), '') END AS code,
  coalesce(p.reason, nullif(coalesce(w.reason, o.reason), '')) AS reason,
  coalesce(w.attempts, o.attempts, 0) AS attempts,
  coalesce(w.activation, o.activation, (SELECT j.value FROM json_each(r.activations) j WHERE j.key = i.source_table)) AS activation,
  coalesce(w.settlement, o.settlement, r.settlement) AS settlement,
  coalesce(o.now_ms, r.now_ms) AS now_ms,
  w.due_ms,
  i.received_ms
FROM inbox i
CROSS JOIN feed f ON f.id = i.feed
CROSS JOIN lane l ON l.feed = i.feed AND l.lane = i.lane
LEFT JOIN work w ON w.feed = i.feed AND w.lane = i.lane AND w.n = i.n
  AND w.run = (SELECT max(x.run) FROM work x WHERE x.feed = i.feed AND x.lane = i.lane AND x.n = i.n)
LEFT JOIN outcome o ON o.feed = i.feed AND o.lane = i.lane AND o.n = i.n
  AND o.run = (SELECT max(x.run) FROM outcome x WHERE x.feed = i.feed AND x.lane = i.lane AND x.n = i.n)
LEFT JOIN settled_range r ON w.n IS NULL AND o.n IS NULL AND i.n <= l.cursor AND r.feed = i.feed AND r.lane = i.lane
  AND (r.to_n, r.settlement, r.from_n) = (
    SELECT x.to_n, x.settlement, x.from_n FROM settled_range x
    WHERE x.feed = i.feed AND x.lane = i.lane AND x.to_n >= i.n AND x.from_n <= i.n
    ORDER BY x.to_n, x.settlement DESC LIMIT 1
  )
LEFT JOIN parked_output p ON p.feed = i.feed AND p.lane = i.lane AND p.n = i.n
  AND (p.target, p.settlement, p.position) = (
    SELECT x.target, x.settlement, x.position FROM parked_output x
    WHERE x.feed = i.feed AND x.lane = i.lane AND x.n = i.n
    ORDER BY x.settlement DESC, x.position DESC LIMIT 1
  );

-- The same for people: times are text in UTC, key is the ordering key's bytes read as UTF-8.
CREATE VIEW message_status AS
SELECT
  m.feed, m."table", m."partition", m."offset", CAST(m.ordering_key AS TEXT) AS key,
  CASE m.status
    WHEN 0 THEN 'pending' WHEN 1 THEN 'handled' WHEN 2 THEN 'ignored' WHEN 3 THEN 'waiting' WHEN 4 THEN 'retry' WHEN 5 THEN 'invalid'
    WHEN 6 THEN 'failed' WHEN 7 THEN 'held' WHEN 8 THEN 'behind' WHEN 9 THEN 'stopped' WHEN 10 THEN 'finished'
  END AS status,
  m.code, m.reason, m.attempts,
  (SELECT lower(hex(a.digest)) FROM activation a WHERE a.id = m.activation) AS digest,
  strftime('%Y-%m-%dT%H:%M:%fZ', m.received_ms / 1000.0, 'unixepoch') AS received_at,
  (SELECT strftime('%Y-%m-%dT%H:%M:%fZ', s.at_ms / 1000.0, 'unixepoch') FROM settlement s WHERE s.number = m.settlement) AS settled_at,
  strftime('%Y-%m-%dT%H:%M:%fZ', m.due_ms / 1000.0, 'unixepoch') AS due_at,
  m.id, m.lane, m.n, m.feed_number
FROM message_state m;
