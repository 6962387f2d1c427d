"""`python -m deploy.make_secrets`: the passwords that `docker-compose.yml` asks for, in `deploy/secrets`.

What exists is kept: a data volume goes on with the password that it was made with. Containers read the files as users
of their own, so the files are readable and the folder is not.
"""

import json
import secrets
import uuid
from pathlib import Path

FOLDER = Path(__file__).parent / "secrets"


def main() -> None:
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    FOLDER.chmod(0o700)
    tasks_password = _keep("tasks_db_password", secrets.token_urlsafe(32))
    results_password = _keep("results_db_password", secrets.token_urlsafe(32))
    redis_password = _keep("redis_password", secrets.token_urlsafe(32))
    consul_token = _keep("consul_token", str(uuid.uuid4()))
    # The same once more, in the form that each service reads.
    _keep("tasks_dsn", f"postgresql://headrace:{tasks_password}@tasks-db:5432/headrace")
    _keep("results_dsn", f"postgresql://headrace:{results_password}@results-db:5432/headrace_results")
    _keep("redis_url", f"redis://:{redis_password}@redis:6379/0")
    _keep("redis_auth", f"requirepass {redis_password}\n")
    tokens = {"initial_management": consul_token, "agent": consul_token}
    _keep("consul_acl.json", json.dumps({"acl": {"enabled": True, "default_policy": "deny", "tokens": tokens}}))


def _keep(name: str, content: str) -> str:
    """Write the file unless it is there, and return what it holds."""
    path = FOLDER / name
    if not path.exists():
        draft = path.with_name(f".{name}.new")
        draft.write_text(content)
        draft.chmod(0o444)
        draft.rename(path)
    return path.read_text()


if __name__ == "__main__":
    main()
