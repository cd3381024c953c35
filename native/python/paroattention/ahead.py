"""Work of the host that goes on beside a GPU's: the first plan, while the last dense step runs."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Ahead:
    """work() on a thread of its own. cancel() keeps what it gives from being used; a daemon, so
    that a run that is interrupted never waits for it."""

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
