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

-- ---------------------------------------------------------------- for people

-- UPDATE message_status SET status = 'retry' WHERE ... inserts actions, one command for each kind and statement. Words: retry, pending
-- (restart), ignored, stopped, finished. attempts = 0 (with retry: restart), settled_at = NULL and due_at = NULL may come along.
-- Whoever makes the view anew (DROP VIEW) must make its two triggers anew: they go with it.

CREATE TRIGGER message_status_other INSTEAD OF
UPDATE OF feed, "table", "partition", "offset", key, code, reason, digest, received_at, id, lane, n, feed_number ON message_status
BEGIN
  SELECT RAISE(ABORT, 'message_status: only status can be set; beside it attempts = 0, settled_at = NULL and due_at = NULL are allowed');
END;

-- The time stands still while a statement runs, so kind and time name its command.
CREATE TRIGGER message_status_ask INSTEAD OF UPDATE ON message_status
BEGIN
  SELECT RAISE(ABORT, 'message_status: only status can be set; beside it attempts = 0, settled_at = NULL and due_at = NULL are allowed')
  WHERE new.attempts NOT IN (0, old.attempts) OR (new.settled_at IS NOT NULL AND new.settled_at IS NOT old.settled_at)
    OR (new.due_at IS NOT NULL AND new.due_at IS NOT old.due_at);
  SELECT RAISE(ABORT, 'message_status: status can be set to retry, pending, ignored, stopped or finished, to nothing else')
  WHERE coalesce(lower(new.status), '') NOT IN ('retry', 'pending', 'ignored', 'stopped', 'finished');
  INSERT INTO action (command, feed, lane, n, not_before_ms, kind, force)
  SELECT CAST('sq' || k.kind || printf('%013d', k.now_ms) AS BLOB), old.feed_number, old.lane, old.n, k.now_ms, k.kind, 0
  FROM (
    SELECT
      CASE lower(new.status)
        WHEN 'retry' THEN CASE WHEN new.attempts = 0 AND old.attempts > 0 THEN 1 ELSE 0 END
        WHEN 'pending' THEN 1 WHEN 'ignored' THEN 2 WHEN 'stopped' THEN 3 WHEN 'finished' THEN 4
      END AS kind,
      CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER) AS now_ms
  ) k;
  INSERT INTO command (id, kind, object, by_whom, why, at_ms, messages)
  SELECT a.command, CASE a.kind WHEN 0 THEN 'retry' WHEN 1 THEN 'restart' WHEN 2 THEN 'ignore' WHEN 3 THEN 'stop' WHEN 4 THEN 'finish' END,
    'what a statement chose', 'sql', 'UPDATE message_status', a.not_before_ms, 1
  FROM action a WHERE a.id = last_insert_rowid()
  ON CONFLICT (id) DO UPDATE SET messages = messages + 1;
END;
