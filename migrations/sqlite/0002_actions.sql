-- What operators ask for. No release wrote into the action table of 0001: it is made anew.

DROP TABLE action;

-- The audit trail: one row for each command of a person, whatever it was about.
CREATE TABLE command (
  id BLOB PRIMARY KEY,
  kind TEXT NOT NULL,
  object TEXT NOT NULL,
  by_whom TEXT NOT NULL,
  why TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  messages INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX command_at ON command (at_ms);

-- What is asked of one message; the owner of its lane applies it inside its settlements. kind, result: codes of host/store/actions.rs.
-- after_n: only later messages of the key above it supersede (null: above n). result null: open. became: the message's status afterwards.
CREATE TABLE action (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  command BLOB,
  feed INTEGER NOT NULL,
  lane INTEGER NOT NULL,
  n INTEGER NOT NULL,
  after_n INTEGER,
  not_before_ms INTEGER NOT NULL,
  pinned INTEGER,
  applied_ms INTEGER,
  settlement INTEGER,
  kind INTEGER NOT NULL,
  result INTEGER,
  became INTEGER,
  force INTEGER NOT NULL,
  detail TEXT
) STRICT;
CREATE INDEX action_open ON action (feed, lane, not_before_ms, n) WHERE result IS NULL;
-- With the result, so that what is open of a large command is counted quickly.
CREATE INDEX action_command ON action (command, result);
CREATE INDEX action_message ON action (feed, lane, n);

-- What is paused. what: feed, table, endpoint; feed and name as far as they apply.
CREATE TABLE pause (
  what TEXT NOT NULL,
  feed TEXT NOT NULL,
  name TEXT NOT NULL,
  by_whom TEXT NOT NULL,
  why TEXT NOT NULL,
  since_ms INTEGER NOT NULL,
  PRIMARY KEY (what, feed, name)
) STRICT, WITHOUT ROWID;

-- The activation that a replay was told to run with.
ALTER TABLE work ADD COLUMN pinned INTEGER;

-- When the message that wrote the entry last was received: a replay never overwrites what a newer message wrote.
ALTER TABLE entry ADD COLUMN origin_ms INTEGER NOT NULL DEFAULT 0;
