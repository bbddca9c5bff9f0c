"""Somebody at a terminal, with an authenticator app at hand."""

from collections.abc import Callable

from security.people import totp
from tests.fakes import FakeClock


class Typist:
    """Types what is asked for, and reads the seed off the screen."""

    def __init__(self, clock: FakeClock, **answers: str) -> None:
        self._clock = clock
        self._answers = answers
        self.seed = answers.pop("seed", "")
        self.questions = list[str]()

    def reads(self, text: object = None, **_: object) -> None:
        words = str(text)
        if "secret=" in words:
            self.seed = words.split("secret=")[1].split("&", maxsplit=1)[0]

    def types(self, question: str, **_: object) -> str:
        self.questions.append(question)
        if "code of the second factor" in question:
            if "counts once" in question:
                self._clock.advance(totp.STEP_S)
            return totp.code_at(self.seed, totp.step_of(self._clock.now_ms()))
        return next(answer for word, answer in self._answers.items() if word in question)


Sit = Callable[..., Typist]
"""Puts somebody there, with the answer to each question by a word of it."""
