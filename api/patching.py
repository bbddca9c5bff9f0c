"""JSON Patch (RFC 6902) on the desired state: applying one, and making one from two states. Pure.

The operations themselves are the library's. What is ours: nothing grows without bound while it is applied
(thirty copies of the whole into itself would make a gigabyte), and a difference tells ``1`` from ``true``.
"""

import copy
from typing import Annotated, Any, Final, Literal

import jsonpatch
import msgspec
from jsonpointer import JsonPointerException

from api.problems import INVALID_PATCH, PATCH_NOT_APPLICABLE, PAYLOAD_TOO_LARGE, ApiError
from shadow.document import Tree, same

OPERATIONS_MAX: Final = 1_000
DOCUMENT_BYTES_MAX: Final = 131_072
"""What the document may have between two operations; the end result has the shadow's own, lower bound."""

_encode = msgspec.json.Encoder().encode
_MISSING: Final[Any] = object()


class Operation(msgspec.Struct, omit_defaults=True):
    """One step of a patch. Members that RFC 6902 does not know are ignored, as it demands."""

    op: Literal["add", "remove", "replace", "move", "copy", "test"]
    path: str
    from_: str | msgspec.UnsetType = msgspec.field(name="from", default=msgspec.UNSET)
    value: Any = msgspec.UNSET


Patch = Annotated[list[Operation], msgspec.Meta(max_length=OPERATIONS_MAX)]


def merge_patched(value: Any, patch: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a value with a merge patch carried out on it (RFC 7396)."""
    if type(patch) is not dict:
        return patch
    result: dict[str, Any] = dict(value) if type(value) is dict else {}
    for name, inner in patch.items():
        if inner is None:
            result.pop(name, None)
        else:
            result[name] = merge_patched(result.get(name), inner)
    return result


def apply_patch(desired: Tree, patch: list[Operation]) -> Tree:
    """Return the desired state after all of ``patch``, which speaks of ``{"desired": …}``; or raise."""
    steps = _prepared(patch)
    document: Any = {"desired": copy.deepcopy(desired)}
    for number, step in enumerate(steps):
        document = _applied(document, step, number)
    if type(document) is not dict or not document.keys() <= {"desired"}:
        raise ApiError(INVALID_PATCH, 'what is left must be {"desired": …} and nothing else')
    result = document.get("desired", {})
    if type(result) is not dict:
        raise ApiError(INVALID_PATCH, "desired must stay an object")
    return result


def _prepared(patch: list[Operation]) -> list[jsonpatch.JsonPatch]:
    steps = []
    for number, operation in enumerate(patch):
        try:
            steps.append(jsonpatch.JsonPatch([msgspec.to_builtins(operation)]))
        except (jsonpatch.InvalidJsonPatch, JsonPointerException) as error:
            raise ApiError(INVALID_PATCH, f"operation {number} is not well formed") from error
    return steps


def _applied(document: Any, step: jsonpatch.JsonPatch, number: int) -> Any:  # noqa: ANN401 - any JSON value
    try:
        document = step.apply(document, in_place=True)
        if len(_encode(document)) > DOCUMENT_BYTES_MAX:
            raise ApiError(PAYLOAD_TOO_LARGE, f"after operation {number} the document is too large")
    except jsonpatch.InvalidJsonPatch as error:
        raise ApiError(INVALID_PATCH, f"operation {number} is not well formed") from error
    except jsonpatch.JsonPatchTestFailed as error:
        # The library's text holds both values; ours must not (a value never leaves in an error).
        raise ApiError(PATCH_NOT_APPLICABLE, f"the test of operation {number} failed") from error
    except (jsonpatch.JsonPatchException, JsonPointerException) as error:
        raise ApiError(PATCH_NOT_APPLICABLE, f"operation {number} does not fit the document") from error
    except RecursionError as error:
        raise ApiError(
            INVALID_PATCH, f"after operation {number} the document is nested too deeply"
        ) from error
    except OverflowError as error:
        raise ApiError(INVALID_PATCH, f"a whole number of operation {number} does not fit 64 bits") from error
    return document


def patch_between(old: Tree, new: Tree, above: str = "") -> list[dict[str, Any]]:
    """Return the operations that turn ``old`` into ``new``. Arrays are replaced whole, as in a shadow."""
    operations: list[dict[str, Any]] = [
        {"op": "remove", "path": _pointer(above, name)} for name in old if name not in new
    ]
    for name, value in new.items():
        before = old.get(name, _MISSING)
        if before is _MISSING:
            operations.append({"op": "add", "path": _pointer(above, name), "value": value})
        elif type(before) is dict and type(value) is dict:
            operations += patch_between(before, value, _pointer(above, name))
        elif not (same(before, value) and type(before) is type(value)):
            operations.append({"op": "replace", "path": _pointer(above, name), "value": value})
    return operations


def _pointer(above: str, name: str) -> str:
    return f"{above}/{name.replace('~', '~0').replace('/', '~1')}"
