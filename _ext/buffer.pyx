"""Memory of received messages: recycled blocks, counted against one budget of the process.

Messages come and go at the rate of the wire, from as many threads as there are associations. Left to
malloc each thread's arena keeps its own share of freed blocks; here they go back to one shelf.
"""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc


cdef extern from "<unistd.h>" nogil:
    ssize_t write(int, const void*, size_t)

cdef enum:
    SMALLEST = 12  # blocks of 4 KiB …
    LARGEST = 22  # … to 4 MiB are kept on the shelf
    PER_SIZE = 16

shelf_limit = 64 << 20

cdef struct Shelf:
    pthread_mutex_t mutex
    uint8_t* blocks[LARGEST - SMALLEST + 1][PER_SIZE]
    int count[LARGEST - SMALLEST + 1]
    size_t kept

cdef Shelf shelf
pthread_mutex_init(&shelf.mutex, NULL)


cdef int block_take(Block* block, size_t capacity) noexcept nogil:
    cdef int size = SMALLEST
    while (<size_t>1 << size) < capacity:
        size += 1
    capacity = <size_t>1 << size
    block.data = NULL
    if size <= LARGEST:
        pthread_mutex_lock(&shelf.mutex)
        if shelf.count[size - SMALLEST]:
            shelf.count[size - SMALLEST] -= 1
            block.data = shelf.blocks[size - SMALLEST][shelf.count[size - SMALLEST]]
            shelf.kept -= capacity
        pthread_mutex_unlock(&shelf.mutex)
    if block.data == NULL:
        block.data = <uint8_t*>malloc(capacity)
        if block.data == NULL:
            return -1
    block.capacity = capacity
    return 0


cdef void block_give(Block* block) noexcept nogil:
    cdef int size = SMALLEST
    if block.data == NULL:
        return
    while (<size_t>1 << size) < block.capacity:
        size += 1
    if size <= LARGEST:
        pthread_mutex_lock(&shelf.mutex)
        if shelf.count[size - SMALLEST] < PER_SIZE and shelf.kept + block.capacity <= shelf_limit:
            shelf.blocks[size - SMALLEST][shelf.count[size - SMALLEST]] = block.data
            shelf.count[size - SMALLEST] += 1
            shelf.kept += block.capacity
            block.data = NULL
        pthread_mutex_unlock(&shelf.mutex)
    free(block.data)
    block.data = NULL
    block.capacity = 0


cdef class Budget:
    """Bytes that all associations together may hold in received messages.

    A new message waits for room; meanwhile its socket is not read, so TCP slows the peer. A message that
    holds memory already goes on (in chunks, when there is no room to grow), and the first one always gets
    in, so the whole never stands still.
    """

    def __cinit__(self, limit):
        if limit <= 0:
            raise ValueError("a budget is a positive number of bytes")
        self._limit = limit
        pthread_mutex_init(&self.mutex, NULL)

    def __dealloc__(self):
        pthread_mutex_destroy(&self.mutex)

    @property
    def limit(self) -> int:
        return self._limit

    @property
    def used(self) -> int:
        return self._used

    @property
    def peak(self) -> int:
        """The most that was ever in use at a time."""
        return self._peak

    cdef bint take(self, size_t size, bint always) noexcept nogil:
        cdef bint taken
        pthread_mutex_lock(&self.mutex)
        taken = always or self._used == 0 or self._used + size <= self._limit
        if taken:
            self._used += size
            if self._used > self._peak:
                self._peak = self._used
        pthread_mutex_unlock(&self.mutex)
        return taken

    cdef void give(self, size_t size) noexcept nogil:
        cdef:
            uint64_t one = 1
            Waiter* waiter
        pthread_mutex_lock(&self.mutex)
        self._used -= size
        waiter = self.waiters
        while waiter != NULL:
            write(waiter.wake_fd, &one, 8)
            waiter = waiter.next
        pthread_mutex_unlock(&self.mutex)

    cdef bint wait_for(self, size_t size, Waiter* waiter) noexcept nogil:
        # Whether there is room now (nothing is taken); if not, the waiter is listed to be woken.
        cdef bint room
        pthread_mutex_lock(&self.mutex)
        room = self._used == 0 or self._used + size <= self._limit
        if not room and not waiter.listed:
            waiter.next = self.waiters
            self.waiters = waiter
            waiter.listed = True
        pthread_mutex_unlock(&self.mutex)
        return room

    cdef void forget(self, Waiter* waiter) noexcept nogil:
        cdef Waiter** link
        pthread_mutex_lock(&self.mutex)
        if waiter.listed:
            link = &self.waiters
            while link[0] != waiter:
                link = &link[0].next
            link[0] = waiter.next
            waiter.listed = False
        pthread_mutex_unlock(&self.mutex)


@cython.no_gc_clear  # __dealloc__ gives back to the budget
cdef class Buffer:
    """Received bytes, read-only, by the buffer protocol. The memory goes back when the object does."""

    def __init__(self):
        raise TypeError("buffers come out of received messages")

    @staticmethod
    cdef Buffer adopt(Block* block, size_t size, Budget budget):
        # Takes the block over; the budget was charged for its capacity when it was taken.
        cdef Buffer self = Buffer.__new__(Buffer)
        self.block = block[0]
        self.size = size
        self.budget = budget
        block.data = NULL
        block.capacity = 0
        return self

    cdef void _give(self) noexcept:
        cdef size_t capacity = self.block.capacity
        if self.block.data == NULL:
            return
        block_give(&self.block)
        self.size = 0
        if self.budget is not None:
            self.budget.give(capacity)

    def __dealloc__(self):
        self._give()

    def __len__(self) -> int:
        return self.size

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.block.data, self.size, 1, flags)
        self.exports += 1

    def __releasebuffer__(self, Py_buffer* view):
        self.exports -= 1

    def release(self) -> None:
        """Give the memory back now; the buffer is empty from then on. BufferError while views exist."""
        if self.exports:
            raise BufferError("the buffer is in use")
        self._give()

    def __repr__(self) -> str:
        return f"<Buffer of {self.size} bytes>"
