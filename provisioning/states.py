"""The life cycles of provisioning as tables: session, device in a session, join window, remedy. Pure.

(spec: han, 2.3 and 2.4)
"""

from enum import StrEnum
from types import MappingProxyType
from typing import Final

from infra.machines import Machine


class SessionState(StrEnum):
    """Where a provisioning session is."""

    OPENING = "OPENING"
    """Made, and not seen by anybody until the premises are its own."""
    OPEN = "OPEN"
    DISCOVERING = "DISCOVERING"
    DISCOVERED = "DISCOVERED"
    NOT_RECOGNIZED = "NOT_RECOGNIZED"
    AWAITING_REMEDY = "AWAITING_REMEDY"
    SELECTED = "SELECTED"
    PROGRAMS_CHOSEN = "PROGRAMS_CHOSEN"
    PROVISIONING = "PROVISIONING"
    PARTIAL = "PARTIAL"
    """Some devices are ready, some are not; it can be resumed, or accepted as it is."""
    ACKED = "ACKED"
    RECORDED = "RECORDED"
    """Its records are durable with us, whether or not the customer care system has them yet."""
    CONFIRMED = "CONFIRMED"
    ABORTED = "ABORTED"
    EXPIRED = "EXPIRED"


class SessionTrigger(StrEnum):
    """What moves a session on."""

    OPENED = "opened"
    PREMISES_TAKEN = "premises_taken"
    DISCOVERY_STARTED = "discovery_started"
    RECOGNIZED = "recognized"
    NONE_RECOGNIZED = "none_recognized"
    REMEDY_ACCEPTED = "remedy_accepted"
    REMEDY_DECLINED = "remedy_declined"
    REMEDY_DONE = "remedy_done"
    SELECTION = "selection"
    PROGRAMS_ACCEPTED = "programs_accepted"
    PROVISION = "provision"
    ALL_READY = "all_ready"
    SOME_NOT_READY = "some_not_ready"
    RECORDS_DURABLE = "records_durable"
    PART_ACCEPTED = "part_accepted"
    CONFIRM = "confirm"
    ABORT = "abort"
    IDLE = "idle"


_S, _T = SessionState, SessionTrigger
_RECORDED: Final = (_S.RECORDED, _S.CONFIRMED)
_OVER: Final = (_S.ABORTED, _S.EXPIRED)
_UNRECORDED: Final = tuple(state for state in _S if state not in (*_RECORDED, *_OVER))
_DISCOVERABLE: Final = (_S.OPEN, _S.DISCOVERED, _S.SELECTED, _S.PROGRAMS_CHOSEN, _S.NOT_RECOGNIZED)

SESSION: Final[Machine[SessionState, SessionTrigger]] = Machine(
    "session",
    MappingProxyType(
        {
            (None, _T.OPENED): _S.OPENING,
            (_S.OPENING, _T.PREMISES_TAKEN): _S.OPEN,
            **{(state, _T.DISCOVERY_STARTED): _S.DISCOVERING for state in _DISCOVERABLE},
            (_S.DISCOVERING, _T.RECOGNIZED): _S.DISCOVERED,
            (_S.DISCOVERING, _T.NONE_RECOGNIZED): _S.NOT_RECOGNIZED,
            (_S.NOT_RECOGNIZED, _T.REMEDY_ACCEPTED): _S.AWAITING_REMEDY,
            (_S.NOT_RECOGNIZED, _T.REMEDY_DECLINED): _S.ABORTED,
            (_S.AWAITING_REMEDY, _T.REMEDY_DONE): _S.OPEN,
            (_S.DISCOVERED, _T.SELECTION): _S.SELECTED,
            (_S.SELECTED, _T.SELECTION): _S.SELECTED,
            (_S.PROGRAMS_CHOSEN, _T.SELECTION): _S.SELECTED,
            (_S.SELECTED, _T.PROGRAMS_ACCEPTED): _S.PROGRAMS_CHOSEN,
            (_S.PROGRAMS_CHOSEN, _T.PROGRAMS_ACCEPTED): _S.PROGRAMS_CHOSEN,
            (_S.PROGRAMS_CHOSEN, _T.PROVISION): _S.PROVISIONING,
            (_S.PARTIAL, _T.PROVISION): _S.PROVISIONING,
            (_S.PROVISIONING, _T.ALL_READY): _S.ACKED,
            (_S.PROVISIONING, _T.SOME_NOT_READY): _S.PARTIAL,
            (_S.PARTIAL, _T.ALL_READY): _S.ACKED,
            (_S.ACKED, _T.RECORDS_DURABLE): _S.RECORDED,
            (_S.PARTIAL, _T.PART_ACCEPTED): _S.RECORDED,
            (_S.RECORDED, _T.CONFIRM): _S.CONFIRMED,
            **{(state, _T.ABORT): _S.ABORTED for state in _UNRECORDED},
            **{(state, _T.IDLE): _S.EXPIRED for state in _UNRECORDED},
        }
    ),
)

