"""What travels over our own resources: one struct a shape, turned into the domain's values right here.

Bodies that come in refuse members they do not know. What goes out has its times in RFC 3339 and its units
in its names. The shadow documents themselves are the protocol's and are made in ``shadow.wire``.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from api.reading import rfc3339
from infra.time_zones import NAME_CHARS_MAX as TIME_ZONE_CHARS_MAX
from registry.models import Attachment, Location, Owner, Premises, Thing, ThingKind
from security.policy import THINGS, Role
from security.trail import Placed
from shadow.history import HistoryRow

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Name = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9:_-]{1,128}$", examples=["hall-thermostat"])]
Text = Annotated[str, Meta(min_length=1, max_length=128)]
Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"}, examples=["2026-09-21T12:00:00.000Z"])]
Version = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Json = dict[str, Any]


class NewCustomerThingBody(Struct, forbid_unknown_fields=True):
    """A thing to register, of whoever lives there."""

    name: Annotated[Name, Meta(description="On a certificate it may have 64 characters.")]
    kind: ThingKind
    model: Annotated[Text, Meta(description="Make and model of the device", examples=["acme-pct-2"])]
    premises: Annotated[Text, Meta(description="Where it is", examples=["home-7"])]
    has_certificate: Annotated[
        bool, Meta(description="False for a thing without IP: its gateway speaks for it.")
    ] = True


class NewThingBody(NewCustomerThingBody, forbid_unknown_fields=True):
    """A thing to register."""

    owner: Annotated[
        Owner, Meta(description="Whose it is. Only who may register things anywhere may say so.")
    ] = Owner.CUSTOMER


class ThingDocument(Struct, omit_defaults=True):
    """A registered thing."""

    name: Name
    kind: ThingKind
    model: str
    premises: str
    has_certificate: bool
    owner: Owner
    registered_at: Time
    revoked_at: Time | None = None
    suspended_at: Time | None = None

    @classmethod
    def of(cls, thing: Thing) -> "ThingDocument":
        return cls(
            thing.name,
            thing.kind,
            thing.model,
            thing.premises,
            thing.has_certificate,
            thing.owner,
            rfc3339(thing.registered_at_ms),
            None if thing.revoked_at_ms is None else rfc3339(thing.revoked_at_ms),
            None if thing.suspended_at_ms is None else rfc3339(thing.suspended_at_ms),
        )


class PremisesBody(Struct, forbid_unknown_fields=True):
    """Whose premises are from now on; null for nobody's."""

    account: Annotated[str, Meta(pattern=r"^[a-zA-Z0-9:_-]{1,128}$", examples=["account-7"])] | None


class PremisesDescriptionBody(Struct, forbid_unknown_fields=True):
    """Where premises lie, in the utility's terms; empty where it is not known."""

    zone: Annotated[str, Meta(max_length=128)]
    feeder: Annotated[str, Meta(max_length=128)]
    service_point: Annotated[str, Meta(max_length=128)]
    time_zone: Annotated[str, Meta(max_length=TIME_ZONE_CHARS_MAX, examples=["Europe/Berlin"])] = ""


class PremisesDocument(Struct, kw_only=True, omit_defaults=True):
    """Premises; the epoch rises each time they change hands."""

    id: Name
    epoch: int
    since: Time
    zone: str = ""
    feeder: str = ""
    service_point: str = ""
    time_zone: str = ""

    @classmethod
    def of(cls, premises: Premises) -> "PremisesDocument":
        return cls(**_place(premises))


class OwnedPremisesDocument(PremisesDocument, kw_only=True):
    """Premises with whose they are."""

    account: str | None

    @classmethod
    def of(cls, premises: Premises) -> "OwnedPremisesDocument":
        return cls(**_place(premises), account=premises.account or None)


def _place(premises: Premises) -> dict[str, Any]:
    names = ("id", "epoch", *Location._fields)
    return {name: getattr(premises, name) for name in names} | {"since": rfc3339(premises.since_ms)}


class PremisesList(Struct):
    """Premises by id."""

    items: list[OwnedPremisesDocument]


class AttachmentDocument(Struct):
    """A gateway that speaks for a thing; the epoch rises each time they are attached."""

    gateway: Name
    thing: Name
    epoch: int
    since: Time

    @classmethod
    def of(cls, attachment: Attachment) -> "AttachmentDocument":
        return cls(attachment.gateway, attachment.thing, attachment.epoch, rfc3339(attachment.since_ms))


