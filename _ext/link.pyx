"""The engine on a plain socket: reads, waits and writes without the GIL.

Reading: one recvmsg fills the rest of the fragment in hand, straight in the message's buffer, and then the
engine's staging area with whatever follows. Waiting: poll on the socket and on the engine's eventfd. Before
each wait TCP_QUICKACK is armed again: a peer with Nagle's algorithm on, which waits for our acknowledgement
before it sends the tail of its message, would otherwise lose 40 ms to our delayed one, each message.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EAGAIN, EINTR, ENOMEM, errno
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from pacs_core._ext.buffer cimport (
    Block,
    block_give,
    block_take,
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
)
from pacs_core._ext.pdu cimport (
    EV_CLOSED,
    EV_NONE,
    EV_STALLED,
    EV_TIMEOUT,
    EV_WAKE,
    PH_CLOSING,
    Event,
    write_header,
)

import os


cdef extern from "<sys/socket.h>" nogil:
    struct msghdr:
        void* msg_name
        unsigned int msg_namelen
        iovec* msg_iov
        size_t msg_iovlen
    ssize_t recvmsg(int, msghdr*, int)
    ssize_t sendmsg(int, const msghdr*, int)
    int setsockopt(int, int, int, const void*, unsigned int)
    int MSG_DONTWAIT
    int MSG_NOSIGNAL
    int MSG_MORE

cdef extern from "<netinet/in.h>" nogil:
    int IPPROTO_TCP

cdef extern from "<netinet/tcp.h>" nogil:
    int TCP_NODELAY
    int TCP_QUICKACK

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd*, unsigned long, int)
    int POLLIN
    int POLLOUT
    int POLLRDHUP

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int, timespec*)
    int CLOCK_MONOTONIC

cdef extern from "<pthread.h>" nogil:
    int pthread_mutex_trylock(pthread_mutex_t*)

cdef extern from "<unistd.h>" nogil:
    ssize_t pread(int, void*, size_t, long long)
    ssize_t read(int, void*, size_t)

cdef enum:  # how a send failed
    SENT = 0
    TIMED_OUT = -1
    FAILED = -2  # errno says
    FILE_SHORT = -3

cdef enum:
    SIGNALLED = -1  # instead of an event: a signal came

cdef enum:
    MOST_SEND = 1 << 20  # bytes of a P-DATA-TF PDU we send when the peer said "unlimited"
    DIRECT = 4096  # a fragment with less to come goes through the staging area
    FILE_PIECE = 1 << 20


cdef double _now() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return t.tv_sec + t.tv_nsec * 1e-9


@cython.no_gc_clear  # as Engine
cdef class Link(Engine):
    """An engine bound to a connected TCP socket, which stays the caller's to close.

    One thread at a time receives. Sending is serialised by a lock inside: messages of several threads are
    never mixed. `maximum_send` is the peer's Maximum Length Received, 0 for unlimited (PS3.8 D.1).
    """

    def __cinit__(self, *args, **kwargs):
        pthread_mutex_init(&self.write_mutex, NULL)

    def __init__(self, int phase, *, int fd, write_timeout=60.0, **settings):
        cdef int on = 1
        Engine.__init__(self, phase, **settings)
        self.fd = fd
        self._write_timeout = -1 if write_timeout is None else write_timeout
        self._maximum_send = MOST_SEND
        setsockopt(self.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))  # not an error on other sockets

    def __dealloc__(self):
        pthread_mutex_destroy(&self.write_mutex)

    @property
    def maximum_send(self) -> int:
        return self._maximum_send

    @maximum_send.setter
    def maximum_send(self, value):
        if value and not 8 <= value <= 0xFFFFFFFF:
            raise ValueError(f"a maximum PDU length of {value} leaves no room for data")
        self._maximum_send = min(value or MOST_SEND, MOST_SEND)

    # -- receiving --------------------------------------------------------------------------------------

    def receive(self, timeout=None, deadline=None) -> Event:
        """Wait for the next event, without the GIL.

        `timeout` seconds without a byte from the peer, or the moment `deadline` of `time.monotonic()`,
        give TIMEOUT; `wake` from another thread gives WAKE. A timeout of 0 only looks. The state of a
        message in hand is kept: call again to go on. CLOSED comes for an end or an error of the connection.

        In the main thread a signal's handler runs at once, and what it raises (KeyboardInterrupt) is raised.
        """
        cdef:
            double idle = -1 if timeout is None else timeout
            double until = -1 if deadline is None else deadline
            int kind
        while True:
            with nogil:
                kind = self._run(idle, until)
            if kind != SIGNALLED:
                break
            PyErr_CheckSignals()
        cdef Event event = self._event(kind)
        if kind == EV_CLOSED and self.interrupted:
            event.text = "in the middle of a message"
        return event

    cdef int _run(self, double idle, double deadline) noexcept nogil:
        cdef:
            int kind, got, events
            double until
            uint64_t count
        until = _now() + idle if idle >= 0 else -1
        if deadline >= 0 and (until < 0 or deadline < until):
            until = deadline
        while True:
            if self.wake_flag:
                self.wake_flag = 0
                read(self.waiter.wake_fd, &count, 8)
                return EV_WAKE
            kind = self.step()
            if kind == EV_STALLED:
                # Not reading is what slows the peer. Its hanging up is noticed all the same.
                if self.budget.wait_for(self.wanted, &self.waiter):
                    continue
                got = self._poll(POLLRDHUP, until)
                if got == 1:
                    kind = EV_CLOSED
                elif got == 0:
                    kind = EV_TIMEOUT
                else:
                    self.budget.forget(&self.waiter)
                    continue
                self.budget.forget(&self.waiter)
                return kind
            if kind != EV_NONE:
                return kind
            if self.gone:
                self.interrupted = self.message_context != 0 or self.tail > self.head
                return EV_CLOSED
            if not self.drained:
                got = self._read()
                if got > 0:
                    if idle >= 0:
                        until = _now() + idle
                        if deadline >= 0 and deadline < until:
                            until = deadline
                    continue
                if got < 0:
                    self.gone = True
                    continue
            got = self._poll(POLLIN, until)
            if got == 0:
                return EV_TIMEOUT
            if got < 0:
                return SIGNALLED
            if got == 1:
                self.drained = False

    cdef int _read(self) noexcept nogil:
        # > 0: bytes read; 0: none there; < 0: the connection is at its end
        cdef:
            msghdr message
            iovec vectors[2]
            size_t direct = 0, asked
            ssize_t got
        memset(&message, 0, sizeof(message))
        if self.head == self.tail:
            self.head = self.tail = 0
            if self._phase != PH_CLOSING and not self.discarding and self.block.data != NULL:
                direct = min(self.pdv_left, self.block.capacity - self.data_size)
                if self.pdv_control & 1 or direct < DIRECT:
                    direct = 0
        elif self.head:
            self._compact()
        vectors[0].iov_base = self.block.data + self.data_size
        vectors[0].iov_len = direct
        vectors[1].iov_base = self.stage + self.tail
        vectors[1].iov_len = self.stage_size - self.tail
        message.msg_iov = &vectors[0] if direct else &vectors[1]
        message.msg_iovlen = 2 if direct else 1
        asked = direct + vectors[1].iov_len
        while True:
            got = recvmsg(self.fd, &message, MSG_DONTWAIT)
            if got >= 0 or errno != EINTR:
                break
        if got < 0:
            self.drained = True
            return 0 if errno == EAGAIN else -1
        if got == 0:
            return -1
        self.received += got
        self.unacknowledged = True
        self.drained = <size_t>got < asked
        if <size_t>got <= direct:
            direct = got
        self.data_size += direct
        self.pdv_left -= direct
        self.pdu_left -= direct
        self.tail += got - direct
        return 1

    cdef int _poll(self, int events, double until) noexcept nogil:
        # 1: the socket is ready; 0: time is up; 2: woken
        cdef:
            pollfd fds[2]
            int milliseconds = -1, got, on = 1
            double left
            uint64_t count
        if self.unacknowledged:
            self.unacknowledged = False
            setsockopt(self.fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on))
        fds[0].fd = self.fd
        fds[0].events = events
        fds[1].fd = self.waiter.wake_fd
        fds[1].events = POLLIN
        while True:
            fds[0].revents = fds[1].revents = 0
            if until >= 0:
                left = until - _now()
                # Rounded up: a wait that ends a little early would spin.
                milliseconds = 0 if left <= 0 else <int>min(left * 1000 + 1, 1e9)
            got = poll(fds, 2, milliseconds)
            if got == 0:
                return 0
            if got < 0:
                return -1 if errno == EINTR else 1  # the read that follows meets the error
            if fds[1].revents:
                if not self.wake_flag:
                    read(self.waiter.wake_fd, &count, 8)  # the budget's doing
                return 2
            return 1

    # -- sending ----------------------------------------------------------------------------------------

    cdef int _flush(self, Batch* batch, int flags) noexcept nogil:
        cdef:
            msghdr message
            int first = 0
            size_t left
            ssize_t got
            pollfd fds[1]
            int ready
        memset(&message, 0, sizeof(message))
        while first < batch.used:
            message.msg_iov = batch.vectors + first
            message.msg_iovlen = batch.used - first
            got = sendmsg(self.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT | flags)
            if got < 0:
                if errno == EINTR:
                    continue
                if errno != EAGAIN:
                    self.send_error = errno
                    return FAILED
                fds[0].fd = self.fd
                fds[0].events = POLLOUT
                fds[0].revents = 0
                ready = poll(fds, 1, <int>(self._write_timeout * 1000) if self._write_timeout >= 0 else -1)
                if ready == 0:
                    return TIMED_OUT
                if ready < 0 and errno != EINTR:
                    self.send_error = errno
                    return FAILED
                continue
            self.sent += got
            left = got
            while first < batch.used and left >= batch.vectors[first].iov_len:
                left -= batch.vectors[first].iov_len
                first += 1
            if left:
                batch.vectors[first].iov_base = <uint8_t*>batch.vectors[first].iov_base + left
                batch.vectors[first].iov_len -= left
        batch.used = 0
        batch.fragments = 0
        return SENT

    cdef int _append(self, Batch* batch, Part* part, bint more) noexcept nogil:
        # Cuts the part into fragments; `more` of its data set follows in another part.
        cdef:
            size_t payload = (<size_t>self._maximum_send - 6) & ~<size_t>1
            size_t at = 0, size
            int wrong
        while True:
            if batch.fragments == FRAGMENTS:
                wrong = self._flush(batch, MSG_MORE)
                if wrong:
                    return wrong
            size = min(payload, part.size - at)
            write_header(
                batch.headers[batch.fragments], size, part.context_id, part.is_command,
                not more and at + size == part.size,
            )
            batch.vectors[batch.used].iov_base = batch.headers[batch.fragments]
            batch.vectors[batch.used].iov_len = 12
            batch.vectors[batch.used + 1].iov_base = <void*>(part.data + at)
            batch.vectors[batch.used + 1].iov_len = size
            batch.used += 2
            batch.fragments += 1
            at += size
            if at == part.size:
                return SENT

    cdef int _send_parts(self, Part* parts, int count) noexcept nogil:
        cdef:
            Batch batch
            int wrong, i
        batch.used = batch.fragments = 0
        for i in range(count):
            wrong = self._append(&batch, parts + i, False)
            if wrong:
                return wrong
        return self._flush(&batch, 0)

    cdef int _send_from_file(self, Part* command, int fd, long long offset, long long length) noexcept nogil:
        cdef:
            Batch batch
            Block block
            Part part
            size_t payload = (<size_t>self._maximum_send - 6) & ~<size_t>1
            size_t piece, wanted
            ssize_t got
            int wrong
        # Pieces hold whole fragments, so that only the last one is short.
        piece = FILE_PIECE // payload * payload if payload < FILE_PIECE else payload
        if block_take(&block, min(piece, <size_t>length) + 1):
            self.send_error = ENOMEM
            return FAILED
        batch.used = batch.fragments = 0
        part.data = block.data
        part.context_id = command.context_id
        part.is_command = False
        # The command goes out together with the first piece.
        wrong = self._append(&batch, command, False)
        while not wrong:
            wanted = min(piece, <size_t>length)
            part.size = 0
            while part.size < wanted:
                got = pread(fd, block.data + part.size, wanted - part.size, offset + part.size)
                if got < 0 and errno == EINTR:
                    continue
                if got <= 0:
                    self.send_error = errno
                    wrong = FILE_SHORT if got == 0 else FAILED
                    break
                part.size += got
            if wrong:
                break
            offset += wanted
            length -= wanted
            wrong = self._append(&batch, &part, length > 0)
            if not wrong:
                wrong = self._flush(&batch, MSG_MORE if length else 0)
            if length == 0:
                break
        block_give(&block)
        return wrong

    cdef int _raise(self, int wrong) except -1:
        if wrong == TIMED_OUT:
            raise TimeoutError("the peer does not take what we send")
        if wrong == FILE_SHORT:
            raise EOFError("the file is shorter than what was to be sent of it")
        raise OSError(self.send_error, os.strerror(self.send_error))

    def send_raw(self, data not None) -> None:
        """Send bytes as they are: an association PDU, or fragments made elsewhere."""
        cdef:
            Py_buffer view
            Batch batch
            int wrong
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        batch.vectors[0].iov_base = view.buf
        batch.vectors[0].iov_len = view.len
        batch.used = 1
        with nogil:
            pthread_mutex_lock(&self.write_mutex)
            wrong = self._flush(&batch, 0)
            pthread_mutex_unlock(&self.write_mutex)
        PyBuffer_Release(&view)
        if wrong:
            self._raise(wrong)

    def send_now(self, data not None) -> bool:
        """Send bytes only if the peer takes them now; says whether it did.

        Another thread's message is waited for a fifth of a second: longer, and that thread is stuck.
        """
        cdef:
            Py_buffer view
            msghdr message
            iovec vector
            ssize_t got = -1
            int attempt
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        memset(&message, 0, sizeof(message))
        vector.iov_base = view.buf
        vector.iov_len = view.len
        message.msg_iov = &vector
        message.msg_iovlen = 1
        with nogil:
            for attempt in range(20):  # a timed lock would go by the time of day, which jumps
                if pthread_mutex_trylock(&self.write_mutex) == 0:
                    got = sendmsg(self.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT)
                    pthread_mutex_unlock(&self.write_mutex)
                    break
                poll(NULL, 0, 10)
        PyBuffer_Release(&view)
        return got == <ssize_t>vector.iov_len

    def send_message(self, int context_id, command not None, data=None) -> None:
        """Send one message: a command set and, unless None, a data set (empty: one empty fragment)."""
        self.send_batch(context_id, ((command, data),))

    def send_batch(self, int context_id, messages not None) -> None:
        """Send several messages, pairs of a command set and a data set or None, with as few writes as go.

        Raises TimeoutError when the peer takes nothing for `write_timeout` seconds, OSError when the
        connection is gone. Part of the messages may have been sent then: the association is over.
        """
        cdef:
            tuple pairs = tuple(messages)
            int most = 2 * len(pairs), count = 0, i, wrong = SENT
            Part* parts
            Py_buffer* views
        if most == 0:
            return
        parts = <Part*>malloc(most * sizeof(Part))
        views = <Py_buffer*>malloc(most * sizeof(Py_buffer))
        try:
            if parts == NULL or views == NULL:
                raise MemoryError()
            for command, data in pairs:
                for is_command in (True, False):
                    part = command if is_command else data
                    if part is None:
                        continue
                    PyObject_GetBuffer(part, &views[count], PyBUF_SIMPLE)
                    parts[count].data = <const uint8_t*>views[count].buf
                    parts[count].size = views[count].len
                    parts[count].context_id = context_id
                    parts[count].is_command = is_command
                    count += 1
            with nogil:
                pthread_mutex_lock(&self.write_mutex)
                wrong = self._send_parts(parts, count)
                pthread_mutex_unlock(&self.write_mutex)
        finally:
            for i in range(count):
                PyBuffer_Release(&views[i])
            free(parts)
            free(views)
        if wrong:
            self._raise(wrong)

    def send_file(self, int context_id, command not None, int fd, long long offset, long long length) -> None:
        """Send a command set and, as its data set, `length` bytes of an open file from `offset` on.

        The file's own position is not used. Raises as `send_batch` does; OSError also when the file can't be
        read, EOFError when it is too short: the message is incomplete then and the association must go.
        """
        cdef:
            Py_buffer view
            Part part
            int wrong
        if offset < 0 or length < 0:
            raise ValueError("negative offset or length")
        PyObject_GetBuffer(command, &view, PyBUF_SIMPLE)
        part.data = <const uint8_t*>view.buf
        part.size = view.len
        part.context_id = context_id
        part.is_command = True
        with nogil:
            pthread_mutex_lock(&self.write_mutex)
            wrong = self._send_from_file(&part, fd, offset, length)
            pthread_mutex_unlock(&self.write_mutex)
        PyBuffer_Release(&view)
        if wrong:
            self._raise(wrong)
