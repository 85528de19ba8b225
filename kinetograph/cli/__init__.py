"""The command `kinetograph`. Each command parses, calls one function of the library, and prints what it gave back."""

import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Run the command line and leave with its exit code: 0, 1 a failure, 2 a request that was wrong, 130 stopped by
    Ctrl-C.
    """
    # Before torch is imported: its threads spin while they wait, which stalls a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    signal.signal(signal.SIGTERM, _terminated)
    try:
        from kinetograph.cli.commands import app

        app(prog_name="kinetograph")
    except KeyboardInterrupt:  # one that came before the commands were there to handle it
        sys.exit(130)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # on the way out there is nothing left to stop


def _terminated(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)  # as an exception, so that temporary files are removed on the way out
