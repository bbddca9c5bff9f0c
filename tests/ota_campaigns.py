"""Campaigns and their targets for tests, and plans as text."""

from dataclasses import replace
from typing import Any

from ota import campaign as acts
from ota.actions import Abort, CampaignAction, Complete, Move, OpenWave, Pause, Plan, Schedule, Start
from ota.campaign import Campaign, Frozen, Terms, wave_ends, wave_of
from ota.models import Execution
from ota.states import CampaignState, ExecutionState

ID = "6f1c7a52-0d5e-4c5b-9d1e-2f8f6a1b3c4d"
START_MS = 1_790_000_000_000
DAY_MS = 86_400_000


def terms(**changes: Any) -> Terms:
    usual: dict[str, Any] = {
        "release": "rel-1",
        "per_hour": 10_000,
        "max_in_flight": 833,
        "lasts_ms": 30 * DAY_MS,
        "deadline_s": 300,
        "start_grace_s": 120,
        "confirm_s": 60,
        "health_s": 60,
        "soak_s": 900,
        "pause_ttl_s": 86_400,
        "retries": 2,
    }
    return Terms(**(usual | changes))


def frozen(ordered: int, **changes: Any) -> Frozen:
    usual: dict[str, Any] = {
        "revision": 1,
        "targets": ordered,
        "ordered": ordered,
        "root": "",
        "manifest": "",
        "image": "",
        "not_before_s": START_MS // 1_000,
        "not_after_s": START_MS // 1_000 + 30 * 86_400,
    }
    return Frozen(**(usual | changes))


def campaign(
    ordered: int, state: CampaignState = CampaignState.RUNNING, id: str = ID, **changes: Any
) -> Campaign:
    one = acts.create(id, terms(**changes), "ann", START_MS)
    one = acts.submit(one, frozen(ordered), "ann", START_MS)
    if state is CampaignState.FROZEN:
        return one
    one = replace(acts.approve(one, b"order", "bob", START_MS), created=True)
    if state is CampaignState.APPROVED:
        return one
    one = acts.start(one, "campaigns", START_MS)
    return acts.pause(one, "why", "ann", START_MS, automatic=False) if state is CampaignState.PAUSED else one


def thing(number: int) -> str:
    return f"th-{number:05d}"


def targets(one: Campaign) -> list[Execution]:
    assert one.frozen is not None
    ends = wave_ends(one.terms, one.frozen.ordered)
    return [
        Execution(
            campaign=one.id,
            thing=thing(place),
            wave=wave_of(place, ends),
            place=place,
            proof_index=place,
            state=ExecutionState.PLANNED,
        )
        for place in range(one.frozen.ordered)
    ]


def text(plan: Plan) -> str:
    """Return a plan as people read it."""
    lines = [_action(one) for one in plan.campaign] + [_move(one) for one in plan.moves]
    wake = "-" if plan.next_wake_ms is None else f"{(plan.next_wake_ms - START_MS) / 1_000:g} s"
    return "".join(f"{line}\n" for line in [*lines, f"wake {wake}"])


def _action(action: CampaignAction) -> str:
    match action:
        case Schedule() | Start() | Complete():
            return f"campaign {type(action).__name__.lower()}"
        case OpenWave(number):
            return f"campaign open wave {number}"
        case Pause(reason) | Abort(reason):
            return f"campaign {type(action).__name__.lower()} {reason}"


def _move(move: Move) -> str:
    words = [move.trigger, move.thing, f"#{move.attempt}", move.reason]
    if move.not_before_ms:
        words.append(f"not before {(move.not_before_ms - START_MS) / 1_000:g} s")
    return " ".join(word for word in words if word)
