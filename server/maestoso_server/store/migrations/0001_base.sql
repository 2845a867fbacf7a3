-- The data model. Times are whole milliseconds since 1970 UTC (`*_ms`), always given by the caller:
-- no statement calls now(). Every primary key but those of node and session begins with the
-- namespace or the workflow id, so that tables can be partitioned or distributed by it.
-- A task's id is its workflow's id with the low 24 bits replaced by its seq.

CREATE SEQUENCE node_epoch;

-- One server process. An epoch is never used twice.
CREATE TABLE node (
  epoch bigint PRIMARY KEY,
  node_id text NOT NULL,
  grpc_address text NOT NULL,
  http_address text NOT NULL,
  version text NOT NULL,
  started_ms bigint NOT NULL,
  lease_until_ms bigint NOT NULL,
  draining boolean NOT NULL DEFAULT false,
  degraded boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);

-- One worker stream. `epoch` is the node that serves it; `expires_ms` is set when the stream ended.
-- connected_ms rises with every resume; stream_number is the worker's own count of its streams.
-- `drain_close_ms`: an operator asks the worker to finish; its stream is closed then at the latest.
CREATE TABLE session (
  session_id uuid PRIMARY KEY,
  epoch bigint NOT NULL,
  namespace text NOT NULL,
  worker_id text NOT NULL,
  resume_token_hash bytea NOT NULL,
  task_types text[] NOT NULL,
  principal text NOT NULL,
  sdk text NOT NULL,
  state text NOT NULL CONSTRAINT session_state CHECK (state IN ('ACTIVE', 'DETACHED', 'EXPIRED')),
  connected_ms bigint NOT NULL,
  stream_number bigint NOT NULL DEFAULT 0,
  expires_ms bigint,
  drain_close_ms bigint,
  drain_reason text
) WITH (fillfactor = 70);
CREATE INDEX session_by_epoch ON session (epoch, expires_ms);
-- Sessions that an operator asks to drain: few, and read with every beat of their node.
CREATE INDEX session_drain ON session (epoch) WHERE drain_close_ms IS NOT NULL;

-- `metadata_revision` rises with every put or delete of a definition: a start checks it.
CREATE TABLE namespace (
  name text PRIMARY KEY,
  metadata_revision bigint NOT NULL DEFAULT 1,
  created_ms bigint NOT NULL
);
INSERT INTO namespace (name, created_ms) VALUES ('default', 0);

-- Registered workflow documents: what the next start uses.
CREATE TABLE definition (
  namespace text NOT NULL,
  name text NOT NULL,
  version integer NOT NULL,
  document bytea NOT NULL,
  created_ms bigint NOT NULL,
  created_by text NOT NULL,
  updated_ms bigint NOT NULL,
  updated_by text NOT NULL,
  PRIMARY KEY (namespace, name, version)
);

CREATE TABLE task_definition (
  namespace text NOT NULL,
  name text NOT NULL,
  document bytea NOT NULL,
  created_ms bigint NOT NULL,
  created_by text NOT NULL,
  updated_ms bigint NOT NULL,
  updated_by text NOT NULL,
  PRIMARY KEY (namespace, name)
);

-- What running workflows use: a document with its task definitions and pinned child versions
-- inside. Immutable; the id is derived from the content.
CREATE TABLE snapshot (
  namespace text NOT NULL,
  id uuid NOT NULL,
  format smallint NOT NULL,
  name text NOT NULL,
  version integer NOT NULL,
  document bytea NOT NULL,
  created_ms bigint NOT NULL,
  PRIMARY KEY (namespace, id)
);