CHANGEABLE: Final = frozenset({_S.DISCOVERED, _S.SELECTED, _S.PROGRAMS_CHOSEN})
"""States in which what was chosen may still be changed."""
BEFORE_SENDING: Final = frozenset(
    {*CHANGEABLE, _S.OPEN, _S.DISCOVERING, _S.NOT_RECOGNIZED, _S.AWAITING_REMEDY}
)
"""States before step 12, in which consent is taken."""


class DeviceState(StrEnum):
    """Where a device is within one session."""

    SEEN = "SEEN"
    RECOGNIZED = "RECOGNIZED"
    UNRECOGNIZED = "UNRECOGNIZED"
    AUTH_PENDING = "AUTH_PENDING"
    AUTH_OK = "AUTH_OK"
    AUTH_FAILED = "AUTH_FAILED"
    SELECTED = "SELECTED"
    LEFT_OUT = "LEFT_OUT"
    ATTACHING = "ATTACHING"
    SENT = "SENT"
    """Registered, its enrolments made, its program written."""
    ACTIVATED = "ACTIVATED"
    READY = "READY"
    LATE = "LATE"
    FAILED = "FAILED"


class SeenTrigger(StrEnum):
    """What moves a device on within a session."""

    SEE = "see"
    RECOGNIZE = "recognize"
    MISS = "miss"
    """No model of the catalogue fits, or none that a route here can carry."""
    PROVE = "prove"
    """Its proof is awaited."""
    ACCEPT = "accept"
    REFUSE = "refuse"
    CHOOSE = "choose"
    LEAVE_OUT = "leave_out"
    SEND = "send"
    SENT = "sent"
    ACTIVATE = "activate"
    BE_READY = "be_ready"
    LIMIT = "limit"
    FAIL = "fail"


_D, _W = DeviceState, SeenTrigger
UNDER_WAY: Final = (_D.ATTACHING, _D.SENT, _D.ACTIVATED)

DEVICE_IN_SESSION: Final[Machine[DeviceState, SeenTrigger]] = Machine(
    "device in a session",
    MappingProxyType(
        {
            (None, _W.SEE): _D.SEEN,
            (_D.SEEN, _W.RECOGNIZE): _D.RECOGNIZED,
            (_D.SEEN, _W.MISS): _D.UNRECOGNIZED,
            # The catalogue and the routes may grow while the session waits for a remedy.
            (_D.UNRECOGNIZED, _W.RECOGNIZE): _D.RECOGNIZED,
            (_D.RECOGNIZED, _W.PROVE): _D.AUTH_PENDING,
            (_D.AUTH_PENDING, _W.ACCEPT): _D.AUTH_OK,
            (_D.AUTH_PENDING, _W.REFUSE): _D.AUTH_FAILED,
            # Another code for the same device.
            (_D.AUTH_FAILED, _W.PROVE): _D.AUTH_PENDING,
            (_D.AUTH_OK, _W.CHOOSE): _D.SELECTED,
            (_D.AUTH_OK, _W.LEAVE_OUT): _D.LEFT_OUT,
            (_D.SELECTED, _W.CHOOSE): _D.SELECTED,
            (_D.SELECTED, _W.LEAVE_OUT): _D.LEFT_OUT,
            (_D.LEFT_OUT, _W.CHOOSE): _D.SELECTED,
            (_D.LEFT_OUT, _W.LEAVE_OUT): _D.LEFT_OUT,
            (_D.SELECTED, _W.SEND): _D.ATTACHING,
            (_D.ATTACHING, _W.SENT): _D.SENT,
            (_D.SENT, _W.ACTIVATE): _D.ACTIVATED,
            (_D.ACTIVATED, _W.BE_READY): _D.READY,
            **{(state, _W.LIMIT): _D.LATE for state in UNDER_WAY},
            (_D.LATE, _W.SENT): _D.SENT,
            (_D.LATE, _W.ACTIVATE): _D.ACTIVATED,
            (_D.LATE, _W.BE_READY): _D.READY,
            (_D.LATE, _W.SEND): _D.ATTACHING,
            **{(state, _W.FAIL): _D.FAILED for state in (*UNDER_WAY, _D.LATE)},
            (_D.FAILED, _W.SEND): _D.ATTACHING,
            (_D.FAILED, _W.SENT): _D.SENT,
        }
    ),
)

