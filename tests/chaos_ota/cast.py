"""Who plays which part: the faults of every device, and whose target it is. Pure, by one seed.

    keep   honest devices; their configuration is preserved
    wipe   honest devices; their configuration is reset
    sick   devices whose new image, flash or link is beyond repair
    trap   devices that the service is made to lie to: each must refuse
    stop   an honest campaign that is aborted in flight
    cut    the same, and the service is killed as soon as it has said yes

All lose messages, both ways; honest ones lose their power, and have links that mangle blocks.
"""

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Final

import msgspec

CAST: Final = "cast.json"
THING: Final = "chaos-%05d"
LOSS: Final = 0.2
"""Share of the messages that each device's link loses, in either direction."""
MANGLED: Final = 0.06
"""Share of the blocks that a bad link mangles: three bad copies of one end an upgrade."""
HONEST_CUTS_MAX: Final = 3


class Group(StrEnum):
    """A campaign, and its devices."""

    KEEP = "keep"
    WIPE = "wipe"
    SICK = "sick"
    TRAP = "trap"
    STOP = "stop"
    CUT = "cut"


ABORTED: Final = (Group.STOP, Group.CUT)


class How(StrEnum):
    """When the power goes."""

    WRITE = "write"
    """In the middle of a write."""
    BETWEEN = "between"


class Mangling(StrEnum):
    """What a bad link does to a block."""

    TAMPERED = "tampered"
    TRUNCATED = "truncated"
    SWAPPED = "swapped"
    DUPLICATED = "duplicated"
    REORDERED = "reordered"


class Ailment(StrEnum):
    """What is wrong with a device, or with the new image on it."""

    BOOT_LOOP = "boot_loop"
    SELF_TEST = "self_test"
    DEAF = "deaf"
    CONFIG_DAMAGE = "config_damage"
    CLAIMS_NOTHING = "claims_nothing"
    WORN_FLASH = "worn_flash"
    POISONED_LINK = "poisoned_link"
    DARK_TRIALS = "dark_trials"
    """It loses its power in each trial."""


class Lie(StrEnum):
    """What is wrong with an offer; all else of it is right, and signed by whoever should."""

    OLD_COUNTER = "old_counter"
    OLD_VERSION = "old_version"
    EXPIRED_MANIFEST = "expired_manifest"
    EXPIRED_ORDER = "expired_order"
    WRONG_CLASS = "wrong_class"
    WRONG_MODEL = "wrong_model"
    ONLY_THE_VENDOR = "only_the_vendor"
    """Its signature is good, that of the utility is somebody else's."""
    ONLY_THE_UTILITY = "only_the_utility"
    VENDOR_SIGNS_BOTH = "vendor_signs_both"
    STRANGER = "stranger"
    OTHER_TARGET = "other_target"
    OTHER_MANIFEST = "other_manifest"


REFUSED_WITH: Final = {
    Lie.OLD_COUNTER: "downgrade",
    Lie.OLD_VERSION: "downgrade",
    Lie.EXPIRED_MANIFEST: "expired",
    Lie.EXPIRED_ORDER: "expired",
    Lie.WRONG_CLASS: "class_mismatch",
    Lie.WRONG_MODEL: "class_mismatch",
    Lie.ONLY_THE_VENDOR: "order_signature",
    Lie.ONLY_THE_UTILITY: "manifest_signature",
    Lie.VENDOR_SIGNS_BOTH: "key_role",
    Lie.STRANGER: "key_unknown",
    Lie.OTHER_TARGET: "not_target",
    Lie.OTHER_MANIFEST: "order_mismatch",
}


class State(IntEnum):
    """Where a device is, as IEEE 2030.5 counts: written down here once more, for whoever judges."""

    NONE = 0
    LOADING = 1
    LOAD_FAILED = 2
    LOADED = 3
    BAD_IMAGE = 4
    VERIFIED = 5
    FELL_BACK = 6
    ACTIVATING = 7
    ACTIVATED = 8


class Cut(msgspec.Struct, frozen=True):
    """A power cut: at the ``nth`` write, or the ``nth`` time that something was done, in a state."""

    state: State
    how: How
    nth: int = 1

    @property
    def name(self) -> str:
        return f"{self.state.name.lower()}.{self.how}"


class Countdown:
    """Tells when it is time for each of some power cuts; those of one state come one after the other."""

    def __init__(self, cuts: Iterable[Cut], how: How) -> None:
        self._left = [(cut, cut.nth) for cut in cuts if cut.how is how]

    def __bool__(self) -> bool:
        return bool(self._left)

    def came(self, state: State) -> Cut | None:
        """Count something that was done in a state; return the cut that comes with it."""
        place = next((place for place, (cut, _) in enumerate(self._left) if cut.state is state), None)
        if place is None:
            return None
        cut, left = self._left.pop(place)
        if left == 1:
            return cut
        self._left.insert(place, (cut, left - 1))
        return None


POINTS: Final = (
    *((state, How.WRITE) for state in (State.LOADING, State.VERIFIED, State.ACTIVATING, State.LOADED)),
    *((state, How.BETWEEN) for state in (State.ACTIVATING, State.LOADING, State.VERIFIED, State.NONE)),
    *((State.NONE, How.WRITE), (State.ACTIVATED, How.WRITE), (State.ACTIVATED, How.BETWEEN)),
)
"""Where honest devices lose their power."""
BITTER_POINTS: Final = tuple(
    (state, how) for state in (State.LOAD_FAILED, State.BAD_IMAGE, State.FELL_BACK) for how in How
)
"""Where only devices lose it whose upgrade fails."""
WRITES: Final = {State.LOADING: 24}
"""Writes to choose one from; elsewhere the first or second."""


