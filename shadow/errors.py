"""What a shadow service refuses, and how it says so.

``code`` and ``message`` are what a client reads and are the protocol's, to the letter (spec: shadow,
section 8). ``detail`` is for people; it names what to do and never holds a value from the state.
"""


class ShadowError(Exception):
    """A request that is refused. Nothing was stored."""

    code = 500

    def __init__(self, message: str, detail: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail


class InvalidRequestError(ShadowError):
    """The request is not what section 2 of the specification describes."""

    code = 400


class ForbiddenError(ShadowError):
    """This role may not do this to this section of this shadow."""

    code = 403

    def __init__(self, detail: str | None = None) -> None:
        super().__init__("Forbidden", detail)


class NotFoundError(ShadowError):
    """No such thing, or no such shadow."""

    code = 404


class ThingNotFoundError(NotFoundError):
    """The thing is not registered, or not visible to who asks."""

    def __init__(self) -> None:
        super().__init__("Thing not found")


class NoShadowError(NotFoundError):
    """The shadow was never made, or was deleted."""

    def __init__(self, thing: str, name: str) -> None:
        super().__init__(f"No shadow exists with name: '{name or thing}'")


class VersionPrunedError(ShadowError):
    """The version was there once; its history is no longer kept."""

    code = 410

    def __init__(self, oldest: int) -> None:
        super().__init__("Version no longer kept", f"the oldest version still kept is {oldest}")


class ConflictError(ShadowError):
    """Somebody else was there first; the attributes say what is there now."""

    code = 409


class VersionConflictError(ConflictError):
    """The version asked for is not the current one.

    ``conflicts`` are JSON Pointers of the leaves that were written since and that this request would
    write too; None while unknown, or when history does not reach back (spec 11, E7).
    """

    def __init__(self, current_version: int) -> None:
        super().__init__("Version conflict", f"the current version is {current_version}")
        self.current_version = current_version
        self.conflicts: tuple[str, ...] | None = None


class StaleSequenceError(ConflictError):
    """A report that is not newer than what is known; the device forgets it (spec 11, E5)."""

    def __init__(self, current_sequence: tuple[int, int]) -> None:
        super().__init__("Stale sequence", "a newer report is stored already; forget this one")
        self.current_sequence = current_sequence


class IdempotencyMismatchError(ShadowError):
    """The same Idempotency-Key came with another body."""

    code = 422

    def __init__(self) -> None:
        super().__init__("Idempotency key was used for another request", "use a fresh key")


class TooLargeError(ShadowError):
    """Payload, document or number of shadows above its limit."""

    code = 413

    def __init__(self, detail: str) -> None:
        super().__init__("The payload exceeds the maximum size allowed", detail)


class EncodingError(ShadowError):
    """Not UTF-8."""

    code = 415

    def __init__(self) -> None:
        super().__init__("Unsupported documented encoding; supported encoding is UTF-8")


class TooManyRequestsError(ShadowError):
    """More unanswered requests than allowed; wait for answers first."""

    code = 429

    def __init__(self, detail: str | None = None) -> None:
        super().__init__("Too many requests", detail)


class InternalError(ShadowError):
    """Something failed that nobody foresaw; the trace id finds it in the log."""

    code = 500

    def __init__(self, trace: str) -> None:
        super().__init__("Internal service failure", f"trace {trace}")


class UnavailableError(ShadowError):
    """The store or the outbox cannot take it now; the same request may be sent again later."""

    code = 503

    def __init__(self, detail: str) -> None:
        super().__init__("Service unavailable", detail)
