"""The statement of a save.

The statement is a data-modifying WITH over arrays of composites (`saved_*` in the schema). Its text
is put together from the classes of rows that the batch has, so that a batch pays only for what it
does; each text is prepared once a connection. Advances are numbered from 1, starts after them; `n`
is that number, and `alive.ids[n]` the id of the workflow, or NOBODY where a guard failed: all parts
below address their rows through it, which is how a workflow that lost its guard writes nothing.

Rules that hold it together (each has a test):

* The node's own row is locked first and read by every guard: a node that lost its lease writes nothing.
* Guards, in this order: header by revision, then every queue row that the save touches, by key. Queue
  rows are locked before task rows: whoever writes both outside a save locks them in that order too.
* No row is written twice by one statement: the second write would silently be lost. A batch holds a
  workflow once.
* Postgres runs the parts as the last SELECT reads their counts: header, payload, inbox,
  task, queue. What is not read (plain inserts) runs last. Arrays are sorted by workflow, then row.
* The counts must add up to what was asked for the workflows whose guards held; else it is our bug and
  the division by zero takes the whole statement back. Not counted: rows that may be gone already
  (released queue rows, cleared deadlines) and plain inserts, which cannot come short.
* No correlated EXISTS: the planner may hash it, a scan of the whole table in a plan kept for ever.
"""

from __future__ import annotations

from functools import cache

NOBODY = "'00000000-0000-0000-0000-000000000000'::uuid"

TYPES = {
    "header_ids": "uuid[]",
    "revisions": "bigint[]",
    "headers": "saved_header[]",
    "definitions": "saved_definition[]",
    "corrections": "saved_correction[]",
    "payloads": "saved_payload[]",
    "start_ids": "uuid[]",
    "starts": "saved_start[]",
    "start_payloads": "saved_payload[]",
    "keys": "saved_key[]",
    "touches": "saved_touch[]",
    "applied": "saved_answer[]",
    "answers": "saved_answer[]",
    "messages": "saved_message[]",
    "task_inserts": "saved_task[]",
    "task_changes": "saved_change[]",
    "task_moves": "saved_move[]",
    "task_removals": "saved_removal[]",
    "queues": "saved_queue[]",
    "births": "saved_birth[]",
    "limited": "saved_limited[]",
    "deadlines": "saved_deadline[]",
    "clears": "saved_removal[]",
    "fragments": "saved_fragment[]",
    "attributes": "saved_attribute[]",
    "attribute_removals": "saved_attribute_removal[]",
    "events": "saved_event[]",
    "caches": "saved_cache[]",
    "slots": "saved_slot[]",
    "slots_back": "integer[]",
    "expected": "integer[]",
}
"""Every array that a save may carry, in the order of its parameters from $3 on; empty ones are left out."""


UNGUARDED = "unguarded"
Array = dict[str, str]
"""Of each array that is present: how the statement names it."""


@cache
def text(present: frozenset[str]) -> str:
    """The statement for a batch that has these arrays. $1 this node's epoch, $2 now in milliseconds,
    from $3 on the present arrays in the order of `TYPES`."""
    names = [name for name in TYPES if name in present]
    array = {name: f"${place}::{TYPES[name]}" for place, name in enumerate(names, 3)}
    parts = [_SELF]
    for build in (_headers, _touches, _starts, _alive, _workflows, _inbox, _tasks, _queue, _rest):
        parts += build(array)
    return "/* save */\nWITH " + ",\n".join(parts) + "\n" + _answer(array, UNGUARDED in present)


_SELF = """self AS MATERIALIZED (
  SELECT true AS alive, $2::bigint AS now_ms FROM node n WHERE n.epoch = $1::bigint FOR KEY SHARE)"""

_ALIVE = "(SELECT alive FROM self)"


def _id(alias: str) -> str:
    """The id of the workflow that a row belongs to, NOBODY where its guard failed. For updates: a
    join with `alive` would copy the ids with every row."""
    return f"((SELECT ids FROM alive))[{alias}.n]"


def _fresh(array: str) -> str:
    """FROM and WHERE of an insert: the rows `i` of an array whose workflow is fresh, as a.ids[i.n]."""
    return f"FROM alive a CROSS JOIN unnest({array}) i WHERE a.ids[i.n] <> {NOBODY}"


