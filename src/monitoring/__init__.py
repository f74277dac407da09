"""Checking relays: which are due, the checks in worker processes, their results' way home."""
