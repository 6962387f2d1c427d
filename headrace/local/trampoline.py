"""Runs between fork and the program: drops privileges, ties the program's life to its parent's, executes it.

Started as a script of its own (`python -I -S trampoline.py PARENT SIGNAL UID GID PROGRAM ARGUMENT...`), because code
that runs in a forked child of a process with threads (gRPC, test runners) may deadlock. Imports the standard library
alone.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
NO_USER = "-"


def main(parent: str, death_signal: str, uid: str, gid: str, *argv: str) -> None:
    if uid != NO_USER:
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
    if sys.platform == "linux":
        # After the change of user, which clears it. It survives the execve below.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit(f"the process {parent} that wanted {argv[0]} has gone")
    os.execv(argv[0], argv)  # noqa: S606


if __name__ == "__main__":
    main(*sys.argv[1:])