TRIALS: Final = 3
"""So often a new image is tried."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One device's part."""

    thing: str
    group: Group
    night: int
    """A temperature of its own, in its configuration from the beginning."""
    loss: float = 0.0
    mangling: tuple[Mangling, ...] = ()
    mangled: float = 0.0
    cuts: tuple[Cut, ...] = ()
    ailment: Ailment | None = None
    lie: Lie | None = None


class Cast(msgspec.Struct, frozen=True):
    """All of a run."""

    seed: int
    parts: tuple[Part, ...]

    def of(self, group: Group) -> list[Part]:
        return [part for part in self.parts if part.group is group]

    def write(self, directory: Path) -> None:
        (directory / CAST).write_bytes(msgspec.json.encode(self))


def read_cast(directory: Path) -> Cast:
    return msgspec.json.decode((directory / CAST).read_bytes(), type=Cast)


def new_cast(devices: int, seed: int, loss: float = LOSS, mangled: float = MANGLED) -> Cast:
    """Return the parts of a run with so many devices; shares are of messages, and of blocks."""
    sizes = _sizes(devices)
    numbers = iter(range(devices))
    parts = [
        part
        for group in Group
        for part in _MAKERS[group](list(itertools.islice(numbers, sizes[group])), seed)
    ]
    return Cast(seed, tuple(_with_shares(part, loss, mangled) for part in parts))


def _with_shares(part: Part, loss: float, mangled: float) -> Part:
    mangled = mangled if part.mangling and not part.mangled else part.mangled
    return msgspec.structs.replace(part, loss=loss, mangled=mangled)


def _sizes(devices: int) -> dict[Group, int]:
    """Return how large the groups are: each kind of fault has somebody that it strikes."""
    sizes = {
        Group.WIPE: max(4, devices * 8 // 100),
        Group.SICK: max(len(Ailment), devices * 8 // 100),
        Group.TRAP: max(len(Lie), devices * 12 // 100),
        Group.STOP: max(8, devices * 8 // 100),
        Group.CUT: max(8, devices * 8 // 100),
    }
    sizes[Group.KEEP] = devices - sum(sizes.values())
    if sizes[Group.KEEP] < len(POINTS):
        raise SystemExit(f"at least {sum(sizes.values()) - sizes[Group.KEEP] + len(POINTS)} devices")
    return sizes


def _honest(group: Group) -> Callable[[Sequence[int], int], Iterator[Part]]:
    def parts(numbers: Sequence[int], seed: int) -> Iterator[Part]:
        for place, number in enumerate(numbers):
            chance = _chance(seed, number)
            mangling = (list(Mangling)[place // 2 % len(Mangling)],) if place % 2 else ()
            yield Part(
                thing=THING % number,
                group=group,
                night=chance.randint(10, 18),
                cuts=tuple(_cuts(place, chance)),
                mangling=mangling,
            )

    return parts


def _cuts(place: int, chance: random.Random) -> Iterator[Cut]:
    """Yield one that its place says, and perhaps others."""
    points = [POINTS[place % len(POINTS)], *chance.sample(POINTS, chance.randrange(HONEST_CUTS_MAX))]
    for state, how in dict.fromkeys(points):
        # What ends the third trial ends the upgrade.
        most = WRITES.get(state, 2) if how is How.WRITE else 2
        yield Cut(state, how, chance.randint(1, most))


_ENDS_IN: Final = {Ailment.POISONED_LINK: State.LOAD_FAILED, Ailment.WORN_FLASH: State.BAD_IMAGE}


def _sick(numbers: Sequence[int], seed: int) -> Iterator[Part]:
    for place, number in enumerate(numbers):
        ailment = list(Ailment)[place % len(Ailment)]
        cuts = tuple(Cut(_ENDS_IN.get(ailment, State.FELL_BACK), how) for how in How)
        if ailment is Ailment.DARK_TRIALS:
            cuts = tuple(Cut(State.ACTIVATING, How.BETWEEN) for _ in range(TRIALS))
        poisoned = ailment is Ailment.POISONED_LINK
        yield Part(
            thing=THING % number,
            group=Group.SICK,
            night=_chance(seed, number).randint(10, 18),
            ailment=ailment,
            cuts=cuts,
            mangling=(Mangling.TAMPERED,) if poisoned else (),
            mangled=1.0 if poisoned else 0.0,
        )


def _trap(numbers: Sequence[int], seed: int) -> Iterator[Part]:
    for place, number in enumerate(numbers):
        state = (State.BAD_IMAGE, State.NONE)[place % 2]
        yield Part(
            thing=THING % number,
            group=Group.TRAP,
            night=_chance(seed, number).randint(10, 18),
            lie=list(Lie)[place % len(Lie)],
            cuts=(Cut(state, How.WRITE),) if place % 3 == 0 else (),
        )


def _chance(seed: int, number: int) -> random.Random:
    return random.Random(f"{seed}/{number}")


_MAKERS: Final = {
    Group.KEEP: _honest(Group.KEEP),
    Group.WIPE: _honest(Group.WIPE),
    Group.SICK: _sick,
    Group.TRAP: _trap,
    Group.STOP: _honest(Group.STOP),
    Group.CUT: _honest(Group.CUT),
}