def _current(alias: str) -> str:
    return (
        f"({alias}.metadata_revision IS NULL OR {alias}.metadata_revision ="
        f" (SELECT s.metadata_revision FROM namespace s WHERE s.name = {alias}.namespace))"
    )


# ---- guards


def _headers(array: Array) -> list[str]:
    if "headers" not in array:
        return []
    return [
        f"""heads AS MATERIALIZED (
  SELECT array_agg(coalesce(w.id, {NOBODY}) ORDER BY i.n) AS ids
  FROM unnest({array["header_ids"]}, {array["revisions"]}) WITH ORDINALITY i(id, revision, n)
  LEFT JOIN LATERAL (
    SELECT w.id FROM workflow w WHERE w.id = i.id AND w.revision = i.revision AND {_ALIVE}
    FOR NO KEY UPDATE) w ON true)"""
    ]


def _touches(array: Array) -> list[str]:
    if "touches" not in array:
        return []
    lost = f"h.guarded AND h.found IS NULL AND ((SELECT ids FROM heads))[h.n] <> {NOBODY}"
    foreign = "h.owner_epoch > 0 AND h.owner_epoch <> $1"
    return [
        f"""held AS MATERIALIZED (
  SELECT t.n, t.seq, t.wake_ms, t.place, t.delivery IS NOT NULL AS guarded, q.found, q.owner_epoch
  FROM unnest({array["touches"]}) WITH ORDINALITY t(n, seq, delivery, expired, wake_ms, place)
  LEFT JOIN LATERAL (
    SELECT true AS found, q.owner_epoch FROM task_queue q
    WHERE q.workflow_id = ((SELECT ids FROM heads))[t.n] AND q.seq = t.seq AND NOT q.ended
      AND (t.delivery IS NULL OR q.delivery = t.delivery) AND (NOT t.expired OR q.deadline_ms <= $2)
    FOR UPDATE) q ON true)""",
        f"""tally AS MATERIALIZED (
  SELECT array_agg(h.n::bigint) FILTER (WHERE {lost}) AS lost_ns,
    array_agg(h.place) FILTER (WHERE {lost}) AS lost,
    array_agg(h.place) FILTER (WHERE {foreign}) AS foreign_places,
    array_agg(h.owner_epoch) FILTER (WHERE {foreign}) AS foreign_owners
  FROM held h)""",
    ]


def _starts(array: Array) -> list[str]:
    if "starts" not in array:
        return []
    parts = []
    won = ""
    if "keys" in array:
        won = "AND (NOT i.keyed OR i.id IN (SELECT k.workflow_id FROM keys k))"
        parts.append(f"""keys AS (
  INSERT INTO idempotency (namespace, key, workflow_id, created_ms)
  SELECT k.namespace, k.key, k.workflow_id, k.created_ms FROM unnest({array["keys"]}) k
  WHERE {_ALIVE} AND {_current("k")}
  ON CONFLICT DO NOTHING RETURNING workflow_id)""")
    parts.append(f"""born AS (
  INSERT INTO workflow (id, namespace, revision, status, generation, snapshot_id, name, version, parent_id,
    parent_seq, priority, correlation_id, created_ms, clock_ms, updated_ms, ended_ms, next_seq, open,
    permissive_failed, last_task, last_node, cursor)
  SELECT i.id, i.namespace, i.revision, i.status, i.generation, i.snapshot_id, i.name, i.version, i.parent_id,
    i.parent_seq, i.priority, i.correlation_id, i.created_ms, i.clock_ms, i.updated_ms, i.ended_ms,
    i.next_seq, i.open, i.permissive_failed, i.last_task, $1, i.cursor
  FROM unnest({array["starts"]}) i
  WHERE {_ALIVE} AND {_current("i")} {won}
  ON CONFLICT DO NOTHING RETURNING id)""")
    return parts


