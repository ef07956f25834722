-- What operators ask for. No release wrote into the action table of 0001: it is made anew.

DROP TABLE action;

-- The audit trail: one row for each command of a person, whatever it was about.
CREATE TABLE command (
  id uuid PRIMARY KEY,
  kind text NOT NULL,
  object text NOT NULL,
  by_whom text NOT NULL,
  why text NOT NULL,
  at_ms bigint NOT NULL,
  messages bigint NOT NULL
);
CREATE INDEX command_at ON command (at_ms);

-- What is asked of one message; the owner of its lane applies it inside its settlements. kind, result: codes of host/store/actions.rs.
-- after_n: only later messages of the key above it supersede (null: above n). result null: open. became: the message's status afterwards.
CREATE TABLE action (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  command uuid,
  feed int NOT NULL,
  lane int NOT NULL,
  n bigint NOT NULL,
  after_n bigint,
  not_before_ms bigint NOT NULL,
  pinned bigint,
  applied_ms bigint,
  settlement bigint,
  kind smallint NOT NULL,
  result smallint,
  became smallint,
  force boolean NOT NULL,
  detail text
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX action_open ON action (feed, lane, not_before_ms, n) WHERE result IS NULL;
-- With the result, so that what is open of a large command is counted quickly.
CREATE INDEX action_command ON action (command, result);
CREATE INDEX action_message ON action (feed, lane, n);

-- What is paused. what: feed, table, endpoint; feed and name as far as they apply.
CREATE TABLE pause (
  what text NOT NULL,
  feed text NOT NULL,
  name text NOT NULL,
  by_whom text NOT NULL,
  why text NOT NULL,
  since_ms bigint NOT NULL,
  PRIMARY KEY (what, feed, name)
);

-- The activation that a replay was told to run with.
ALTER TABLE work ADD COLUMN pinned bigint;

-- When the message that wrote the entry last was received: a replay never overwrites what a newer message wrote.
ALTER TABLE entry ADD COLUMN origin_ms bigint NOT NULL DEFAULT 0;
