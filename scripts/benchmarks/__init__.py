"""The measure of this project: `scripts/bench SCENARIO`. One file a scenario.

A scenario starts its own Postgres and servers (`stage`), drives them from processes of its own
(`loads`), counts what was done in Postgres, and returns one dict of figures a run. `report` takes
the medians, holds them against the floors and prints one JSON object.
"""
