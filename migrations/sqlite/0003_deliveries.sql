-- Deliveries: messages between a start and an end that count only together.

-- id is null while nobody knows it (an order in flight, or refused). order_number: the number under which it was ordered, where its messages
-- came before the order's answer. params: JSON, pairs. source_partition: the one that carried its first message; spread: others do too, or may.
-- due_ms: when missing parts are final. release: rows of work are still held although it is over. call_epoch: the feed's epoch under which
-- its order is being called. state: the codes of host/delivery.rs.
CREATE TABLE delivery (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  feed INTEGER NOT NULL,
  id TEXT,
  order_number INTEGER,
  state INTEGER NOT NULL,
  params TEXT NOT NULL,
  starts INTEGER NOT NULL DEFAULT 0,
  ends INTEGER NOT NULL DEFAULT 0,
  expected_start INTEGER,
  expected_end INTEGER,
  accepted INTEGER NOT NULL DEFAULT 0,
  source_partition INTEGER,
  spread INTEGER NOT NULL DEFAULT 0,
  release INTEGER NOT NULL DEFAULT 0,
  call_epoch INTEGER,
  opened_ms INTEGER NOT NULL,
  bound_ms INTEGER,
  started_ms INTEGER,
  ended_ms INTEGER,
  closed_ms INTEGER,
  due_ms INTEGER,
  code TEXT NOT NULL DEFAULT '',
  reason TEXT NOT NULL DEFAULT '',
  UNIQUE (feed, id)
) STRICT;
CREATE INDEX delivery_order ON delivery (order_number) WHERE order_number IS NOT NULL;
CREATE INDEX delivery_state ON delivery (feed, state);

-- The delivery that a message is a part of; marks have none.
ALTER TABLE inbox ADD COLUMN delivery INTEGER;
ALTER TABLE work ADD COLUMN delivery INTEGER;
ALTER TABLE outcome ADD COLUMN delivery INTEGER;
CREATE INDEX work_delivery ON work (delivery, status, feed, lane, n) WHERE delivery IS NOT NULL;
CREATE INDEX outcome_delivery ON outcome (delivery, feed, lane, n) WHERE delivery IS NOT NULL;
