"""The exchange of blocks in docs/protocol.md, run through the bridge."""

import json
import re
from pathlib import Path

from ota.stream_service import Stream
from ota.streams import Code
from tests.bridge_rig import make_rig, running, settled, turns
from tests.stream_rig import make_files

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()


def lines():
    found = re.search(r"^```stream\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1].splitlines()


async def test_what_the_page_says_of_blocks_is_what_happens(tmp_path):
    files = make_files()
    image = memoryview(bytes(i % 256 for i in range(600)))
    files.shelf.streams["fw-1"] = Stream("acme T1 2.4.0", {0: image})
    files.allow("th-1", "fw-1")
    rig = make_rig(tmp_path, streams=files.service)
    async with running(rig):
        await rig.register("th-1")
        expected: list[str] = []
        for line in lines():
            way, topic, text = line.split(" ", 2)
            if way == "<":
                expected.append(line)
                continue
            rig.deliver(topic, text.encode())
            await settled(lambda: not len(rig.bridge.streams))
            await turns()
        said = [f"< {one.topic} {json.dumps(json.loads(one.payload))}" for one in rig.session.sent]
        assert said == expected
        assert len(said) == 4


def test_the_page_names_every_code_that_there_is():
    section = PAGE.partition("## Files as blocks")[2].partition("\n## ")[0]
    assert [code for code in Code if f"`{code.value}`" not in section] == []
