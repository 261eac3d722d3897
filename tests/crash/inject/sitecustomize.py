"""Gives a program that was not made for it faulty system calls: Python reads this where PYTHONPATH names us.

Every process of `pacs-core serve` inherits that, and stays the program that users start.
"""

import os

from pacs_core.store import local
from tests.crash.faults import Switched

local.Syscalls = lambda: Switched(os.environ["FAULTS"])
