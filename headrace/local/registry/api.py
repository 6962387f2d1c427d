"""The routes of the Consul HTTP API that the registry answers, and the JSON of their answers."""

import hmac
import random
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from headrace.local.registry.agent import ALL_SERVICES, Agent, NotATtlCheckError
from headrace.local.registry.catalog import CheckState, ServiceState, UnknownCheckError, UnknownServiceError
from headrace.local.registry.definitions import CheckStatus, InvalidRequestError, parse_duration, parse_service
from headrace.local.registry.http_server import Request, Response, json_response, text_response

NODE = "headrace-local"
DATACENTER = "dc1"
WAIT_SECONDS = 300.0
WAIT_SECONDS_MAX = 600.0
# Consul spreads the ends of waits by this part of the wait, so that clients do not come back all at once.
WAIT_JITTER = 1 / 16

_REPORTS = {"pass": CheckStatus.PASSING, "warn": CheckStatus.WARNING, "fail": CheckStatus.CRITICAL}
# Parameters that change what a query means; answering as if they were not there would be wrong.
_UNSUPPORTED = ("filter", "tag", "near", "node-meta", "peer")

# The lists, with what is left of each for those that may see nothing.
_LISTS: dict[str, object] = {
    "/v1/health/service/": [],
    "/v1/catalog/services": {},
    "/v1/agent/services": {},
    "/v1/agent/checks": {},
}


