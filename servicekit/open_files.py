"""How many files and sockets a service may have open."""

import resource


def allow_open_files(wanted: int) -> None:
    """Raise the soft limit of open files as far as it is allowed; it is not lowered."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < target:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
