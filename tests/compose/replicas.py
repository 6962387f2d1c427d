"""Which container a replica runs in: its name begins with that of its host."""

from tests.support.api import Api


def host_in(replica: str) -> str:
    return replica.split("-", 1)[0]


async def hosts_of(api: Api, type_name: str) -> set[str]:
    """The hosts of the replicas that run a task type."""
    answer = await api.http.get(f"/api/task-types/{type_name}")
    assert answer.status_code == 200, answer.text
    return {host_in(replica) for replica in answer.json()["replicas"]}
