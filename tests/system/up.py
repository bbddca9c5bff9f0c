"""The command line of Gnomon as tests start it: ``python -m tests.system.up [--fault=NAME …] up …``.

Without a fault it is `gnomon`, nothing else. A fault is planted before the service starts, by one function
of `faults`; no code of the service knows that there are any. A hole (``--hole=NAME``) is the same for
attacks: a defence taken away, by one function of `tests.attack.holes`.
"""

import signal
import sys

from gnomon.cli import main

FAULT, HOLE = "--fault=", "--hole="

if __name__ == "__main__":
    # A suite that a shell runs in the background has it ignored, and all that it starts inherits that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    names = [word.removeprefix(FAULT) for word in sys.argv if word.startswith(FAULT)]
    holes = [word.removeprefix(HOLE) for word in sys.argv if word.startswith(HOLE)]
    sys.argv = [word for word in sys.argv if not word.startswith((FAULT, HOLE))]
    if names:
        from tests.system import faults  # it loads what the service alone does not

        for name in names:
            faults.plant(name)
    if holes:
        from tests.attack import holes as attack_holes

        for name in holes:
            attack_holes.plant(name)
    main()
