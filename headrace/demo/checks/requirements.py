"""What a check does with a result that is wrong."""

from headrace.demo.errors import DemoError


def require(is_right: bool, message: str) -> None:
    if not is_right:
        raise DemoError(message)
