"""What travels about people and systems: one struct a shape. Secrets go out only where they are made."""

from typing import Annotated

from msgspec import Meta, Struct

from api.reading import rfc3339
from api.schemas import Time
from security.people.accounts import Factor
from security.people.approvals import Held
from security.people.clients import Client
from security.people.persons import Person, Told, needs_factor
from security.people.sessions import Granted
from security.policy import Action, Role

LoginName = Annotated[str, Meta(min_length=1, max_length=128, examples=["ann"])]
Password = Annotated[str, Meta(min_length=1, max_length=256, extra_json_schema={"format": "password"})]
Code = Annotated[str, Meta(max_length=64, description="Six digits of the second factor, or a recovery code")]
FreshCode = Annotated[
    str, Meta(max_length=64, description="Six digits of the second factor; a recovery code does not do")
]
Opaque = Annotated[str, Meta(min_length=1, max_length=256)]
Id = Annotated[str, Meta(pattern=r"^[pca]-[a-z2-7]{16,64}$", examples=["p-abcdefghij234567"])]


class LoginBody(Struct, forbid_unknown_fields=True):
    """Who somebody says they are, and the proof."""

    login: LoginName
    password: Password
    code: Code = ""


class RefreshBody(Struct, forbid_unknown_fields=True):
    """A refresh token; it is used up."""

    refresh_token: Opaque


class AcceptBody(Struct, forbid_unknown_fields=True):
    """An invitation, and the password that its holder chooses."""

    invitation: Opaque
    password: Password
    factor: Annotated[bool, Meta(description="Also for a customer, who need not have one")] = False


class FirstBody(Struct, forbid_unknown_fields=True):
    """The secret that the host printed, and who is to be the first security officer."""

    secret: Opaque
    login: LoginName
    password: Password


class NoticeDocument(Struct):
    """What a person has to be told."""

    notice: str
    at: Time

    @classmethod
    def of(cls, told: Told) -> "NoticeDocument":
        return cls(told.notice.value, rfc3339(told.at_ms))


class TokenDocument(Struct, omit_defaults=True):
    """A session's tokens. The refresh token is good once."""

    access_token: str
    token_type: str
    expires_in: int
    refresh_token: str
    refresh_expires_in: int
    notices: list[NoticeDocument] = []

    @classmethod
    def of(cls, granted: Granted, notices: tuple[Told, ...] = ()) -> "TokenDocument":
        assert granted.refresh is not None, "a session has one"
        return cls(
            granted.access.token.reveal(),
            "Bearer",
            granted.access.life_s,
            granted.refresh.reveal(),
            granted.refresh_s,
            [NoticeDocument.of(one) for one in notices],
        )


class ClientTokenDocument(Struct):
    """A client's token (RFC 6749, 5.1)."""

    access_token: str
    token_type: str
    expires_in: int
    scope: str


class OAuthError(Struct):
    """A refusal as RFC 6749, 5.2 spells it."""

    error: str


class FactorDocument(Struct, omit_defaults=True):
    """A new second factor; shown once. Without members: none was made."""

    totp_seed: str = ""
    totp_uri: str = ""
    recovery_codes: list[str] = []

    @classmethod
    def of(cls, factor: Factor | None) -> "FactorDocument":
        if factor is None:
            return cls()
        codes = [code.reveal() for code in factor.recovery_codes]
        return cls(factor.seed.reveal(), factor.uri.reveal(), codes)


class JwksDocument(Struct):
    """Public keys (RFC 7517)."""

    keys: list[dict[str, str]]


class MeDocument(Struct, omit_defaults=True):
    """One's own account."""

    id: str
    login: str
    role: Role
    factor: bool
    recovery_codes_left: int
    account: str = ""

    @classmethod
    def of(cls, person: Person) -> "MeDocument":
        return cls(
            person.id,
            person.login,
            person.role,
            person.totp is not None,
            len(person.recovery),
            person.account,
        )


class PasswordBody(Struct, forbid_unknown_fields=True):
    """Both factors as they are, and the password to be."""

    password: Password
    new_password: Password
    code: Code = ""


class ProofBody(Struct, forbid_unknown_fields=True):
    """Both factors as they are."""

    password: Password
    code: Code = ""


class CodeBody(Struct, forbid_unknown_fields=True):
    """A code of the second factor."""

    code: FreshCode


