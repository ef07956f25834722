-- Upkeep: the inbox in parts that are dropped whole, floors that keep the books exact, and duties that one host at a time does.

-- A duty is done in turns, one for each due time. turn rises with every one given out; owner null: nobody is at it.
CREATE TABLE duty (
  name text PRIMARY KEY,
  due_ms bigint NOT NULL,
  turn bigint NOT NULL,
  owner uuid,
  until_ms bigint
) WITH (fillfactor = 50);

-- What has been dropped of a lane: so many rows, none of them above the floor.
CREATE TABLE lane_floor (
  feed int NOT NULL,
  lane int NOT NULL,
  floor bigint NOT NULL,
  dropped bigint NOT NULL,
  PRIMARY KEY (feed, lane)
);

-- The same by partition of the source.
CREATE TABLE partition_floor (
  feed int NOT NULL,
  source_partition int NOT NULL,
  dropped bigint NOT NULL,
  PRIMARY KEY (feed, source_partition)
);

-- Outputs of the target that are older than the floor, a settlement, have been pruned.
CREATE TABLE target_floor (
  target int PRIMARY KEY,
  floor bigint NOT NULL
);

-- What has been dropped in all, by kind: how many rows, and up to when.
CREATE TABLE dropped (
  what text PRIMARY KEY,
  rows bigint NOT NULL DEFAULT 0,
  until_ms bigint NOT NULL DEFAULT 0
);
INSERT INTO dropped (what) VALUES ('message'), ('settlement'), ('output');

-- The parts of the inbox. closed_ms null: the one that ingest fills. weighed: its rows are counted in inbox_part_rows.
CREATE TABLE inbox_part (
  part int PRIMARY KEY,
  begun_ms bigint NOT NULL,
  closed_ms bigint,
  weighed boolean NOT NULL DEFAULT false
);
INSERT INTO inbox_part (part, begun_ms) VALUES (1, 0);

-- How many rows a closed part still holds, and the greatest number among those it was closed with.
CREATE TABLE inbox_part_rows (
  part int NOT NULL,
  feed int NOT NULL,
  lane int NOT NULL,
  source_partition int NOT NULL,
  rows bigint NOT NULL,
  last bigint NOT NULL,
  PRIMARY KEY (part, feed, lane, source_partition)
);

-- The part that an append writes to. It is changed under the settlement guard, and appends hold their feed's row: whoever has changed it
-- knows that nothing comes to the parts before.
ALTER TABLE feed ADD COLUMN part int NOT NULL DEFAULT 1;

-- Parts of the delivery whose outcomes have been pruned.
ALTER TABLE delivery ADD COLUMN dropped bigint NOT NULL DEFAULT 0;

-- Each part is a table with a key of its own: (feed, lane, n) is unique over all of them because lanes count on. Part 0 takes what is still
-- needed of a part that is dropped. newer: a later message of the key that was handled and is dropped.
DROP VIEW message_status;
ALTER TABLE inbox ADD COLUMN newer bigint;
ALTER TABLE inbox ADD COLUMN part int NOT NULL DEFAULT 1;
ALTER TABLE inbox RENAME TO inbox_1;
ALTER INDEX inbox_pkey RENAME TO inbox_1_pkey;
CREATE TABLE inbox (LIKE inbox_1 INCLUDING STORAGE) PARTITION BY LIST (part);
CREATE TABLE inbox_kept (LIKE inbox INCLUDING STORAGE, PRIMARY KEY (feed, lane, n));
ALTER TABLE inbox_kept ALTER COLUMN part SET DEFAULT 0;
CREATE INDEX inbox_kept_key ON inbox_kept (feed, lane, key_hash);
ALTER TABLE inbox ATTACH PARTITION inbox_1 FOR VALUES IN (1);
ALTER TABLE inbox ATTACH PARTITION inbox_kept FOR VALUES IN (0);

-- ---------------------------------------------------------------- for people

-- As before, over all parts.
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
  SELECT d.settlement, d.activation FROM action x JOIN action_done d ON d.action = x.id
  WHERE w.n IS NULL AND o.n IS NULL AND x.feed = i.feed AND x.lane = i.lane AND x.n BETWEEN i.n - i.n % 200 AND i.n
    AND x.which IS NOT NULL AND d.run >= 0 AND get_bit(d.which, (i.n % 200)::int) = 1
  ORDER BY d.run DESC LIMIT 1
) d ON true
LEFT JOIN LATERAL (
  SELECT x.reason FROM parked_output x WHERE x.feed = i.feed AND x.lane = i.lane AND x.n = i.n ORDER BY x.settlement DESC LIMIT 1
) p ON true
LEFT JOIN settlement s ON s.number = coalesce(w.settlement, o.settlement, d.settlement, r.settlement)
LEFT JOIN activation a ON a.id = coalesce(w.activation, o.activation, d.activation, (r.activations ->> i.source_table)::bigint);

CREATE TRIGGER message_status_ask INSTEAD OF UPDATE ON message_status FOR EACH ROW EXECUTE FUNCTION message_status_ask();
CREATE TRIGGER message_status_note AFTER UPDATE ON message_status FOR EACH STATEMENT EXECUTE FUNCTION message_status_note();
