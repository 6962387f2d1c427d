"""Task type `mill_invoice`: what an order costs, to the cent.

Typed data and a typed result are all it takes. Amounts are Decimal, which JSON carries as text: none is rounded twice.
"""

from decimal import ROUND_HALF_UP, Decimal
from typing import Literal

from headrace.tasks import ErrorKind, PermanentError, task
from pydantic import BaseModel, ConfigDict, Field

CENT = Decimal("0.01")
# Per sack of 25 kg, before tax.
PRICES = {"rye": Decimal("24.90"), "spelt": Decimal("41.35"), "wheat": Decimal("21.75")}
DISCOUNT_SACKS = 20
DISCOUNT = Decimal("0.03")
# The reduced rates for food.
TAX = {"AT": Decimal("0.10"), "DE": Decimal("0.07"), "FR": Decimal("0.055")}


class Line(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    product: str = Field(min_length=1, max_length=40, description="A flour of the price list.", examples=["rye"])
    sacks: int = Field(ge=1, le=1000, description="How many sacks of 25 kg.", examples=[4])


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    number: int = Field(ge=1, description="The mill's number of the order.", examples=[17])
    country: Literal["AT", "DE", "FR"] = Field(description="Where the flour goes; it decides the tax.")
    lines: list[Line] = Field(min_length=1, max_length=100)


class InvoiceLine(BaseModel):
    product: str
    sacks: int
    price: Decimal
    discount: Decimal
    amount: Decimal


class Invoice(BaseModel):
    number: int
    lines: list[InvoiceLine]
    net: Decimal
    tax: Decimal
    total: Decimal


@task(
    "mill_invoice",
    timeout=10,
    examples=[{"number": 17, "country": "DE", "lines": [{"product": "rye", "sacks": 4}]}],
    errors=[ErrorKind("unknown_product", retry=False, description="The price list does not have a product.")],
)
def mill_invoice(order: Order) -> Invoice:
    """Bill an order: prices, the discount for large quantities, tax."""
    lines = [bill(line) for line in order.lines]
    net = sum((line.amount for line in lines), Decimal(0))
    tax = cents(net * TAX[order.country])
    return Invoice(number=order.number, lines=lines, net=net, tax=tax, total=net + tax)


def bill(line: Line) -> InvoiceLine:
    """Return the line with its amount. PermanentError: another attempt would find the same price list."""
    price = PRICES.get(line.product)
    if price is None:
        raise PermanentError("unknown_product", f"There is no {line.product!r}; the mill has {', '.join(PRICES)}.")
    full = line.sacks * price
    discount = cents(full * DISCOUNT) if line.sacks >= DISCOUNT_SACKS else Decimal("0.00")
    return InvoiceLine(product=line.product, sacks=line.sacks, price=price, discount=discount, amount=full - discount)


def cents(amount: Decimal) -> Decimal:
    """Round as the tax office does: half a cent up."""
    return amount.quantize(CENT, ROUND_HALF_UP)