class ConsulApi:
    """Answers requests on behalf of an agent; where there is a token, to those alone that know it."""

    def __init__(self, agent: Agent, *, token: str | None = None) -> None:
        self._agent = agent
        self._token = token
        self._fixed: dict[tuple[str, str], Callable[[Request], Response]] = {
            ("PUT", "/v1/agent/service/register"): self._register,
            ("GET", "/v1/agent/services"): self._agent_services,
            ("GET", "/v1/agent/checks"): self._agent_checks,
            ("GET", "/v1/agent/self"): self._self,
            ("GET", "/v1/status/leader"): self._leader,
        }
        self._with_name: dict[tuple[str, str], Callable[[str, Request], Response]] = {
            ("PUT", "/v1/agent/service/deregister/"): self._deregister,
            ("PUT", "/v1/agent/check/pass/"): self._report,
            ("PUT", "/v1/agent/check/warn/"): self._report,
            ("PUT", "/v1/agent/check/fail/"): self._report,
        }

    async def answer(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        try:
            if request.method == "GET" and request.path.startswith("/v1/health/service/"):
                return await self._health(request.path.removeprefix("/v1/health/service/"), request)
            if (request.method, request.path) == ("GET", "/v1/catalog/services"):
                return await self._catalog_services(request)
            return self._answer_at_once(request)
        except InvalidRequestError as error:
            return text_response(str(error), HTTPStatus.BAD_REQUEST)
        except UnknownServiceError as error:
            return text_response(f'Unknown service ID "{error}".', HTTPStatus.NOT_FOUND)
        except UnknownCheckError as error:
            return text_response(f'Unknown check ID "{error}".', HTTPStatus.NOT_FOUND)
        except NotATtlCheckError as error:
            message = f'CheckID "{error}" does not have associated TTL'
            return text_response(message, HTTPStatus.INTERNAL_SERVER_ERROR)

    def _refusal(self, request: Request) -> Response | None:
        """What Consul answers where its policy denies: lists without what may not be seen, and 403 to all else.

        It tells everybody whether it has a leader.
        """
        if self._token is None or request.path == "/v1/status/leader":
            return None
        shown = request.headers.get("x-consul-token", "")
        if hmac.compare_digest(shown.encode(), self._token.encode()):
            return None
        if shown:
            return text_response("ACL not found", HTTPStatus.FORBIDDEN)
        for path, nothing in _LISTS.items():
            if request.method == "GET" and request.path.startswith(path):
                return json_response(nothing, {"X-Consul-Index": "1", "X-Consul-Results-Filtered-By-ACLs": "true"})
        return text_response("Permission denied", HTTPStatus.FORBIDDEN)

    def _answer_at_once(self, request: Request) -> Response:
        if fixed := self._fixed.get((request.method, request.path)):
            return fixed(request)
        for (method, prefix), route in self._with_name.items():
            if request.method == method and request.path.startswith(prefix):
                return route(request.path.removeprefix(prefix), request)
        return text_response("Not Found", HTTPStatus.NOT_FOUND)

    def _register(self, request: Request) -> Response:
        try:
            body = request.json()
        except ValueError as error:
            raise InvalidRequestError(f"Request decode failed: {error}") from error
        self._agent.register(parse_service(body))
        return text_response("")

    def _deregister(self, service_id: str, request: Request) -> Response:
        self._agent.deregister(service_id)
        return text_response("")

    def _report(self, check_id: str, request: Request) -> Response:
        verb = request.path.split("/")[4]
        self._agent.report(check_id, _REPORTS[verb], request.query.get("note", ""))
        return text_response("")

    def _agent_services(self, request: Request) -> Response:
        _refuse_unsupported(request)
        services = self._agent.catalog.services()
        return json_response({service.definition.service_id: service_json(service) for service in services})

    def _agent_checks(self, request: Request) -> Response:
        _refuse_unsupported(request)
        services = self._agent.catalog.services()
        return json_response({check_id: check_json(s, check) for s in services for check_id, check in s.checks.items()})

    def _self(self, request: Request) -> Response:
        return json_response({"Config": {"Datacenter": DATACENTER, "NodeName": NODE}, "Member": {"Name": NODE}})

    def _leader(self, request: Request) -> Response:
        return json_response("127.0.0.1:8300")

    async def _health(self, name: str, request: Request) -> Response:
        _refuse_unsupported(request)
        passing = request.query.get("passing", "false") not in ("false", "0")
        await self._wait(name, request)
        services = self._agent.catalog.instances(name, passing=passing)
        return self._indexed(name, [health_json(service) for service in services])

    async def _catalog_services(self, request: Request) -> Response:
        _refuse_unsupported(request)
        await self._wait(ALL_SERVICES, request)
        tags: dict[str, set[str]] = {"consul": set()}
        for service in self._agent.catalog.services():
            tags.setdefault(service.definition.name, set()).update(service.definition.tags)
        return self._indexed(ALL_SERVICES, {name: sorted(found) for name, found in tags.items()})

    async def _wait(self, name: str, request: Request) -> None:
        text = request.query.get("index", "0")
        if not text.isascii() or not text.isdigit() or len(text) > 20:
            raise InvalidRequestError("Invalid index")
        if index := int(text):
            wait = parse_duration(request.query["wait"]) if request.query.get("wait") else WAIT_SECONDS
            wait = min(wait, WAIT_SECONDS_MAX)
            await self._agent.wait_for_change(name, index=index, timeout=wait * (1 + random.random() * WAIT_JITTER))

    def _indexed(self, name: str, content: object) -> Response:
        index = str(self._agent.index_of(name))
        headers = {"X-Consul-Index": index, "X-Consul-KnownLeader": "true", "X-Consul-LastContact": "0"}
        return json_response(content, headers)


def _refuse_unsupported(request: Request) -> None:
    for name in _UNSUPPORTED:
        if name in request.query:
            raise InvalidRequestError(f"The parameter {name} is not supported by this stand-in for Consul")


def health_json(service: ServiceState) -> dict[str, Any]:
    node = {"Node": NODE, "Address": "127.0.0.1", "Datacenter": DATACENTER}
    checks = [check_json(service, check) for check in service.checks.values()]
    return {"Node": node, "Service": service_json(service), "Checks": checks}


def service_json(service: ServiceState) -> dict[str, Any]:
    definition = service.definition
    return {
        "ID": definition.service_id,
        "Service": definition.name,
        "Address": definition.address,
        "Port": definition.port,
        "Tags": list(definition.tags),
        "Meta": dict(definition.meta),
        "Weights": {"Passing": 1, "Warning": 1},
        "EnableTagOverride": False,
        "CreateIndex": service.create_index,
        "ModifyIndex": service.modify_index,
    }


def check_json(service: ServiceState, check: CheckState) -> dict[str, Any]:
    return {
        "Node": NODE,
        "CheckID": check.definition.check_id,
        "Name": check.definition.name,
        "Status": check.status.value,
        "Output": check.output,
        "Type": check.definition.kind,
        "ServiceID": service.definition.service_id,
        "ServiceName": service.definition.name,
        "ServiceTags": list(service.definition.tags),
    }