RECOGNIZED: Final = frozenset(_D) - {_D.SEEN, _D.UNRECOGNIZED}
"""States of a device that the catalogue knows and a route of the premises can carry."""


class WindowState(StrEnum):
    """Where a join window is."""

    CLOSED = "CLOSED"
    SCHEDULED = "SCHEDULED"
    """Waits for its time, or for the gateway's HAN to be ready."""
    REQUESTED = "REQUESTED"
    OPEN = "OPEN"
    EXPIRED = "EXPIRED"
    """The gateway did not open it in time."""


class WindowTrigger(StrEnum):
    """What moves a join window on."""

    SCHEDULE = "schedule"
    REQUEST = "request"
    OPENED = "opened"
    CLOSE = "close"
    MISSED = "missed"


_J, _G = WindowState, WindowTrigger

WINDOW: Final[Machine[WindowState, WindowTrigger]] = Machine(
    "join window",
    MappingProxyType(
        {
            (None, _G.SCHEDULE): _J.SCHEDULED,
            (_J.CLOSED, _G.SCHEDULE): _J.SCHEDULED,
            (_J.EXPIRED, _G.SCHEDULE): _J.SCHEDULED,
            (_J.SCHEDULED, _G.REQUEST): _J.REQUESTED,
            (_J.SCHEDULED, _G.CLOSE): _J.CLOSED,
            (_J.REQUESTED, _G.OPENED): _J.OPEN,
            (_J.REQUESTED, _G.CLOSE): _J.CLOSED,
            (_J.REQUESTED, _G.MISSED): _J.EXPIRED,
            (_J.OPEN, _G.CLOSE): _J.CLOSED,
        }
    ),
)


class RemedyState(StrEnum):
    """Where a remedy is."""

    OFFERED = "OFFERED"
    TOLD = "TOLD"
    ACCEPTED = "ACCEPTED"
    ORDERED = "ORDERED"
    DONE = "DONE"
    DECLINED = "DECLINED"
    CANCELLED = "CANCELLED"


class RemedyTrigger(StrEnum):
    """What moves a remedy on."""

    OFFER = "offer"
    TELL = "tell"
    ACCEPT = "accept"
    DECLINE = "decline"
    ORDER = "order"
    DONE = "done"
    CANCEL = "cancel"


_R, _Y = RemedyState, RemedyTrigger

REMEDY: Final[Machine[RemedyState, RemedyTrigger]] = Machine(
    "remedy",
    MappingProxyType(
        {
            (None, _Y.OFFER): _R.OFFERED,
            (_R.OFFERED, _Y.TELL): _R.TOLD,
            (_R.TOLD, _Y.TELL): _R.TOLD,
            (_R.TOLD, _Y.ACCEPT): _R.ACCEPTED,
            (_R.TOLD, _Y.DECLINE): _R.DECLINED,
            (_R.ACCEPTED, _Y.ORDER): _R.ORDERED,
            (_R.ACCEPTED, _Y.DONE): _R.DONE,
            (_R.ORDERED, _Y.DONE): _R.DONE,
            (_R.ACCEPTED, _Y.CANCEL): _R.CANCELLED,
            (_R.ORDERED, _Y.CANCEL): _R.CANCELLED,
        }
    ),
)