class ThingList(Struct, omit_defaults=True):
    """A page of things; without ``next`` it is the last."""

    items: list[ThingDocument]
    next: str | None = None


class AttachmentList(Struct, omit_defaults=True):
    """A page of attachments."""

    items: list[AttachmentDocument]
    next: str | None = None


class ShadowNames(Struct):
    """The shadows of a thing; ``@classic`` is the one without a name."""

    items: list[str]


class ShadowSections(Struct, omit_defaults=True):
    """The state, or its stamps; ``delta`` is there only when desired and reported differ."""

    desired: Json | msgspec.UnsetType = msgspec.UNSET
    reported: Json | msgspec.UnsetType = msgspec.UNSET
    delta: Json | msgspec.UnsetType = msgspec.UNSET


class ShadowDocument(Struct, omit_defaults=True):
    """A shadow as ``get/accepted`` has it."""

    state: ShadowSections
    metadata: ShadowSections
    version: Version
    timestamp: Annotated[int, Meta(description="Seconds since 1970")]
    clientToken: str | msgspec.UnsetType = msgspec.UNSET  # noqa: N815 - the protocol's name


class PastShadow(Struct, omit_defaults=True):
    """A shadow as it was at one version."""

    state: ShadowSections
    metadata: ShadowSections
    version: Version
    timestamp: int
    at: Time


class WrittenSections(Struct, omit_defaults=True):
    """The sections a request wrote; null for one that it removed."""

    desired: Json | msgspec.UnsetType | None = msgspec.UNSET
    reported: Json | msgspec.UnsetType | None = msgspec.UNSET


class UpdateAccepted(Struct, omit_defaults=True):
    """What was written, as ``update/accepted`` has it: the request's own sections, with their stamps."""

    state: WrittenSections | None
    metadata: Json
    version: Version
    timestamp: int
    clientToken: str | msgspec.UnsetType = msgspec.UNSET  # noqa: N815 - the protocol's name


class DeleteAccepted(Struct, omit_defaults=True):
    """The version that was deleted."""

    version: Version
    timestamp: int
    clientToken: str | msgspec.UnsetType = msgspec.UNSET  # noqa: N815 - the protocol's name


class UpdateBody(Struct, omit_defaults=True):
    """A request document (section 2 of the protocol); members it does not name are ignored."""

    state: WrittenSections | None
    version: Version | msgspec.UnsetType = msgspec.UNSET
    clientToken: Annotated[str, Meta(max_length=64)] | msgspec.UnsetType = msgspec.UNSET  # noqa: N815 - the protocol's name


class NamedShadowList(Struct, omit_defaults=True):
    """A page of shadow names."""

    results: list[str]
    timestamp: int
    nextToken: str | msgspec.UnsetType = msgspec.UNSET  # noqa: N815 - the protocol's name


class RestoreBody(Struct, forbid_unknown_fields=True):
    """Which version's desired state to take up again."""

    version: Annotated[int, Meta(ge=1, le=2**53 - 1)]


class VersionDocument(Struct, omit_defaults=True):
    """One row of a shadow's history: who changed what when, by which way in.

    Of other people it says in which role they acted, and no more.
    """

    version: Version
    at: Time
    operation: Literal["update", "delete"]
    actor: str
    role: str
    origin: Annotated[str, Meta(description="mqtt, http or system")]
    patch: Annotated[Json | None, Meta(description="What was written; null removed everything")]
    gateway: str | None = None
    token: str | None = None

    @classmethod
    def of(cls, row: HistoryRow, reader: str) -> "VersionDocument":
        """Return the row as ``reader`` may see it."""
        known = row.actor == reader or row.role in _NAMED
        return cls(
            row.version,
            rfc3339(row.at_ms),
            "delete" if row.operation == "delete" else "update",
            row.actor if known else row.role,
            row.role,
            row.channel,
            row.state,
            row.gateway,
            row.token,
        )


_NAMED = frozenset({*THINGS, Role.SYSTEM})
"""Who acts in these roles is no person."""


class VersionList(Struct, omit_defaults=True):
    """A page of history, newest first."""

    items: list[VersionDocument]
    next: str | None = None


