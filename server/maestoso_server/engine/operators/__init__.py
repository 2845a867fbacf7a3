"""What each kind of node does when it is reached, and when it runs.

An operator is two pairs of functions. `prepare_*` reads, may want rows or answers, and changes
nothing: it is repeated until everything it read is known. `birth` and `run` act on what it found.
"""
