"""The walk over every role and route, in a process of its own so that a hole can be planted for it alone.

``python -m tests.attack.walk [--hole=NAME …]`` prints what :func:`tests.api.matrix.walk` found.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from security.policy import Role
from tests.api.matrix import walk
from tests.api.rig import HALL, api
from tests.attack import holes
from tests.system.child import ROOT

HOLE: Final = "--hole="
PATIENCE_S: Final = 120


class Walked(msgspec.Struct, frozen=True):
    """How many calls were made, and which did not go as the table says."""

    tried: int
    found: list[str]
    own: int
    """What an operator hears who reads something that they may: without it nothing is proved."""

    @property
    def told_apart(self) -> list[str]:
        """Findings that let somebody tell what is foreign from what is absent."""
        return [one for one in self.found if "cost" in one or "or otherwise" in one or "looked it up" in one]


def in_a_process(planted: Sequence[str]) -> Walked:
    """Walk in a child with these holes."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.attack.walk", *(f"{HOLE}{name}" for name in planted)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        timeout=PATIENCE_S,
        check=True,
    )
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Walked)


async def _walked(directory: Path) -> Walked:
    async with api(directory, url="memory:", compat_http=True) as rig:
        own = (await rig.by[Role.CUSTOMER].get(f"/v1/things/{HALL}")).status_code
        tried, found = await walk(rig)
    return Walked(tried, found, own)


if __name__ == "__main__":
    for word in sys.argv[1:]:
        holes.plant(word.removeprefix(HOLE))
    with tempfile.TemporaryDirectory(prefix="gnomon-walk-") as name:
        print(msgspec.json.encode(asyncio.run(_walked(Path(name)))).decode())
