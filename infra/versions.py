"""Changes that name the version they were made for. Pure."""


class OutdatedVersionError(Exception):
    """The change was made for another version than the one there is."""

    def __init__(self, current: int) -> None:
        super().__init__("it has changed since: read it, and change what is there now")
        self.current = current


def check_version(current: int, expected: int | None) -> None:
    """Raise :class:`OutdatedVersionError` unless a change is for this version; None: for any. 0: none yet."""
    if expected is not None and expected != current:
        raise OutdatedVersionError(current)
