"""The evaluator processes for JavaScript and jq, and their pool."""
