"""What is refused to people and systems. Each says what to do; the entry points translate outward."""


class PeopleError(Exception):
    """Nothing was done."""


class LoginRefusedError(PeopleError):
    """Somebody did not prove who they are; which part was wrong is told to nobody."""

    def __init__(self) -> None:
        super().__init__("not proved")


class InvalidAccountError(PeopleError):
    """An account is described in a way that none can be."""


class WeakPasswordError(InvalidAccountError):
    """The password can be guessed."""


class NotFoundError(PeopleError):
    """What was named is not there."""


class PersonNotFoundError(NotFoundError):
    """No such person."""

    def __init__(self) -> None:
        super().__init__("there is no such person: correct the id")


class ClientNotFoundError(NotFoundError):
    """No such service account."""

    def __init__(self) -> None:
        super().__init__("there is no such client: correct the id")


class ApprovalNotFoundError(NotFoundError):
    """Nothing waits under this id."""

    def __init__(self) -> None:
        super().__init__("there is no such approval: correct the id")


class ConflictError(PeopleError):
    """What we hold speaks against it."""


class ActOutdatedError(ConflictError):
    """What was asked for cannot be done any more: what it is about has changed since."""


class LoginTakenError(ConflictError):
    """The login name is somebody's."""

    def __init__(self) -> None:
        super().__init__("this login name is taken: choose another one")


class AccountStateError(ConflictError):
    """The account is not in a state in which this can be done."""


class LastOfficerError(ConflictError):
    """Without a security officer nobody could let anybody in again."""

    def __init__(self) -> None:
        super().__init__("this is the last active security officer: make another one first")


class ApprovalNeededError(ConflictError):
    """It is held until a second person has approved it."""

    def __init__(self) -> None:
        super().__init__("a second person has to approve this first: see /v1/approvals")


class ApprovalClosedError(ConflictError):
    """It was decided already, or nobody decided in time."""

    def __init__(self) -> None:
        super().__init__("this does not wait any more: it was decided, or its time has passed")


class OwnApprovalError(PeopleError):
    """Nobody approves what they asked for themselves, nor what is about themselves."""

    def __init__(self) -> None:
        super().__init__(
            "nobody approves what they asked for, nor what is about themselves: ask somebody else"
        )


class NotTheirsToApproveError(PeopleError):
    """Only who might ask for it may approve it."""

    def __init__(self) -> None:
        super().__init__("your role may not do this, so it may not approve it either")


class PeopleBusyError(PeopleError):
    """Others kept changing the same account: the caller may try again."""

    def __init__(self) -> None:
        super().__init__("this is being changed by others at the same time: try again")