-- The narrow, hot row: no column that changes at a step is indexed, so updates are HOT. Lists read it
-- by the indexes below; the one on status is touched when a workflow begins and when it ends. No CHECK:
-- Postgres parses it anew for each statement (2 % of a small save); the save itself refuses bad rows.
CREATE TABLE workflow (
  id uuid PRIMARY KEY,
  namespace text NOT NULL,
  revision bigint NOT NULL,
  status smallint NOT NULL,
  generation integer NOT NULL,
  snapshot_id uuid NOT NULL,
  name text NOT NULL,
  version integer NOT NULL,
  parent_id uuid,
  parent_seq integer NOT NULL,
  priority smallint NOT NULL,
  correlation_id text,
  created_ms bigint NOT NULL,
  clock_ms bigint NOT NULL,
  updated_ms bigint NOT NULL,
  ended_ms bigint NOT NULL,
  next_seq integer NOT NULL,
  open integer NOT NULL,
  permissive_failed integer NOT NULL,
  last_task integer NOT NULL,
  last_node bigint NOT NULL,
  cursor bytea
) WITH (fillfactor = 50);
CREATE INDEX workflow_by_age ON workflow (namespace, created_ms DESC, id DESC);
CREATE INDEX workflow_by_name ON workflow (namespace, name, created_ms DESC, id DESC);
CREATE INDEX workflow_by_status ON workflow (namespace, status, created_ms DESC, id DESC);
CREATE INDEX workflow_by_correlation ON workflow (namespace, correlation_id, created_ms DESC, id DESC)
  WHERE correlation_id IS NOT NULL;

-- What the header carries that is large or changes seldom.
CREATE TABLE workflow_payload (
  workflow_id uuid PRIMARY KEY,
  input bytea NOT NULL,
  output bytea,
  variables bytea NOT NULL,
  task_to_domain bytea,
  reason text,
  failed_task integer NOT NULL,
  created_by text NOT NULL,
  traceparent text NOT NULL,
  idempotency_key text
) WITH (fillfactor = 50);

