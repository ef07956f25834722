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

-- What is asked of messages; the owner of their lane applies it inside its settlements. A row is about one message, n, or about several of
-- the 200 whose numbers begin at a multiple of 200: then n is the first of them, and which has a bit for each of the 200.
-- bytes: what they hold together, at most (null: not known). open: how many of them it has not been applied to. kind, result: codes of host/store/actions.rs. after_n: only later messages of the key
-- above it supersede (null: above the message itself). result, became (the message's status afterwards), applied_ms, settlement: of one
-- message; those of several stand in action_done.
CREATE TABLE action (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  command uuid,
  feed int NOT NULL,
  lane int NOT NULL,
  n bigint NOT NULL,
  bytes bigint,
  after_n bigint,
  not_before_ms bigint NOT NULL,
  pinned bigint,
  applied_ms bigint,
  settlement bigint,
  open int NOT NULL DEFAULT 1,
  kind smallint NOT NULL,
  result smallint,
  became smallint,
  force boolean NOT NULL,
  detail text,
  which bit(200)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
-- With the id, so that a page of a lane is read in order and no further.
CREATE INDEX action_open ON action (feed, lane, not_before_ms, n, id) WHERE open > 0;
-- So that what is open of a large command is counted quickly.
CREATE INDEX action_command ON action (command, open);
-- A message's actions lie between the multiple of 200 and itself.
CREATE INDEX action_message ON action (feed, lane, n);
CREATE INDEX action_stretch ON action (feed, lane, n) WHERE which IS NOT NULL;

-- What became of messages of an action that is about several. Of runs that were simply handled, of messages without an outcome, it is the
-- provenance too, as settled_range is for first runs: run (else -1), activation and now_ms.
CREATE TABLE action_done (
  action bigint NOT NULL REFERENCES action ON DELETE CASCADE,
  settlement bigint NOT NULL,
  applied_ms bigint NOT NULL,
  result smallint NOT NULL,
  became smallint NOT NULL,
  run int NOT NULL,
  activation bigint,
  now_ms bigint,
  which bit(200) NOT NULL
);
CREATE INDEX action_done_action ON action_done (action);

-- What is asked of each message, a row for each. result null: open.
CREATE VIEW action_each AS
SELECT a.id * 4096 + e.place AS id, a.id AS action, a.command, a.feed, a.lane, a.n - a.n % 200 + e.place AS n, a.not_before_ms, a.kind,
  a.force, a.pinned,
  coalesce(a.result, d.result) AS result, coalesce(a.became, d.became) AS became, coalesce(a.applied_ms, d.applied_ms) AS applied_ms,
  coalesce(a.settlement, d.settlement) AS settlement
FROM action a
JOIN LATERAL generate_series(CASE WHEN a.which IS NULL THEN (a.n % 200)::int ELSE 0 END, CASE WHEN a.which IS NULL THEN (a.n % 200)::int ELSE 199 END)
  e(place) ON a.which IS NULL OR get_bit(a.which, e.place) = 1
LEFT JOIN action_done d ON d.action = a.id AND get_bit(d.which, e.place) = 1;

-- Few messages are closed for good, and a replay asks it of each.
CREATE INDEX outcome_finished ON outcome (feed, lane, n) WHERE status = 10;

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

-- ---------------------------------------------------------------- for people

-- UPDATE message_status SET status = 'retry' WHERE ... inserts actions, one command for each kind and transaction. Words: retry, pending
-- (restart), ignored, stopped, finished. attempts = 0 (with retry: restart), settled_at = NULL and due_at = NULL may come along.
-- Whoever makes the view anew (DROP VIEW) must make its two triggers anew: they go with it.

-- The command of this transaction for a kind.
CREATE FUNCTION message_status_command(asked smallint) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
  name text := 'tolk.command_' || asked;
  known text := current_setting(name, true);
BEGIN
  IF coalesce(known, '') = '' THEN
    known := set_config(name, gen_random_uuid()::text, true);
  END IF;
  RETURN known::uuid;
END
$$;

CREATE FUNCTION message_status_ask() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  asked smallint := CASE lower(NEW.status)
    WHEN 'retry' THEN 0 WHEN 'pending' THEN 1 WHEN 'ignored' THEN 2 WHEN 'stopped' THEN 3 WHEN 'finished' THEN 4 END;
  rest record;
BEGIN
  rest := NEW;
  rest.status := OLD.status;
  IF rest.attempts = 0 THEN
    rest.attempts := OLD.attempts;
  END IF;
  rest.settled_at := coalesce(rest.settled_at, OLD.settled_at);
  rest.due_at := coalesce(rest.due_at, OLD.due_at);
  IF rest IS DISTINCT FROM OLD THEN
    RAISE EXCEPTION 'message_status: only status can be set'
      USING HINT = 'Beside it attempts = 0, settled_at = NULL and due_at = NULL are allowed.', ERRCODE = 'feature_not_supported';
  END IF;
  IF asked IS NULL THEN
    RAISE EXCEPTION 'message_status: status cannot be set to "%"', NEW.status
      USING HINT = 'Set it to retry, pending, ignored, stopped or finished.', ERRCODE = 'invalid_parameter_value';
  END IF;
  IF asked = 0 AND NEW.attempts = 0 AND OLD.attempts > 0 THEN
    asked := 1;
  END IF;
  INSERT INTO action (command, feed, lane, n, not_before_ms, kind, force) VALUES (
    message_status_command(asked), OLD.feed_number, OLD.lane, OLD.n, (extract(epoch FROM now()) * 1000)::bigint, asked, false);
  RETURN NEW;
END
$$;

-- Counted by statement: a line that is counted up for each row would grow a chain of dead versions.
CREATE FUNCTION message_status_note() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  INSERT INTO command (id, kind, object, by_whom, why, at_ms, messages)
  SELECT c.id, c.word, 'what a statement chose', current_user, 'UPDATE message_status', (extract(epoch FROM now()) * 1000)::bigint, c.messages
  FROM (
    SELECT k.id, k.word, (SELECT count(*) FROM action a WHERE a.command = k.id) AS messages
    FROM (
      SELECT nullif(current_setting('tolk.command_' || w.kind, true), '')::uuid AS id, w.word
      FROM (VALUES (0, 'retry'), (1, 'restart'), (2, 'ignore'), (3, 'stop'), (4, 'finish')) w(kind, word)
    ) k
    WHERE k.id IS NOT NULL
  ) c
  ON CONFLICT (id) DO UPDATE SET messages = excluded.messages;
  RETURN NULL;
END
$$;

CREATE TRIGGER message_status_ask INSTEAD OF UPDATE ON message_status FOR EACH ROW EXECUTE FUNCTION message_status_ask();
CREATE TRIGGER message_status_note AFTER UPDATE ON message_status FOR EACH STATEMENT EXECUTE FUNCTION message_status_note();
