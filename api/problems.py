"""The one table from what went wrong to what a caller is told, in both spellings of this API.

Our own resources answer with problem documents (RFC 9457), the AWS-shaped ones as AWS does. A slug never
changes once it was published. Nothing here ever repeats a value from a shadow's state.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from litestar.exceptions import HTTPException
from litestar.types import Scope

from api.limits import RETRY_AFTER_S
from api.replies import PROBLEM, Field, Reply, json_reply
from infra import blobs
from infra.documents.port import InvalidCursorError, StoreError
from infra.live import TooManyWatchersError
from infra.machines import IllegalTransitionError
from infra.outbox import UnknownItemError
from infra.versions import OutdatedVersionError
from ota import errors as ota
from ota.installed import NotesFullError, OtherNoteError
from ota.packing import NoBundleError
from ota.snapshots import NotItsSuccessorError, SnapshotNotFoundError
from programs import errors as programs
from provisioning import care, moves
from provisioning import errors as provisioning
from registry import errors as registry
from security.audited import RecordBusyError
from security.hashing import HashingBusyError
from security.people import errors as people
from security.tries import TooManyTriesError
from security.trust import enrolment, pins, vouchers
from security.trust.authority import AuthorityError, UncertifiableNameError
from security.trust.claims import OverError, SpentError
from security.trust.codes import InvalidClaimIdError, InvalidCodeError
from security.trust.issued import CertificateBusyError
from security.trust.known_keys import KeyKnownError
from security.trust.requests import InvalidRequestError
from security.trust.revocation import RevocationError
from shadow import errors as shadow
from shadow.wire import help_of as wire_help

TYPE_BASE: Final = "/docs/problems#"
CHALLENGE: Final = ((b"www-authenticate", b'Bearer realm="gnomon"'),)
"""Goes with every 401, whatever was wrong."""
RETRY_AFTER: Final = b"retry-after"
ENROLMENT_CHALLENGE: Final[Field] = (b"www-authenticate", b'Basic realm="gnomon enrolment"')


@dataclass(frozen=True, slots=True)
class Kind:
    """A sort of refusal; ``remedy`` is what the page of problems tells to do about it."""

    status: int
    slug: str
    title: str
    remedy: str


_KINDS: list[Kind] = []


def _kind(status: int, slug: str, title: str, remedy: str) -> Kind:
    kind = Kind(status, slug, title, remedy)
    _KINDS.append(kind)
    return kind


INVALID_REQUEST = _kind(
    400, "invalid-request", "The request is not well formed", "Read `detail` and correct it."
)
INVALID_CURSOR = _kind(
    400, "invalid-cursor", "The cursor was not made by this list", "Begin without a cursor."
)
INVALID_PATCH = _kind(
    400, "invalid-patch", "The JSON Patch is not well formed", "See RFC 6902; read `detail`."
)
UNAUTHORIZED = _kind(401, "unauthorized", "Unauthorized", "Send `Authorization: Bearer <token>`.")
INSUFFICIENT_AUTHENTICATION = _kind(
    401,
    "insufficient-user-authentication",
    "A fresh second factor is needed for this",
    "Confirm it with a code of now, and send the token you get as `Gnomon-Step-Up`.",
)
FORBIDDEN = _kind(403, "forbidden", "Forbidden", "Your role may not do this; ask for one that may.")
ROUTE_NOT_FOUND = _kind(404, "route-not-found", "There is nothing at this address", "See the API page.")
THING_NOT_FOUND = _kind(404, "thing-not-found", "Thing not found", "Register the thing, or correct its name.")
PREMISES_NOT_FOUND = _kind(
    404, "premises-not-found", "Premises not found", "Correct the id; only your own are there for you."
)
DEVICE_NOT_FOUND = _kind(
    404, "device-not-found", "Device not found", "Correct the id, or let it be seen first."
)
MODEL_NOT_FOUND = _kind(
    404,
    "device-model-not-found",
    "Device model not found",
    "Correct the id, or put the model in the catalogue.",
)
GATEWAY_NOT_FOUND = _kind(
    404, "gateway-not-found", "Gateway not found", "Correct the id, or describe it first."
)
METER_NOT_FOUND = _kind(404, "meter-not-found", "Meter not found", "Correct the id, or put the meter there.")
ACCOUNT_NOT_FOUND = _kind(
    404, "account-not-found", "Account not found", "Correct the id; only your own are there for you."
)
SHADOW_NOT_FOUND = _kind(404, "shadow-not-found", "No such shadow", "Make it with an update.")
ATTACHMENT_NOT_FOUND = _kind(
    404, "attachment-not-found", "The thing is not attached there", "Attach it first."
)
VERSION_NOT_FOUND = _kind(404, "version-not-found", "No such version", "Ask for one that the history lists.")
SNAPSHOT_NOT_FOUND = _kind(
    404, "snapshot-not-found", "No such snapshot", "Only the last few are kept: list them."
)
BUNDLE_NOT_FOUND = _kind(
    404,
    "bundle-not-found",
    "There is no such campaign to be carried out on site",
    "Only a campaign whose path is local has one, from its approval until its end or its release's.",
)
IMAGE_NOT_FOUND = _kind(
    404,
    "image-not-found",
    "Image not found",
    "Send it first; a device gets one only for as long as it has a job about it.",
)
RELEASE_NOT_FOUND = _kind(404, "release-not-found", "Release not found", "Correct the id, or list them.")
SIGNING_KEY_NOT_FOUND = _kind(
    404, "signing-key-not-found", "Signing key not found", "Correct its name, or list them."
)
METHOD_NOT_ALLOWED = _kind(405, "method-not-allowed", "Method not allowed", "Use one that `Allow` names.")
REQUEST_TIMEOUT = _kind(408, "request-timeout", "The body did not come in time", "Send it again, at once.")
VERSION_CONFLICT = _kind(
    409,
    "version-conflict",
    "Version conflict",
    "Look at `conflicts`; if empty, send again with `currentVersion`.",
)
NOT_ITS_SUCCESSOR = _kind(
    409,
    "not-its-successor",
    "This device has not come in the place of the other",
    "Give a snapshot back to the device it is of, or replace that one first.",
)
INSTALLATION_TOLD = _kind(
    409,
    "installation-told",
    "This installation was told of before, and differently",
    "The first note stands; look at the journal of the field tool.",
)
INSTALLATIONS_FULL = _kind(
    409,
    "installations-full",
    "As many installations on site are kept of this thing as may be",
    "Nothing: what the device itself reports counts, and closes what is open.",
)
STALE_SEQUENCE = _kind(409, "stale-sequence", "Stale sequence", "Forget this report; a newer one is stored.")
PATCH_NOT_APPLICABLE = _kind(
    409,
    "patch-not-applicable",
    "The JSON Patch does not fit this document",
    "Read the shadow and patch what is there.",
)
THING_EXISTS = _kind(
    409, "thing-exists", "A thing of this name is registered already", "Choose another name."
)
PREMISES_FULL = _kind(
    409,
    "premises-full",
    "These premises have as many things as premises may have",
    "Remove one that is no more.",
)
NOT_A_GATEWAY = _kind(
    409, "not-a-gateway", "This thing is not a gateway", "Only a gateway has attached things."
)
PREMISES_MISMATCH = _kind(
    409,
    "premises-mismatch",
    "Gateway and thing are not at the same premises",
    "Attach it to a gateway beside it.",
)
TOO_MANY_ATTACHMENTS = _kind(
    409,
    "too-many-attachments",
    "A bound on attachments is reached",
    "Detach one first; `detail` says which bound.",
)
ILLEGAL_TRANSITION = _kind(
    409, "illegal-transition", "This does not follow from how things are", "Read `detail`, and the state."
)
SAME_PERSON = _kind(
    409, "same-person", "This takes a second person", "Let somebody do it who wrote none of it."
)
VERSION_USED = _kind(
    409,
    "version-used",
    "This version of the model was used before",
    "Let the vendor count on, and sign again.",
)
COUNTER = _kind(
    409,
    "counter",
    "The security counter is below one that was released",
    "Let the vendor sign a manifest with a counter that is not lower.",
)
UPLOAD_OFFSET = _kind(
    409,
    "upload-offset",
    "The image does not go on there",
    "Go on at `offset`, or send all of it without Content-Range.",
)
SIGNING_KEY_KNOWN = _kind(
    409, "signing-key-known", "The signing key is known, or no more fit", "Use a key that was never used."
)
PROGRAM_NOT_FOUND = _kind(404, "program-not-found", "Program not found", "See the catalogue.")
SHAPE_NOT_FOUND = _kind(
    404, "shape-not-found", "Shape not found", "Correct the id, or put the shape in the catalogue."
)
TARIFF_NOT_FOUND = _kind(
    404, "tariff-not-found", "Tariff not found", "Correct the id, or put the tariff in the catalogue."
)
ENROLMENT_NOT_FOUND = _kind(404, "enrolment-not-found", "Enrolment not found", "Correct the id.")
SHAPE_FIXED = _kind(
    409, "shape-fixed", "A shape never changes", "Put the new one beside it, under its next version."
)
CATALOGUE_FULL = _kind(
    409,
    "catalogue-full",
    "The catalogue keeps no more of this kind",
    "Use an entry again that is not needed.",
)
INELIGIBLE = _kind(
    422, "ineligible", "A device does not fit a program", "Read `reasons`, or those of each of `pairs`."
)
INVALID_ENTRY = _kind(
    422, "invalid-entry", "The catalogue takes no such entry", "Read `problems`; nothing was kept."
)
INVALID_CONSENT = _kind(
    422, "invalid-consent", "This is no consent", "Read `detail`: references, and the text of now."
)
DEVICE_TAKEN = _kind(
    409,
    "device-taken",
    "The device is registered for somebody else",
    "It has to be deregistered there first.",
)
METER_EXCHANGED = _kind(
    409, "meter-exchanged", "The meter was exchanged for another one", "Read the meter to see for which."
)
METER_ELSEWHERE = _kind(
    409, "meter-elsewhere", "The meters are not at the same premises", "Correct the id; read both meters."
)
VERSION_PRUNED = _kind(410, "version-pruned", "Version no longer kept", "Ask for a newer one; see `detail`.")
PRECONDITION_FAILED = _kind(
    412,
    "precondition-failed",
    "The version is not the one you named",
    "Read it, look at `conflicts` if there are any, and try again.",
)
PAYLOAD_TOO_LARGE = _kind(
    413,
    "payload-too-large",
    "The payload exceeds the maximum size allowed",
    "Send less; `detail` names the bound.",
)
UNSUPPORTED_ENCODING = _kind(
    415,
    "unsupported-encoding",
    "Unsupported documented encoding; supported encoding is UTF-8",
    "Send plain UTF-8.",
)
UNSUPPORTED_MEDIA_TYPE = _kind(
    415,
    "unsupported-media-type",
    "This media type is not taken here",
    "`Accept-Patch` or `detail` names those that are.",
)
DIGEST_MISMATCH = _kind(
    422,
    "digest-mismatch",
    "What came does not hash to its name",
    "Send all of it again, or correct the name.",
)
RELEASE_REFUSED = _kind(
    422, "release-refused", "This can not be released", "Read `checks`: all that failed are there."
)
IDEMPOTENCY_MISMATCH = _kind(
    422, "idempotency-mismatch", "This Idempotency-Key came with another request", "Use a fresh key."
)
PRECONDITION_REQUIRED = _kind(
    428,
    "precondition-required",
    "This change needs If-Match",
    "Read it and send its ETag as If-Match; for what shall be new, `If-None-Match: *`.",
)
TOO_MANY_REQUESTS = _kind(
    429, "too-many-requests", "Too many requests", "Wait for the answers of this thing's other requests."
)
TOO_MANY_TRIES = _kind(
    429, "too-many-tries", "Too many tries", "Wait as long as `Retry-After` says; then it counts again."
)
WEAK_PASSWORD = _kind(
    400, "weak-password", "This password can be guessed", "Take several words; read `detail`."
)
PERSON_NOT_FOUND = _kind(404, "person-not-found", "No such person", "Correct the id.")
CLIENT_NOT_FOUND = _kind(404, "client-not-found", "No such client", "Correct the id.")
APPROVAL_NOT_FOUND = _kind(404, "approval-not-found", "No such approval", "See the list of what waits.")
LOGIN_TAKEN = _kind(409, "login-taken", "This login name is taken", "Choose another one.")
ACCOUNT_STATE = _kind(
    409, "account-state", "The account is not in a state for this", "Read `detail`, and the account."
)
LAST_OFFICER = _kind(
    409, "last-officer", "This is the last active security officer", "Make another one first."
)
APPROVAL_NEEDED = _kind(
    409,
    "approval-needed",
    "A second person has to approve this first",
    "Ask somebody who may; see `/v1/approvals`.",
)
ACT_OUTDATED = _kind(
    409,
    "act-outdated",
    "What was asked for does not fit any more",
    "Read `detail`, and what it is about; ask anew.",
)
APPROVAL_CLOSED = _kind(
    409, "approval-closed", "This does not wait any more", "Read it to see what became of it; ask anew."
)
INTERNAL = _kind(
    500, "internal-failure", "Internal service failure", "Give us the request id; do not repeat blindly."
)
UNAVAILABLE = _kind(
    503, "service-unavailable", "Service unavailable", "Send the same request again a little later."
)
OVERLOADED = _kind(503, "overloaded", "Too many requests are being answered", "Send it again a little later.")
CAMPAIGN_NOT_FOUND = _kind(404, "campaign-not-found", "Campaign not found", "Correct the id, or list them.")
TARGET_NOT_FOUND = _kind(
    404,
    "target-not-found",
    "The campaign has no such target",
    "Correct the name; what takes part no more is counted and not named.",
)
TOO_MANY_CAMPAIGNS = _kind(
    409, "too-many-campaigns", "As many campaigns run as may", "Wait for one to end, or end one."
)
INVALID_CAMPAIGN = _kind(
    422, "invalid-campaign", "A campaign can not be so", "Read `problems`, and correct all of them."
)
CAMPAIGN_UNFIT = _kind(
    422, "campaign-unfit", "The campaign does not fit its release, order or targets", "Read `checks`."
)
TOO_MANY_STREAMS = _kind(
    503, "too-many-streams", "Too many event streams are open", "Close one, or come back later."
)

WRONG_CODE = _kind(
    401,
    "wrong-code",
    "This claim and this code do not belong together",
    "Type both again, from where they were shown.",
)
NOT_ELIGIBLE = _kind(
    403,
    "not-eligible",
    "The thing may not have a certificate now",
    "Register it where the code says; lift what bars it; then send the same request again.",
)
WRONG_PIN = _kind(
    403, "wrong-pin", "This is not the answer to our question", "Compare the PIN with the label."
)
VOUCHER_NOT_FOUND = _kind(404, "voucher-not-found", "No such voucher", "List those of the premises.")
INSTALL_CODE_NOT_FOUND = _kind(
    404, "install-code-not-found", "No code is kept for this label", "Correct the EUI-64."
)
PIN_NOT_KNOWN = _kind(
    404, "pin-not-known", "No PIN is known for this device", "Enter the one on its label first."
)
CODE_USED = _kind(
    409,
    "code-used",
    "This code has been used",
    "Ask for a new one. If you did not use it, somebody else did: say so.",
)
KEY_KNOWN = _kind(
    409, "key-known", "This key has been used before", "Make a new key in the device; never copy one."
)
RENEWAL_TOO_EARLY = _kind(
    409, "renewal-too-early", "It is too early to renew this certificate", "Come back after `Retry-After`."
)
UNFIT_THING = _kind(409, "unfit-thing", "The thing is not as you say", "Read `detail` and the thing.")
TOO_MANY_VOUCHERS = _kind(
    409, "too-many-vouchers", "A quota of these premises is reached", "Use a voucher, take one back, or wait."
)
CODE_OVER = _kind(410, "code-over", "This code is no longer good", "Ask for a new one.")
MISTYPED_CODE = _kind(
    422, "mistyped-code", "This can be no code", "Read `detail` and type it again: it costs no try."
)
INVALID_LABEL = _kind(
    422, "invalid-label", "A row can be no label", "Read `detail`; nothing of the batch was kept."
)
INVALID_PIN = _kind(422, "invalid-pin", "This can be no PIN", "Type the six digits of the label again.")

CUSTOMER_NOT_FOUND = _kind(
    404, "customer-not-found", "No customer is found by this", "Ask for another way to find them."
)
VERIFICATION_NOT_FOUND = _kind(404, "verification-not-found", "No such verification", "Correct the id.")
WORK_ORDER_NOT_FOUND = _kind(404, "work-order-not-found", "No such work order", "Correct the id.")
SESSION_NOT_FOUND = _kind(
    404,
    "provisioning-session-not-found",
    "No such provisioning session",
    "Correct the id; only those of customers you work for are there for you.",
)
OUTBOX_ITEM_NOT_FOUND = _kind(404, "outbox-item-not-found", "No such item", "See the list of what waits.")
MOVE_NOT_FOUND = _kind(404, "move-not-found", "No such change", "Correct the id.")
NOT_REPLACEABLE = _kind(
    409,
    "not-replaceable",
    "One of these devices can not take the place of the other",
    "Read `detail`; let the new one be seen and prove itself first.",
)
CONFIRMATION_NEEDED = _kind(
    409, "confirmation-needed", "This takes everything away", "Send it again with `confirm`."
)
VERIFICATION_MISSING = _kind(
    403, "verification-missing", "The customer has to be verified first", "Record a verification that passed."
)
VERIFICATION_EXPIRED = _kind(
    403,
    "verification-expired",
    "The verification has expired",
    "Verify the customer again, and say by which.",
)
WORK_ORDER_MISSING = _kind(
    403,
    "work-order-missing",
    "No open work order of yours is for these premises",
    "Ask the operator for one.",
)
POLICY_OFF = _kind(
    409, "policy-off", "This utility does not offer it", "Read `detail`: a setting decides; take another way."
)
NOT_READY = _kind(
    409,
    "precondition",
    "The premises are not ready for a session",
    "See to everything that `codes` names, then open it.",
)
SESSION_EXISTS = _kind(
    409,
    "session-exists",
    "Another session is open at these premises",
    "Go on with `session`, or send `take_over`.",
)
TOO_MANY_SESSIONS = _kind(
    409, "too-many-sessions", "You have as many open sessions as one may have", "Finish or abort one."
)
WINDOW_OPEN = _kind(
    409, "window-open", "Discovery is running", "Add a grant, wait for its end, or stop it first."
)
WINDOW_CLOSED = _kind(409, "window-closed", "No discovery is running", "Start one.")
GATEWAY_CAPACITY = _kind(
    409,
    "gateway-capacity",
    "The gateway takes no more devices",
    "Read `detail` for both numbers; detach one.",
)
AUTH_NOT_OK = _kind(
    409,
    "auth-not-ok",
    "A device has not proved itself",
    "See in `devices` how far each is; enter its code again.",
)
CONSENT_MISSING = _kind(
    409, "consent-missing", "Consent is missing", "Ask the customer about all of `pairs`, and record it."
)
NOTHING_TO_RETRY = _kind(
    409, "nothing-to-retry", "Nothing of it has failed or is late", "Read the devices; wait, or go on."
)
NOT_RECORDED = _kind(
    409, "not-recorded", "There is nothing to confirm yet", "Wait for the devices, or accept the part."
)
REMEDY_NOT_OFFERED = _kind(
    409, "remedy-not-offered", "This remedy is not on offer here", "Take one that `remedies` lists."
)
INSTALL_CODE_CRC = _kind(
    422, "install-code-crc", "The install code is mistyped", "Type it again from the label: it costs no try."
)
PIN_CHECKSUM = _kind(
    422, "pin-checksum", "The PIN is mistyped", "Type it again from the label: it costs no try."
)
EXCLUSIVE_PROGRAMS = _kind(
    422,
    "exclusive-programs",
    "Programs were chosen together that exclude each other",
    "Leave one of each of `pairs` out; nothing was kept.",
)
CREDENTIAL_LOCKED = _kind(
    423,
    "credential-locked",
    "Too many codes were entered for this device",
    "Wait as long as `Retry-After` says; compare with the label.",
)
TOO_MANY_SEARCHES = _kind(
    429,
    "too-many-searches",
    "Too many customers were searched for or verified",
    "Wait as long as `Retry-After` says.",
)
CCS_UNAVAILABLE = _kind(
    503,
    "ccs-unavailable",
    "The customer care system does not answer",
    "Try again in a moment; without it nobody is verified.",
)

KINDS: Final = tuple(_KINDS)

_BY_ERROR: Final[Mapping[type[Exception], Kind]] = {
    ota.ImageNotFoundError: IMAGE_NOT_FOUND,
    ota.ReleaseNotFoundError: RELEASE_NOT_FOUND,
    ota.ForeignVendorError: FORBIDDEN,
    ota.VersionUsedError: VERSION_USED,
    ota.CounterError: COUNTER,
    ota.SamePersonError: SAME_PERSON,
    ota.OtherRequestError: IDEMPOTENCY_MISMATCH,
    ota.InvalidKeyError: INVALID_REQUEST,
    ota.KeyKnownError: SIGNING_KEY_KNOWN,
    ota.KeysFullError: SIGNING_KEY_KNOWN,
    ota.KeyNotFoundError: SIGNING_KEY_NOT_FOUND,
    blobs.DamagedBlobError: IMAGE_NOT_FOUND,
    blobs.InvalidBlobNameError: INVALID_REQUEST,
    blobs.BlobTooLargeError: PAYLOAD_TOO_LARGE,
    blobs.DigestMismatchError: DIGEST_MISMATCH,
    blobs.BlobBusyError: UNAVAILABLE,
    blobs.NoSpaceError: UNAVAILABLE,
    shadow.InvalidRequestError: INVALID_REQUEST,
    shadow.ForbiddenError: FORBIDDEN,
    shadow.ThingNotFoundError: THING_NOT_FOUND,
    shadow.NoShadowError: SHADOW_NOT_FOUND,
    shadow.NotFoundError: VERSION_NOT_FOUND,
    shadow.VersionPrunedError: VERSION_PRUNED,
    shadow.VersionConflictError: VERSION_CONFLICT,
    shadow.StaleSequenceError: STALE_SEQUENCE,
    shadow.IdempotencyMismatchError: IDEMPOTENCY_MISMATCH,
    shadow.TooLargeError: PAYLOAD_TOO_LARGE,
    shadow.EncodingError: UNSUPPORTED_ENCODING,
    shadow.TooManyRequestsError: TOO_MANY_REQUESTS,
    shadow.UnavailableError: UNAVAILABLE,
    registry.InvalidThingError: INVALID_REQUEST,
    registry.ThingNotFoundError: THING_NOT_FOUND,
    registry.PremisesNotFoundError: PREMISES_NOT_FOUND,
    registry.AttachmentNotFoundError: ATTACHMENT_NOT_FOUND,
    registry.DeviceNotFoundError: DEVICE_NOT_FOUND,
    registry.ModelNotFoundError: MODEL_NOT_FOUND,
    registry.GatewayNotFoundError: GATEWAY_NOT_FOUND,
    registry.MeterNotFoundError: METER_NOT_FOUND,
    registry.AccountNotFoundError: ACCOUNT_NOT_FOUND,
    registry.DeviceTakenError: DEVICE_TAKEN,
    registry.MeterExchangedError: METER_EXCHANGED,
    registry.MeterElsewhereError: METER_ELSEWHERE,
    IllegalTransitionError: ILLEGAL_TRANSITION,
    programs.ProgramNotFoundError: PROGRAM_NOT_FOUND,
    programs.ShapeNotFoundError: SHAPE_NOT_FOUND,
    programs.TariffNotFoundError: TARIFF_NOT_FOUND,
    programs.EnrolmentNotFoundError: ENROLMENT_NOT_FOUND,
    programs.ShapeFixedError: SHAPE_FIXED,
    programs.CatalogueFullError: CATALOGUE_FULL,
    programs.IneligibleError: INELIGIBLE,
    programs.InvalidEntryError: INVALID_ENTRY,
    programs.InvalidConsentError: INVALID_CONSENT,
    programs.ProgramsBusyError: UNAVAILABLE,
    OutdatedVersionError: PRECONDITION_FAILED,
    registry.ThingExistsError: THING_EXISTS,
    registry.PremisesFullError: PREMISES_FULL,
    registry.NotAGatewayError: NOT_A_GATEWAY,
    registry.PremisesMismatchError: PREMISES_MISMATCH,
    registry.TooManyAttachmentsError: TOO_MANY_ATTACHMENTS,
    registry.QuarantinedError: FORBIDDEN,
    registry.RegistryBusyError: UNAVAILABLE,
    RecordBusyError: UNAVAILABLE,
    people.LoginRefusedError: UNAUTHORIZED,
    HashingBusyError: TOO_MANY_TRIES,
    people.InvalidAccountError: INVALID_REQUEST,
    people.WeakPasswordError: WEAK_PASSWORD,
    people.PersonNotFoundError: PERSON_NOT_FOUND,
    people.ClientNotFoundError: CLIENT_NOT_FOUND,
    people.ApprovalNotFoundError: APPROVAL_NOT_FOUND,
    people.LoginTakenError: LOGIN_TAKEN,
    people.AccountStateError: ACCOUNT_STATE,
    people.LastOfficerError: LAST_OFFICER,
    people.ApprovalNeededError: APPROVAL_NEEDED,
    people.ApprovalClosedError: APPROVAL_CLOSED,
    people.ActOutdatedError: ACT_OUTDATED,
    people.OwnApprovalError: FORBIDDEN,
    people.NotTheirsToApproveError: FORBIDDEN,
    people.PeopleBusyError: UNAVAILABLE,
    RevocationError: UNAVAILABLE,
    enrolment.WrongCodeError: WRONG_CODE,
    enrolment.NotPlacedError: NOT_ELIGIBLE,
    enrolment.TooManyCertificatesError: NOT_ELIGIBLE,
    enrolment.UnknownCertificateError: UNAUTHORIZED,
    enrolment.RenewalTooEarlyError: RENEWAL_TOO_EARLY,
    enrolment.EnrolmentBusyError: UNAVAILABLE,
    SpentError: CODE_USED,
    OverError: CODE_OVER,
    KeyKnownError: KEY_KNOWN,
    InvalidClaimIdError: MISTYPED_CODE,
    InvalidCodeError: MISTYPED_CODE,
    InvalidRequestError: INVALID_REQUEST,
    TooManyTriesError: TOO_MANY_TRIES,
    UncertifiableNameError: UNFIT_THING,
    AuthorityError: UNAVAILABLE,
    CertificateBusyError: UNAVAILABLE,
    vouchers.NoSuchThingError: THING_NOT_FOUND,
    vouchers.UnfitThingError: UNFIT_THING,
    vouchers.TooManyVouchersError: TOO_MANY_VOUCHERS,
    vouchers.NoSuchVoucherError: VOUCHER_NOT_FOUND,
    vouchers.NoSuchLabelError: INSTALL_CODE_NOT_FOUND,
    vouchers.InvalidLabelError: INVALID_LABEL,
    vouchers.VoucherBusyError: UNAVAILABLE,
    pins.InvalidPinError: INVALID_PIN,
    pins.NoPinError: PIN_NOT_KNOWN,
    pins.WrongPinError: WRONG_PIN,
    pins.PinStoppedError: TOO_MANY_TRIES,
    pins.PinBusyError: UNAVAILABLE,
    InvalidCursorError: INVALID_CURSOR,
    provisioning.InvalidRequestError: INVALID_REQUEST,
    provisioning.SessionNotFoundError: SESSION_NOT_FOUND,
    provisioning.VerificationNotFoundError: VERIFICATION_NOT_FOUND,
    provisioning.WorkOrderNotFoundError: WORK_ORDER_NOT_FOUND,
    provisioning.CustomerNotFoundError: CUSTOMER_NOT_FOUND,
    provisioning.TooManySearchesError: TOO_MANY_SEARCHES,
    provisioning.VerificationMissingError: VERIFICATION_MISSING,
    provisioning.VerificationExpiredError: VERIFICATION_EXPIRED,
    provisioning.WorkOrderMissingError: WORK_ORDER_MISSING,
    provisioning.PolicyOffError: POLICY_OFF,
    provisioning.PreconditionError: NOT_READY,
    provisioning.SessionExistsError: SESSION_EXISTS,
    provisioning.TooManySessionsError: TOO_MANY_SESSIONS,
    provisioning.RevisionConflictError: PRECONDITION_FAILED,
    provisioning.IdempotencyMismatchError: IDEMPOTENCY_MISMATCH,
    provisioning.SessionBusyError: UNAVAILABLE,
    provisioning.WindowOpenError: WINDOW_OPEN,
    provisioning.WindowClosedError: WINDOW_CLOSED,
    provisioning.GatewayCapacityError: GATEWAY_CAPACITY,
    provisioning.CredentialLockedError: CREDENTIAL_LOCKED,
    provisioning.InstallCodeCrcError: INSTALL_CODE_CRC,
    provisioning.PinChecksumError: PIN_CHECKSUM,
    provisioning.AuthNotOkError: AUTH_NOT_OK,
    provisioning.IneligiblePairsError: INELIGIBLE,
    provisioning.ConsentMissingError: CONSENT_MISSING,
    provisioning.NothingToRetryError: NOTHING_TO_RETRY,
    provisioning.NotRecordedError: NOT_RECORDED,
    provisioning.RemedyNotOfferedError: REMEDY_NOT_OFFERED,
    moves.MoveNotFoundError: MOVE_NOT_FOUND,
    moves.NotReplaceableError: NOT_REPLACEABLE,
    moves.ConfirmationNeededError: CONFIRMATION_NEEDED,
    ota.CampaignNotFoundError: CAMPAIGN_NOT_FOUND,
    ota.TargetNotFoundError: TARGET_NOT_FOUND,
    ota.InvalidCampaignError: INVALID_CAMPAIGN,
    ota.AuthorApprovesError: SAME_PERSON,
    ota.CampaignUnfitError: CAMPAIGN_UNFIT,
    ota.TooManyCampaignsError: TOO_MANY_CAMPAIGNS,
    ota.LaneFullError: OVERLOADED,
    ota.ExecutionBusyError: UNAVAILABLE,
    SnapshotNotFoundError: SNAPSHOT_NOT_FOUND,
    NotItsSuccessorError: NOT_ITS_SUCCESSOR,
    OtherNoteError: INSTALLATION_TOLD,
    NotesFullError: INSTALLATIONS_FULL,
    NoBundleError: BUNDLE_NOT_FOUND,
    care.BadSearchError: INVALID_REQUEST,
    care.CareError: CCS_UNAVAILABLE,
    UnknownItemError: OUTBOX_ITEM_NOT_FOUND,
    StoreError: UNAVAILABLE,
    TooManyWatchersError: TOO_MANY_STREAMS,
}
"""A subclass without a row of its own takes its base's; what has none is an :data:`INTERNAL` failure."""

