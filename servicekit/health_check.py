"""`python -m servicekit.health_check URL`: whether a service is well, for what watches containers.

The exit status is 0 if it is, 1 if it is not, and 2 for a URL that says nothing to us.

`http://HOST:PORT/PATH` is well if it answers with 2xx, `grpc://HOST:PORT/SERVICE` if the gRPC health service says that
SERVICE is SERVING.
"""

import argparse
import http.client
import sys
from urllib.parse import SplitResult, urlsplit

SECONDS = 2.5


def problem(url: str) -> str | None:
    """What is wrong with the service at `url`, if anything is. Raises ValueError for another kind of URL."""
    parts = urlsplit(url)
    if parts.hostname is None or parts.port is None or parts.scheme not in ("http", "grpc"):
        raise ValueError(f"not http://HOST:PORT/PATH or grpc://HOST:PORT/SERVICE: {url!r}")
    return _problem_by_http(parts) if parts.scheme == "http" else _problem_by_grpc(parts)


def _problem_by_http(parts: SplitResult) -> str | None:
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=SECONDS)
    try:
        connection.request("GET", parts.path or "/")
        response = connection.getresponse()
        body = response.read(1000)
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    return None if 200 <= response.status < 300 else f"{response.status}: {body.decode(errors='replace')}"


def _problem_by_grpc(parts: SplitResult) -> str | None:
    # Slow imports, which a check over HTTP does not need.
    import grpc
    from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
    from grpc_health.v1.health_pb2_grpc import HealthStub

    with grpc.insecure_channel(parts.netloc) as channel:
        try:
            answer = HealthStub(channel).Check(HealthCheckRequest(service=parts.path.lstrip("/")), timeout=SECONDS)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
    if answer.status == HealthCheckResponse.SERVING:
        return None
    return str(HealthCheckResponse.ServingStatus.Name(answer.status))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m servicekit.health_check", description=__doc__)
    parser.add_argument("url")
    try:
        found = problem(parser.parse_args().url)
    except ValueError as error:
        parser.error(str(error))
    if found is not None:
        sys.exit(found)


if __name__ == "__main__":
    main()
