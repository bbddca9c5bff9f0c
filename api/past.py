"""A shadow as it was: one version of its history, or what it was at a time."""

from litestar.types import Scope

from api.problems import VERSION_NOT_FOUND, ApiError
from api.reading import is_current, rfc3339
from api.replies import Reply, bytes_reply, etag
from infra.clock import MS_PER_S
from shadow import wire
from shadow.archive import Archive
from shadow.document import ShadowId, Tree
from shadow.errors import NoShadowError
from shadow.history import Snapshot


async def at_version(archive: Archive, id: ShadowId, number: int, hidden_before_ms: int) -> Snapshot:
    """Return one version; a deletion is none, nor is what was before the time given."""
    try:
        return _shown(id, await archive.at_version(id, number), hidden_before_ms)
    except NoShadowError as error:
        raise ApiError(VERSION_NOT_FOUND, f"version {number} was never made, or is a deletion") from error


async def at_time(archive: Archive, id: ShadowId, at_ms: int, hidden_before_ms: int) -> Snapshot:
    """Return the newest version that is not later; hidden as by :func:`at_version`."""
    try:
        return _shown(id, await archive.at_time(id, at_ms), hidden_before_ms)
    except NoShadowError as error:
        raise ApiError(VERSION_NOT_FOUND, "there was no such shadow then") from error


def _shown(id: ShadowId, snapshot: Snapshot, hidden_before_ms: int) -> Snapshot:
    if snapshot.at_ms < hidden_before_ms:
        raise NoShadowError(*id)
    return snapshot


def sections(snapshot: Snapshot) -> Tree:
    """Return the state as a shadow shows it: without empty sections."""
    both = {"desired": snapshot.desired.state, "reported": snapshot.reported.state}
    return {name: state for name, state in both.items() if state}


def snapshot_reply(scope: Scope, snapshot: Snapshot) -> Reply:
    """Answer with a version, or that the caller has it."""
    if is_current(scope, snapshot.version):
        return Reply(304, [etag(snapshot.version)])
    document = wire.version_json(snapshot.desired, snapshot.reported, snapshot.version)
    at = b',"timestamp":%d,"at":"%b"}' % (snapshot.at_ms // MS_PER_S, rfc3339(snapshot.at_ms).encode())
    return bytes_reply(document[:-1] + at, fields=(etag(snapshot.version),))
