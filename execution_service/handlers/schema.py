"""What the data and results of all built-in task types have in common."""

from pydantic import BaseModel, ConfigDict


class HandlerModel(BaseModel):
    """A model that takes nothing it does not name and converts nothing: what the client wrote is what is meant."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
