"""A reply, and the retrying of one target as a value: urllib3's `Retry`, aware of a deadline.

urllib3's own retrying cannot be used as it is: it sleeps by itself, past any deadline, obeys a
`Retry-After` of hours, starts the first retry at once, and keeps no times.
"""

from __future__ import annotations

import copy
import email.utils
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Self, overload

import msgspec
from urllib3 import Retry

from opsgate.verdict.targets import Attempt, Policy

if TYPE_CHECKING:
    import random


FIRST_WAIT_MS: Final = 100.0
RETRY_AFTER_LIMIT_MS: Final = 5000.0
JITTER: Final = 0.4
_DIGITS: Final = 9
_DOUBLINGS: Final = 20


class Reply(msgspec.Struct, frozen=True):
    """A finished attempt, and for how many seconds the server asked to be left alone, if it did."""

    attempt: Attempt
    retry_after: float | None = None


class History(Sequence["Attempt"]):
    """Finished attempts, the oldest first. Immutable, and adding one costs the same however many there are.

    Successive histories share one list that only ever grows; each sees its own first part of it.
    """

    __slots__ = ("_items", "_length")

    def __init__(self, items: list[Attempt] | None = None, length: int = 0) -> None:
        self._items = [] if items is None else items
        self._length = length

    def plus(self, attempt: Attempt) -> History:
        """This history and one more."""
        items = self._items if len(self._items) == self._length else self._items[: self._length]
        items.append(attempt)
        return History(items, self._length + 1)

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Attempt: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Attempt]: ...
    def __getitem__(self, index: int | slice) -> Attempt | Sequence[Attempt]:
        if isinstance(index, slice):
            return self._items[: self._length][index]
        if not -self._length <= index < self._length:
            raise IndexError(index)
        return self._items[index if index >= 0 else self._length + index]


class Pace(Retry):
    """When the next attempt at one target is due, given all before it.

    `interval_ms` lies between the starts of healthy attempts and bounds the backoff; no wait goes
    past `deadline_ms`; `latest_ms` is the last start that could still lead to a pass. Times are in
    ms since the gate began. `history` holds the attempts, `failures` counts those since the last
    healthy one, and `next_at_ms` is never before the last one's end.
    """

    def __init__(
        self,
        *,
        interval_ms: float,
        deadline_ms: float,
        latest_ms: float,
        rng: random.Random,
        next_at_ms: float = 0.0,
        failures: int = 0,
        history: Any = None,
        **settings: Any,
    ) -> None:
        super().__init__(**{"total": None, **settings})
        self.history: Any = History() if history is None else history
        self.interval_ms = interval_ms
        self.deadline_ms = deadline_ms
        self.latest_ms = latest_ms
        self.rng = rng
        self.next_at_ms = next_at_ms
        self.failures = failures

    @classmethod
    def begin(cls, policy: Policy, *, latest_ms: float, rng: random.Random) -> Self:
        """The pace before the first attempt, which is due at once."""
        return cls(
            interval_ms=policy.interval * 1000,
            deadline_ms=policy.deadline * 1000,
            latest_ms=latest_ms,
            rng=rng,
        )

    def new(self, **kw: Any) -> Self:
        """A copy with some settings changed; urllib3's way, which knows only its own."""
        own = {
            "interval_ms": self.interval_ms,
            "deadline_ms": self.deadline_ms,
            "latest_ms": self.latest_ms,
            "rng": self.rng,
            "next_at_ms": self.next_at_ms,
            "failures": self.failures,
        }
        return super().new(**{**own, **kw})

    def after(self, reply: Reply) -> Self:
        """The pace once this attempt, the one that was due, has ended."""
        attempt = reply.attempt
        # `new` walks through all of urllib3's settings; a gate does this a thousand times a second.
        ended = copy.copy(self)
        ended.history = self.history.plus(attempt)
        ended.failures = 0 if attempt.ok else self.failures + 1
        due = attempt.at_ms + ended.get_backoff_time() * 1000
        if not attempt.ok and reply.retry_after is not None:
            due = max(due, attempt.end_ms + min(reply.retry_after * 1000, RETRY_AFTER_LIMIT_MS))
        earliest = max(attempt.end_ms, attempt.at_ms + min(FIRST_WAIT_MS, self.interval_ms))
        in_time = attempt.end_ms < self.latest_ms < due and earliest < self.latest_ms + FIRST_WAIT_MS / 2
        if in_time and not attempt.ok:
            # A server that asks to be retried later than a pass is possible still gets its last chance,
            # with the time that its answer seems to take.
            due = max(earliest, self.latest_ms - attempt.elapsed_ms)
        ended.next_at_ms = max(attempt.end_ms, min(due, self.deadline_ms))
        return ended

    def get_backoff_time(self) -> float:
        """Seconds from the start of the last attempt to the next: the interval, after failures less.

        0.1 s after one failure, doubling with jitter of up to two fifths; what of it would pass the
        interval turns back there. Never under 0.1 s, or the interval where that is shorter.
        """
        bound = self.interval_ms
        if self.failures == 0:
            return bound / 1000
        wait = min(FIRST_WAIT_MS * 2.0 ** min(self.failures - 1, _DOUBLINGS), bound)
        if self.failures > 1:
            # A bound without jitter would bring all targets of a dead host, and all gates that watch
            # it, into step, and let a runtime that has come up wait longer to be seen.
            wait = bound - abs(bound - wait * (1 + self.rng.random() * JITTER))
        return max(wait, min(FIRST_WAIT_MS, bound)) / 1000

    def is_exhausted(self) -> bool:
        """Whether the deadline comes before the next attempt."""
        return self.next_at_ms >= self.deadline_ms


def retry_after_seconds(value: str, now: float) -> float | None:
    """A `Retry-After` header, delta or HTTP date, in seconds from `now`; None if it is neither.

    `now` is in seconds since the epoch.
    """
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text) if len(text) <= _DIGITS else 10.0**_DIGITS
    try:
        parsed = email.utils.parsedate_tz(text)
        return None if parsed is None else max(0.0, email.utils.mktime_tz(parsed) - now)
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
