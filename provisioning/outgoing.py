"""Records into the outbox: one lane a premises."""

from collections.abc import Sequence

from infra.outbox import Item, Outbox
from provisioning.session import Record


class OutboxOutgoing:
    """Hands records to the outbox, which gives each its place in the order of its premises."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    async def put(self, premises: str, records: Sequence[Record]) -> None:
        """Take records, durably and once each."""
        await self._outbox.put(
            [Item(one.key, premises, one.kind, one.body.encode(), one.made_at_ms) for one in records]
        )