_BY_STATUS: Final[Mapping[int, Kind]] = {
    404: ROUTE_NOT_FOUND,
    405: METHOD_NOT_ALLOWED,
    413: PAYLOAD_TOO_LARGE,
}
"""What the framework itself refuses."""

AWS_TYPES: Final[Mapping[int, str]] = {
    400: "InvalidRequestException",
    401: "UnauthorizedException",
    403: "ForbiddenException",
    404: "ResourceNotFoundException",
    405: "MethodNotAllowedException",
    408: "InvalidRequestException",
    409: "ConflictException",
    413: "RequestEntityTooLargeException",
    415: "UnsupportedDocumentEncodingException",
    429: "ThrottlingException",
    500: "InternalFailureException",
    503: "ServiceUnavailableException",
}


class ApiError(Exception):
    """A refusal by the API itself; ``members`` go into the answer beside the standard ones."""

    def __init__(
        self,
        kind: Kind,
        detail: str | None = None,
        *,
        fields: tuple[Field, ...] = (),
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail or kind.title)
        self.kind = kind
        self.detail = detail
        self.fields = fields
        self.members = members or {}


@dataclass(frozen=True, slots=True)
class Problem:
    """One refusal, before it is spelled for one of the two audiences."""

    kind: Kind
    message: str
    detail: str | None = None
    fields: tuple[Field, ...] = ()
    members: Mapping[str, Any] = field(default_factory=dict)


