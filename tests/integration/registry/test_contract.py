"""What Headrace relies on in Consul. The stand-in and a real Consul pass the same tests."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from servicekit.registry import ConsulRegistry, ServiceRegistration
from tests.integration.registry.conftest import CheckedService
from tests.support.waiting import wait_until

TTL_CHECK = {"ttl": "10s", "status": "passing"}


async def register(consul: httpx.AsyncClient, name: str, service_id: str, **fields: object) -> None:
    body = {"name": name, "id": service_id, "address": "127.0.0.1", "port": 4000, **fields}
    (await consul.put("/v1/agent/service/register", json=body)).raise_for_status()


async def instances(
    consul: httpx.AsyncClient, name: str, **parameters: str | int
) -> tuple[int, list[Mapping[str, Any]]]:
    response = await consul.get(f"/v1/health/service/{name}", params=parameters)
    response.raise_for_status()
    return int(response.headers["X-Consul-Index"]), response.json()


async def wait_for_instance(consul: httpx.AsyncClient, name: str, **parameters: str | int) -> Mapping[str, Any]:
    """Return the only instance of `name`. A real agent tells its server about a change a moment later."""
    found: list[Mapping[str, Any]] = []

    async def listed() -> bool:
        found[:] = (await instances(consul, name, **parameters))[1]
        return len(found) == 1

    await wait_until(listed)
    return found[0]


async def wait_for_passing(consul: httpx.AsyncClient, name: str, wanted: set[str], *, timeout: float = 10) -> None:
    async def as_wanted() -> bool:
        _, found = await instances(consul, name, passing=1)
        return {instance["Service"]["ID"] for instance in found} == wanted

    await wait_until(as_wanted, timeout=timeout)


def own_checks(instance: Mapping[str, Any]) -> dict[str, str]:
    """Return the checks of the service itself by id; a real Consul adds those of its node."""
    return {check["CheckID"]: check["Status"] for check in instance["Checks"] if check["ServiceID"]}


async def test_a_registered_service_is_found_with_what_it_said(consul: httpx.AsyncClient, service_name: str) -> None:
    meta = {"replica": "one"}
    await register(consul, service_name, f"{service_name}-1", checks=[TTL_CHECK], meta=meta, tags=["blue"])
    service = (await wait_for_instance(consul, service_name, passing=1))["Service"]
    assert (service["ID"], service["Service"]) == (f"{service_name}-1", service_name)
    assert (service["Address"], service["Port"]) == ("127.0.0.1", 4000)
    assert (service["Meta"], service["Tags"]) == (meta, ["blue"])


async def test_the_agent_and_the_catalog_list_a_service(consul: httpx.AsyncClient, service_name: str) -> None:
    await register(consul, service_name, f"{service_name}-1", tags=["blue"])
    assert f"{service_name}-1" in (await consul.get("/v1/agent/services")).json()

    async def catalogued() -> bool:
        return bool((await consul.get("/v1/catalog/services")).json().get(service_name) == ["blue"])

    await wait_until(catalogued)
    assert "consul" in (await consul.get("/v1/catalog/services")).json()


async def test_an_unknown_name_is_an_empty_list_with_an_index(consul: httpx.AsyncClient, service_name: str) -> None:
    index, found = await instances(consul, service_name)
    assert found == []
    assert index > 0


async def test_registering_again_replaces_the_service(consul: httpx.AsyncClient, service_name: str) -> None:
    for port in (4000, 5000):
        await register(consul, service_name, f"{service_name}-1", port=port, checks=[TTL_CHECK])

    async def ports() -> bool:
        _, found = await instances(consul, service_name)
        return [instance["Service"]["Port"] for instance in found] == [5000]

    await wait_until(ports)


async def test_a_removed_service_is_gone(consul: httpx.AsyncClient, service_name: str) -> None:
    await register(consul, service_name, f"{service_name}-1", checks=[TTL_CHECK])
    await wait_for_instance(consul, service_name)
    (await consul.put(f"/v1/agent/service/deregister/{service_name}-1")).raise_for_status()
    await wait_for_passing(consul, service_name, set())


async def test_removing_an_unknown_service_is_an_error(consul: httpx.AsyncClient, service_name: str) -> None:
    response = await consul.put(f"/v1/agent/service/deregister/{service_name}-1")
    assert response.status_code in (404, 500)  # newer and older versions of Consul


async def test_a_service_without_a_check_is_passing(consul: httpx.AsyncClient, service_name: str) -> None:
    await register(consul, service_name, f"{service_name}-1")
    await wait_for_passing(consul, service_name, {f"{service_name}-1"})


async def test_a_check_is_critical_until_something_else_is_known(consul: httpx.AsyncClient, service_name: str) -> None:
    await register(consul, service_name, f"{service_name}-1", checks=[{"ttl": "10s"}])
    instance = await wait_for_instance(consul, service_name)
    assert own_checks(instance) == {f"service:{service_name}-1": "critical"}
    await wait_for_passing(consul, service_name, set())


async def test_a_service_reports_on_its_ttl_check(consul: httpx.AsyncClient, service_name: str) -> None:
    service_id = f"{service_name}-1"
    await register(consul, service_name, service_id, checks=[{"ttl": "10s"}])
    for verb, expected in (("pass", {service_id}), ("warn", set()), ("pass", {service_id}), ("fail", set())):
        (await consul.put(f"/v1/agent/check/{verb}/service:{service_id}", params={"note": verb})).raise_for_status()
        await wait_for_passing(consul, service_name, expected)


async def test_a_ttl_check_without_reports_turns_critical(consul: httpx.AsyncClient, service_name: str) -> None:
    await register(consul, service_name, f"{service_name}-1", checks=[{"ttl": "1s", "status": "passing"}])
    await wait_for_passing(consul, service_name, {f"{service_name}-1"})
    await wait_for_passing(consul, service_name, set(), timeout=3)


async def test_a_report_on_an_unknown_check_is_an_error(consul: httpx.AsyncClient, service_name: str) -> None:
    response = await consul.put(f"/v1/agent/check/pass/service:{service_name}-1")
    assert response.status_code in (404, 500)  # newer and older versions of Consul


async def test_registering_again_keeps_the_status_of_a_check(consul: httpx.AsyncClient, service_name: str) -> None:
    service_id = f"{service_name}-1"
    await register(consul, service_name, service_id, checks=[{"ttl": "10s"}])
    (await consul.put(f"/v1/agent/check/pass/service:{service_id}")).raise_for_status()
    await wait_for_passing(consul, service_name, {service_id})
    await register(consul, service_name, service_id, checks=[{"ttl": "10s"}], port=5000)

    async def still_passing_at_the_new_port() -> bool:
        _, found = await instances(consul, service_name)
        assert own_checks(found[0]) == {f"service:{service_id}": "passing"}
        return bool(found[0]["Service"]["Port"] == 5000)

    await wait_until(still_passing_at_the_new_port)


async def test_a_bad_registration_is_refused(consul: httpx.AsyncClient, service_name: str) -> None:
    for body in ({}, {"name": service_name, "check": {"grpc": "127.0.0.1:1"}}, {"name": service_name, "port": "many"}):
        response = await consul.put("/v1/agent/service/register", json=body)
        assert response.status_code == 400, body
    response = await consul.put("/v1/agent/service/register", content=b"{not json")
    assert response.status_code == 400


async def test_a_blocking_query_returns_with_the_change(consul: httpx.AsyncClient, service_name: str) -> None:
    index, _ = await instances(consul, service_name, passing=1)
    waiting = asyncio.create_task(instances(consul, service_name, passing=1, index=index, wait="10s"))
    await register(consul, service_name, f"{service_name}-1", checks=[TTL_CHECK])
    began = time.monotonic()
    while not (await waiting)[1]:  # Consul may wake up for a neighbour's change
        index = waiting.result()[0]
        waiting = asyncio.create_task(instances(consul, service_name, passing=1, index=index, wait="10s"))
    assert time.monotonic() - began < 5
    assert waiting.result()[0] > index or waiting.result()[1]


@pytest.mark.alone
async def test_a_blocking_query_without_a_change_ends_with_its_wait(
    consul: httpx.AsyncClient, service_name: str
) -> None:
    await register(consul, service_name, f"{service_name}-1", checks=[TTL_CHECK])
    await wait_for_instance(consul, service_name, passing=1)
    index, before = await instances(consul, service_name, passing=1)
    began = time.monotonic()
    same_index, after = await instances(consul, service_name, passing=1, index=index, wait="1s")
    assert 0.9 < time.monotonic() - began < 2
    assert (same_index, after) == (index, before)


async def test_a_query_with_an_index_of_the_future_waits(consul: httpx.AsyncClient, service_name: str) -> None:
    await register(consul, service_name, f"{service_name}-1", checks=[TTL_CHECK])
    index, _ = await instances(consul, service_name)
    began = time.monotonic()
    returned, _ = await instances(consul, service_name, index=index + 1_000_000, wait="1s")
    assert time.monotonic() - began > 0.9
    assert returned < index + 1_000_000


async def test_an_invalid_wait_is_refused(consul: httpx.AsyncClient, service_name: str) -> None:
    response = await consul.get(f"/v1/health/service/{service_name}", params={"index": 1, "wait": "soon"})
    assert response.status_code == 400


async def test_a_grpc_check_follows_the_health_of_the_named_service(
    consul: httpx.AsyncClient, service_name: str, checked_service: CheckedService
) -> None:
    await checked_service.set_serving("headrace.v1.Some", serving=True)
    check = {"grpc": f"127.0.0.1:{checked_service.port}/headrace.v1.Some", "interval": "1s", "timeout": "1s"}
    await register(consul, service_name, f"{service_name}-1", port=checked_service.port, checks=[check])
    for serving, expected in ((True, {f"{service_name}-1"}), (False, set()), (True, {f"{service_name}-1"})):
        await checked_service.set_serving("headrace.v1.Some", serving=serving)
        await wait_for_passing(consul, service_name, expected)


async def test_a_grpc_check_finds_a_service_that_has_gone(
    consul: httpx.AsyncClient, service_name: str, checked_service: CheckedService
) -> None:
    await checked_service.set_serving("", serving=True)
    check = {"grpc": f"127.0.0.1:{checked_service.port}", "interval": "1s", "timeout": "1s", "status": "passing"}
    await register(consul, service_name, f"{service_name}-1", checks=[check])
    await wait_for_passing(consul, service_name, {f"{service_name}-1"})
    await checked_service.stop()
    await wait_for_passing(consul, service_name, set())


async def test_an_http_check_follows_the_status_code(
    consul: httpx.AsyncClient, service_name: str, registry_url: str
) -> None:
    good = {"http": f"{registry_url}/v1/status/leader", "interval": "1s", "timeout": "1s"}
    bad = {"http": f"{registry_url}/v1/nothing/here", "interval": "1s", "timeout": "1s"}
    await register(consul, service_name, f"{service_name}-good", checks=[good])
    await register(consul, service_name, f"{service_name}-bad", checks=[bad])

    async def checked() -> bool:
        _, found = await instances(consul, service_name)
        outputs = [check["Output"] for instance in found for check in instance["Checks"] if check["ServiceID"]]
        return len(outputs) == 2 and all(outputs)

    await wait_until(checked)
    await wait_for_passing(consul, service_name, {f"{service_name}-good"})


async def test_one_of_several_checks_that_fails_is_enough(consul: httpx.AsyncClient, service_name: str) -> None:
    checks = [TTL_CHECK, {"ttl": "10s", "status": "critical"}]
    await register(consul, service_name, f"{service_name}-1", checks=checks)
    instance = await wait_for_instance(consul, service_name)
    assert own_checks(instance) == {f"service:{service_name}-1:1": "passing", f"service:{service_name}-1:2": "critical"}
    await wait_for_passing(consul, service_name, set())


async def test_the_agent_describes_itself_and_its_leader(consul: httpx.AsyncClient) -> None:
    assert "Config" in (await consul.get("/v1/agent/self")).json()
    assert (await consul.get("/v1/status/leader")).json()


async def test_a_path_that_does_not_exist_is_not_found(consul: httpx.AsyncClient) -> None:
    assert (await consul.get("/v1/nothing/here")).status_code == 404


async def test_our_client_registers_watches_and_deregisters(
    registry_url: str, service_name: str, checked_service: CheckedService
) -> None:
    await checked_service.set_serving("", serving=True)
    registry = ConsulRegistry(registry_url, None)
    watch = registry.watch(service_name)
    await watch.start()
    registration = ServiceRegistration(
        name=service_name,
        service_id=f"{service_name}-1",
        host=lambda: "127.0.0.1",
        port=checked_service.port,
        grpc_check=True,
        meta={"replica": "one"},
    )
    await registry.register(registration)
    await wait_until(lambda: [end.address for end in watch.endpoints] == [f"127.0.0.1:{checked_service.port}"])
    assert watch.endpoints[0].meta == {"replica": "one"}
    await registry.deregister()
    await checked_service.stop()
    await wait_until(lambda: watch.endpoints == ())
    await watch.stop()
    await registry.close()
