"""Ids: their shape, their order, and what is refused."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maestoso_server import ids

workflows = st.uuids().map(str)
seqs = st.integers(1, ids.MAX_SEQ)


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_workflow_id_is_a_uuid_7_of_its_time(now_ms: int, randomness: bytes) -> None:
    made = uuid.UUID(ids.workflow_id(now_ms, randomness))

    assert (made.version, made.variant, made.int >> 80) == (7, uuid.RFC_4122, now_ms)


def test_workflow_ids_differ_and_sort_by_time() -> None:
    made = [ids.workflow_id(1_750_000_000_000 + turn) for turn in range(100)]

    assert len(set(made)) == 100
    assert made == sorted(made)


@given(workflows, seqs)
def test_task_id_leads_back_to_its_workflow_and_seq(workflow: str, seq: int) -> None:
    task = ids.task_id(workflow, seq)
    low, high, found = ids.split_task_id(task)

    assert low <= workflow <= high
    assert found == seq
    assert ids.canonical(task) == task


@given(workflows, seqs, st.integers(0, 2**31 - 1))
def test_token_is_24_bytes_and_reads_back(workflow: str, seq: int, delivery: int) -> None:
    token = ids.make_token(workflow, seq, delivery)

    assert len(token) == ids.TOKEN_BYTES
    assert ids.read_token(token) == (workflow, seq, delivery)


@pytest.mark.parametrize("token", [b"", b"x" * 23, b"x" * 25, bytes(24), b"\xff" * 24])
def test_token_that_we_did_not_make_is_none(token: bytes) -> None:
    assert ids.read_token(token) is None


def test_child_id_is_the_version_3_uuid_of_its_name() -> None:
    # java.util.UUID.nameUUIDFromBytes("subworkflow:p:t:0") as MD5 has it.
    child = ids.child_id("p", "t", 0)

    assert uuid.UUID(child).version == 3
    assert child == ids.child_id("p", "t", 0)
    assert child != ids.child_id("p", "t", 1)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("01977420-DC00-7679-8629-374509636667", "01977420-dc00-7679-8629-374509636667"),
        ("01977420dc0076798629374509636667", None),
        ("{01977420-dc00-7679-8629-37450963666}", None),
        ("01977420-dc00-7679-8629-37450963666g", None),
        ("", None),
    ],
)
def test_canonical_form(text: str, form: str | None) -> None:
    assert ids.canonical(text) == form