def _alive(array: Array) -> list[str]:
    """The ids of all that passed their guards, by `n`."""
    sources = []
    if "headers" in array:
        source = "(SELECT ids FROM heads)"
        if "touches" in array:
            source = f"""CASE WHEN (SELECT lost_ns FROM tally) IS NULL THEN {source} ELSE (
    SELECT array_agg(CASE WHEN u.n = ANY ((SELECT lost_ns FROM tally)::bigint[])
      THEN {NOBODY} ELSE u.id END ORDER BY u.n)
    FROM unnest({source}) WITH ORDINALITY u(id, n)) END"""
        sources.append(source)
    if "starts" in array:
        ids = array["start_ids"]
        sources.append(f"""CASE WHEN (SELECT count(*) FROM born) = cardinality({ids}) THEN {ids} ELSE (
    SELECT array_agg(CASE WHEN u.id IN (SELECT b.id FROM born b) THEN u.id ELSE {NOBODY} END ORDER BY u.n)
    FROM unnest({ids}) WITH ORDINALITY u(id, n)) END""")
    return [f"alive AS MATERIALIZED (SELECT {' || '.join(sources)} AS ids)"]


# ---- what is written


def _workflows(array: Array) -> list[str]:
    parts = []
    if "headers" in array:
        redefined = joined = ""
        if "definitions" in array:
            redefined = """snapshot_id = coalesce(d.snapshot_id, w.snapshot_id),
    name = coalesce(d.name, w.name), version = coalesce(d.version, w.version),"""
            joined = f"LEFT JOIN unnest({array['definitions']}) d ON d.n = i.n"
        if "corrections" in array:
            redefined += (
                "correlation_id = CASE WHEN c.n IS NULL THEN w.correlation_id ELSE c.correlation_id END,"
            )
            joined += f" LEFT JOIN unnest({array['corrections']}) c ON c.n = i.n"
        parts.append(f"""moved AS (
  UPDATE workflow w SET {redefined} revision = i.revision, status = i.status, generation = i.generation,
    clock_ms = i.clock_ms, updated_ms = i.updated_ms, ended_ms = i.ended_ms, next_seq = i.next_seq,
    open = i.open, permissive_failed = i.permissive_failed, last_task = i.last_task, cursor = i.cursor,
    last_node = $1
  FROM unnest({array["headers"]}) i {joined}
  WHERE w.id = {_id("i")} RETURNING 1)""")
    if "payloads" in array:
        corrected = joined = ""
        if "corrections" in array:
            corrected = "input = coalesce(c.input, p.input),"
            joined = f"LEFT JOIN unnest({array['corrections']}) c ON c.n = i.n"
        parts.append(f"""repaid AS (
  UPDATE workflow_payload p SET {corrected} output = i.output, variables = i.variables, reason = i.reason,
    failed_task = i.failed_task
  FROM unnest({array["payloads"]}) i {joined} WHERE p.workflow_id = {_id("i")} RETURNING 1)""")
    if "starts" in array:
        parts.append(f"""paid AS (
  INSERT INTO workflow_payload (workflow_id, input, output, variables, task_to_domain, reason, failed_task,
    created_by, traceparent, idempotency_key)
  SELECT a.ids[i.n], i.input, i.output, i.variables, i.task_to_domain, i.reason, i.failed_task, i.created_by,
    i.traceparent, i.idempotency_key
  {_fresh(array["start_payloads"])})""")
    return parts


def _inbox(array: Array) -> list[str]:
    parts = []
    if "applied" in array:
        parts.append(f"""applied AS (
  DELETE FROM inbox x USING unnest({array["applied"]}) i
  WHERE x.workflow_id = {_id("i")} AND x.id = i.id RETURNING 1)""")
    if "answers" in array:
        parts.append(f"""answered AS (
  UPDATE inbox x SET outcome = i.outcome FROM unnest({array["answers"]}) i
  WHERE x.workflow_id = {_id("i")} AND x.id = i.id RETURNING 1)""")
    if "messages" in array:
        parts.append(f"""sent AS (
  INSERT INTO inbox (workflow_id, sender_id, kind, body, due_ms, parked, drain_epoch)
  SELECT i.workflow_id, a.ids[i.n], i.kind, i.body, i.due_ms, i.parked, $1
  {_fresh(array["messages"])} RETURNING id)""")
    return parts


