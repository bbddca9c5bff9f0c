"""The judgement of openssl, which knows nothing of our code."""

import shutil
import subprocess
from datetime import datetime
from pathlib import Path

WAIT_S_MAX = 20.0


def openssl(*arguments: object, input: bytes = b"") -> subprocess.CompletedProcess[str]:
    """Run openssl with these arguments."""
    program = shutil.which("openssl")
    assert program, "these tests ask openssl for its judgement: install it"
    command = [program, *map(str, arguments)]
    done = subprocess.run(command, input=input, capture_output=True, timeout=WAIT_S_MAX, check=False)
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


def refusal(roots: Path, presented: Path, purpose: str, at: datetime, *more: object) -> str:
    """Return why openssl does not believe what somebody presents; empty when it does.

    As in TLS: of the file the first certificate is judged, and the others may help to reach a root.
    """
    options = ("-x509_strict", "-purpose", purpose, "-attime", int(at.timestamp()))
    done = openssl("verify", *options, "-CAfile", roots, "-untrusted", presented, *more, presented)
    assert (done.returncode == 0) is ("OK" in done.stdout)
    return "" if done.returncode == 0 else done.stderr + done.stdout
