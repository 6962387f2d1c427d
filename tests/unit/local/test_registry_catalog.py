"""The state of the registry, with a clock that the test moves."""

from collections.abc import Callable

import pytest

from headrace.local.registry.catalog import Catalog, UnknownCheckError, UnknownServiceError
from headrace.local.registry.definitions import (
    CheckDefinition,
    CheckStatus,
    InvalidRequestError,
    ServiceDefinition,
)


def service(service_id: str, *, name: str = "a", check_id: str | None = None, port: int = 1) -> ServiceDefinition:
    check = CheckDefinition(check_id=check_id or f"service:{service_id}", name="alive", ttl=10.0, deregister_after=60.0)
    return ServiceDefinition(service_id=service_id, name=name, address="127.0.0.1", port=port, checks=(check,))


@pytest.fixture
def changes() -> list[str]:
    return []


@pytest.fixture
def catalog(changes: list[str]) -> Catalog:
    return Catalog(changes.append)


def test_every_change_raises_the_index_and_is_announced(catalog: Catalog, changes: list[str]) -> None:
    steps: list[Callable[[], object]] = [
        lambda: catalog.register(service("a-1"), now=0.0),
        lambda: catalog.update_check("service:a-1", CheckStatus.PASSING, "fine", now=1.0),
        lambda: catalog.deregister("a-1"),
    ]
    for step in steps:
        before = catalog.index_of("a")
        step()
        assert catalog.index_of("a") > before
    assert changes == ["a", "a", "a"]


def test_what_changes_nothing_is_not_announced(catalog: Catalog, changes: list[str]) -> None:
    catalog.register(service("a-1"), now=0.0)
    index = catalog.index
    catalog.register(service("a-1"), now=1.0)
    assert not catalog.update_check("service:a-1", CheckStatus.CRITICAL, "still bad", now=2.0)
    assert (catalog.index, changes) == (index, ["a"])


def test_a_change_of_one_name_leaves_the_index_of_another(catalog: Catalog) -> None:
    catalog.register(service("a-1", name="a"), now=0.0)
    index = catalog.index_of("a")
    catalog.register(service("b-1", name="b"), now=0.0)
    assert catalog.index_of("a") == index


def test_a_service_that_changes_its_name_is_announced_under_both(catalog: Catalog, changes: list[str]) -> None:
    catalog.register(service("x", name="a"), now=0.0)
    catalog.register(service("x", name="b"), now=0.0)
    assert changes == ["a", "b", "a"]
    assert catalog.instances("a", passing=False) == []


def test_a_service_is_overdue_only_after_it_was_critical_all_the_time(catalog: Catalog) -> None:
    catalog.register(service("a-1"), now=0.0)
    catalog.update_check("service:a-1", CheckStatus.PASSING, "", now=50.0)
    catalog.update_check("service:a-1", CheckStatus.CRITICAL, "", now=55.0)
    assert catalog.overdue(now=114.9) == []
    assert catalog.overdue(now=115.0) == ["a-1"]


def test_registering_again_does_not_prolong_a_critical_life(catalog: Catalog) -> None:
    catalog.register(service("a-1"), now=0.0)
    catalog.register(service("a-1", port=2), now=59.0)
    assert catalog.overdue(now=60.0) == ["a-1"]


def test_a_check_cannot_be_taken_from_another_service(catalog: Catalog) -> None:
    catalog.register(service("a-1", check_id="mine"), now=0.0)
    with pytest.raises(InvalidRequestError):
        catalog.register(service("a-2", check_id="mine"), now=0.0)
    assert [found.definition.service_id for found in catalog.services()] == ["a-1"]


def test_unknown_ids_are_errors(catalog: Catalog) -> None:
    with pytest.raises(UnknownServiceError):
        catalog.deregister("nobody")
    with pytest.raises(UnknownCheckError):
        catalog.update_check("nobody", CheckStatus.PASSING, "", now=0.0)
