"""Keys, images and releases over every kind of store, with another process going on half-way."""

import asyncio
from collections.abc import Sequence

import pytest

from infra.documents.port import Collection
from ota.collections import COLLECTIONS as OTA
from ota.errors import VersionUsedError
from ota.states import ReleaseState
from registry.collections import COLLECTIONS
from security import audit
from security.audited import RecordBusyError
from tests import ota_base as base
from tests.covers import covers
from tests.release_rig import AUTHOR, MANIFEST, OFFICER, OTHER, new, of_image, rig


@pytest.fixture
def store_collections() -> Sequence[Collection]:
    return [*COLLECTIONS, *OTA]


@pytest.fixture
def store_logs() -> Sequence[str]:
    return [audit.LOG]


@covers("S3.1-s")
async def test_what_one_process_brought_another_lets_out_and_a_third_withdraws(store, tmp_path):
    here, there = await rig(tmp_path, store), await rig(tmp_path, store)
    release = await here.releases.create(new(), AUTHOR, key="k")
    assert await there.releases.create(new(), AUTHOR, key="k") == release
    await there.releases.let_out(release.id, OTHER)
    assert [one.id for one in await here.releases.released("acme-t1")] == [release.id]
    by_state = await here.releases.page(AUTHOR, ReleaseState.RELEASED, 10)
    assert [one.id for one in by_state.records] == [release.id]
    assert (await there.images.image(MANIFEST.sha256, AUTHOR)).size == len(base.IMAGE)
    await here.releases.withdraw(release.id, AUTHOR)
    assert await there.releases.published(release.stream) is None


async def test_of_two_images_for_one_version_at_once_one_wins(store, tmp_path):
    here, there = await rig(tmp_path, store), await rig(tmp_path, store)
    data = b"a" * 5_000
    await here.send(data)
    ends = await asyncio.gather(
        here.releases.create(new(), AUTHOR, key="1"),
        there.releases.create(new(of_image(data)), OTHER, key="2"),
        return_exceptions=True,
    )
    lost = [one for one in ends if isinstance(one, Exception)]
    assert len(lost) == 1
    assert isinstance(lost[0], VersionUsedError | RecordBusyError)
    assert len((await here.releases.page(AUTHOR, None, 10)).records) == 1


async def test_two_processes_sign_by_one_key_and_no_number_of_the_list_is_given_twice(store, tmp_path):
    here, there = await rig(tmp_path, store), await rig(tmp_path, store)
    before = (await here.keys.ring()).number
    first, second = await asyncio.gather(here.keys.sign(base.ORDER), there.keys.sign(base.ORDER))
    assert first == second, "the same key, and no chance in it"
    assert (await there.keys.ring()).number == before + 1
    await asyncio.gather(
        here.keys.revoke(base.VENDOR_KID.hex(), OFFICER), there.keys.revoke(base.UTILITY_KID.hex(), OFFICER)
    )
    assert (await here.keys.ring()).number == before + 3
