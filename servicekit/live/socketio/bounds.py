"""How much Socket.IO clients may ask of us."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    clients_max: int = 5_000
    # Clients that poll hold no connection that would count.
    polling_max: int = 1_000
    # Clients that have not connected to a namespace yet.
    newcomers_max: int = 500
    namespaces_max: int = 20
    # How long a client may take to connect to a namespace, after it came or left the last one.
    connect_seconds: float = 10.0
    # How long the frames of an upgrade, and the body of a request, may take.
    frame_seconds: float = 10.0
    ping_interval: float = 20.0
    ping_timeout: float = 20.0
    # What a client may send in one frame or body.
    bytes_max: int = 64 * 1024
    packets_max: int = 16
    # What waits for a client is merged by task beyond this, …
    waiting_packets_max: int = 64
    waiting_bytes_max: int = 256 * 1024
    # … and a client that takes nothing for so long is cut off.
    send_seconds: float = 15.0
