"""Results of public APIs."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from headrace.demo.checks.requirements import require


def weather_findings(result: Mapping[str, Any], place: str, days: int) -> list[str]:
    require(result["place"]["name"] == place, f"weather_data found {result['place']['name']}, not {place}")
    require(len(result["daily"]) == days, f"weather_data forecasts {len(result['daily'])} days, not {days}")
    now, unit = result["current"], result["units"]["temperature"]
    return [
        f"now, {now['time']}: {now['condition']}, {now['temperature']} {unit}",
        *(
            f"{day['date']}: {day['condition']}, {day['temperature_min']} to {day['temperature_max']} {unit}"
            for day in result["daily"]
        ),
    ]


def money_findings(result: Mapping[str, Any], amount: str, currencies: list[str]) -> list[str]:
    """An amount is the rate times the amount asked for, up to the rounding to the currency's smallest coin."""
    conversions = {each["currency"]: each for each in result["conversions"]}
    require(list(conversions) == currencies, f"currency_conversion converted to {list(conversions)}")
    for currency, each in conversions.items():
        exact = Decimal(amount) * Decimal(each["rate"])
        require(abs(Decimal(each["amount"]) - exact) <= 1, f"currency_conversion says {each['amount']} {currency}")
    to = ", ".join(f"{each['amount']} {currency}" for currency, each in conversions.items())
    return [f"{result['amount']} {result['currency']} are {to}, by the rates of {result['date']}"]
