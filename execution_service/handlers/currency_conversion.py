"""Task type `currency_conversion`: converts an amount at the reference rates of the European Central Bank.

The rates come from Frankfurter. The bank publishes them on working days at about 16:00 CET; for any other day those of
the last working day before it hold, and the result carries the date of the rates that were used.

Everything is calculated with decimal numbers. The bank states what one euro is worth in other currencies, so the rate
between two of them is a quotient. Amounts are the exact product, rounded once, half to even, to the minor unit of the
currency by ISO 4217 (the cent for the euro, nothing smaller than one for the yen, a thousandth for the Kuwaiti dinar).
Rates are shown with ten significant digits. These are reference rates: nobody is bound to trade at them.
"""

import datetime
import re
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Annotated, Self

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from execution_service.handlers.absent import Absent, without_default
from execution_service.handlers.schema import HandlerModel
from execution_service.handlers.settings import handler_settings
from execution_service.handlers.web.failures import WEB_ERRORS
from execution_service.handlers.web.frankfurter import EURO, Currency, EuroRates
from execution_service.handlers.web.urls import with_query
from headrace.tasks import ErrorKind, Limits, PermanentError, TaskContext, task

FIRST_DAY = datetime.date(1999, 1, 4)
TARGETS_MAX = 10
AMOUNT_MAX = 10**15
RATE_DIGITS = 10
_LISTED_MAX = 50
_AMOUNT = r"^(0|[1-9][0-9]{0,14})(\.[0-9]{1,8})?$"
_DAY = "^(1999|2[0-9]{3})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$"
# Minor units by ISO 4217 other than two decimals, with currencies that were replaced since 1999.
_NONE = "BIF CLP DJF GNF GRD ISK JPY KMF KRW PYG RWF TRL UGX VND VUV XAF XOF XPF"
_THREE = "BHD IQD JOD KWD LYD OMR TND"
_DECIMALS = dict.fromkeys(_NONE.split(" "), 0) | dict.fromkeys(_THREE.split(" "), 3)
# Enough for the product of the largest amount and rates: nothing is rounded before the end.
_EXACT = Context(prec=100, rounding=ROUND_HALF_EVEN)
_SHOWN = Context(prec=RATE_DIGITS, rounding=ROUND_HALF_EVEN)


def _exact_amount(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("an amount is a number, or text that holds one")
    if isinstance(value, str) and not re.fullmatch(_AMOUNT, value):
        raise ValueError("an amount in text has at most 15 digits before the point, 8 after it, and no sign")
    # A number is taken as the shortest text that means it, not as its binary neighbour.
    return Decimal(str(value))


Amount = Annotated[
    Decimal,
    Field(ge=0, le=AMOUNT_MAX, allow_inf_nan=False),
    BeforeValidator(_exact_amount),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "minimum": 0, "maximum": AMOUNT_MAX}, {"type": "string", "pattern": _AMOUNT}]}
    ),
]
Day = Annotated[datetime.date, Field(ge=FIRST_DAY, json_schema_extra={"pattern": _DAY})]
Targets = Annotated[
    list[Currency], Field(min_length=1, max_length=TARGETS_MAX, json_schema_extra={"uniqueItems": True})
]
Digits = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?$")]


class CurrencyConversionData(HandlerModel):
    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    amount: Amount = Field(description="How much, as text for exact digits, or as a number.", examples=["149.90"])
    source: Currency = Field(alias="from", description="Its currency, as three letters of ISO 4217.", examples=[EURO])
    to: Currency | Targets = Field(
        description="The currency to convert to, or up to ten different ones.", examples=[["USD", "JPY"]]
    )
    date: Day | Absent = Field(
        default=None,
        description="At the rates of this day, from 1999-01-04 on; without it, at the latest ones.",
        examples=["2024-08-01"],
        json_schema_extra=without_default,
    )

    @property
    def targets(self) -> list[str]:
        """The currencies to convert to, in their order."""
        return [self.to] if isinstance(self.to, str) else self.to

    @model_validator(mode="after")
    def _different_targets(self) -> Self:
        if len(set(self.targets)) < len(self.targets):
            raise ValueError("each currency in `to` may be named once")
        return self


