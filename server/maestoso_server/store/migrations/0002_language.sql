-- The whole workflow language. Expand only: a server of the release before runs on this schema too.
COMMENT ON TABLE workflow IS 'One execution: what changes at every step.';

-- ---- bulk operations ----------------------------------------------------------------------
-- One operation on many workflows. `state`: 1 its items are being collected, 2 they are being done,
-- 3 completed, 4 cancelled. `owner_epoch` is the node that works on it; whoever finds that node gone takes
-- over. `action` and `query` are messages of the contract (maestoso.workflow.v1).
CREATE TABLE bulk_operation (
  namespace text NOT NULL,
  id uuid NOT NULL,
  state smallint NOT NULL,
  action bytea NOT NULL,
  query bytea,
  rate integer NOT NULL,
  reason text NOT NULL,
  created_ms bigint NOT NULL,
  created_by text NOT NULL,
  ended_ms bigint NOT NULL DEFAULT 0,
  idempotency_key text,
  request_digest bytea NOT NULL,
  owner_epoch bigint,
  -- How far the query has been read: the last workflow's (created_ms, id); NULL = not begun.
  collected_ms bigint,
  collected_id uuid,
  -- Items 1 to `claimed` were begun.
  total integer NOT NULL DEFAULT 0,
  claimed integer NOT NULL DEFAULT 0,
  succeeded integer NOT NULL DEFAULT 0,
  failed integer NOT NULL DEFAULT 0,
  PRIMARY KEY (namespace, id)
);
CREATE UNIQUE INDEX bulk_operation_key ON bulk_operation (namespace, idempotency_key)
  WHERE idempotency_key IS NOT NULL;
CREATE INDEX bulk_operation_open ON bulk_operation (id) WHERE state <= 2;
CREATE INDEX bulk_operation_ended ON bulk_operation (ended_ms) WHERE ended_ms > 0;

-- One workflow of an operation. `state`: 1 waits, 2 done, 3 refused with `error` (a message of the
-- contract), 4 begun. The facts of the workflow when the item was begun tell a node that takes over
-- whether it was done.
CREATE TABLE bulk_item (
  namespace text NOT NULL,
  bulk_id uuid NOT NULL,
  seq integer NOT NULL,
  workflow_id uuid NOT NULL,
  state smallint NOT NULL DEFAULT 1,
  revision bigint,
  generation integer,
  workflow_ended_ms bigint,
  error bytea,
  PRIMARY KEY (namespace, bulk_id, seq)
);
CREATE INDEX bulk_item_failed ON bulk_item (namespace, bulk_id, seq) WHERE state = 3;
