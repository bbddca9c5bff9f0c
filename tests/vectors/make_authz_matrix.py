"""Prints the whole permission table, asked cell by cell: a changed permission is a diff somebody can read.

`python tests/vectors/make_authz_matrix.py` writes ``authz_matrix.txt`` beside this file.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from security.policy import FREE, RESERVED, Action, Role, may

PATH = Path(__file__).with_name("authz_matrix.txt")
SHADOWS = ("", *sorted(RESERVED), "anything-else")


def render() -> str:
    rows = [("shadow", "action", *Role)]
    rows += [
        (shadow or "(classic)", action, *("yes" if may(role, action, shadow) else "-" for role in Role))
        for shadow in SHADOWS
        for action in sorted(Action)
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "".join(line.rstrip() + "\n" for line in lines)


if __name__ == "__main__":
    assert FREE not in SHADOWS
    PATH.write_text(render())
