-- The whole workflow language. Expand only: a server of the release before runs on this schema too.
COMMENT ON TABLE workflow IS 'One execution: what changes at every step.';


-- ---- events and cached outputs

-- The outbox: what workflows have told, each in the commit that it tells of. Ids of one namespace may
-- commit out of order: a consumer goes by what is not acknowledged, never by the last id it has seen.
CREATE TABLE event (
  namespace text NOT NULL,
  id bigint GENERATED ALWAYS AS IDENTITY,
  queue text NOT NULL,
  message_id text NOT NULL,
  body bytea NOT NULL,
  created_ms bigint NOT NULL,
  workflow_id uuid NOT NULL,
  acknowledged_ms bigint,
  PRIMARY KEY (namespace, id)
);
CREATE INDEX event_queue ON event (namespace, queue, id);
CREATE INDEX event_pending ON event (namespace, queue, id) WHERE acknowledged_ms IS NULL;
CREATE INDEX event_workflow ON event (workflow_id);

-- What tasks of one name have put out, by the key that their definition makes.
CREATE TABLE task_cache (
  namespace text NOT NULL,
  name text NOT NULL,
  key text NOT NULL,
  output bytea NOT NULL,
  expires_ms bigint NOT NULL,
  PRIMARY KEY (namespace, name, key)
);
CREATE INDEX task_cache_expires ON task_cache (expires_ms);

CREATE TYPE saved_event AS (
  n integer,
  namespace text,
  queue text,
  message_id text,
  body bytea,
  created_ms bigint
);

CREATE TYPE saved_cache AS (
  n integer,
  namespace text,
  name text,
  key text,
  output bytea,
  expires_ms bigint
);

-- ---- limits ------------------------------------------------------------------------------------------

-- Rows under a limit only; NULL in all others. `task_limit` > 0 says that a row is one of them; the largest
-- integer where only its rate is limited (a server of the release before takes it under its lock too).
-- limit_name: the task definition whose numbers hold (NULL: that of task_type). rate, rate_window_s: what the
-- row was born under, for a name that is not registered. granted: its hand-out was counted already, and
-- nobody has read it since.
ALTER TABLE task_queue
  ADD COLUMN limit_name text,
  ADD COLUMN rate integer,
  ADD COLUMN rate_window_s integer,
  ADD COLUMN granted boolean;

-- Hand-outs of a rate-limited task definition within its window, counted by the millisecond (of a wide one
-- by a 2,000th of its window). Written by the take that hands out, which holds the name's row of task_limit.
CREATE TABLE task_grant (
  namespace text NOT NULL,
  name text NOT NULL,
  at_ms bigint NOT NULL,
  granted integer NOT NULL,
  PRIMARY KEY (namespace, name, at_ms)
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0,
        autovacuum_vacuum_cost_delay = 0);

-- A row of task_queue that is born under a limit.
CREATE TYPE saved_limited AS (
  n integer,
  seq integer,
  namespace text,
  queue text,
  task_type text,
  rank smallint,
  due_ms bigint,
  size integer,
  task_limit integer,
  response_s integer,
  timeout_s integer,
  total_due_ms bigint,
  redeliver_on_loss boolean,
  limit_name text,
  rate integer,
  rate_window_s integer
);

-- One row for each open workflow of a definition with a rateLimitConfig: it holds one of `slots`, or waits
-- for one in the order (rank, arrived_ms, workflow_id). Deleted by the save that ends the workflow.
CREATE TABLE workflow_slot (
  workflow_id uuid PRIMARY KEY,
  namespace text NOT NULL,
  name text NOT NULL,
  key text NOT NULL,
  slots integer NOT NULL,
  rank smallint NOT NULL,
  arrived_ms bigint NOT NULL,
  holds boolean NOT NULL,
  refusable boolean NOT NULL
);
CREATE INDEX workflow_slot_order ON workflow_slot (namespace, name, key, holds, rank, arrived_ms, workflow_id);

-- Word that slots of a key may be given: written by the save that makes it so, deleted by the transaction
-- that has looked (under an advisory lock of the key). Empty but for a moment.
CREATE TABLE slot_work (
  namespace text NOT NULL,
  name text NOT NULL,
  key text NOT NULL,
  id bigint GENERATED ALWAYS AS IDENTITY,
  PRIMARY KEY (namespace, name, key, id)
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

CREATE TYPE saved_slot AS (
  n integer,
  namespace text,
  name text,
  key text,
  slots integer,
  rank smallint,
  arrived_ms bigint,
  holds boolean,
  refusable boolean
);

-- ---- operations

-- Operations: rows that a rerun or a jump leaves behind (their generation is below 0 from then on), and
-- the input and correlation id that a rerun gives a workflow.
CREATE TYPE saved_move AS (
  n integer,
  seq integer,
  generation integer,
  status smallint,
  updated_ms bigint,
  ended_ms bigint,
  queued boolean,
  reason text
);

CREATE TYPE saved_correction AS (
  n integer,
  input bytea,
  correlation_id text
);

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

-- ---- Search. Lists and searches read `workflow` itself, which each change's own transaction writes; what
-- is here costs nothing to executions that have no parent, key, failure or attribute.

CREATE INDEX workflow_by_parent ON workflow (namespace, parent_id, created_ms DESC, id DESC)
  WHERE parent_id IS NOT NULL;
CREATE INDEX workflow_payload_key ON workflow_payload (idempotency_key) WHERE idempotency_key IS NOT NULL;
-- The words of free text. `reason` is set when an execution fails, and then only.
CREATE INDEX workflow_payload_reason ON workflow_payload USING gin (to_tsvector('simple', reason))
  WHERE reason IS NOT NULL;

-- What the definition's `searchAttributes` came to. kind: 1 text, 2 number, 3 boolean, 4 a value that could
-- not be taken (`text` says why; no condition matches it). `created_ms` is the workflow's: the order of
-- results. `text` of a number is its JSON.
CREATE TABLE search_attribute (
  workflow_id uuid NOT NULL,
  name text NOT NULL,
  namespace text NOT NULL,
  created_ms bigint NOT NULL,
  kind smallint NOT NULL,
  text text COLLATE "C" NOT NULL,
  number numeric,
  PRIMARY KEY (workflow_id, name)
) WITH (fillfactor = 90);
CREATE INDEX search_attribute_text
  ON search_attribute (namespace, name, text, created_ms DESC, workflow_id DESC) WHERE kind IN (1, 3);
CREATE INDEX search_attribute_number
  ON search_attribute (namespace, name, number, created_ms DESC, workflow_id DESC) WHERE kind = 2;
CREATE INDEX search_attribute_words ON search_attribute USING gin (to_tsvector('simple', text))
  WHERE kind IN (1, 3);

CREATE TYPE saved_attribute AS (
  n integer,
  name text,
  namespace text,
  created_ms bigint,
  kind smallint,
  text text,
  number numeric
);

-- One that goes, or all but those in `kept`.
CREATE TYPE saved_attribute_removal AS (
  n integer,
  name text,
  kept text[]
);
