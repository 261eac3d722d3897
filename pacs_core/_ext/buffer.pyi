"""Memory of received messages: recycled blocks, counted against one budget of the process."""

from typing import final

@final
class Budget:
    """Bytes that all associations together may hold in received messages.

    A new message waits for room; meanwhile its socket is not read, so TCP slows the peer. A message that
    holds memory already goes on (in chunks, when there is no room to grow), and the first one always gets
    in, so the whole never stands still.
    """

    def __new__(cls, limit: int) -> Budget: ...
    @property
    def limit(self) -> int: ...
    @property
    def used(self) -> int: ...
    @property
    def peak(self) -> int:
        """The most that was ever in use at a time."""

@final
class Buffer:
    """Received bytes, read-only, by the buffer protocol. The memory goes back when the object does."""

    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __len__(self) -> int: ...
    def release(self) -> None:
        """Give the memory back now; the buffer is empty from then on. BufferError while views exist."""
