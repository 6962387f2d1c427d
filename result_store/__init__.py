"""Sole owner of the result database: results of attempts, keyed by task and attempt."""
