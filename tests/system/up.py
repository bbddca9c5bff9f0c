"""The command line of Gnomon as tests start it: ``python -m tests.system.up [--fault=NAME …] up …``.

Without a fault it is `gnomon`, nothing else. A fault is planted before the service starts, by one function
of `faults`; no code of the service knows that there are any.
"""

import sys

from gnomon.cli import main
from tests.system import faults

if __name__ == "__main__":
    while len(sys.argv) > 1 and sys.argv[1].startswith("--fault="):
        faults.plant(sys.argv.pop(1).removeprefix("--fault="))
    main()
