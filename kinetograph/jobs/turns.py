"""A lock that is handed over in the order in which it was asked for. Python's own may be had by whoever comes last."""

import threading
from collections import deque


class Turns:
    """One thread at a time; the others stand in line."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._taken = False
        self._line: deque[threading.Event] = deque()

    def take(self, seconds: float) -> bool:
        """Wait for one's turn; whether it came within the time."""
        with self._guard:
            if not self._taken:
                self._taken = True
                return True
            mine = threading.Event()
            self._line.append(mine)
        if mine.wait(seconds):
            return True
        with self._guard:
            if mine.is_set():  # it came in the last moment
                return True
            self._line.remove(mine)
            return False

    def leave(self) -> None:
        """Let the next one in."""
        with self._guard:
            if self._line:
                self._line.popleft().set()
            else:
                self._taken = False
