-- The whole workflow language. Expand only: a server of the release before runs on this schema too.
COMMENT ON TABLE workflow IS 'One execution: what changes at every step.';

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
