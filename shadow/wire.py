"""The answers of the service as bytes (spec: shadow, sections 5, 6, 8). Pure.

Parts of a document are kept encoded, so an answer is put together from bytes that exist already.
Member order is fixed: a replayed answer must be the same bytes as the first.
"""

from collections.abc import Sequence
from functools import lru_cache

import msgspec

from shadow.document import Part, Stamp, Tree, stamped
from shadow.errors import ShadowError, StaleSequenceError, VersionConflictError

_encode = msgspec.json.Encoder().encode


def update_accepted(
    state: Tree | None, stamp: Stamp, version: int, token: str | None, state_json: bytes | None = None
) -> bytes:
    """Return the body of ``update/accepted``: the request's own sections, each null with a stamp.

    ``state_json`` is the state, for who has encoded it already.
    """
    return b'{"state":%b,"metadata":%b,"version":%d,"timestamp":%d%b}' % (
        state_json or _encode(state),
        _encode(stamp if state is None else stamped(state, stamp)),
        version,
        stamp["timestamp"],
        token_member(token),
    )


def document_accepted(
    desired: Part,
    reported: Part,
    difference: tuple[Tree, Tree],
    version: int,
    timestamp: int,
    token: str | None,
) -> bytes:
    """Return the body of ``get/accepted``; ``delta`` is shown only when there is one."""
    delta, stamps = difference
    shown = Part(delta, stamps, _encode(delta), _encode(stamps)) if delta else None
    states = [*_members(desired, reported), *([b'"delta":' + shown.state_json] if shown else [])]
    metadata = [*_stamp_members(desired, reported), *([b'"delta":' + shown.stamps_json] if shown else [])]
    return b'{"state":{%b},"metadata":{%b},"version":%d,"timestamp":%d%b}' % (
        b",".join(states),
        b",".join(metadata),
        version,
        timestamp,
        token_member(token),
    )


def deleted(version: int, timestamp: int, token: str | None) -> bytes:
    """Return the body of ``delete/accepted``."""
    return b'{"version":%d,"timestamp":%d%b}' % (version, timestamp, token_member(token))


def delta_message(difference: tuple[Tree, Tree], version: int, timestamp: int, token: str | None) -> bytes:
    """Return the body of ``update/delta``: the fields themselves, no section around them."""
    delta, stamps = difference
    return b'{"state":%b,"metadata":%b,"version":%d,"timestamp":%d%b}' % (
        _encode(delta),
        _encode(stamps),
        version,
        timestamp,
        token_member(token),
    )


def version_json(desired: Part, reported: Part, version: int) -> bytes:
    """Return one version of a document as it stands in ``update/documents``."""
    if desired.state and reported.state:  # as most are, and nothing is made more often
        return (
            b'{"state":{"desired":%b,"reported":%b},"metadata":{"desired":%b,"reported":%b},"version":%d}'
            % (desired.state_json, reported.state_json, desired.stamps_json, reported.stamps_json, version)
        )
    return b'{"state":{%b},"metadata":{%b},"version":%d}' % (
        b",".join(_members(desired, reported)),
        b",".join(_stamp_members(desired, reported)),
        version,
    )


def documents_message(previous: bytes | None, current: bytes, timestamp: int, token: str | None) -> bytes:
    """Return the body of ``update/documents``; no previous document is null, also after a deletion."""
    return b'{"previous":%b,"current":%b,"timestamp":%d%b}' % (
        previous or b"null",
        current,
        timestamp,
        token_member(token),
    )


def rejected(error: ShadowError, timestamp: int, token: str | None) -> bytes:
    """Return the body of ``…/rejected``, with the help that a conflict carries."""
    return b'{"code":%d,"message":%b,"timestamp":%d%b%b}' % (
        error.code,
        _encode(error.message),
        timestamp,
        token_member(token),
        b"".join(b',"%b":%b' % (name.encode(), _encode(value)) for name, value in help_of(error).items()),
    )


def help_of(error: ShadowError) -> dict[str, int | str | Sequence[str] | dict[str, int]]:
    """Return the members of ours that tell a client what to do next."""
    told: dict[str, int | str | Sequence[str] | dict[str, int]] = {}
    if isinstance(error, VersionConflictError):
        told["currentVersion"] = error.current_version
        if error.conflicts is not None:
            told["conflicts"] = error.conflicts
    elif isinstance(error, StaleSequenceError):
        epoch, number = error.current_sequence
        told["currentSequence"] = {"epoch": epoch, "number": number}
    if error.detail is not None:
        told["detail"] = error.detail
    return told


@lru_cache(maxsize=1)  # one update echoes the same token four times
def token_member(token: str | None) -> bytes:
    """Return the member that echoes a token, with its comma; empty when there is none to echo."""
    return b"" if token is None else b',"clientToken":' + _encode(token)


def _members(desired: Part, reported: Part) -> list[bytes]:
    return [
        *([b'"desired":' + desired.state_json] if desired.state else ()),
        *([b'"reported":' + reported.state_json] if reported.state else ()),
    ]


def _stamp_members(desired: Part, reported: Part) -> list[bytes]:
    return [
        *([b'"desired":' + desired.stamps_json] if desired.state else ()),
        *([b'"reported":' + reported.stamps_json] if reported.state else ()),
    ]
