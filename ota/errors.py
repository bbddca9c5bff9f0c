"""What can be wrong with what firmware is asked for. All are :class:`OtaError`."""


class OtaError(Exception):
    """Something that was asked of firmware cannot be done."""


class LaneFullError(OtaError):
    """So many changes of executions wait that no more are taken."""

    def __init__(self) -> None:
        super().__init__("too many changes of jobs wait to be carried out: try again a little later")


class ExecutionBusyError(OtaError):
    """Others kept changing the executions of the same thing."""

    def __init__(self, thing: str) -> None:
        super().__init__(f"the jobs of {thing} are being changed by others at the same time: try again")
        self.thing = thing


class CampaignNotFoundError(OtaError):
    """There is no such campaign."""

    def __init__(self, id: str) -> None:
        super().__init__(f"there is no campaign {id}")
        self.id = id


class TargetNotFoundError(OtaError):
    """The campaign has no such target."""

    def __init__(self, thing: str) -> None:
        super().__init__(f"{thing} is no target of this campaign")
        self.thing = thing


class InvalidCampaignError(OtaError):
    """A campaign can not be so."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("a campaign can not be so: " + "; ".join(problems))
        self.problems = problems


class AuthorApprovesError(OtaError):
    """Whoever wrote a campaign wants to start it, or to have it go on after it stopped by itself."""

    def __init__(self) -> None:
        super().__init__("another person than its author has to do this")


class CampaignUnfitError(OtaError):
    """The release, the targets or the order do not fit; ``checks`` are all that failed."""

    def __init__(self, checks: tuple[str, ...]) -> None:
        super().__init__("this campaign can not be carried out: " + "; ".join(checks))
        self.checks = checks


class TooManyCampaignsError(OtaError):
    """As many campaigns as may run do so, or are going to."""

    def __init__(self, most: int) -> None:
        super().__init__(f"{most} campaigns run already, or are going to: wait for one to end, or end one")


class OtherRequestError(OtaError):
    """The same key came with another request before."""

    def __init__(self) -> None:
        super().__init__("this Idempotency-Key was used for another request")


class EncodingError(OtaError):
    """Bytes are not an envelope exactly as it is to be: nothing in them is believed."""


class FieldError(OtaError):
    """A member of a signed payload is not as it is to be. ``key`` is its number, 0 of what has none."""

    def __init__(self, key: int, problem: str) -> None:
        super().__init__(f"key {key}: {problem}" if key else problem)
        self.key = key


class KeyListError(OtaError):
    """Bytes are no list of keys that may be believed: the one that is held goes on."""


class ImageNotFoundError(OtaError):
    """There is no such image for whoever asks."""

    def __init__(self, sha256: str) -> None:
        super().__init__("there is no such image")
        self.sha256 = sha256


class InvalidKeyError(OtaError):
    """This can be no signing key."""


class KeyKnownError(OtaError):
    """The key is there already: for somebody else, for something else, or revoked."""

    def __init__(self, kid: str) -> None:
        super().__init__(
            f"the key {kid} is known, for something or somebody else, or as revoked: take another"
        )


class KeyNotFoundError(OtaError):
    """There is no such signing key."""

    def __init__(self, kid: str) -> None:
        super().__init__(f"there is no signing key {kid}")


class KeysFullError(OtaError):
    """There are as many keys as there may be."""

    def __init__(self, most: int) -> None:
        super().__init__(f"there are {most} keys, and revoked ones are kept: no more can be added")


class ReleaseNotFoundError(OtaError):
    """There is no such release for whoever asks."""

    def __init__(self) -> None:
        super().__init__("there is no such release")


class ReleaseRefusedError(OtaError):
    """A release cannot be: ``checks`` are all that failed, each its number, its code and what is wrong."""

    def __init__(self, checks: tuple[tuple[str, str, str], ...]) -> None:
        super().__init__("; ".join(f"{step} {code}" for step, code, _ in checks))
        self.checks = checks


class VersionUsedError(OtaError):
    """The version of this model was used for another image."""

    def __init__(self, version: str) -> None:
        super().__init__(f"the version {version} of this model was used before: count on")


class CounterError(OtaError):
    """The security counter is below one that was released."""

    def __init__(self, least: int) -> None:
        super().__init__(f"the security counter is below {least}, which was released for the same hardware")


class SamePersonError(OtaError):
    """Whoever made a release does not release it."""

    def __init__(self) -> None:
        super().__init__("whoever brought it here does not release it: a second person does")


class ForeignVendorError(OtaError):
    """A vendor may bring only what is its own."""

    def __init__(self) -> None:
        super().__init__("this is firmware of another vendor")
