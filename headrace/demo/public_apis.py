"""Whether the public APIs that two task types ask can be reached from here, and what stands in for them if not."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx
from rich.console import Console

from headrace.recorded_apis import recorded_apis

_SECONDS = 3.0


@contextmanager
def api_environment(console: Console, urls: list[str], *, reachable: bool) -> Iterator[Mapping[str, str]]:
    """Give the settings with which workers find the APIs: their own, or those of a local stand-in, said plainly."""
    if reachable:
        console.print(f"weather_data and currency_conversion ask the public APIs: {', '.join(urls)}.")
        yield {}
        return
    console.print(
        "The public APIs cannot be reached from here. weather_data and currency_conversion ask a local stand-in with "
        "recorded answers instead: their results show the way, not the weather of today."
    )
    with recorded_apis() as apis:
        yield apis.environment


async def are_reachable(urls: list[str]) -> bool:
    """Return whether something answers at every one of the addresses, whatever it says."""
    async with httpx.AsyncClient(timeout=_SECONDS, trust_env=False) as client:
        answers = await asyncio.gather(*(client.head(url) for url in urls), return_exceptions=True)
    return all(isinstance(answer, httpx.Response) for answer in answers)
