"""What Frankfurter answers: the reference rates of the European Central Bank on a day (https://frankfurter.dev/v1/).

Always asked for all rates against the euro, which is what the bank publishes: rates against other currencies would be
rounded quotients of these, and from the whole table it can be told whether a currency has a rate at all.
"""

import datetime
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

EURO = "EUR"

Currency = Annotated[str, Field(pattern="^[A-Z]{3}$")]
Rate = Annotated[Decimal, Field(gt=Decimal("1e-9"), lt=Decimal("1e9"), allow_inf_nan=False)]


class EuroRates(BaseModel):
    """How many units of each currency one euro was worth on the date."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    base: Literal["EUR"]
    date: datetime.date
    rates: Mapping[Currency, Rate] = Field(min_length=1, max_length=400)
