"""Tries the wheel for Windows under wine, on a Linux machine."""
