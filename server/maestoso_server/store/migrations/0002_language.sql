-- The whole workflow language. Expand only: a server of the release before runs on this schema too.
COMMENT ON TABLE workflow IS 'One execution: what changes at every step.';

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

CREATE TYPE saved_attribute_removal AS (
  n integer,
  name text
);
