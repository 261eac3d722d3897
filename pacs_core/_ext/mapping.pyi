"""Files as bytes in memory: mapped, or read where they are small."""

import os
from typing import Never, final

from typing_extensions import Buffer

@final
class Mapping:
    """A file mapped for reading, by the buffer protocol; unmapped when nothing needs it any more.

    No descriptor is held. As with every mapping, who cuts the file short in place while it is in use ends the
    process (SIGBUS); a file that is replaced or deleted stays what it was.
    """

    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __len__(self) -> int: ...

def map_file(path: str | os.PathLike[str]) -> Buffer:
    """The bytes of a file: a Mapping, or bytes where it is small. OSError if it can't be opened."""
