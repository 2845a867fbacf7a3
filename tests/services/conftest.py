from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from services_kit import Served, serve


@pytest.fixture
async def served(database_url: str) -> AsyncIterator[Served]:
    async with serve(database_url) as opened:
        yield opened
