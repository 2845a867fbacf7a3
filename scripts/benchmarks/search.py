"""First pages and counters over 1,000,000 executions, through the service.

The rows are written by SQL as saves leave them, spread as in real life: few names have most of the
executions, nearly all are COMPLETED, times reach back 90 days, a third has search attributes. Then each
query of the mix is asked again and again, by two callers at a time, counts by one as well."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from maestoso import Client
from maestoso.search.v1 import search_service_pb2

from .report import Floor, at_most
from .stage import Stage, note, now_ms

NAME = "search"
RUNS = 1
SECONDS = 40.0
"""Of the three measured windows together."""
EXECUTIONS = int(os.environ.get("MAESTOSO_BENCH_EXECUTIONS", "1000000"))
CALLERS = 2
DAYS = 90
FLOORS: list[Floor] = [at_most("first_page_ms_p99", 200), at_most("count_ms_p99", 200)]

# $1 how many, $2 now. 40 names, the first one with a fifth of all; one in ten has a parent.
SHAPES = f"""CREATE UNLOGGED TABLE shape AS
SELECT g,
  (lpad(to_hex(at), 12, '0') || '7' || lpad(to_hex(g % 4096), 3, '0') || '8'
    || substr(md5(g::text), 1, 15))::uuid AS id,
  'flow_' || lpad((floor(power(random(), 2.2) * 40))::text, 2, '0') AS name,
  CASE WHEN u < 0.006 THEN 1 WHEN u < 0.007 THEN 2 WHEN u < 0.95 THEN 3 WHEN u < 0.985 THEN 4
       WHEN u < 0.99 THEN 5 ELSE 6 END AS status,
  at, 1 + g % 3 AS version, at + 1 + (random() * 600000)::bigint AS ended
FROM (SELECT g, random() AS u,
        $2::bigint - ($1::bigint - g) * (86400000::bigint * {DAYS}) / $1::bigint AS at
      FROM generate_series(1, $1::bigint) g) s"""

WORKFLOW = """INSERT INTO workflow (id, namespace, revision, status, generation, snapshot_id, name, version,
  parent_id, parent_seq, priority, correlation_id, created_ms, clock_ms, updated_ms, ended_ms, next_seq, open,
  permissive_failed, last_task, last_node)
SELECT s.id, 'default', 5, s.status, 1, '00000000-0000-4000-8000-00000000000a', s.name, s.version,
  CASE WHEN s.g % 10 = 0 THEN lag(s.id, 7) OVER (ORDER BY s.g) END, 0, s.g % 5, 'order-' || s.g / 3, s.at,
  s.at, s.ended, CASE WHEN s.status < 3 THEN 0 ELSE s.ended END, 4, 0, 0, 3, 1 FROM shape s"""
PAYLOAD = """INSERT INTO workflow_payload (workflow_id, input, output, variables, reason, failed_task,
  created_by, traceparent, idempotency_key)
SELECT s.id, convert_to('{"payload":"' || repeat(md5(s.g::text), 9) || '"}', 'UTF8'), '{}', '{}',
  CASE WHEN s.status > 3 THEN (ARRAY['card declined', 'timed out while waiting for the bank',
    'address not found', 'stock is empty', 'unexpected answer 503'])[1 + s.g % 5] || ' in job ' || s.g END,
  0, 'team-' || s.g % 7, '', CASE WHEN s.g % 4 = 0 THEN 'key-' || s.g END FROM shape s"""
ATTRIBUTE = """INSERT INTO search_attribute (workflow_id, name, namespace, created_ms, kind, text, number)
SELECT s.id, v.name, 'default', s.at, v.kind, v.text, v.number FROM shape s CROSS JOIN LATERAL (VALUES
  ('customer', 1, 'c-' || s.g * 7919 % 50000, NULL),
  ('amount', 2, ((s.g * 31) % 100000)::text, ((s.g * 31) % 100000)::numeric)) v(name, kind, text, number)
