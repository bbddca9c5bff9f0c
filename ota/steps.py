"""What an action does to a campaign and to a target: the planner tries it, the executor does it. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ota import campaign as acts
from ota import pace
from ota.actions import Abort, CampaignAction, Complete, Move, OpenWave, Pause, Schedule, Start
from ota.campaign import Campaign
from ota.executions import moved
from ota.models import Execution
from ota.states import EXECUTION, FINAL, ExecutionTrigger

BY: Final = "campaigns"
"""The actor of what a campaign does by itself."""


def acted(campaign: Campaign, actions: Sequence[CampaignAction], offers: int, now_ms: int) -> Campaign:
    """Return a campaign after actions on it, with the tokens taken for some offers.

    Raises:
        IllegalTransitionError: people, or another executor, were first.
    """
    for action in actions:
        campaign = _acted(campaign, action, now_ms)
    if not offers:
        return campaign
    per_hour = pace.pace(campaign.terms.per_hour, campaign.terms.ramp, campaign.offered)
    bucket = pace.taken(pace.filled(campaign.bucket, per_hour, now_ms), offers)
    return replace(campaign, bucket=bucket, offered=campaign.offered + offers)


def _acted(campaign: Campaign, action: CampaignAction, now_ms: int) -> Campaign:
    match action:
        case Schedule():
            return acts.schedule(campaign, BY, now_ms)
        case Start():
            return acts.start(campaign, BY, now_ms)
        case OpenWave(number):
            return replace(campaign, wave=max(number, campaign.wave))
        case Pause(reason):
            return acts.pause(campaign, reason, BY, now_ms, automatic=True)
        case Abort(reason):
            return acts.abort(campaign, reason, BY, now_ms, automatic=True)
        case Complete():
            return acts.complete(campaign, BY, now_ms)


def carried_out(move: Move, execution: Execution, now_ms: int) -> Execution | None:
    """Return a target after a move; None: it has gone on meanwhile, and nothing is to be done."""
    if execution.attempt != move.attempt or not EXECUTION.takes(execution.state, move.trigger):
        return None
    if move.trigger in _PLANNED_AGAIN:
        return moved(execution, move.trigger, now_ms, retry_at_ms=move.not_before_ms)
    if EXECUTION.after(execution.state, move.trigger) in FINAL:
        return moved(execution, move.trigger, now_ms, reason=move.reason)
    return moved(execution, move.trigger, now_ms)


_PLANNED_AGAIN: Final = frozenset({ExecutionTrigger.RECALL, ExecutionTrigger.RETRY})
