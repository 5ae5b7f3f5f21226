"""The command `chatkeep` with the seam of `tests.support.seam` in it: killed by the kernel at a durable step, whichever
comes then, or only recorded.

The first argument is JSON: root, record, at (-1: nothing happens). The rest is the command line.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from chatkeep.daemon.cli.main import main
from tests.support.seam import Fault, Seam

if __name__ == "__main__":
    asked = json.loads(sys.argv.pop(1))
    fault = Fault.KILL if asked["at"] >= 0 else Fault.NONE
    Seam().begin(Path(asked["root"]), Path(asked["record"]), asked["at"], fault)
    sys.exit(main())
