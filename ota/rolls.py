"""The targets of campaigns that are carried out, kept in memory as they are committed.

What is kept is an economy: whoever acts on it is judged again in the lane, on the target as it is then.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from infra.documents.port import DocumentStore
from ota.lane import Commit, ExecutionLane
from ota.models import Execution
from ota.states import ExecutionState

ROLLS_MAX: Final = 64
"""Campaigns whose targets are kept: those that run, and some that people look at."""
OVERLAP_MS: Final = 5_000
"""So far clocks of two processes may differ."""


class Roll:
    """The targets of one campaign, in the order of their places, and how many are in each state."""

    def __init__(self) -> None:
        self.changes = 0
        """Rises with each change."""
        self.counts: Counter[ExecutionState] = Counter()
        self._by_thing: dict[str, Execution] = {}
        self._ordered: list[Execution] | None = None
        self._newest_ms = 0

    def __len__(self) -> int:
        return len(self._by_thing)

    @property
    def newest_ms(self) -> int:
        """Return when any of them changed last."""
        return self._newest_ms

    def get(self, thing: str) -> Execution | None:
        """Return a target."""
        return self._by_thing.get(thing)

    def targets(self) -> Sequence[Execution]:
        """Return all of them in the order of their places."""
        if self._ordered is None:
            self._ordered = sorted(self._by_thing.values(), key=lambda one: one.place)
        return self._ordered

    def read(self, execution: Execution) -> None:
        """Keep a target as it was read, unless it is kept as it was at that moment or later."""
        before = self._by_thing.get(execution.thing)
        if before is None or _age(execution) > _age(before):
            self.note(execution)

    def note(self, execution: Execution) -> None:
        """Keep a target as it was committed, unless a newer one is kept."""
        before = self._by_thing.get(execution.thing)
        if before is not None:
            if _age(execution) < _age(before) or execution == before:
                return
            self.counts[before.state] -= 1
        self.counts[execution.state] += 1
        self._by_thing[execution.thing] = execution
        self._place(execution)
        self._newest_ms = max(self._newest_ms, execution.updated_at_ms)
        self.changes += 1

    def _place(self, execution: Execution) -> None:
        ordered, place = self._ordered, execution.place
        if ordered is not None and place < len(ordered) and ordered[place].thing == execution.thing:
            ordered[place] = execution  # places are dense: nothing is to be sorted again
        else:
            self._ordered = None


class Rolls:
    """Keeps the rolls of campaigns."""

    def __init__(self, store: DocumentStore, lane: ExecutionLane) -> None:
        self._exclusive = store.exclusive
        self._lane = lane
        self._rolls: dict[str, Roll] = {}
        self._loading: dict[str, Roll] = {}
        lane.listen(self._moved)

    async def roll(self, campaign: str) -> Roll:
        """Return the targets of a campaign as they are."""
        roll = self._rolls.get(campaign)
        if roll is None:
            roll = await self._load(campaign)
        elif not self._exclusive:
            for one in await self._lane.touched_since(campaign, max(0, roll.newest_ms - OVERLAP_MS)):
                roll.note(one)
        self._rolls.pop(campaign, None)
        self._rolls[campaign] = roll  # the one used last stands last
        while len(self._rolls) > ROLLS_MAX:
            del self._rolls[next(iter(self._rolls))]
        return roll

    async def recount(self, campaign: str) -> tuple[Counter[ExecutionState], Counter[ExecutionState]]:
        """Return the counts that were kept, and those of the documents; they are to be the same.

        What changes while documents are read counts as it is afterwards.
        """
        read = await self._lane.of_campaign(campaign)
        roll = await self.roll(campaign)  # after it, for what others changed while documents were read
        counted: Counter[ExecutionState] = Counter()
        for one in read:
            kept = roll.get(one.thing)
            counted[one.state if kept is None or _age(one) > _age(kept) else kept.state] += 1
        kept_counts = +roll.counts
        for one in read:
            roll.read(one)
        return kept_counts, +counted

    async def _load(self, campaign: str) -> Roll:
        roll = self._loading.get(campaign) or Roll()
        self._loading[campaign] = roll
        try:
            for one in await self._lane.of_campaign(campaign):
                roll.read(one)
        finally:
            self._loading.pop(campaign, None)
        return roll

    def _moved(self, commits: Sequence[Commit]) -> None:
        for commit in commits:
            for rolls in (self._rolls, self._loading):
                roll = rolls.get(commit.after.campaign)
                if roll is not None:
                    roll.note(commit.after)


def _age(one: Execution) -> tuple[int, int]:
    return one.attempt, one.updated_at_ms
