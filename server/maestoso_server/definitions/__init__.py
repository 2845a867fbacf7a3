"""Workflow and task definitions: their documents as typed values, and what is wrong with them."""
