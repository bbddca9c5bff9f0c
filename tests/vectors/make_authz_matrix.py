"""Prints the whole permission table, asked cell by cell: a changed permission is a diff somebody can read.

`python tests/vectors/make_authz_matrix.py` writes ``authz_matrix.txt`` beside this file: first the actions,
each cell naming the relations to the target that suffice, then the shadows.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[2]))

from security.policy import (
    FREE,
    SHADOWS,
    Access,
    Action,
    Principal,
    Role,
    Target,
    may,
    may_access,
    needs_second_person,
    needs_step_up,
)

PATH = Path(__file__).with_name("authz_matrix.txt")
NAMES = (*sorted(set(SHADOWS) - {FREE}), "anything-else")
NAME: Final = "me"
ACCOUNT: Final = "my-account"
PREMISES: Final = "my-premises"
RELATIONS: Final[Mapping[str, Target]] = MappingProxyType(
    {
        "self": Target(thing=NAME),
        "attached": Target(thing="other", gateways=frozenset({"x", NAME})),
        "own": Target(thing="other", account=ACCOUNT),
        "property": Target(thing="other", account=ACCOUNT, customers=True),
        "stopped": Target(thing="other", account=ACCOUNT, customers=True, liftable=True),
        "case": Target(thing="other", account="verified"),
        "case-bound": Target(thing="other", account="verified", bound=True),
        "order": Target(thing="other", account="x", premises=PREMISES),
        "order-bound": Target(thing="other", account="x", premises=PREMISES, bound=True),
        "enrolled": Target(thing="other", account="x", premises="x", enrolled=True),
        "none": Target(thing="other", gateways=frozenset({"x"}), account="x", premises="x"),
    }
)
"""How somebody may stand to a target; each holds that relation only."""
LEGEND: Final = """\
# By action: which relation to the target suffices for a role. any: whatever the target is.
# property: own and not the utility's. stopped: that, and suspended by nobody but a customer.
# case-bound, order-bound: only what the utility deals with already.
# ^ a fresh second factor as well, 2 a second person as well.
"""


def principal(role: Role) -> Principal:
    """Return somebody to whom each of :data:`RELATIONS` stands as it is called."""
    return Principal(NAME, role, ACCOUNT, frozenset({"verified", PREMISES}))


def cell(role: Role, action: Action) -> str:
    """Return the relations in which a role may do this."""
    open_to = [name for name, target in RELATIONS.items() if may(principal(role), action, target)]
    if "own" in open_to:
        narrower = {"property", "stopped"}
    else:
        narrower = {"stopped"} if "property" in open_to else set()
    narrower |= {f"{wider}-bound" for wider in ("case", "order") if wider in open_to}
    if not open_to:
        return "-"
    marks = ("^" if needs_step_up(role, action) else "") + ("2" if needs_second_person(role, action) else "")
    return (
        "any"
        if len(open_to) == len(RELATIONS)
        else ",".join(name for name in open_to if name not in narrower)
    ) + marks


def render() -> str:
    actions = [("action", *Role)]
    actions += [(action, *(cell(role, action) for role in Role)) for action in sorted(Action)]
    shadows = [("shadow", "access", *Role)]
    shadows += [
        (
            shadow or "(classic)",
            access,
            *("yes" if may_access(role, access, shadow) else "-" for role in Role),
        )
        for shadow in NAMES
        for access in sorted(Access)
    ]
    return LEGEND + _table(actions) + "\n" + _table(shadows)


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "".join(line.rstrip() + "\n" for line in lines)


if __name__ == "__main__":
    assert FREE not in NAMES
    PATH.write_text(render())