def describe(error: Exception) -> Problem:
    """Return what a caller is told about ``error``; nothing of an unforeseen one."""
    match error:
        case ApiError():
            return Problem(error.kind, error.kind.title, error.detail, error.fields, error.members)
        case shadow.ShadowError():
            kind = _kind_of(error)
            return Problem(kind, error.message, error.detail, members=help_of(error))
        case OutdatedVersionError():
            members = {"currentVersion": error.current}
            return Problem(PRECONDITION_FAILED, PRECONDITION_FAILED.title, str(error), members=members)
        case HTTPException():
            return _of_framework(error)
        case ota.ReleaseRefusedError():
            checks = [{"step": step, "code": code, "detail": said} for step, code, said in error.checks]
            return Problem(RELEASE_REFUSED, RELEASE_REFUSED.title, members={"checks": checks})
        case blobs.OffsetMismatchError():
            fields = ((b"upload-offset", b"%d" % error.offset),)
            members = {"offset": error.offset}
            return Problem(UPLOAD_OFFSET, UPLOAD_OFFSET.title, fields=fields, members=members)
        case programs.IneligibleError():
            return Problem(INELIGIBLE, INELIGIBLE.title, members={"reasons": error.reasons})
        case programs.InvalidEntryError():
            return Problem(INVALID_ENTRY, INVALID_ENTRY.title, members={"problems": error.problems})
        case ota.InvalidCampaignError():
            return Problem(INVALID_CAMPAIGN, INVALID_CAMPAIGN.title, members={"problems": error.problems})
        case ota.CampaignUnfitError():
            return Problem(CAMPAIGN_UNFIT, CAMPAIGN_UNFIT.title, members={"checks": error.checks})
        case people.LoginRefusedError():
            return Problem(UNAUTHORIZED, UNAUTHORIZED.title, fields=CHALLENGE)
        case provisioning.ProvisioningError():
            return _of_provisioning(error)
        case _:
            kind = _kind_of(error)
            said = None if kind.status >= 500 or kind is UNAUTHORIZED else str(error)  # noqa: PLR2004 - 5xx
            return Problem(kind, kind.title, said, _waiting(error))


