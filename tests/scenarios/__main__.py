"""``python -m tests.scenarios 3.2``: play a scenario of the use case, each way in turn, step by step."""

import argparse
import sys
from typing import Final

from tests.scenarios import upgrades, walks
from tests.scenarios.stage import StepFailedError, staged

SCENARIOS: Final = {"3.1": upgrades.WAYS, "3.2": walks.RECOGNISED, "3.3": walks.NOT_RECOGNISED}


def main() -> int:
    """Play; 0 if every step came out as it should."""
    parser = argparse.ArgumentParser(prog="tests.scenarios", description=__doc__)
    parser.add_argument("scenario", choices=sorted(SCENARIOS))
    failed = 0
    for way, number, walk in SCENARIOS[parser.parse_args().scenario]:
        print(f"== {way}")
        with staged(number) as stage:
            try:
                walk(stage)
            except StepFailedError as error:
                failed += 1
                print(f"FAILED     {error}")
                print(stage.gnomon.log_text()[-2_000:])
    print("FAILED" if failed else "all steps as the use case says")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
