"""Run by Windows' Python: asks a window to close, as a click on its cross does.

Prints the window's title as Windows has it. Exit code 1: no visible window has these words.
"""

import ctypes
import sys
from ctypes import wintypes

WM_CLOSE = 0x0010
user = ctypes.WinDLL("user32", use_last_error=True)
VISIT = ctypes.WINFUNCTYPE(wintypes.BOOL, wintypes.HWND, wintypes.LPARAM)
user.EnumWindows.argtypes = (VISIT, wintypes.LPARAM)
user.IsWindowVisible.argtypes = (wintypes.HWND,)
user.GetWindowTextW.argtypes = (wintypes.HWND, wintypes.LPWSTR, ctypes.c_int)
user.PostMessageW.argtypes = (wintypes.HWND, wintypes.UINT, wintypes.WPARAM, wintypes.LPARAM)
titles = {}


@VISIT
def visit(window, _):
    text = ctypes.create_unicode_buffer(1024)
    if user.IsWindowVisible(window) and user.GetWindowTextW(window, text, 1024):
        titles[window] = text.value
    return True


user.EnumWindows(visit, 0)
for handle, title in titles.items():
    if sys.argv[1] in title:
        print(ascii(title))
        sys.exit(0 if user.PostMessageW(handle, WM_CLOSE, 0, 0) else 1)
print(f"no window of {len(titles)} has {sys.argv[1]!r} in its title")
sys.exit(1)