class RecoveryCodes(Struct):
    """New recovery codes; shown once."""

    recovery_codes: list[str]


class StepUpBody(Struct, forbid_unknown_fields=True):
    """A fresh code, and the one act that it is for."""

    code: FreshCode
    action: Annotated[
        str,
        Meta(
            max_length=64,
            description="What the route does, as its refusal and its header `Gnomon-Step-Up` say",
            examples=["revoke_all"],
        ),
    ]
    target: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=2_048,
            description="Method and path, with the query as it will be sent",
            examples=["POST /v1/revoke-all"],
        ),
    ]
    body_sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$", description="Of the body, empty or not")]


class StepUpDocument(Struct):
    """What to send in the header ``Gnomon-Step-Up``; good once, for two minutes."""

    step_up: str
    expires_in: int


class PersonDocument(Struct, omit_defaults=True):
    """An account of a person."""

    id: str
    login: str
    role: Role
    state: str
    needs_factor: bool
    made_at: Time
    account: str = ""

    @classmethod
    def of(cls, person: Person) -> "PersonDocument":
        return cls(
            person.id,
            person.login,
            person.role,
            person.state.value,
            needs_factor(person),
            rfc3339(person.made_ms),
            person.account,
        )


class PersonList(Struct, omit_defaults=True):
    """A page of people."""

    items: list[PersonDocument]
    next: str | None = None


class NewPersonBody(Struct, forbid_unknown_fields=True):
    """An account to make."""

    login: LoginName
    role: Role
    account: Annotated[str, Meta(max_length=128, description="A customer's; nobody else has one")] = ""


class RoleBody(Struct, forbid_unknown_fields=True):
    """The role to give."""

    role: Role
    account: Annotated[str, Meta(max_length=128)] = ""


class ApprovalDocument(Struct, omit_defaults=True):
    """An act that needs a second person."""

    id: str
    act: str
    action: Action
    target: str
    facts: dict[str, str]
    by: str
    decision: str
    asked_at: Time
    until: Time
    decided_by: str = ""
    decided_at: Time | None = None

    @classmethod
    def of(cls, held: Held) -> "ApprovalDocument":
        # A hash of a secret helps nobody to decide.
        facts = {name: value for name, value in held.facts.items() if name != "sha256"}
        return cls(
            held.id,
            held.act,
            held.action,
            held.target,
            facts,
            held.by.name,
            held.decision.value,
            rfc3339(held.at_ms),
            rfc3339(held.until_ms),
            held.decided_by,
            rfc3339(held.decided_ms) if held.decided_ms else None,
        )


class ApprovalList(Struct, omit_defaults=True):
    """A page of what waits."""

    items: list[ApprovalDocument]
    next: str | None = None


class InvitedDocument(Struct, omit_defaults=True):
    """A person, and the invitation to hand over; shown once. With an approval it waits for that."""

    person: PersonDocument
    invitation: str
    approval: ApprovalDocument | None = None


class ClientDocument(Struct):
    """A service account."""

    id: str
    name: str
    role: Role
    state: str
    keys_alive: Annotated[int, Meta(description="Two while one takes the other's place")]
    made_at: Time

    @classmethod
    def of(cls, client: Client) -> "ClientDocument":
        return cls(
            client.id,
            client.name,
            client.role,
            client.state.value,
            len(client.secrets),
            rfc3339(client.made_ms),
        )


class ClientList(Struct, omit_defaults=True):
    """A page of service accounts."""

    items: list[ClientDocument]
    next: str | None = None


class NewClientBody(Struct, forbid_unknown_fields=True):
    """A service account to make."""

    name: Annotated[str, Meta(min_length=1, max_length=64, examples=["customer care"])]
    role: Role


class ClientSecretDocument(Struct):
    """A client and its new secret; shown once, and good once the approval is given."""

    client: ClientDocument
    client_secret: str
    approval: ApprovalDocument


class RotateBody(Struct, forbid_unknown_fields=True):
    """How soon the keys before count no more."""

    at_once: Annotated[bool, Meta(description="No token signed before counts any more")] = False


class ActDocument(Struct, omit_defaults=True):
    """What became of an act: done, or waiting for a second person."""

    done: bool
    approval: ApprovalDocument | None = None

    @classmethod
    def of(cls, held: Held | None) -> "ActDocument":
        return cls(held is None, None if held is None else ApprovalDocument.of(held))
