"""Fields that may be left out but not be null: `field: Kind | Absent = Field(default=None, ...)`."""

from typing import Any

from pydantic.json_schema import SkipJsonSchema

Absent = SkipJsonSchema[None]


def without_default(schema: dict[str, Any]) -> None:
    """As `json_schema_extra`: leaves out the default, which is null and so would be refused."""
    del schema["default"]
