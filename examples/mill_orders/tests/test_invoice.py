"""`mill_invoice` needs nothing around it: data in, result out."""

from decimal import Decimal

import pytest
from headrace.tasks import PermanentError
from headrace.testing import run_task
from pydantic import ValidationError

from mill_orders.invoice import Line, bill, mill_invoice


def test_the_result_is_what_clients_read() -> None:
    lines = [{"product": "rye", "sacks": 24}, {"product": "spelt", "sacks": 3}]
    assert run_task(mill_invoice, {"number": 17, "country": "DE", "lines": lines}).result == {
        "number": 17,
        "lines": [
            {"product": "rye", "sacks": 24, "price": "24.90", "discount": "17.93", "amount": "579.67"},
            {"product": "spelt", "sacks": 3, "price": "41.35", "discount": "0.00", "amount": "124.05"},
        ],
        "net": "703.72",
        "tax": "49.26",
        "total": "752.98",
    }


def test_half_a_cent_is_rounded_up() -> None:
    # 3 % of 20 x 21.75 are 13.05; of 30 x 41.35 they are 37.215.
    assert bill(Line(product="wheat", sacks=20)).discount == Decimal("13.05")
    assert bill(Line(product="spelt", sacks=30)).discount == Decimal("37.22")


def test_an_unknown_product_is_not_tried_again() -> None:
    with pytest.raises(PermanentError, match="'oat'") as raised:
        run_task(mill_invoice, {"number": 1, "country": "DE", "lines": [{"product": "oat", "sacks": 1}]})
    assert raised.value.code == "unknown_product"


@pytest.mark.parametrize("change", [{"country": "IT"}, {"lines": []}, {"number": "17"}, {"colour": "blue"}])
def test_what_is_no_order_never_starts(change: dict[str, object]) -> None:
    order = {"number": 1, "country": "DE", "lines": [{"product": "rye", "sacks": 1}]}
    with pytest.raises(ValidationError):
        run_task(mill_invoice, {**order, **change})
