"""One quick HTTP request to a loopback port, to see whether a service answers."""

import http.client

from headrace.local.process import LOOPBACK, PROBE_SECONDS


def fetch(port: int, path: str) -> tuple[int, bytes] | None:
    """Return status code and body of a `GET` that is answered at once, else None."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=PROBE_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def answers_ok(port: int, path: str) -> bool:
    """Tell whether a `GET` is answered with 200 at once."""
    answer = fetch(port, path)
    return answer is not None and answer[0] == http.client.OK
