"""What a device says of its firmware in its shadow ``firmware``: the fact, where the job is the order. Pure.

Anything may stand in ``reported``; what is not as it should be counts as not said. (spec: ota, 3.2)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from shadow.document import Tree

STATUS_MAX: Final = 8
"""Of IEEE 2030.5: load in progress is 1, activated is 8."""
STAGED: Final = frozenset({1, 3, 5})
"""States in which a new image lies in a slot and the old one runs."""
UNSIGNED_MAX: Final = 2**64 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What runs on a device. Empty texts and zeros: it does not say."""

    sha256: str = ""
    version: str = ""
    label: str = ""
    counter: int = 0
    confirmed: bool = False
    healthy: bool = False
    hw: str = ""
    schema: int = 0
    slot: str = ""
    boot: int = 0
    job: str = ""
    status: int = 0
    """Of the file that is being loaded."""
    percent: int = 0
    components: Mapping[str, int] = field(default_factory=dict)
    """Versions of what else is on it, such as its boot loader, as far as it says."""

    def runs(self, sha256: str) -> bool:
        """Tell whether it runs this image in good health.

        Whether it has confirmed it to itself does not count: it does so once this report is accepted.
        """
        return self.sha256 == sha256 != "" and self.healthy


NOTHING: Final = Report()


def read(reported: Tree) -> Report:
    """Return what a device says; :data:`NOTHING` of an empty shadow."""
    running, file = _tree(reported.get("fw")), _tree(reported.get("file"))
    return Report(
        sha256=_text(running.get("sha256")),
        version=_text(running.get("version")),
        label=_text(running.get("label")),
        counter=_number(running.get("counter")),
        confirmed=running.get("confirmed") is True,
        healthy=reported.get("healthy") is True,
        hw=_text(reported.get("hw")),
        schema=_number(reported.get("schema")),
        slot=_text(reported.get("slot")),
        boot=_number(reported.get("boot")),
        job=_text(reported.get("job")),
        status=_number(file.get("status"), STATUS_MAX),
        percent=_number(file.get("loadPercent"), 100),
        components=_numbers(reported.get("components")),
    )


def _tree(value: Any) -> Tree:  # noqa: ANN401 - any JSON value
    return value if type(value) is dict else {}


def _numbers(value: Any) -> Mapping[str, int]:  # noqa: ANN401 - any JSON value
    return {name: one for name, one in _tree(value).items() if type(one) is int and 0 <= one <= UNSIGNED_MAX}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object, most: int = UNSIGNED_MAX) -> int:
    return value if type(value) is int and 0 <= value <= most else 0
