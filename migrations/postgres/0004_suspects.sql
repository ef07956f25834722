-- Owners that died with the lane in hand since everything that such an owner had in hand was last through its plugins: from the second on
-- its messages are tried in a process of their own before the host runs them.
ALTER TABLE lane ADD COLUMN crashes int NOT NULL DEFAULT 0;