def _tasks(array: Array) -> list[str]:
    parts = []
    if "task_changes" in array:
        # Start, worker and number of hand-outs are written behind, past the engine: kept where it knows none.
        parts.append(f"""changed AS (
  UPDATE task t SET status = i.status,
    started_ms = CASE i.started_ms WHEN 0 THEN t.started_ms ELSE i.started_ms END,
    updated_ms = i.updated_ms, ended_ms = i.ended_ms, superseded = i.superseded, queued = i.queued,
    callback_after_s = i.callback_after_s, poll_count = greatest(t.poll_count, i.poll_count),
    child_id = i.child_id, worker_id = CASE i.worker_id WHEN '' THEN t.worker_id ELSE i.worker_id END,
    reason = i.reason, state = i.state, output = i.output
  FROM unnest({array["task_changes"]}) i
  WHERE t.workflow_id = {_id("i")} AND t.seq = i.seq RETURNING 1)""")
    if "task_moves" in array:
        # Read by the last SELECT, so done before the plain inserts that take over their keys.
        parts.append(f"""rehung AS (
  UPDATE task t SET generation = i.generation, superseded = true, status = i.status,
    updated_ms = i.updated_ms, ended_ms = i.ended_ms, queued = i.queued, reason = i.reason
  FROM unnest({array["task_moves"]}) i
  WHERE t.workflow_id = {_id("i")} AND t.seq = i.seq RETURNING 1)""")
    if "task_removals" in array:
        parts.append(f"""dropped AS (
  DELETE FROM task t USING unnest({array["task_removals"]}) i
  WHERE t.workflow_id = {_id("i")} AND t.seq = i.seq RETURNING 1)""")
    if "task_inserts" in array:
        parts.append(f"""added AS (
  INSERT INTO task (workflow_id, seq, generation, reference, path, attempt, scope, type, name, status,
    scheduled_ms, first_scheduled_ms, started_ms, updated_ms, ended_ms, retried_seq, superseded, queued,
    callback_after_s, poll_count, child_id, worker_id, domain, reason, state, input, output)
  SELECT a.ids[i.n], i.seq, i.generation, i.reference, i.path::integer[], i.attempt, i.scope, i.type, i.name,
    i.status, i.scheduled_ms, i.first_scheduled_ms, i.started_ms, i.updated_ms, i.ended_ms, i.retried_seq,
    i.superseded, i.queued, i.callback_after_s, i.poll_count, i.child_id, i.worker_id, i.domain, i.reason,
    i.state, i.input, i.output
  {_fresh(array["task_inserts"])})""")
    return parts


def _queue(array: Array) -> list[str]:
    parts = []
    if "touches" in array:
        parts += [
            f"""ended AS (
  DELETE FROM task_queue q USING held h
  WHERE q.workflow_id = {_id("h")} AND q.seq = h.seq AND h.found AND h.wake_ms IS NULL
    AND (h.owner_epoch IS NULL OR h.owner_epoch <= 0 OR h.owner_epoch = $1) RETURNING 1)""",
            f"""kept AS (
  UPDATE task_queue q SET ended = h.wake_ms IS NULL,
    owner_epoch = CASE WHEN h.wake_ms IS NULL THEN q.owner_epoch WHEN h.wake_ms > $2 THEN -1 END,
    session_id = CASE WHEN h.wake_ms IS NULL THEN q.session_id END,
    due_ms = coalesce(h.wake_ms, q.due_ms),
    deadline_ms = CASE WHEN h.wake_ms IS NULL THEN q.deadline_ms WHEN h.wake_ms > $2 THEN h.wake_ms END,
    unread = 0, progress_ms = 0, worker_id = '',
    granted = CASE WHEN h.wake_ms IS NULL THEN q.granted END
  FROM held h
  WHERE q.workflow_id = {_id("h")} AND q.seq = h.seq AND h.found
    AND (h.wake_ms IS NOT NULL OR (h.owner_epoch > 0 AND h.owner_epoch <> $1)) RETURNING 1)""",
        ]
    if "births" in array:
        parts += _births(array)
    if "limited" in array:
        parts.append(f"""limited AS (
  INSERT INTO task_queue (workflow_id, seq, namespace, queue, task_type, rank, due_ms, size, task_limit,
    response_s, timeout_s, total_due_ms, redeliver_on_loss, owner_epoch, delivery, deadline_ms, limit_name,
    rate, rate_window_s)
  SELECT a.ids[i.n], i.seq, i.namespace, i.queue, i.task_type, i.rank, i.due_ms, i.size, i.task_limit,
    i.response_s, i.timeout_s, i.total_due_ms, i.redeliver_on_loss, CASE WHEN i.due_ms > $2 THEN -1 END, 0,
    CASE WHEN i.due_ms > $2 THEN i.due_ms END, i.limit_name, i.rate, i.rate_window_s
  {_fresh(array["limited"])})""")
    return parts


