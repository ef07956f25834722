-- Deliveries: messages between a start and an end that count only together.

-- id is null while nobody knows it (an order in flight, or refused). order_number: the number under which it was ordered, where its messages
-- came before the order's answer. params: JSON, pairs. source_partition: the one that carried its first message; spread: others do too, or may.
-- due_ms: when missing parts are final. release: rows of work are still held although it is over. call_epoch: the feed's epoch under which
-- its order is being called. state: the codes of host/delivery.rs.
CREATE TABLE delivery (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  feed int NOT NULL,
  id text COLLATE "C",
  order_number bigint,
  state smallint NOT NULL,
  params text NOT NULL,
  starts int NOT NULL DEFAULT 0,
  ends int NOT NULL DEFAULT 0,
  expected_start bigint,
  expected_end bigint,
  accepted bigint NOT NULL DEFAULT 0,
  source_partition int,
  spread boolean NOT NULL DEFAULT false,
  release boolean NOT NULL DEFAULT false,
  call_epoch bigint,
  opened_ms bigint NOT NULL,
  bound_ms bigint,
  started_ms bigint,
  ended_ms bigint,
  closed_ms bigint,
  due_ms bigint,
  code text NOT NULL DEFAULT '',
  reason text NOT NULL DEFAULT '',
  UNIQUE (feed, id)
) WITH (fillfactor = 50);
CREATE INDEX delivery_order ON delivery (order_number) WHERE order_number IS NOT NULL;
CREATE INDEX delivery_state ON delivery (feed, state);

-- The delivery that a message is a part of; marks have none.
ALTER TABLE inbox ADD COLUMN delivery bigint;
ALTER TABLE work ADD COLUMN delivery bigint;
ALTER TABLE outcome ADD COLUMN delivery bigint;
CREATE INDEX work_delivery ON work (delivery, status, feed, lane, n) WHERE delivery IS NOT NULL;
CREATE INDEX outcome_delivery ON outcome (delivery, feed, lane, n) WHERE delivery IS NOT NULL;