class Conversion(HandlerModel):
    currency: str = Field(examples=["USD"])
    rate: Digits = Field(description="Units of it for one unit of the source.", examples=["1.0789"])
    amount: Digits = Field(description="Rounded to the minor unit of the currency.", examples=["161.73"])


class CurrencyConversionResult(HandlerModel):
    amount: Digits = Field(description="The amount that was converted.", examples=["149.90"])
    currency: str = Field(description="Its currency.", examples=[EURO])
    date: datetime.date | None = Field(
        description="The day of the rates that were used; null if none was needed.", examples=["2024-08-01"]
    )
    conversions: list[Conversion] = Field(max_length=TARGETS_MAX, description="In the order of `to`.")


_EXAMPLES = (
    {"amount": "149.90", "from": EURO, "to": ["USD", "JPY"], "date": "2024-08-01"},
    {"amount": 20, "from": "CHF", "to": "GBP"},
)
_ERRORS = (
    ErrorKind("unknown_currency", False, "The bank has no rate of the currency for that day."),
    ErrorKind("date_in_the_future", False, "The date is still to come, wherever on Earth one is."),
    *WEB_ERRORS,
)


@task(
    "currency_conversion",
    timeout=30,
    max_attempts=5,
    examples=_EXAMPLES,
    limits=Limits(memory_mib=512),
    errors=_ERRORS,
)
async def currency_conversion(data: CurrencyConversionData, context: TaskContext) -> CurrencyConversionResult:
    """Convert an amount to other currencies, at the reference rates of the European Central Bank."""
    check_date(data.date, datetime.datetime.now(datetime.UTC))
    found = await _rates(data.date, context) if set(data.targets) != {data.source} else None
    return CurrencyConversionResult(
        amount=f"{data.amount:f}",
        currency=data.source,
        date=found.date if found else None,
        conversions=[convert(data.amount, data.source, target, found) for target in data.targets],
    )


async def _rates(date: datetime.date | None, context: TaskContext) -> EuroRates:
    from execution_service.handlers.web.client import web_client  # with the HTTP library: 15 MiB, 0.2 s

    url = with_query(handler_settings().currency_url, f"/{date or 'latest'}", {"base": EURO})
    return await (await web_client()).get(url, EuroRates, deadline=context.deadline)


def check_date(date: datetime.date | None, now: datetime.datetime) -> None:
    """Raise PermanentError `date_in_the_future` for a day that has begun nowhere yet."""
    # Somewhere it is up to 14 hours later than in UTC, and clients mean the date of their own calendar.
    if date is not None and date > (now + datetime.timedelta(hours=14)).date():
        raise PermanentError("date_in_the_future", f"There are no rates of {date} yet.")


def convert(amount: Decimal, source: str, target: str, found: EuroRates | None) -> Conversion:
    """Return the amount in another currency. Without rates, only a currency to itself can be converted."""
    if source == target:
        worth, rate = amount, Decimal(1)
    else:
        assert found is not None
        one_source, one_target = _rate(source, found), _rate(target, found)
        worth = _EXACT.divide(_EXACT.multiply(amount, one_target), one_source)
        rate = _SHOWN.divide(one_target, one_source)
    rounded = _EXACT.quantize(worth, Decimal(1).scaleb(-minor_digits(target)))
    return Conversion(currency=target, rate=f"{rate:f}", amount=f"{rounded:f}")


def minor_digits(currency: str) -> int:
    """Return how many decimals amounts in the currency have, by ISO 4217."""
    return _DECIMALS.get(currency, 2)


def _rate(currency: str, found: EuroRates) -> Decimal:
    rates = {**found.rates, EURO: Decimal(1)}
    if currency not in rates:
        known = ", ".join(sorted(rates)[:_LISTED_MAX])
        raise PermanentError("unknown_currency", f"There is no rate of {currency} on {found.date}, but of {known}.")
    return rates[currency]