def _births(array: Array) -> list[str]:
    parts = []
    owned, probed = "false", ""
    if "queues" in array:
        # Whatever is in the take index may be taken now; what has a rank as good as ours goes first.
        parts.append(f"""ahead AS MATERIALIZED (
  SELECT array_agg((
    SELECT true FROM task_queue q
    WHERE q.namespace = s.namespace AND q.queue = s.queue AND q.rank <= s.rank
      AND q.owner_epoch IS NULL AND NOT q.ended LIMIT 1) ORDER BY s.place) AS waiting
  FROM unnest({array["queues"]}) WITH ORDINALITY s(namespace, queue, rank, place))""")
        owned = "i.session_id IS NOT NULL AND h.waiting[i.queue_place] IS NULL"
        probed = "CROSS JOIN ahead h"
    parts.append(f"""queued AS (
  INSERT INTO task_queue (workflow_id, seq, namespace, queue, task_type, rank, due_ms, size, task_limit,
    response_s, timeout_s, total_due_ms, redeliver_on_loss, owner_epoch, session_id, delivery, deadline_ms)
  SELECT a.ids[i.n], i.seq, i.namespace, i.queue, i.task_type, i.rank, i.due_ms, i.size, i.task_limit,
    i.response_s, i.timeout_s, i.total_due_ms, i.redeliver_on_loss,
    CASE WHEN {owned} THEN $1 WHEN i.due_ms > $2 THEN -1 END,
    CASE WHEN {owned} THEN i.session_id END,
    ({owned})::integer,
    CASE WHEN i.due_ms > $2 THEN i.due_ms END
  FROM alive a {probed} CROSS JOIN unnest({array["births"]}) i WHERE a.ids[i.n] <> {NOBODY})""")
    return parts


def _rest(array: Array) -> list[str]:
    parts = []
    if "deadlines" in array:
        parts.append(f"""armed AS (
  INSERT INTO deadline (workflow_id, seq, due_ms)
  SELECT a.ids[i.n], i.seq, i.due_ms {_fresh(array["deadlines"])}
  ON CONFLICT (workflow_id, seq) DO UPDATE SET due_ms = excluded.due_ms)""")
    if "clears" in array:
        parts.append(f"""cleared AS (
  DELETE FROM deadline d USING unnest({array["clears"]}) i
  WHERE d.workflow_id = {_id("i")} AND d.seq = i.seq)""")
    if "fragments" in array:
        parts.append(f"""forked AS (
  INSERT INTO plan_fragment (workflow_id, seq, document)
  SELECT a.ids[i.n], i.seq, i.document {_fresh(array["fragments"])})""")
    if "attributes" in array:
        parts.append(f"""found_by AS (
  INSERT INTO search_attribute (workflow_id, name, namespace, created_ms, kind, text, number)
  SELECT a.ids[i.n], i.name, i.namespace, i.created_ms, i.kind, i.text, i.number
  {_fresh(array["attributes"])}
  ON CONFLICT (workflow_id, name) DO UPDATE SET kind = excluded.kind, text = excluded.text,
    number = excluded.number)""")
    if "attribute_removals" in array:
        parts.append(f"""unfound AS (
  DELETE FROM search_attribute s USING unnest({array["attribute_removals"]}) i
  WHERE s.workflow_id = {_id("i")} AND (s.name = i.name OR NOT s.name = ANY (i.kept)))""")
    if "events" in array:
        parts.append(f"""told AS (
  INSERT INTO event (namespace, queue, message_id, body, created_ms, workflow_id)
  SELECT i.namespace, i.queue, i.message_id, i.body, i.created_ms, a.ids[i.n] {_fresh(array["events"])})""")
    if "caches" in array:
        # Sorted, since others write the same keys: two saves must not wait for one another.
        parts.append(f"""remembered AS (
  INSERT INTO task_cache (namespace, name, key, output, expires_ms)
  SELECT DISTINCT ON (i.namespace, i.name, i.key) i.namespace, i.name, i.key, i.output, i.expires_ms
  {_fresh(array["caches"])}
  ORDER BY i.namespace, i.name, i.key, i.expires_ms DESC
  ON CONFLICT (namespace, name, key) DO UPDATE
  SET output = excluded.output, expires_ms = excluded.expires_ms)""")
    if "slots" in array:
        parts += _slots(array["slots"])
    if "slots_back" in array:
        parts.append(f"""unslotted AS (
  DELETE FROM workflow_slot s USING unnest({array["slots_back"]}) i(n)
  WHERE s.workflow_id = {_id("i")} RETURNING s.namespace, s.name, s.key)""")
        parts.append("""slots_free AS (
  INSERT INTO slot_work (namespace, name, key)
  SELECT DISTINCT u.namespace, u.name, u.key FROM unslotted u)""")
    return parts


