-- The tables of the house. The same names and columns as migrations/sqlite; types differ.
-- Times are milliseconds since 1970 of the database's clock. Hashes of keys are 128 bits (uuid here, a blob of 16 bytes in SQLite).
-- Text keys compare bytewise ("C"), so that a prefix is a range. Statuses, causes and actions are the codes of host/message.rs and host/plugin.rs.

-- ---------------------------------------------------------------- the house

CREATE TABLE installation (
  one smallint PRIMARY KEY DEFAULT 1 CHECK (one = 1),
  secret bytea NOT NULL,
  made_ms bigint NOT NULL
);

-- One lease per host. number is never given twice; revision is the registry revision it runs on.
CREATE TABLE host (
  number int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id uuid NOT NULL UNIQUE,
  name text NOT NULL,
  lease_until_ms bigint NOT NULL,
  revision bigint,
  wanted_feeds int[] NOT NULL DEFAULT '{}',
  wanted_targets int[] NOT NULL DEFAULT '{}'
) WITH (fillfactor = 50);

-- owner is a host's id; epoch rises at every change of owner.
CREATE TABLE feed (
  id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL UNIQUE,
  lanes int NOT NULL,
  owner uuid,
  epoch bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

CREATE TABLE target (
  id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL UNIQUE
);

-- ---------------------------------------------------------------- messages in

CREATE TABLE source_position (
  feed int NOT NULL,
  source_partition int NOT NULL,
  next_offset bigint NOT NULL,
  PRIMARY KEY (feed, source_partition)
) WITH (fillfactor = 50);

-- Only translate and the leases touch it.
CREATE TABLE lane (
  feed int NOT NULL,
  lane int NOT NULL,
  owner uuid,
  epoch bigint NOT NULL DEFAULT 0,
  cursor bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (feed, lane)
) WITH (fillfactor = 50);

-- Only ingest touches it: the number of the lane's last row.
CREATE TABLE lane_tail (
  feed int NOT NULL,
  lane int NOT NULL,
  tail bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (feed, lane)
) WITH (fillfactor = 50);

CREATE TABLE dedupe (
  feed int NOT NULL,
  hash uuid NOT NULL,
  PRIMARY KEY (feed, hash)
);

-- Append only. key is the record's, ordering_key the pointers' value; headers null: none; payload null: a tombstone.
-- size is what host/message.rs counts, so that fetches are cut by bytes without reading payloads. status, code, reason: prejudged.
CREATE TABLE inbox (
  feed int NOT NULL,
  lane int NOT NULL,
  n bigint NOT NULL,
  source_offset bigint NOT NULL,
  received_ms bigint NOT NULL,
  timestamp_ms bigint,
  source_partition int NOT NULL,
  size int NOT NULL,
  id uuid NOT NULL,
  key_hash uuid NOT NULL,
  status smallint,
  source_table text NOT NULL,
  ordering_key bytea,
  key bytea,
  headers bytea,
  payload bytea,
  code text,
  reason text,
  PRIMARY KEY (feed, lane, n)
);
ALTER TABLE inbox ALTER COLUMN payload SET STORAGE EXTERNAL;

-- ---------------------------------------------------------------- work

-- Messages that their lane's cursor has passed unfinished.
CREATE TABLE work (
  feed int NOT NULL,
  lane int NOT NULL,
  n bigint NOT NULL,
  run int NOT NULL,
  attempts int NOT NULL,
  key_hash uuid NOT NULL,
  status smallint NOT NULL,
  cause smallint NOT NULL,
  blocks boolean NOT NULL,
  due_ms bigint,
  waiting_since_ms bigint,
  activation bigint,
  settlement bigint NOT NULL,
  code text NOT NULL,
  reason text NOT NULL,
  PRIMARY KEY (feed, lane, n, run)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX work_key ON work (feed, lane, key_hash, n);
CREATE INDEX work_due ON work (feed, lane, due_ms) WHERE due_ms IS NOT NULL;

-- What a message waits for. hash names the awaited thing (host/store/awaited.rs); for scans it names the collection (and index), and the
-- changed key or value must start with prefix.
CREATE TABLE wait (
  feed int NOT NULL,
  lane int NOT NULL,
  n bigint NOT NULL,
  run int NOT NULL,
  ordinal int NOT NULL,
  hash uuid NOT NULL,
  prefix text COLLATE "C",
  request text NOT NULL,
  PRIMARY KEY (feed, lane, n, run, ordinal)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX wait_hash ON wait (hash);

-- The end of every message that was not simply handled at its first attempt.
CREATE TABLE outcome (
  feed int NOT NULL,
  lane int NOT NULL,
  n bigint NOT NULL,
  run int NOT NULL,
  attempts int NOT NULL,
  settlement bigint NOT NULL,
  activation bigint,
  now_ms bigint NOT NULL,
  status smallint NOT NULL,
  code text NOT NULL,
  reason text NOT NULL,
  PRIMARY KEY (feed, lane, n, run)
);

-- ---------------------------------------------------------------- settlements

-- The one row that orders all settlements.
CREATE TABLE settlement_guard (
  one smallint PRIMARY KEY DEFAULT 1 CHECK (one = 1),
  number bigint NOT NULL
) WITH (fillfactor = 10);
INSERT INTO settlement_guard (one, number) VALUES (1, 0);

CREATE TABLE settlement (
  number bigint PRIMARY KEY,
  batch bigint NOT NULL UNIQUE,
  host uuid NOT NULL,
  at_ms bigint NOT NULL
);

-- Provenance: which activation handled which stretch of a lane. activations: JSON, table to activation.
CREATE TABLE settled_range (
  feed int NOT NULL,
  lane int NOT NULL,
  to_n bigint NOT NULL,
  settlement bigint NOT NULL,
  from_n bigint NOT NULL,
  now_ms bigint NOT NULL,
  activations jsonb NOT NULL,
  PRIMARY KEY (feed, lane, to_n, settlement, from_n, now_ms)
);

-- Answers as the guest saw them, compressed.
CREATE TABLE answers (
  feed int NOT NULL,
  lane int NOT NULL,
  n bigint NOT NULL,
  run int NOT NULL,
  data bytea NOT NULL,
  PRIMARY KEY (feed, lane, n, run)
);
ALTER TABLE answers ALTER COLUMN data SET STORAGE EXTERNAL;

-- ---------------------------------------------------------------- messages out

-- Append only. batch joins settlement; position counts the outputs of the batch, ordinal those of the message.
CREATE TABLE output (
  target int NOT NULL,
  position int NOT NULL,
  batch bigint NOT NULL,
  n bigint NOT NULL,
  feed int NOT NULL,
  lane int NOT NULL,
  run int NOT NULL,
  ordinal int NOT NULL,
  activation bigint,
  version bigint,
  message uuid NOT NULL,
  size int NOT NULL,
  action smallint NOT NULL,
  key bytea,
  headers bytea,
  payload bytea,
  PRIMARY KEY (target, batch, position)
);
ALTER TABLE output ALTER COLUMN payload SET STORAGE EXTERNAL;

-- Where publishing stands: the last output done.
CREATE TABLE target_cursor (
  target int PRIMARY KEY,
  owner uuid,
  epoch bigint NOT NULL DEFAULT 0,
  taken_over boolean NOT NULL DEFAULT false,
  settlement bigint NOT NULL DEFAULT 0,
  position int NOT NULL DEFAULT -1
) WITH (fillfactor = 50);

-- Outputs that a sink refused for good.
CREATE TABLE parked_output (
  target int NOT NULL,
  settlement bigint NOT NULL,
  position int NOT NULL,
  n bigint NOT NULL,
  feed int NOT NULL,
  lane int NOT NULL,
  run int NOT NULL,
  at_ms bigint NOT NULL,
  key bytea,
  reason text NOT NULL,
  PRIMARY KEY (target, settlement, position)
);
CREATE INDEX parked_output_message ON parked_output (feed, lane, n);

-- ---------------------------------------------------------------- what plugins remember

-- value null: removed at that version. content hashes value and indexes: an equal write changes nothing.
-- indexes: JSON, the sorted pairs of the entry; null: none.
CREATE TABLE entry (
  collection text COLLATE "C" NOT NULL,
  key text COLLATE "C" NOT NULL,
  version bigint NOT NULL,
  content uuid NOT NULL,
  indexes text,
  value bytea,
  PRIMARY KEY (collection, key)
) WITH (fillfactor = 80);

-- version rises with every change of the entry; removed rows stay, so that a range can be validated.
CREATE TABLE entry_index (
  collection text COLLATE "C" NOT NULL,
  name text COLLATE "C" NOT NULL,
  value text COLLATE "C" NOT NULL,
  key text COLLATE "C" NOT NULL,
  version bigint NOT NULL,
  removed boolean NOT NULL,
  PRIMARY KEY (collection, name, value, key)
) WITH (fillfactor = 80);

CREATE TABLE id_binding (
  namespace text COLLATE "C" NOT NULL,
  key text COLLATE "C" NOT NULL,
  id uuid NOT NULL,
  version bigint NOT NULL,
  PRIMARY KEY (namespace, key),
  UNIQUE (namespace, id)
);

-- ---------------------------------------------------------------- plugins

CREATE TABLE component (
  digest bytea PRIMARY KEY,
  size bigint NOT NULL,
  description text NOT NULL,
  imports text NOT NULL,
  pushed_ms bigint NOT NULL,
  pushed_by text NOT NULL,
  bytes bytea NOT NULL
);
ALTER TABLE component ALTER COLUMN bytes SET STORAGE EXTERNAL;

-- A component compiled for one engine.
CREATE TABLE artefact (
  digest bytea NOT NULL,
  engine text NOT NULL,
  bytes bytea NOT NULL,
  PRIMARY KEY (digest, engine)
);
ALTER TABLE artefact ALTER COLUMN bytes SET STORAGE EXTERNAL;

-- The history; the newest id is the registry's revision.
CREATE TABLE activation (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  feed text NOT NULL,
  source_table text NOT NULL,
  digest bytea NOT NULL,
  config text NOT NULL,
  at_ms bigint NOT NULL,
  by_whom text NOT NULL,
  why text NOT NULL
);

CREATE TABLE active (
  feed text NOT NULL,
  source_table text NOT NULL,
  activation bigint NOT NULL,
  PRIMARY KEY (feed, source_table)
);

-- What people ask for; the owner of the lane applies it inside its settlements.
CREATE TABLE action (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  kind text NOT NULL,
  feed int NOT NULL,
  lane int NOT NULL,
  n bigint NOT NULL,
  at_ms bigint NOT NULL,
  by_whom text NOT NULL,
  why text NOT NULL,
  detail text
);

-- ---------------------------------------------------------------- for people

CREATE VIEW message_status AS
SELECT
  f.name AS feed,
  i.source_table AS "table",
  i.source_partition AS "partition",
  i.source_offset AS "offset",
  encode(i.ordering_key, 'escape') AS key,
  CASE
    WHEN p.reason IS NOT NULL THEN 'failed'
    ELSE (ARRAY['pending', 'handled', 'ignored', 'waiting', 'retry', 'invalid', 'failed', 'held', 'behind', 'stopped', 'finished'])
      [1 + coalesce(w.status, o.status, CASE WHEN i.n <= l.cursor THEN 1 ELSE 0 END)]
  END AS status,
  CASE WHEN p.reason IS NOT NULL THEN 'parked-output' ELSE nullif(coalesce(w.code, o.code), '') END AS code,
  coalesce(p.reason, nullif(coalesce(w.reason, o.reason), '')) AS reason,
  coalesce(w.attempts, o.attempts, 0) AS attempts,
  encode(a.digest, 'hex') AS digest,
  to_timestamp(i.received_ms / 1000.0) AS received_at,
  to_timestamp(s.at_ms / 1000.0) AS settled_at,
  to_timestamp(w.due_ms / 1000.0) AS due_at,
  i.id,
  i.lane,
  i.n,
  i.feed AS feed_number
FROM inbox i
JOIN feed f ON f.id = i.feed
JOIN lane l ON l.feed = i.feed AND l.lane = i.lane
LEFT JOIN LATERAL (
  SELECT * FROM work x WHERE x.feed = i.feed AND x.lane = i.lane AND x.n = i.n ORDER BY x.run DESC LIMIT 1
) w ON true
LEFT JOIN LATERAL (
  SELECT * FROM outcome x WHERE x.feed = i.feed AND x.lane = i.lane AND x.n = i.n ORDER BY x.run DESC LIMIT 1
) o ON true
LEFT JOIN LATERAL (
  SELECT * FROM settled_range x
  WHERE w.n IS NULL AND o.n IS NULL AND x.feed = i.feed AND x.lane = i.lane AND x.to_n >= i.n AND x.from_n <= i.n AND i.n <= l.cursor
  ORDER BY x.to_n, x.settlement DESC LIMIT 1
) r ON true
LEFT JOIN LATERAL (
  SELECT x.reason FROM parked_output x WHERE x.feed = i.feed AND x.lane = i.lane AND x.n = i.n ORDER BY x.settlement DESC LIMIT 1
) p ON true
LEFT JOIN settlement s ON s.number = coalesce(w.settlement, o.settlement, r.settlement)
LEFT JOIN activation a ON a.id = coalesce(w.activation, o.activation, (r.activations ->> i.source_table)::bigint);
