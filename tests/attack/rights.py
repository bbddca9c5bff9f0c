"""Attacks on what is others': every role at every route, and telling foreign from absent. (B15, B32)"""

from tests.attack import walk
from tests.attack.attacks import Score, attack
from tests.attack.field import Field


@attack("B15", "other people's objects", at_least=1_000)
def foreign_objects(field: Field, score: Score) -> None:
    """Every role calls every route for what is theirs, somebody else's, nobody's, and what cannot be."""
    walked = walk.in_a_process(field.holes)
    score.attempts(f"not as the table says: {walked.found[:3]}", walked.tried, len(walked.found))
    score.honest(f"one's own is there ({walked.own})", works=walked.own == 200)
    score.measure(calls=walked.tried)


@attack("B32", "probing what exists", at_least=1_000)
def probing(field: Field, score: Score) -> None:
    """Compare what is foreign with what is absent: status, body, and the calls of the store."""
    walked = walk.in_a_process(field.holes)
    apart = walked.told_apart
    score.attempts(f"told apart: {apart[:3]}", walked.tried, len(apart))
    score.honest(f"one's own is there ({walked.own})", works=walked.own == 200)
