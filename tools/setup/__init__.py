"""What run.py needs to turn a fresh machine into one that runs the demo and the tests.

Standard library only: these modules run before anything is installed.
"""
