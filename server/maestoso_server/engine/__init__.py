"""The engine: pure functions from what a workflow is and what happened to what it becomes.

Nothing in this package reads a clock, makes a random number, waits, logs or does I/O.
"""