def _slots(array: str) -> list[str]:
    """Slots taken or asked for, and word of those asked for."""
    return [
        f"""slotted AS (
  INSERT INTO workflow_slot (workflow_id, namespace, name, key, slots, rank, arrived_ms, holds, refusable)
  SELECT a.ids[i.n], i.namespace, i.name, i.key, i.slots, i.rank, i.arrived_ms, i.holds, i.refusable
  {_fresh(array)}
  ON CONFLICT (workflow_id) DO UPDATE SET namespace = excluded.namespace, name = excluded.name,
    key = excluded.key, slots = excluded.slots, rank = excluded.rank, arrived_ms = excluded.arrived_ms,
    holds = excluded.holds, refusable = excluded.refusable)""",
        f"""slots_wanted AS (
  INSERT INTO slot_work (namespace, name, key)
  SELECT DISTINCT i.namespace, i.name, i.key {_fresh(array)} AND NOT i.holds)""",
    ]


# ---- the answer

_COUNTED = (
    ("headers", "moved"),
    ("payloads", "repaid"),
    ("applied", "applied"),
    ("answers", "answered"),
    ("task_changes", "changed"),
    ("task_moves", "rehung"),
    ("task_removals", "dropped"),
    ("touches", "ended"),
    ("touches", "kept"),
)


def _answer(array: Array, unguarded: bool) -> str:
    """The last SELECT: its counts drive the parts in this order and must add up."""
    counts = [f"(SELECT count(*) FROM {part})" for name, part in _COUNTED if name in array]
    expected = f"""(SELECT coalesce(sum(i.counted), 0)
    FROM unnest({array["expected"]}) WITH ORDINALITY i(counted, n) WHERE {_id("i")} <> {NOBODY})"""
    if unguarded:
        expected += f"""
    + (SELECT count(*) FROM held h WHERE h.found AND NOT h.guarded AND {_id("h")} <> {NOBODY})"""
    lost = foreign = owners = waiting = sent = "NULL::bigint[]"
    if "touches" in array:
        lost, foreign, owners = (
            f"(SELECT {column} FROM tally)" for column in ("lost", "foreign_places", "foreign_owners")
        )
    if "queues" in array:
        waiting = "(SELECT waiting FROM ahead)"
    if "messages" in array:
        sent = "(SELECT array_agg(s.id ORDER BY s.id) FROM sent s)"
    return f"""SELECT {_ALIVE} AS node,
  1 / ({" + ".join(counts or ["0"])} = {expected})::integer AS counts_agree,
  array_positions((SELECT ids FROM alive), {NOBODY}) AS stale,
  {lost} AS lost, {foreign} AS foreign_places, {owners} AS foreign_owners,
  {waiting} AS waiting, {sent} AS sent"""
