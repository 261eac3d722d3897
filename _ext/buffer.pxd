"""Memory of received messages: recycled blocks, counted against one budget of the process."""

cimport cython
from libc.stdint cimport uint8_t


cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t*, void*)
    int pthread_mutex_destroy(pthread_mutex_t*)
    int pthread_mutex_lock(pthread_mutex_t*)
    int pthread_mutex_unlock(pthread_mutex_t*)

cdef size_t shelf_limit  # bytes kept for reuse at most; 0: all goes back at once, as memory checkers want it

cdef struct Block:  # data is NULL when there is none
    uint8_t* data
    size_t capacity

cdef int block_take(Block* block, size_t capacity) noexcept nogil  # 0, or -1 without memory
cdef void block_give(Block* block) noexcept nogil

cdef struct Waiter:  # who wants to hear when the budget has room again
    int wake_fd
    Waiter* next
    bint listed

@cython.final
cdef class Budget:
    cdef pthread_mutex_t mutex
    cdef Waiter* waiters
    cdef size_t _limit
    cdef size_t _used
    cdef size_t _peak

    cdef bint take(self, size_t size, bint always) noexcept nogil
    cdef void give(self, size_t size) noexcept nogil
    cdef bint wait_for(self, size_t size, Waiter* waiter) noexcept nogil
    cdef void forget(self, Waiter* waiter) noexcept nogil

@cython.final
cdef class Buffer:
    cdef Block block
    cdef Py_ssize_t size
    cdef int exports
    cdef Budget budget

    @staticmethod
    cdef Buffer adopt(Block* block, size_t size, Budget budget)
    cdef void _give(self) noexcept
