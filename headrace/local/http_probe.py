"""One quick HTTP request to a loopback port, to see whether a service answers."""

import http.client

from headrace.local.process import LOOPBACK, PROBE_SECONDS


def fetch(port: int, path: str) -> bytes | None:
    """Return the body of a `GET` that is answered with 200 at once, else None."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=PROBE_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.read() if response.status == http.client.OK else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