-- One attempt of one task. `state` is an operator's own record (msgpack, first byte = format).
CREATE TABLE task (
  workflow_id uuid NOT NULL,
  seq integer NOT NULL,
  generation integer NOT NULL,
  reference text NOT NULL,
  path integer[] NOT NULL,
  attempt integer NOT NULL,
  scope integer NOT NULL,
  type text NOT NULL,
  name text NOT NULL,
  status smallint NOT NULL,
  scheduled_ms bigint NOT NULL,
  first_scheduled_ms bigint NOT NULL,
  started_ms bigint NOT NULL DEFAULT 0,
  updated_ms bigint NOT NULL DEFAULT 0,
  ended_ms bigint NOT NULL DEFAULT 0,
  retried_seq integer NOT NULL,
  superseded boolean NOT NULL DEFAULT false,
  queued boolean NOT NULL,
  callback_after_s integer NOT NULL DEFAULT 0,
  poll_count integer NOT NULL DEFAULT 0,
  child_id uuid,
  worker_id text NOT NULL DEFAULT '',
  domain text NOT NULL,
  reason text,
  state bytea,
  input bytea NOT NULL,
  output bytea
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX task_key ON task (workflow_id, generation, reference, path, attempt);
-- What is inside a container (a join's or a loop's output). Only rows of containers are in it, and
-- no column of it changes, so that ending a task stays a HOT update: for the same reason there is no
-- index on status (open and failed rows are found by key, for the rare commands that need them).
CREATE INDEX task_scope ON task (workflow_id, scope, path) WHERE scope > 0;
-- Made last: a plan made while the table is empty is kept, all its indexes cost the same then, and
-- Postgres takes the newest. By another one, finding a row would read all rows of its workflow.
ALTER TABLE task ADD PRIMARY KEY (workflow_id, seq);

-- The ownership of every open worker or system task, from birth to end.
-- owner_epoch: NULL waits for a taker; 0 polled, belongs to no node; -1 asleep until due_ms; else a node.
-- rank: 99 - priority, so that the index order is the order of hand-out.
-- delivery: the fencing token, raised at every hand-out, never reset. unread: deliveries in a row
-- that nobody is known to have read. deadline_ms: of the current delivery, or when an asleep row wakes.
CREATE TABLE task_queue (
  workflow_id uuid NOT NULL,
  seq integer NOT NULL,
  namespace text NOT NULL,
  queue text NOT NULL,
  task_type text NOT NULL,
  rank smallint NOT NULL,
  due_ms bigint NOT NULL,
  size integer NOT NULL,
  task_limit integer NOT NULL,
  response_s integer NOT NULL,
  timeout_s integer NOT NULL,
  total_due_ms bigint NOT NULL,
  redeliver_on_loss boolean NOT NULL,
  owner_epoch bigint,
  session_id uuid,
  delivery integer NOT NULL,
  unread smallint NOT NULL DEFAULT 0,
  ended boolean NOT NULL DEFAULT false,
  deadline_ms bigint,
  started_ms bigint NOT NULL DEFAULT 0,
  progress_ms bigint NOT NULL DEFAULT 0,
  worker_id text NOT NULL DEFAULT ''
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0,
        autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_threshold = 1000000000);
CREATE INDEX task_queue_take ON task_queue (namespace, queue, rank, due_ms, workflow_id, seq)
  WHERE owner_epoch IS NULL AND NOT ended;
CREATE INDEX task_queue_owner ON task_queue (owner_epoch, deadline_ms) WHERE owner_epoch IS NOT NULL;
CREATE INDEX task_queue_ended ON task_queue (owner_epoch) WHERE ended;
CREATE INDEX task_queue_limited ON task_queue (namespace, task_type)
  WHERE owner_epoch IS NOT NULL AND owner_epoch >= 0 AND task_limit > 0 AND NOT ended;
CREATE INDEX task_queue_session ON task_queue (session_id) WHERE session_id IS NOT NULL;
ALTER TABLE task_queue ADD PRIMARY KEY (workflow_id, seq);  -- made last, as that of task

-- Locked by the taker of a limited queue.
CREATE TABLE task_limit (
  namespace text NOT NULL,
  task_type text NOT NULL,
  PRIMARY KEY (namespace, task_type)
);

-- Clocks that no owner of a delivery watches: the workflow's (seq 0), operators', waiting rows',
-- polled rows'. One row each, at the earliest moment at which something can be due.
CREATE TABLE deadline (
  workflow_id uuid NOT NULL,
  seq integer NOT NULL,
  due_ms bigint NOT NULL,
  PRIMARY KEY (workflow_id, seq)
) WITH (fillfactor = 70, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0,
        autovacuum_vacuum_cost_delay = 0);
CREATE INDEX deadline_due ON deadline (due_ms);

-- What one workflow tells another. drain_epoch: the node that applies it while it lives.
-- outcome: the answer for origin_epoch, which deletes the row; until then NULL.
CREATE TABLE inbox (
  workflow_id uuid NOT NULL,
  id bigint GENERATED ALWAYS AS IDENTITY,
  sender_id uuid,
  kind smallint NOT NULL,
  body bytea NOT NULL,
  due_ms bigint NOT NULL,
  parked boolean NOT NULL,
  drain_epoch bigint NOT NULL,
  origin_epoch bigint NOT NULL DEFAULT 0,
  outcome bytea,
  PRIMARY KEY (workflow_id, id)
) WITH (fillfactor = 80, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0,
        autovacuum_vacuum_cost_delay = 0);
CREATE INDEX inbox_due ON inbox (drain_epoch, due_ms) WHERE NOT parked AND outcome IS NULL;
CREATE INDEX inbox_answered ON inbox (origin_epoch) WHERE outcome IS NOT NULL;

-- The branches of a dynamic fork: one immutable document, loaded once.
CREATE TABLE plan_fragment (
  workflow_id uuid NOT NULL,
  seq integer NOT NULL,
  document bytea NOT NULL,
  PRIMARY KEY (workflow_id, seq)
);

CREATE TABLE idempotency (
  namespace text NOT NULL,
  key text NOT NULL,
  workflow_id uuid NOT NULL,
  created_ms bigint NOT NULL,
  PRIMARY KEY (namespace, key)
);

CREATE TABLE task_log (
  workflow_id uuid NOT NULL,
  seq integer NOT NULL,
  id bigint GENERATED ALWAYS AS IDENTITY,
  at_ms bigint NOT NULL,
  line text NOT NULL,
  PRIMARY KEY (workflow_id, seq, id)
);

-- Queues with a live poller or stream, for domains.
CREATE TABLE demand (
  namespace text NOT NULL,
  queue text NOT NULL,
  epoch bigint NOT NULL,
  seen_ms bigint NOT NULL,
  PRIMARY KEY (namespace, queue, epoch)
);

CREATE TABLE audit (
  namespace text NOT NULL,
  id bigint GENERATED ALWAYS AS IDENTITY,
  at_ms bigint NOT NULL,
  principal text NOT NULL,
  action text NOT NULL,
  resource text NOT NULL,
  PRIMARY KEY (namespace, id)
);


-- The shapes in which a save hands its rows to Postgres: one array of a composite a class of rows,
-- half the client's cost of one array a column. `n` is the place of the row's workflow in the save,
-- counted from 1. A later migration that needs another shape makes a new type.
CREATE TYPE saved_start AS (
  n integer,
  id uuid,
  namespace text,
  revision bigint,
  status smallint,
  generation integer,
  snapshot_id uuid,
  name text,
  version integer,
  parent_id uuid,
  parent_seq integer,
  priority smallint,
  correlation_id text,
  created_ms bigint,
  clock_ms bigint,
  updated_ms bigint,
  ended_ms bigint,
  next_seq integer,
  open integer,
  permissive_failed integer,
  last_task integer,
  cursor bytea,
  metadata_revision bigint,
  keyed boolean
);

CREATE TYPE saved_key AS (
  namespace text,
  key text,
  workflow_id uuid,
  created_ms bigint,
  metadata_revision bigint
);

CREATE TYPE saved_header AS (
  n integer,
  revision bigint,
  status smallint,
  generation integer,
  clock_ms bigint,
  updated_ms bigint,
  ended_ms bigint,
  next_seq integer,
  open integer,
  permissive_failed integer,
  last_task integer,
  cursor bytea
);

CREATE TYPE saved_definition AS (
  n integer,
  snapshot_id uuid,
  name text,
  version integer
);

-- Of a start; later only output, variables, reason and failed_task change.
CREATE TYPE saved_payload AS (
  n integer,
  output bytea,
  variables bytea,
  reason text,
  failed_task integer,
  input bytea,
  task_to_domain bytea,
  created_by text,
  traceparent text,
  idempotency_key text
);

CREATE TYPE saved_task AS (
  n integer,
  seq integer,
  generation integer,
  reference text,
  path text,
  attempt integer,
  scope integer,
  type text,
  name text,
  status smallint,
  scheduled_ms bigint,
  first_scheduled_ms bigint,
  started_ms bigint,
  updated_ms bigint,
  ended_ms bigint,
  retried_seq integer,
  superseded boolean,
  queued boolean,
  callback_after_s integer,
  poll_count integer,
  child_id uuid,
  worker_id text,
  domain text,
  reason text,
  state bytea,
  input bytea,
  output bytea
);

-- What may change in a task's row; all else it is born with.
CREATE TYPE saved_change AS (
  n integer,
  seq integer,
  status smallint,
  started_ms bigint,
  updated_ms bigint,
  ended_ms bigint,
  superseded boolean,
  queued boolean,
  callback_after_s integer,
  poll_count integer,
  child_id uuid,
  worker_id text,
  reason text,
  state bytea,
  output bytea
);

-- A queue row that a save ends or puts to sleep. `delivery` NULL: whatever it carries.
-- `wake_ms` NULL: the row ends.
CREATE TYPE saved_touch AS (
  n integer,
  seq integer,
  delivery integer,
  expired boolean,
  wake_ms bigint
);

-- `queue_place` is the place of (namespace, queue, rank) in the save's list of short cuts.
CREATE TYPE saved_birth AS (
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
  session_id uuid,
  queue_place integer
);

CREATE TYPE saved_queue AS (
  namespace text,
  queue text,
  rank smallint
);

-- A row that goes: of `task`, or of `deadline`.
CREATE TYPE saved_removal AS (
  n integer,
  seq integer
);

CREATE TYPE saved_deadline AS (
  n integer,
  seq integer,
  due_ms bigint
);

CREATE TYPE saved_message AS (
  n integer,
  workflow_id uuid,
  kind smallint,
  body bytea,
  due_ms bigint,
  parked boolean
);

CREATE TYPE saved_answer AS (
  n integer,
  id bigint,
  outcome bytea
);

CREATE TYPE saved_fragment AS (
  n integer,
  seq integer,
  document bytea
);