def problem_reply(problem: Problem, request_id: str) -> Reply:
    """Spell a refusal as a problem document."""
    kind = problem.kind
    body: dict[str, Any] = {"type": TYPE_BASE + kind.slug, "title": kind.title, "status": kind.status}
    said = [
        text for text in (problem.message if problem.message != kind.title else None, problem.detail) if text
    ]
    if said:
        body["detail"] = ": ".join(said)
    if kind is not UNAUTHORIZED:  # that one is the same for everybody, to the byte
        body["requestId"] = request_id
    return json_reply({**body, **problem.members}, status=kind.status, media=PROBLEM, fields=_fields(problem))


def aws_reply(problem: Problem) -> Reply:
    """Spell a refusal as AWS does; the header is what boto3 looks at first."""
    status = problem.kind.status
    body: dict[str, Any] = {"message": problem.message}
    if problem.detail:
        body["detail"] = problem.detail
    name = AWS_TYPES.get(status, AWS_TYPES[500])
    fields = [*_fields(problem), (b"x-amzn-errortype", name.encode())]
    return json_reply({**body, **problem.members}, status=status, fields=fields)


def is_aws(scope: Scope) -> bool:
    """Tell which spelling this caller expects; also where no route matched, so by the path alone."""
    path = scope["path"]
    return path.startswith(("/things/", "/api/things/"))


