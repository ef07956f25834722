-- Upkeep: rows of the inbox that are not needed are deleted, floors keep the books exact, and duties are done by one host at a time.

-- A duty is done in turns, one for each due time. turn rises with every one given out; owner null: nobody is at it.
CREATE TABLE duty (
  name TEXT PRIMARY KEY,
  due_ms INTEGER NOT NULL,
  turn INTEGER NOT NULL,
  owner BLOB,
  until_ms INTEGER
) STRICT, WITHOUT ROWID;

-- What has been dropped of a lane: so many rows, none of them above the floor.
CREATE TABLE lane_floor (
  feed INTEGER NOT NULL,
  lane INTEGER NOT NULL,
  floor INTEGER NOT NULL,
  dropped INTEGER NOT NULL,
  PRIMARY KEY (feed, lane)
) STRICT, WITHOUT ROWID;

-- The same by partition of the source.
CREATE TABLE partition_floor (
  feed INTEGER NOT NULL,
  source_partition INTEGER NOT NULL,
  dropped INTEGER NOT NULL,
  PRIMARY KEY (feed, source_partition)
) STRICT, WITHOUT ROWID;

-- Outputs of the target that are older than the floor, a settlement, have been pruned.
CREATE TABLE target_floor (
  target INTEGER PRIMARY KEY,
  floor INTEGER NOT NULL
) STRICT;

-- What has been dropped in all, by kind: how many rows, and up to when. swept: the last row of the inbox that was looked at.
CREATE TABLE dropped (
  what TEXT PRIMARY KEY,
  rows INTEGER NOT NULL DEFAULT 0,
  until_ms INTEGER NOT NULL DEFAULT 0,
  swept INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
INSERT INTO dropped (what) VALUES ('message'), ('settlement'), ('output');

-- Parts of the delivery whose outcomes have been pruned.
ALTER TABLE delivery ADD COLUMN dropped INTEGER NOT NULL DEFAULT 0;

-- part 0: looked at and still needed. newer: a later message of the key that was handled and is dropped.
ALTER TABLE inbox ADD COLUMN newer INTEGER;
ALTER TABLE inbox ADD COLUMN part INTEGER;
CREATE INDEX inbox_kept ON inbox (feed, lane, key_hash) WHERE part = 0;
