"""Pages of lists of which somebody may see a part: nothing of the rest is named, nor by where a page ends.

A cursor stands behind the last item of a page, and can be read. So a page ends with an item that is seen.
(spec: security, 10)
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
Fetch = Callable[[int, str | None], Awaitable[tuple[Sequence[T], str | None]]]
"""Returns so many items after a cursor, and the cursor of what follows them."""
Pick = Callable[[Sequence[T]], Awaitable[Sequence[T]]]
"""Returns those of some items that are to be seen, in their order."""


async def seen_page(
    fetch: Fetch[T], pick: Pick[T], limit: int, cursor: str | None
) -> tuple[Sequence[T], str | None]:
    """Return the next items that are to be seen, at most ``limit``, and where to go on; None: nowhere."""
    while True:
        items, following = await fetch(limit, cursor)
        seen = await pick(items)
        if following is None or (seen and seen[-1] is items[-1]):
            return seen, following
        if seen:
            limit = 1 + next(place for place, one in enumerate(items) if one is seen[-1])
        else:
            cursor = following
