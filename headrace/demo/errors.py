"""Why a demo did not succeed."""


class DemoError(Exception):
    """The cluster did something that it should not, or did not do something in time. The message says what."""
