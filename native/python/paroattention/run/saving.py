"""Saving what a run learned, beside a GPU's work where there is one."""

from __future__ import annotations

from collections.abc import Callable

from .beside import Ahead


class Saver:
    """Calls save(profile, tensors) with one profile after another. A profile that cannot be saved
    is told by note(reason): a full disk must not end a run that took the user minutes."""

    def __init__(self, save: Callable | None, note: Callable[[str], None]):
        self._save, self._note = save, note
        self._coming: Ahead | None = None

    @property
    def wanted(self) -> bool:
        return self._save is not None

    def store(self, profile, tensors: Callable[[], dict], background: bool) -> None:
        """tensors() makes the capture for the viewer, hundreds of megabytes at Wan 14B's size.
        background: returns before the files are written."""
        self.settle()
        try:
            found = tensors()
            if background:
                self._coming = Ahead(lambda: self._save(profile, found), lambda _: None)
            else:
                self._save(profile, found)
        except Exception as error:
            self._tell(error)

    def settle(self) -> None:
        """Waits for what is still being written."""
        coming, self._coming = self._coming, None
        try:
            if coming is not None:
                coming.result()
        except Exception as error:
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        # Some errors have no text of their own.
        why = str(error).strip() or type(error).__name__
        self._note(f"the profile could not be saved: {why}")
