"""A one-place buffer between a camera and a slower consumer: the newest frame wins, drops are counted."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class FrameBuffer(Generic[T]):
    """Thread-safe. `put` never blocks; `get` returns every item at most once, always the newest."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._item: T | None = None
        self._full = False
        self._closed = False
        self._received = self._dropped = 0

    def put(self, item: T) -> None:
        """Offer the newest item; an older one nobody took is dropped. Ignored after `close`."""
        with self._condition:
            if self._closed:
                return
            self._received += 1
            self._dropped += self._full
            self._item, self._full = item, True
            self._condition.notify()

    def get(self, timeout: float | None = None) -> T | None:
        """The newest item, waiting up to `timeout` s for one (None: for ever); None on timeout or when closed."""
        with self._condition:
            self._condition.wait_for(lambda: self._full or self._closed, timeout)
            if not self._full:
                return None
            item, self._item, self._full = self._item, None, False
            return item

    def clear(self) -> None:
        """Forget the waiting item (not counted as dropped)."""
        with self._condition:
            self._item, self._full = None, False

    def close(self) -> None:
        """Wake every waiting `get` with None, for good; a waiting item is forgotten."""
        with self._condition:
            self._closed, self._item, self._full = True, None, False
            self._condition.notify_all()

    @property
    def received(self) -> int:
        """Items ever offered."""
        return self._received

    @property
    def dropped(self) -> int:
        """Items replaced before anyone took them."""
        return self._dropped