WHERE s.g % 3 = 0"""
TABLES = ("workflow", "workflow_payload", "search_attribute")

DAY_MS = 86_400_000


def pages(now: int, sample: Any) -> dict[str, dict[str, Any]]:
    """Name -> what is asked, for first pages."""
    week = now - 7 * DAY_MS
    return {
        "all": {},
        "name": {"query": "workflowType IN (flow_00, flow_07)"},
        "name_status": {"query": "workflowType = flow_30 AND status IN (FAILED, TIMED_OUT)"},
        "failed_week": {"query": f"status = FAILED AND startTime > {week}"},
        "running": {"query": "status IN (RUNNING, PAUSED)"},
        "not_completed": {"query": "NOT status = COMPLETED AND version != 2"},
        "or": {"query": "(status = FAILED AND workflowType = flow_01) OR correlationId = 'order-777'"},
        "or_everywhere": {"query": "priority = 4 OR createdBy = 'team-3'"},
        "correlation": {"query": f"correlationId = '{sample['correlation_id']}'"},
        "wildcard": {"query": "correlationId = 'order-1234*' AND workflowType = 'flow_0*'"},
        "between": {"query": f"startTime BETWEEN {week} AND {week + DAY_MS} AND status = FAILED"},
        "old_range": {"query": f"startTime < {now - 80 * DAY_MS} AND endTime IS NOT NULL"},
        "ended": {"query": f"endTime > {now - DAY_MS}"},
        "id": {"query": f"workflowId = {sample['id']}"},
        "children": {"query": f"parentWorkflowId = {sample['parent_id']}"},
        "top_level": {"query": 'parentWorkflowId = "" AND workflowType = flow_02'},
        "key": {"query": f"idempotencyKey = '{sample['idempotency_key']}'"},
        "customer": {"query": "customer = 'c-17'"},
        "customer_failed": {"query": "customer IN ('c-17', 'c-18') AND status != COMPLETED"},
        "amount": {"query": "amount BETWEEN 10 AND 20"},
        "amount_wide": {"query": "amount > 50000"},
        "reason": {"query": "reasonForIncompletion STARTS_WITH 'card' AND status = FAILED"},
        "nothing": {"query": "priority = 77"},
        "text_rare": {"free_text": f"{sample['word']}"},
        "text_common": {"free_text": "declined"},
        "text_two": {"free_text": "bank waiting", "query": "status = FAILED"},
        "text_nothing": {"free_text": "xylophone"},
        "sort_end": {"query": "status = FAILED", "sort": "endTime:DESC"},
        "sort_oldest": {"sort": "startTime:ASC"},
        "sort_two": {"query": "workflowType = flow_03", "sort": "status:ASC|startTime:DESC"},
        "offset": {"query": "workflowType = flow_00", "start": 5_000},
        "large_page": {"query": "status = COMPLETED", "page_size": 1_000},
    }


def counts(now: int) -> dict[str, dict[str, Any]]:
    """Name -> what is asked, for counters."""
    week = now - 7 * DAY_MS
    return {
        "all": {},
        "by_status": {"group_by": "status"},
        "by_name": {"group_by": "workflowType"},
        "name_by_status": {"query": "workflowType = flow_05", "group_by": "status"},
        "status": {"query": "status = FAILED"},
        "completed": {"query": "status = COMPLETED"},
        "week_by_status": {"query": f"startTime > {week}", "group_by": "status"},
        "name_status": {"query": "workflowType = flow_01 AND status = FAILED"},
        "or": {"query": "status = FAILED OR priority = 1"},
        "customer": {"query": "customer = 'c-17'"},
        "failed_by_version": {"query": "status = FAILED", "group_by": "version"},
        "amount": {"query": "amount > 50000"},
        "text": {"free_text": "declined"},
        "nothing": {"query": "createdBy = nobody"},
    }


@dataclass
class Asked:
    """One query of the mix: how long its answers took, and how many of them were complete."""

    ms: list[float] = field(default_factory=list)
    complete: int = 0


async def run(stage: Stage, seconds: float) -> dict[str, Any]:
    await _fill(stage)
    node = stage.nodes[0] if stage.nodes else await stage.node()
    sample = await stage.pool.fetchrow(
        "SELECT w.id, w.correlation_id, (SELECT c.parent_id FROM workflow c WHERE c.parent_id IS NOT NULL"
        " OFFSET 50 LIMIT 1) AS parent_id, p.idempotency_key, (SELECT split_part(f.reason, ' in job ', 2)"
        " FROM workflow_payload f WHERE f.reason IS NOT NULL LIMIT 1) AS word"
        " FROM workflow w JOIN workflow_payload p ON p.workflow_id = w.id"
        " WHERE p.idempotency_key IS NOT NULL OFFSET $1 LIMIT 1",
        EXECUTIONS // 20,
    )
    async with Client(node.grpc) as client:
        third = seconds / 3
        first = await _measure(pages(now_ms(), sample), client.search_page, third, CALLERS, _whole_page)
        counted = await _measure(counts(now_ms()), client.count, third, CALLERS, _exact)
        alone = await _measure(counts(now_ms()), client.count, third, 1, _exact)
    return {
        **_figures("first_page", first),
        **_figures("count", counted),
        **_figures("count_alone", alone),
    }


def _whole_page(page: Any) -> bool:
    """It did not end early, nor leave out candidates of its order."""
    return not page.partial


def _exact(count: Any) -> bool:
    exact = search_service_pb2.RELATION_EXACT
    return bool(count.total.relation == exact)


async def _measure(
    mix: dict[str, dict[str, Any]],
    ask: Callable[..., Awaitable[Any]],
    seconds: float,
    callers: int,
    complete: Callable[[Any], bool],
) -> dict[str, Asked]:
    """Each query over and over until the time is up."""
    took = {name: Asked() for name in mix}
    for asked in mix.values():
        await ask(**asked)  # what a server does for the first time is not what it does all day
    until = time.monotonic() + seconds

    async def caller(place: int) -> None:
        names = list(mix)
        while time.monotonic() < until:
            place = (place + 1) % len(names)
            began = time.perf_counter()
            answer = await ask(**mix[names[place]])
            asked = took[names[place]]
            asked.ms.append((time.perf_counter() - began) * 1000)
            asked.complete += complete(answer)

    await asyncio.gather(*(caller(number * len(mix) // callers) for number in range(callers)))
    for name, asked in took.items():
        if asked.ms:
            whole = f"{asked.complete} of {len(asked.ms)} complete"
            note(f"  {name:20} {statistics.median(asked.ms):7.1f} ms, at most {max(asked.ms):7.1f}; {whole}")
    return took


def _figures(what: str, took: dict[str, Asked]) -> dict[str, Any]:
    """`complete_share`: of answers that cover all, and are not said to be bounded by their time."""
    every = sorted(ms for asked in took.values() for ms in asked.ms)
    complete = sum(asked.complete for asked in took.values())
    return {
        f"{what}_ms_p50": round(statistics.median(every), 1),
        f"{what}_ms_p99": round(every[min(len(every) * 99 // 100, len(every) - 1)], 1),
        f"{what}_ms_max": round(every[-1], 1),
        f"{what}_complete_share": round(complete / len(every), 3),
        f"{what}_asked": len(every),
    }


async def _fill(stage: Stage) -> None:
    """Rows first, indexes after: a minute instead of several."""
    began = now_ms()
    async with stage.pool.acquire() as connection:
        await connection.execute("SET maintenance_work_mem = '256MB'")
        indexes = await connection.fetch(
            "SELECT i.indexdef, i.indexname FROM pg_indexes i JOIN pg_class c ON c.relname = i.indexname"
            " JOIN pg_index x ON x.indexrelid = c.oid WHERE i.tablename = ANY ($1) AND NOT x.indisprimary",
            list(TABLES),
        )
        for index in indexes:
            await connection.execute(f"DROP INDEX {index['indexname']}")
        await connection.execute(SHAPES, EXECUTIONS, began, timeout=300)
        for statement in (WORKFLOW, PAYLOAD, ATTRIBUTE, "DROP TABLE shape"):
            await connection.execute(statement, timeout=300)
        for index in indexes:
            await connection.execute(index["indexdef"], timeout=300)
        # What autovacuum has done on a database that grew over months.
        await connection.execute(f"VACUUM ANALYZE {', '.join(TABLES)}", timeout=300)
        await connection.execute("CHECKPOINT", timeout=300)
    note(f"  {EXECUTIONS:,} executions, filled in {(now_ms() - began) / 1000:.0f} s")
