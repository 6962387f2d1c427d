"""`python -m tests.simulation --seeds 1000`: play many stories, or one of them again with all that was logged."""

import argparse
import time

from tests.simulation.world import replay_command, simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1000, help="how many stories to play")
    arguments = parser.parse_args()
    began, broken = time.monotonic(), 0
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        if violations := simulate(seed):
            broken += 1
            print(f"seed {seed}: {violations[0]}\n    {replay_command(seed)}", flush=True)
    print(f"{arguments.seeds} stories in {time.monotonic() - began:.0f} s, {broken} of them broke a promise")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
