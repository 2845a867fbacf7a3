"""The Maestoso server. Floors and their rules: see the map of the house in README.md."""

__version__ = "0.1.0"
