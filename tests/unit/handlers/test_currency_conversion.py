"""Conversions are exact until the last step, and only then rounded, as the currency wants it."""

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from execution_service.handlers.currency_conversion import (
    CurrencyConversionData,
    check_date,
    convert,
    currency_conversion,
    minor_digits,
)
from execution_service.handlers.web.bodies import read_model
from execution_service.handlers.web.frankfurter import EuroRates
from headrace.recorded_apis.server import rates
from headrace.tasks import CodedError, PermanentError, TransientError, definition_of
from headrace.testing import run_task, run_task_async
from tests.support.bad_upstream import bad_upstream


def _recorded(day: str) -> EuroRates:
    return read_model(EuroRates, json.dumps(rates(day)[1]).encode())


_RATES = _recorded("2024-08-01")


def _answer(**data: Any) -> Any:
    return run_task(currency_conversion, {key.rstrip("_"): value for key, value in data.items()}).result


def _with_rates(**of: str) -> EuroRates:
    found = {currency: Decimal(rate) for currency, rate in of.items()}
    return EuroRates(base="EUR", date=date(2024, 8, 1), rates=found)


@pytest.mark.parametrize(
    ("amount", "source", "target", "rate", "worth"),
    [
        # By the bank's rates of 2024-08-01: USD 1.0789, JPY 162.66, GBP 0.84328, CHF 0.9467, IDR 17549.
        ("149.90", "EUR", "USD", "1.0789", "161.73"),
        ("100", "USD", "EUR", "0.9268699601", "92.69"),
        ("1", "EUR", "JPY", "162.66", "163"),
        ("1000", "JPY", "EUR", "0.006147792942", "6.15"),
        ("250", "GBP", "CHF", "1.122640167", "280.66"),
        ("0", "EUR", "USD", "1.0789", "0.00"),
        ("0.00000001", "EUR", "USD", "1.0789", "0.00"),
        ("999999999999999.99999999", "EUR", "IDR", "17549", "17549000000000000000.00"),
        ("12.345", "USD", "USD", "1", "12.34"),
        ("12.5", "JPY", "JPY", "1", "12"),
    ],
)
def test_an_amount_has_its_worth(amount: str, source: str, target: str, rate: str, worth: str) -> None:
    found = convert(Decimal(amount), source, target, _RATES)
    assert (found.currency, found.rate, found.amount) == (target, rate, worth)


def test_the_first_rates_of_all_are_known() -> None:
    result = _answer(amount=100, from_="EUR", to=["USD", "GBP", "TRL"], date="1999-01-04")
    assert result == {
        "amount": "100",
        "currency": "EUR",
        "date": "1999-01-04",
        "conversions": [
            {"currency": "USD", "rate": "1.1789", "amount": "117.89"},
            {"currency": "GBP", "rate": "0.7111", "amount": "71.11"},
            {"currency": "TRL", "rate": "372274", "amount": "37227400"},
        ],
    }


def test_the_date_is_that_of_the_rates_and_not_the_one_asked_for() -> None:
    assert _answer(amount=1, from_="EUR", to="USD", date="2024-08-04")["date"] == "2024-08-01"
    assert _answer(amount=1, from_="EUR", to="USD")["date"] == "2025-04-04"


@pytest.mark.parametrize(
    ("amount", "worth"),
    [("0.5", "0"), ("1.5", "2"), ("2.5", "2"), ("2.50000001", "3"), ("3.5", "4"), ("0.49999999", "0")],
)
def test_halves_go_to_the_even_neighbour(amount: str, worth: str) -> None:
    assert convert(Decimal(amount), "EUR", "JPY", _with_rates(JPY="1")).amount == worth


def test_a_quotient_is_not_rounded_before_the_end() -> None:
    # By a rate of ten digits, 0.3333333333, this would be 333333333333333.30.
    assert convert(Decimal(10**15), "THB", "USD", _with_rates(THB="3", USD="1")).amount == "333333333333333.33"
    just_above_half = _with_rates(JPY="1.000000000000000000000000000001")
    assert convert(Decimal("2.5"), "EUR", "JPY", just_above_half).amount == "3"


@pytest.mark.parametrize(
    ("currency", "digits"),
    [("EUR", 2), ("JPY", 0), ("KRW", 0), ("ISK", 0), ("KWD", 3), ("TND", 3), ("HUF", 2), ("IDR", 2)],
)
def test_amounts_have_the_minor_unit_of_iso_4217(currency: str, digits: int) -> None:
    assert minor_digits(currency) == digits
    found = convert(Decimal("1.23456789"), "USD", currency, _with_rates(**{"USD": "1", currency: "1"}))
    assert len(found.amount.partition(".")[2]) == digits


_CURRENCIES = st.sampled_from(["EUR", *_RATES.rates])


@given(st.decimals(0, 10**12, places=4), _CURRENCIES, _CURRENCIES)
def test_there_and_back_again_is_within_the_rounding(amount: Decimal, source: str, target: str) -> None:
    there = convert(amount, source, target, _RATES)
    back = convert(Decimal(there.amount), target, source, _RATES)
    half_a_unit = {currency: Decimal(1).scaleb(-minor_digits(currency)) / 2 for currency in (source, target)}
    # What the rounding of the first result can be worth, and the rounding of the second.
    worth = {"EUR": Decimal(1), **_RATES.rates}
    bound = half_a_unit[target] * worth[source] / worth[target] + half_a_unit[source]
    assert abs(Decimal(back.amount) - amount) <= bound + Decimal("1e-20")


