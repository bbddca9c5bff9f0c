"""What waits when one batch is done is the next one: so one commit serves all who ask at a time.

Whoever asks hears the answers to what they put in, in order. What is asked and what is answered is the
owner's; how much may wait is, too, who says so before it puts anything in.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from infra.documents.port import StoreBrokenError, StoreUnavailableError

Q = TypeVar("Q")
A = TypeVar("A")

Settle = Callable[[Sequence[int], dict[int, A]], Awaitable[None]]
"""Adds the answers to what stands at these positions."""


class _Submission(NamedTuple, Generic[Q, A]):
    asked: Sequence[Q]
    answers: asyncio.Future[list[A]]


class Intake(Generic[Q, A]):
    """Has one batch after another served. ``serve`` returns an answer to each; what it raises ends it all."""

    def __init__(
        self, serve: Callable[[Sequence[Q]], Awaitable[Sequence[A]]], *, batch_max: int, waiting_max: int
    ) -> None:
        self.serving = asyncio.Lock()
        """Held while a batch is served; whoever else holds it works alone."""
        self._serve = serve
        self._batch_max = batch_max
        self._waiting_max = waiting_max
        self._waiting: list[_Submission[Q, A]] = []
        self._asked = 0
        self._arrived = asyncio.Event()
        self._ended: BaseException | None = None

    def has_room(self, count: int) -> bool:
        """Tell whether so much more may wait."""
        return self._asked + count <= self._waiting_max

    def put(self, asked: Sequence[Q]) -> asyncio.Future[list[A]]:
        """Have this served in one batch, with others; raises what ended it, if something did.

        It may be more than one batch holds: then it is one alone.
        """
        if self._ended is not None:
            raise self._ended
        submission = _Submission[Q, A](asked, asyncio.get_running_loop().create_future())
        self._waiting.append(submission)
        self._asked += len(asked)
        self._arrived.set()
        return submission.answers

    async def run(self) -> None:
        """Serve until cancelled. What was taken is finished, or its callers are told."""
        while True:
            await self._arrived.wait()
            taken = self._take()
            try:
                async with self.serving:
                    await self._answer(taken)
            except BaseException as error:
                self._ended = _ended(error)
                for submission in (*taken, *self._waiting):
                    if not submission.answers.done():
                        submission.answers.set_exception(self._ended)
                raise

    def _take(self) -> list[_Submission[Q, A]]:
        taken: list[_Submission[Q, A]] = []
        asked = 0
        for submission in self._waiting:
            if taken and asked + len(submission.asked) > self._batch_max:
                break
            taken.append(submission)
            asked += len(submission.asked)
        del self._waiting[: len(taken)]
        self._asked -= asked
        if not self._waiting:
            self._arrived.clear()
        return taken

    async def _answer(self, taken: Sequence[_Submission[Q, A]]) -> None:
        answers = iter(await self._serve([one for submission in taken for one in submission.asked]))
        for submission in taken:
            its_answers = [next(answers) for _ in submission.asked]
            if not submission.answers.done():
                submission.answers.set_result(its_answers)


async def settled(count: int, settle: Settle[A], failed: Callable[[int, Exception], A]) -> list[A]:
    """Return the answers to a batch: settled together, or each alone where a bug of ours stops them together.

    So each can fail only for itself. A broken store stops all.
    """
    answers: dict[int, A] = {}
    try:
        await settle(range(count), answers)
    except StoreBrokenError:
        raise
    except Exception:  # noqa: BLE001 - whose fault it is shows when each is alone
        for position in [one for one in range(count) if one not in answers]:
            try:
                await settle([position], answers)
            except StoreBrokenError:
                raise
            except Exception as error:  # noqa: BLE001 - it is answered, and others go on
                answers[position] = failed(position, error)
    return [answers[position] for position in range(count)]


def _ended(error: BaseException) -> BaseException:
    """Return what a caller hears whose question was under way when it ended."""
    if isinstance(error, asyncio.CancelledError):
        return StoreUnavailableError("the service is stopping")
    return error
