"""Work of the host while a GPU computes: on a thread of its own, or between two calls."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Beside:
    """Host work that becomes due when a step begins, and is done after `calls` of its calls.

    By then the GPU has several layers to compute and does not wait for the host. In a step of fewer
    calls it is done when the next step begins.
    """

    def __init__(self, calls: int = 8):
        self._most = self._due = self._calls = calls
        self._work = None

    def begin(self, work: Callable[[], object]) -> None:
        """A step begins, with this work. That of the last step must be done."""
        # A step is taken to have as many calls as the last one that made any.
        if self._calls:
            self._due = min(self._most, self._calls)
        self._calls, self._work = 0, work

    @property
    def calls(self) -> int:
        """Of the step under way, so far."""
        return self._calls

    def called(self) -> bool:
        """Counts a call. Returns whether it is time to `run`."""
        self._calls += 1
        return self._calls == self._due

    def run(self) -> None:
        """Does what is left, if anything is."""
        work, self._work = self._work, None
        if work is not None:
            work()


class Ahead:
    """Runs work() on a thread of its own. After cancel() its result goes to give_up(result).

    The thread is a daemon, so that an interrupted run never waits for it.
    """

    def __init__(self, work: Callable[[], object], give_up: Callable[[object], None]):
        self._work, self._give_up = work, give_up
        self._result: object = None
        self._error: Exception | None = None
        self._cancelled = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="paro-plan", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            result = self._work()
        except Exception as error:
            self._error = error
            return
        finally:
            self._work = None
        with self._lock:
            if not self._cancelled:
                self._result = result
                return
        self._give_up(result)

    def result(self):
        """Waits for what work() gave; raises what it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._result

    def cancel(self) -> None:
        """Returns at once. What is there already is given up."""
        with self._lock:
            self._cancelled = True
            result, self._result = self._result, None
        if result is not None:
            self._give_up(result)