@given(st.decimals(0, 10**6, places=2), st.decimals(0, 10**6, places=2), _CURRENCIES, _CURRENCIES)
def test_more_is_never_worth_less(one: Decimal, other: Decimal, source: str, target: str) -> None:
    less, more = sorted((one, other))
    assert Decimal(convert(less, source, target, _RATES).amount) <= Decimal(
        convert(more, source, target, _RATES).amount
    )


@given(st.floats(0, 1e15))
def test_a_number_is_taken_as_it_is_written(number: float) -> None:
    body = json.dumps({"amount": number, "from": "EUR", "to": "USD"}).encode()
    assert float(CurrencyConversionData.model_validate_json(body).amount) == number


async def test_a_currency_to_itself_needs_no_rates(settings_from: pytest.MonkeyPatch) -> None:
    async with bad_upstream() as upstream:
        settings_from.setenv("HEADRACE_CURRENCY_URL", upstream.url("/status/500"))
        run = await run_task_async(currency_conversion, {"amount": "1.005", "from": "EUR", "to": ["EUR"]})
    assert run.result == {
        "amount": "1.005",
        "currency": "EUR",
        "date": None,
        "conversions": [{"currency": "EUR", "rate": "1", "amount": "1.00"}],
    }
    assert upstream.connections == 0


@pytest.mark.parametrize(
    "data",
    [
        {"from": "EUR", "to": "XXX"},
        {"from": "XXX", "to": "EUR"},
        {"from": "EUR", "to": ["USD", "BTC"]},
        {"from": "EUR", "to": "DEM"},
        {"from": "EUR", "to": "BRL", "date": "1999-01-04"},
        {"from": "CYP", "to": "EUR", "date": "2024-08-01"},
    ],
)
def test_a_currency_without_a_rate_on_that_day_is_named(data: Mapping[str, Any]) -> None:
    with pytest.raises(PermanentError, match=r"There is no rate of [A-Z]{3} on [0-9-]+, but of AUD, ") as refused:
        run_task(currency_conversion, {"amount": 1, **data})
    assert refused.value.code == "unknown_currency"


def test_a_day_that_has_begun_nowhere_is_refused() -> None:
    now = datetime(2024, 8, 1, 11, 0, tzinfo=UTC)  # already the 2nd in Kiritimati, at UTC+14
    check_date(None, now)
    check_date(date(2024, 8, 2), now)
    with pytest.raises(PermanentError) as refused:
        check_date(date(2024, 8, 3), now)
    assert refused.value.code == "date_in_the_future"
    with pytest.raises(PermanentError):
        check_date(date(2024, 8, 2), now.replace(hour=9))


@pytest.mark.parametrize(
    "change",
    [
        {"amount": -1},
        {"amount": "-1"},
        {"amount": "1e3"},
        {"amount": "NaN"},
        {"amount": " 1"},
        {"amount": "01"},
        {"amount": "1."},
        {"amount": "١"},
        {"amount": "1.123456789"},
        {"amount": "1" * 16},
        {"amount": 1e15 + 1},
        {"amount": True},
        {"amount": None},
        {"amount": [1]},
        {"from": "eur"},
        {"from": "EURO"},
        {"from": "€UR"},
        {"to": []},
        {"to": ["USD", "USD"]},
        {"to": ["US", "USD"]},
        {"date": "1999-01-03"},
        {"date": "2024-02-30"},
        {"date": "2024-8-1"},
        {"date": 20240801},
        {"date": "2024-08-01T00:00:00Z"},
    ],
)
def test_what_is_no_conversion_is_refused(change: Mapping[str, Any]) -> None:
    with pytest.raises(ValidationError):
        definition_of(currency_conversion).decode(
            json.dumps({"amount": 1, "from": "EUR", "to": "USD", **change}).encode()
        )


@pytest.mark.parametrize(
    "change",
    [
        {"base": "USD"},
        {"date": "yesterday"},
        {"rates": {}},
        {"rates": {"USD": 0}},
        {"rates": {"USD": -1}},
        {"rates": {"USD": 1e300}},
        {"rates": {"USD": None}},
        {"rates": {"usd": 1.1}},
        {"rates": [1.1]},
    ],
)
def test_rates_that_cannot_be_are_not_used(change: Mapping[str, Any]) -> None:
    body = {"amount": 1.0, "base": "EUR", "date": "2024-08-01", "rates": {"USD": 1.0789}, **change}
    with pytest.raises(CodedError) as refused:
        read_model(EuroRates, json.dumps(body).encode())
    assert refused.value.code == "malformed_response"


async def test_a_failing_api_fails_the_task_with_its_code(settings_from: pytest.MonkeyPatch) -> None:
    async with bad_upstream() as upstream:
        settings_from.setenv("HEADRACE_CURRENCY_URL", upstream.url("/status/429"))
        with pytest.raises(TransientError) as failed:
            await run_task_async(currency_conversion, {"amount": 1, "from": "EUR", "to": "USD", "date": "2024-08-01"})
    assert failed.value.code == "rate_limited"
    assert upstream.heads[0].startswith("GET /status/429/2024-08-01?base=EUR HTTP/1.1")