def _kind_of(error: Exception) -> Kind:
    return next((_BY_ERROR[base] for base in type(error).__mro__ if base in _BY_ERROR), INTERNAL)


def _of_framework(error: HTTPException) -> Problem:
    kind = _BY_STATUS.get(error.status_code, INVALID_REQUEST if error.status_code < 500 else INTERNAL)  # noqa: PLR2004 - 5xx
    allow = (error.headers or {}).get("allow")
    return Problem(kind, kind.title, fields=((b"allow", allow.encode()),) if allow else ())


def help_of(error: shadow.ShadowError) -> dict[str, Any]:
    """Return the members that make a conflict repairable (spec: shadow, 11 E7)."""
    told: dict[str, Any] = dict(wire_help(error))
    told.pop("detail", None)
    return told


def _of_provisioning(error: provisioning.ProvisioningError) -> Problem:
    """Return the problem with everything that is wrong: whoever is on the telephone asks once."""
    kind = _kind_of(error)
    members: dict[str, Any] = {}
    match error:
        case provisioning.PreconditionError():
            members = {"codes": list(error.codes)}
        case provisioning.SessionExistsError():
            members = {"session": error.id}
        case provisioning.RevisionConflictError():
            members = {"currentVersion": error.revision}
        case provisioning.AuthNotOkError():
            members = {"devices": error.devices}
        case provisioning.ConsentMissingError():
            members = {"pairs": [{"device": device, "program": program} for device, program in error.pairs]}
        case provisioning.IneligiblePairsError():
            kind = EXCLUSIVE_PROGRAMS if error.exclusive_only else INELIGIBLE
            members = {
                "pairs": [
                    {"device": device, "program": program, "reasons": list(reasons)}
                    for (device, program), reasons in error.pairs.items()
                ]
            }
        case _:
            pass
    said = None if kind.status >= 500 else str(error)  # noqa: PLR2004 - 5xx
    return Problem(kind, kind.title, said, _waiting(error), members)


def _waiting(error: Exception) -> tuple[Field, ...]:
    """Return the header that says how long to wait, if the error knows."""
    retry_s = getattr(error, "retry_s", None) or getattr(error, "retry_after_s", None)
    return () if retry_s is None else ((RETRY_AFTER, b"%d" % math.ceil(retry_s)),)


def _fields(problem: Problem) -> tuple[Field, ...]:
    if problem.kind is WRONG_CODE:
        return (*problem.fields, ENROLMENT_CHALLENGE)
    if any(name == RETRY_AFTER for name, _ in problem.fields):
        return problem.fields
    if problem.kind.status in {429, 503}:
        return (*problem.fields, (RETRY_AFTER, b"%d" % RETRY_AFTER_S))
    if problem.kind.status in {408, 413}:
        # What is left of the body was not read and must not be taken for the next request.
        return (*problem.fields, (b"connection", b"close"))
    return problem.fields