class AuditDocument(Struct, omit_defaults=True):
    """One privileged act, or equal refusals of one minute with their count."""

    at: Time
    actor: str
    role: str
    action: str
    target: str
    decision: Literal["allowed", "refused"]
    count: int
    via: str = ""
    reason: str = ""
    cause: Annotated[str, Meta(description="On whose behalf the system acted")] = ""
    request_id: str = ""
    version_before: int | None = None
    version_after: int | None = None
    sha256: Annotated[str, Meta(description="Of the request's body")] = ""
    block: Annotated[int, Meta(description="Of the audit chain; absent until it is sealed")] = 0
    position: Annotated[int, Meta(description="Its place in the block, from 1")] = 0

    @classmethod
    def of(cls, placed: Placed) -> "AuditDocument":
        entry = placed.entry
        return cls(
            at=rfc3339(entry.at_ms),
            actor=entry.actor,
            role=entry.role,
            action=entry.action,
            target=entry.target,
            decision=entry.decision.value,
            count=entry.count,
            via=entry.via,
            reason=entry.reason,
            cause=entry.cause,
            request_id=entry.request_id,
            version_before=entry.version_before,
            version_after=entry.version_after,
            sha256=entry.sha256,
            block=placed.block,
            position=placed.position,
        )


class BadPosition(Struct, omit_defaults=True):
    """The first position of the audit chain that is not what it was."""

    block: int
    position: Annotated[int, Meta(description="Of the entry in its block, from 1; 0 = the header")]
    problem: str
    entry: Annotated[str, Meta(description="The entry's id, if it can be read")] = ""


class AuditVerification(Struct, omit_defaults=True):
    """What one step of a verification found. All is well when the last step has neither `bad` nor `next`."""

    block: Annotated[int, Meta(description="The last block that holds")]
    entries: Annotated[int, Meta(description="Entries of the chain up to there")]
    hash: Annotated[str, Meta(description="The link of its last entry, in hex")]
    agreed: Annotated[int, Meta(description="The last block whose published head agrees; 0 = none yet")]
    bad: BadPosition | None = None
    next: Annotated[str | None, Meta(description="Go on here")] = None


class PublishedHeadDocument(Struct):
    """A head as it stands in the file of heads: the signature is over the other members."""

    number: int
    hash: str
    entries: int
    at: Time
    key: str
    signature: str


class AuditHead(Struct, omit_defaults=True):
    """Where the chain ends now, and the head that was published last."""

    block: int
    entries: int
    hash: str
    published: PublishedHeadDocument | None = None
    public_key: Annotated[str, Meta(description="The keys that sign heads, PEM")] = ""


class AuditList(Struct, omit_defaults=True):
    """A page of audit entries: the sealed ones in the order of the chain, then the others by time."""

    items: list[AuditDocument]
    next: str | None = None


class FleetStatus(Struct):
    """The figures of the fleet by name, each with its unit in the name."""

    version: str
    figures: dict[str, int | float | str]


class Health(Struct):
    """Whether this process can do its work, and if not why."""

    ready: bool
    reasons: list[str]


class Alive(Struct):
    """The loop turns; that is all it says."""

    status: Literal["alive"]


class ProblemDocument(Struct, omit_defaults=True):
    """Why a request was refused (RFC 9457). ``type`` ends in a word that never changes."""

    type: Annotated[str, Meta(examples=["/docs/problems#version-conflict"])]
    title: str
    status: int
    detail: str | msgspec.UnsetType = msgspec.UNSET
    requestId: str | msgspec.UnsetType = msgspec.UNSET  # noqa: N815 - spelled like the members below
    currentVersion: Version | msgspec.UnsetType = msgspec.UNSET  # noqa: N815 - the protocol's name
    conflicts: list[str] | msgspec.UnsetType = msgspec.UNSET
    currentSequence: Json | msgspec.UnsetType = msgspec.UNSET  # noqa: N815 - the protocol's name
    codes: list[str] | msgspec.UnsetType = msgspec.UNSET
    session: str | msgspec.UnsetType = msgspec.UNSET
    devices: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    pairs: list[Json] | msgspec.UnsetType = msgspec.UNSET


class AwsError(Struct, omit_defaults=True):
    """Why an AWS-shaped request was refused; the header ``x-amzn-errortype`` has the sort."""

    message: str
    detail: str | msgspec.UnsetType = msgspec.UNSET
    currentVersion: Version | msgspec.UnsetType = msgspec.UNSET  # noqa: N815 - the protocol's name
    conflicts: list[str] | msgspec.UnsetType = msgspec.UNSET
    currentSequence: Json | msgspec.UnsetType = msgspec.UNSET  # noqa: N815 - the protocol's name
