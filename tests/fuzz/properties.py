"""The property tests of the suite with new cases, by hand; in the suite they make the same cases every time.

    python tests/fuzz/properties.py [--seconds 600] [--seed 1] [pytest's arguments, such as files]

Runs all of them with one seed after another until the time is over. Prints how many rounds there were, and ends with
1 at the first failure, which pytest shows, with the seed.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seconds", type=float, default=600)
    options.add_argument(
        "--seed", type=int, default=1, help="of the first round; each further one has the next"
    )
    given, more = options.parse_known_args()
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "hypothesis", "--hypothesis-profile=search"]
    command += ["-p", "no:cacheprovider", "--no-header"]
    deadline = time.monotonic() + given.seconds
    seed = given.seed
    while time.monotonic() < deadline:
        done = subprocess.run([*command, f"--hypothesis-seed={seed}", *more], cwd=ROOT, check=False)
        if done.returncode:
            print(f"failed with --hypothesis-seed={seed} (exit status {done.returncode})")
            return 1
        seed += 1
    print(f"{seed - given.seed} rounds, from seed {given.seed} on, and no failure")
    return 0


if __name__ == "__main__":
    sys.exit(main())
