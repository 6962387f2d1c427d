"""The task types of the mill in one place: HEADRACE_TASK_MODULES names this module."""

from mill_orders.invoice import mill_invoice
from mill_orders.labels import mill_labels
from mill_orders.weighing import mill_weighing

__all__ = ["mill_invoice", "mill_labels", "mill_weighing"]
