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
