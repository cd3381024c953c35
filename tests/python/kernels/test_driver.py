"""What NVIDIA's driver is asked: both of its libraries may be missing, old or in trouble."""

import pytest
from paroattention.kernels import driver


class Library:
    """A stand-in for one of the driver's libraries. code: what its functions return."""

    def __init__(self, code: int, management: bool):
        self._code = code
        if management:
            self.nvmlInit_v2 = lambda: code
            self.nvmlShutdown = lambda: 0
            self.nvmlSystemGetDriverVersion = self._release
        else:
            self.cuDriverGetVersion = self._cuda

    def _release(self, text, size):
        text.value = b"580.95.05"
        return self._code

    def _cuda(self, number):
        number._obj.value = 12080
        return self._code


@pytest.mark.parametrize(
    ("codes", "told"),
    [
        ((0, 0), "580.95.05, for CUDA 12.8 and older"),
        ((9, 0), "for CUDA 12.8 and older"),
        ((None, 0), "for CUDA 12.8 and older"),
        ((0, 3), "580.95.05, does not tell its version (error 3)"),
        ((None, None), "not found"),
    ],
)
def test_the_driver_is_told(monkeypatch, codes, told):
    def load(name):
        management = "ml" in name
        code = codes[0] if management else codes[1]
        if code is None:
            raise OSError(name)
        return Library(code, management)

    monkeypatch.setattr(driver.ctypes, "CDLL", load)
    assert driver.version() == told


def test_a_library_without_the_function_counts_as_none(monkeypatch):
    monkeypatch.setattr(driver.ctypes, "CDLL", lambda name: object())
    assert driver.version() == "not found"
