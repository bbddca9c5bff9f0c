from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.api.rig import Rig, api


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """The API with its defaults, and one thing."""
    async with api(tmp_path) as rig:
        yield rig
