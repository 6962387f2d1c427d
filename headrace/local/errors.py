"""What a person who starts a local cluster may have to read."""


class LocalClusterError(Exception):
    """Something outside the program is in the way. The message says what, and what can be done about it."""
