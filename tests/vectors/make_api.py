"""Writes the API's golden files: the OpenAPI document, and the words of its problems.

`python tests/vectors/make_api.py` writes ``openapi.json`` and ``problems.txt`` beside this file.
"""

import asyncio
import re
import sys
import tempfile
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parents[2]))

from api.problems import KINDS
from tests.api.rig import api

OPENAPI = Path(__file__).with_name("openapi.json")
PROBLEMS = Path(__file__).with_name("problems.txt")
SMALL = re.compile(rb"([{\[])\n\s+([^{}\[\]]{1,150}?)\n\s*([}\]])")
"""A list or an object of few words is one line: the file stays small, and what changed in it easy to see."""


async def document() -> bytes:
    """Return the OpenAPI document, without the version of this Gnomon."""
    with tempfile.TemporaryDirectory() as folder:
        async with api(Path(folder), url="memory:") as rig:
            value = (await rig.stranger.get("/docs/openapi.json")).json()
    value["info"]["version"] = "0.0.0"
    spread = msgspec.json.format(msgspec.json.encode(value), indent=1)
    return SMALL.sub(lambda part: part[1] + re.sub(rb"\n\s+", b" ", part[2]) + part[3], spread) + b"\n"


def words() -> str:
    return "".join(f"{kind.status} {kind.slug}\n" for kind in KINDS)


if __name__ == "__main__":
    OPENAPI.write_bytes(asyncio.run(document()))
    PROBLEMS.write_text(words())
