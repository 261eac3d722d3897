"""liblmdb, bound natively. See `kv.pxd` for the rules of use."""

import errno
import os
import threading
import time

cimport cython
from libc.errno cimport EINTR
from libc.errno cimport errno as c_errno
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp

from pacs_core._ext.arena cimport Arena, keep, release, take

from pacs_core.errors import ArchiveError, CorruptError, OutOfResourcesError, PacsError, StorageError


cdef extern from "pthread.h" nogil:
    int pthread_atfork(void (*prepare)() noexcept, void (*parent)() noexcept, void (*child)() noexcept)

cdef extern from "sys/file.h" nogil:
    int flock(int fd, int operation)
    enum:
        LOCK_EX
        LOCK_UN


DUPSORT = MDB_DUPSORT
DUPFIXED = MDB_DUPFIXED
INTEGERKEY = MDB_INTEGERKEY
INTEGERDUP = MDB_INTEGERDUP

_LEAVES = {
    MDB_MAP_FULL: OutOfResourcesError,
    MDB_TXN_FULL: OutOfResourcesError,
    MDB_READERS_FULL: OutOfResourcesError,
    MDB_DBS_FULL: OutOfResourcesError,
    errno.ENOSPC: OutOfResourcesError,
    errno.EDQUOT: OutOfResourcesError,
    errno.EFBIG: OutOfResourcesError,
    errno.ENOMEM: OutOfResourcesError,
    errno.EMFILE: OutOfResourcesError,
    errno.ENFILE: OutOfResourcesError,
    MDB_CORRUPTED: CorruptError,
    MDB_PAGE_NOTFOUND: CorruptError,
    MDB_CURSOR_FULL: CorruptError,
    MDB_PAGE_FULL: CorruptError,
    MDB_INVALID: CorruptError,
    MDB_VERSION_MISMATCH: ArchiveError,
    MDB_INCOMPATIBLE: ArchiveError,
    MDB_MAP_RESIZED: ArchiveError,
    MDB_NOTFOUND: ArchiveError,
    errno.ENOENT: ArchiveError,
    errno.EACCES: ArchiveError,
    errno.EPERM: ArchiveError,
    errno.EROFS: ArchiveError,
}

# Directories (device, inode) open in this process: LMDB must never open one twice.
_open_here = {}
_open_lock = threading.Lock()

cdef unsigned long forks = 0


cdef void _after_fork() noexcept nogil:
    global forks
    forks += 1


pthread_atfork(NULL, NULL, _after_fork)


def _start_anew():
    """A child starts with no environment of its own, it may open the same directory; who held the lock is gone."""
    global _open_lock
    _open_here.clear()
    _open_lock = threading.Lock()


os.register_at_fork(after_in_child=_start_anew)


cdef int fail(int code, str doing) except -1:
    """Raise the error that an LMDB or errno `code` means; `doing` says what was tried."""
    leaf = _LEAVES.get(code, StorageError)
    raise leaf(f"{doing}: {mdb_strerror(code).decode('utf-8', 'replace')}")


cdef int begin_read(MDB_env* env, MDB_txn** txn) noexcept nogil:
    """Start a snapshot, with the resting reader in `txn[0]` if there is one."""
    cdef int code, dead
    if txn[0] != NULL:
        code = mdb_txn_renew(txn[0])
        if code == MDB_SUCCESS:
            return code
        mdb_txn_abort(txn[0])
        txn[0] = NULL
    code = mdb_txn_begin(env, NULL, MDB_RDONLY, txn)
    if code == MDB_READERS_FULL:
        mdb_reader_check(env, &dead)
        code = mdb_txn_begin(env, NULL, MDB_RDONLY, txn)
    return code


cdef int begin_write(MDB_env* env, int lock_fd, MDB_txn** txn) noexcept nogil:
    """Queue for the commit lock (`lock_fd`, -1 when the caller holds it), then begin."""
    cdef int code
    if lock_fd >= 0:
        while flock(lock_fd, LOCK_EX) != 0:
            if c_errno != EINTR:
                return c_errno
    code = mdb_txn_begin(env, NULL, 0, txn)
    if code != MDB_SUCCESS:
        txn[0] = NULL
        if lock_fd >= 0:
            flock(lock_fd, LOCK_UN)
    return code


cdef bint is_doubtful(MDB_env* env, int code) noexcept nogil:
    """Whether after a commit that gave `code` it is not known what is on disk.

    Where commits are synced, any failure of the system. Where they lag, only LMDB's own giving up: a page
    that could not be written is one that nothing refers to yet.
    """
    cdef unsigned int flags
    cdef MDB_txn* probe = NULL
    if code <= 0:
        return code == MDB_PANIC
    mdb_env_get_flags(env, &flags)
    if not flags & MDB_NOSYNC:
        return True
    code = mdb_txn_begin(env, NULL, MDB_RDONLY, &probe)
    if code == MDB_SUCCESS:
        mdb_txn_abort(probe)
    return code == MDB_PANIC


cdef int end_write(MDB_txn* txn, int lock_fd, int code, bint* unsynced) noexcept nogil:
    """Commit if `code` is MDB_SUCCESS, else abort (a negative MDB_KEYEXIST says: nothing to commit).

    `unsynced` is set when it is not known what is on disk now.
    The commit lock is let go before the GIL is asked for again.
    """
    cdef MDB_env* env = mdb_txn_env(txn)
    if code != MDB_SUCCESS:
        mdb_txn_abort(txn)
        if code == MDB_KEYEXIST:
            code = MDB_SUCCESS
    else:
        code = mdb_txn_commit(txn)
        if is_doubtful(env, code):
            unsynced[0] = True
    if lock_fd >= 0:
        flock(lock_fd, LOCK_UN)
    return code


cdef struct Found:
    MDB_val key
    MDB_val value
    bint there


@cython.final
@cython.auto_pickle(False)
@cython.no_gc_clear  # __dealloc__ needs the registry
cdef class Environment:
    """One LMDB directory. Tables are numbered in the order in which they are given.

    Parameters
    ----------
    tables : Sequence[tuple[str, int]]
        Name and flags (`DUPSORT`, `INTEGERKEY`…) of each table; missing ones are made unless `readonly`.
    map_size : int
        Bytes of address space reserved once; the same for every opener, never changed while open.
    lagging : bool
        Commits are not synced: `sync` does it for all that came before, and until then a power cut may
        leave anything but the pages of the snapshot that is kept by `pin`. Nothing is written without one.
    """

    def __cinit__(
        self, str path, tables, *, size_t map_size, unsigned int max_readers=1024, bint readonly=False,
        bint lagging=False,
    ):
        if not 0 < len(tables) <= MAX_TABLES:
            raise ValueError(f"1 to {MAX_TABLES} tables")
        self.path = path
        self.registry = _open_here
        self.names = tuple((str(name), int(flags)) for name, flags in tables)
        self.table_count = len(self.names)
        self.map_size = map_size
        self.max_readers = max_readers
        self.readonly = readonly
        self.lagging = lagging
        self.open_native()

    def __dealloc__(self):
        # Only what nobody closed; a forked child leaves its parent's environment alone.
        if self.env != NULL and self.forks == forks:
            self.rest_all()
            mdb_env_close(self.env)
            self.env = NULL
            if self.registry is not None:
                self.registry.pop((self.device, self.inode), None)

    cdef void rest_all(self) noexcept:
        if self.pinned_at != NULL:
            mdb_txn_abort(self.pinned_at)
            self.pinned_at = NULL
        while self.idle_count:
            self.idle_count -= 1
            mdb_txn_abort(self.idle[self.idle_count])

    cdef int open_native(self) except -1:
        cdef int code
        cdef MDB_env* env = NULL
        cdef MDB_stat stat
        cdef bytes where = os.fsencode(self.path)
        cdef const char* c_path = where
        try:
            status = os.stat(self.path)
        except OSError as exc:
            raise ArchiveError(f"index {self.path}: {exc.strerror}") from exc
        identity = (status.st_dev, status.st_ino)
        self.device, self.inode = identity
        with _open_lock:
            if identity in _open_here:
                raise ArchiveError(f"index {self.path} is open in this process already")
            code = mdb_env_create(&env)
            if code == MDB_SUCCESS:
                code = mdb_env_set_mapsize(env, self.map_size)
            if code == MDB_SUCCESS:
                code = mdb_env_set_maxreaders(env, self.max_readers)
            if code == MDB_SUCCESS:
                code = mdb_env_set_maxdbs(env, MAX_TABLES)
            if code == MDB_SUCCESS:
                with nogil:
                    code = mdb_env_open(env, c_path, MDB_NOTLS | (MDB_RDONLY if self.readonly else 0), 0o640)
            if code == MDB_SUCCESS:
                code = self.open_tables(env)
            if code == MDB_SUCCESS and self.lagging:
                code = mdb_env_set_flags(env, MDB_NOSYNC, 1)
            if code != MDB_SUCCESS:
                mdb_env_close(env)
                fail(code, f"open index {self.path}")
            _open_here[identity] = self.path
        mdb_env_stat(env, &stat)
        self.page_size = stat.ms_psize
        self.env = env
        self.forks = forks
        self.unsynced = False
        return 0

    cdef int open_tables(self, MDB_env* env) except? -1:
        """Open every table; in a write transaction only when one is missing."""
        cdef MDB_txn* txn = NULL
        cdef int code = MDB_SUCCESS, attempt, i
        cdef unsigned int create
        cdef bytes name
        for attempt in range(1 if self.readonly else 2):
            with nogil:
                code = mdb_txn_begin(env, NULL, 0 if attempt else MDB_RDONLY, &txn)
            if code != MDB_SUCCESS:
                return code
            create = MDB_CREATE if attempt else 0
            for i in range(self.table_count):
                name = self.names[i][0].encode()
                code = mdb_dbi_open(txn, name, <unsigned int>self.names[i][1] | create, &self.tables[i])
                if code != MDB_SUCCESS:
                    break
            if code == MDB_SUCCESS:
                with nogil:
                    code = mdb_txn_commit(txn)
                return code
            mdb_txn_abort(txn)
            if code != MDB_NOTFOUND:
                break
        return code

    cdef int close_native(self) except -1:
        """Close when the calls under way have ended; new ones wait meanwhile."""
        if self.forks != forks:
            # All of it is the parent's: threads in a call are not here to end it, readers rest in shared memory.
            self.env = self.pinned_at = NULL
            self.active = self.idle_count = 0
            return 0
        self.gate = True
        while self.active:
            time.sleep(0.001)
        if self.env == NULL:
            return 0
        self.rest_all()
        env = self.env
        self.env = NULL
        with _open_lock:
            mdb_env_close(env)
            _open_here.pop((self.device, self.inode), None)
        return 0

    def close(self):
        """Close it; later calls raise `ArchiveError`. Closing twice is fine."""
        try:
            self.close_native()
        finally:
            self.gate = False

    @property
    def closed(self):
        return self.env == NULL

    @property
    def condemned(self):
        """A commit or a sync failed in the operating system: nothing is written before `reopen`."""
        return self.unsynced

    @property
    def pinned(self):
        """Whether a snapshot is kept by `pin`."""
        return self.pinned_at != NULL

    def pin(self):
        """Keep the pages of the latest snapshot from being used again, and let go of those kept before."""
        cdef MDB_txn* txn = NULL
        cdef int code
        self.enter()
        with nogil:
            code = begin_read(self.env, &txn)
        if code == MDB_SUCCESS:
            if self.pinned_at != NULL:
                mdb_txn_abort(self.pinned_at)
            self.pinned_at = txn
        self.leave()
        if code != MDB_SUCCESS:
            fail(code, f"read index {self.path}")

    def unpin(self):
        """Keep no snapshot."""
        if self.pinned_at != NULL:
            mdb_txn_abort(self.pinned_at)
            self.pinned_at = NULL

    def sync(self):
        """Make every commit until now durable.

        Raises
        ------
        StorageError
            The system failed to: the environment is condemned.
        """
        cdef int code
        self.enter()
        with nogil:
            code = mdb_env_sync(self.env, 1)
        if code != MDB_SUCCESS:
            self.unsynced = True
        self.leave()
        if code != MDB_SUCCESS:
            fail(code, f"sync index {self.path}")

    def reopen(self, prepare=None):
        """Close, make sure of what is on disk, call `prepare`, open again.

        A page whose write-back failed may still look right in the page cache; a descriptor that was not
        there at the time syncs the file once more, and the cached pages are dropped so that what is read
        from now on is what the disk holds.

        Raises
        ------
        StorageError
            The file can't be synced; the environment stays condemned, and open for reading if it opens.
        """
        try:
            self.close_native()
            failed = None
            try:
                fd = os.open(os.path.join(self.path, "data.mdb"), os.O_RDWR)
                try:
                    os.fdatasync(fd)
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                finally:
                    os.close(fd)
                if prepare is not None:
                    prepare()
            except (OSError, PacsError) as exc:
                failed = exc
            self.open_native()
            if failed is not None:
                self.unsynced = True
                if isinstance(failed, PacsError):
                    raise failed
                raise StorageError(f"sync index {self.path}: {failed}") from failed
        finally:
            self.gate = False

    cdef int enter(self) except -1:
        if self.forks != forks:
            raise ArchiveError(f"index {self.path} was opened before a fork: open it again in the child")
        while self.gate:
            time.sleep(0.001)
        if self.env == NULL:
            raise ArchiveError(f"index {self.path} is closed")
        self.active += 1
        return 0

    cdef int enter_write(self) except -1:
        if self.readonly:
            raise ArchiveError(f"index {self.path} is open for reading only")
        if self.unsynced:
            raise StorageError(f"index {self.path}: a commit failed; reopen before writing")
        if self.lagging and self.pinned_at == NULL:
            raise ArchiveError(f"index {self.path}: pin a snapshot before writing")
        return self.enter()

    cdef void leave(self) noexcept:
        self.active -= 1

    cdef MDB_txn* reader(self) noexcept:
        """A resting reader for `begin_read`, or NULL."""
        if self.idle_count:
            self.idle_count -= 1
            return self.idle[self.idle_count]
        return NULL

    cdef void rest(self, MDB_txn* txn) noexcept:
        """End a snapshot and keep its slot for the next call."""
        if txn == NULL:
            return
        if self.idle_count < IDLE_READERS:
            mdb_txn_reset(txn)
            self.idle[self.idle_count] = txn
            self.idle_count += 1
        else:
            mdb_txn_abort(txn)

    cdef MDB_dbi table(self, int number) except? 0:
        if not 0 <= number < self.table_count:
            raise ValueError(f"no table {number}")
        return self.tables[number]

    def read(self, int table, keys):
        """The value of each key, None where there is none: one snapshot, one call."""
        cdef MDB_dbi dbi = self.table(table)
        cdef list wanted = [bytes(key) for key in keys]
        cdef Py_ssize_t count = len(wanted), i
        cdef Arena arena
        cdef Found* found
        cdef int code
        cdef MDB_txn* txn
        arena.head = NULL
        self.enter()
        found = <Found*>take(&arena, count * sizeof(Found))
        if found == NULL:
            self.leave()
            raise MemoryError
        for i in range(count):
            found[i].key = view(<const char*><bytes>wanted[i], len(<bytes>wanted[i]))
        txn = self.reader()
        with nogil:
            code = begin_read(self.env, &txn)
            if code == MDB_SUCCESS:
                for i in range(count):
                    code = mdb_get(txn, dbi, &found[i].key, &found[i].value)
                    if code == MDB_NOTFOUND:
                        code = MDB_SUCCESS
                        continue
                    if code != MDB_SUCCESS:
                        break
                    found[i].there = True
                    found[i].value.mv_data = keep(&arena, found[i].value.mv_data, found[i].value.mv_size)
                    if found[i].value.mv_data == NULL:
                        code = errno_nomem
                        break
        self.rest(txn)
        self.leave()
        try:
            if code != MDB_SUCCESS:
                fail(code, f"read index {self.path}")
            return [_copy(&found[i].value) if found[i].there else None for i in range(count)]
        finally:
            release(&arena)

    def walk(self, int table, bytes after=None, bytes stop=None, int limit=1000):
        """Up to `limit` pairs of key and value, in key order: keys > `after` and < `stop`.

        In a table of several values to a key all values of the last key are given, even beyond `limit`.
        """
        cdef MDB_dbi dbi = self.table(table)
        cdef Arena arena
        cdef Found* found = NULL
        cdef Found* slot
        cdef int code, size = 0, room = 0
        cdef MDB_txn* txn
        cdef MDB_cursor* cursor = NULL
        cdef MDB_val key, value, last, end
        cdef Found* grown
        arena.head = NULL
        last = view(NULL, 0)
        end = view(NULL, 0)
        if after is not None:
            last = view(<const char*>after, len(after))
        if stop is not None:
            end = view(<const char*>stop, len(stop))
        self.enter()
        txn = self.reader()
        with nogil:
            code = begin_read(self.env, &txn)
            if code == MDB_SUCCESS:
                code = mdb_cursor_open(txn, dbi, &cursor)
            if code == MDB_SUCCESS:
                if last.mv_size:
                    key = last
                    code = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE)
                    if (code == MDB_SUCCESS and key.mv_size == last.mv_size
                            and memcmp(key.mv_data, last.mv_data, last.mv_size) == 0):
                        code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT_NODUP)
                else:
                    code = mdb_cursor_get(cursor, &key, &value, MDB_FIRST)
            while code == MDB_SUCCESS:
                if end.mv_size and _not_before(&key, &end):
                    break
                if size >= limit and not _same(&key, &found[size - 1].key):
                    break
                if size == room:
                    room = 2 * room if room else 64
                    grown = <Found*>take(&arena, room * sizeof(Found))
                    if grown == NULL:
                        code = errno_nomem
                        break
                    for i in range(size):
                        grown[i] = found[i]
                    found = grown
                slot = &found[size]
                slot.key = view(keep(&arena, key.mv_data, key.mv_size), key.mv_size)
                slot.value = view(keep(&arena, value.mv_data, value.mv_size), value.mv_size)
                if slot.key.mv_data == NULL or slot.value.mv_data == NULL:
                    code = errno_nomem
                    break
                size += 1
                code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)
            if cursor != NULL:
                mdb_cursor_close(cursor)
        self.rest(txn)
        self.leave()
        try:
            if code != MDB_SUCCESS and code != MDB_NOTFOUND:
                fail(code, f"read index {self.path}")
            return [(_copy(&found[i].key), _copy(&found[i].value)) for i in range(size)]
        finally:
            release(&arena)

    def write(self, changes, *, int lock_fd=-1):
        """Apply `changes` in one durable transaction: (table, key, value), or (table, key, None) to delete.

        Deleting what is not there is no error.
        """
        cdef list given = [(int(t), bytes(k), None if v is None else bytes(v)) for t, k, v in changes]
        cdef Py_ssize_t count = len(given), i
        cdef Found* found = <Found*>malloc((count or 1) * sizeof(Found))
        cdef MDB_dbi* dbis = <MDB_dbi*>malloc((count or 1) * sizeof(MDB_dbi))
        cdef int code
        cdef bint unsynced = False
        cdef MDB_txn* txn = NULL
        try:
            if found == NULL or dbis == NULL:
                raise MemoryError
            for i in range(count):
                table, key, value = given[i]
                dbis[i] = self.table(table)
                found[i].key = view(<const char*><bytes>key, len(<bytes>key))
                found[i].there = value is not None
                if value is not None:
                    found[i].value = view(<const char*><bytes>value, len(<bytes>value))
            self.enter_write()
            with nogil:
                code = begin_write(self.env, lock_fd, &txn)
                if code == MDB_SUCCESS:
                    for i in range(count):
                        if found[i].there:
                            code = mdb_put(txn, dbis[i], &found[i].key, &found[i].value, 0)
                        else:
                            code = mdb_del(txn, dbis[i], &found[i].key, NULL)
                            if code == MDB_NOTFOUND:
                                code = MDB_SUCCESS
                        if code != MDB_SUCCESS:
                            break
                    code = end_write(txn, lock_fd, code, &unsynced)
            if unsynced or code == MDB_PANIC:
                self.unsynced = True
            self.leave()
            if code != MDB_SUCCESS:
                fail(code, f"write index {self.path}")
        finally:
            free(found)
            free(dbis)

    def entries(self):
        """Number of entries of each table, of one snapshot."""
        cdef int code, i
        cdef MDB_txn* txn
        cdef MDB_stat stats[MAX_TABLES]
        self.enter()
        txn = self.reader()
        with nogil:
            code = begin_read(self.env, &txn)
            for i in range(self.table_count):
                if code == MDB_SUCCESS:
                    code = mdb_stat(txn, self.tables[i], &stats[i])
        self.rest(txn)
        self.leave()
        if code != MDB_SUCCESS:
            fail(code, f"read index {self.path}")
        return [stats[i].ms_entries for i in range(self.table_count)]

    def info(self):
        """Bytes reserved and in use, last transaction, reader slots, and how far the oldest reader lags."""
        cdef MDB_envinfo info
        cdef list lines = []
        self.enter()
        mdb_env_info(self.env, &info)
        mdb_reader_list(self.env, _line, <void*>lines)
        self.leave()
        seen = [
            int(words[2]) for words in (line.split() for line in "".join(lines).splitlines()[1:])
            if len(words) == 3 and words[2].isdigit()
        ]
        return {
            "map_size": info.me_mapsize,
            "used": (info.me_last_pgno + 1) * self.page_size,
            "last_txn": info.me_last_txnid,
            "max_readers": info.me_maxreaders,
            "readers": info.me_numreaders,
            "lag": info.me_last_txnid - min(seen) if seen else 0,
        }

    def reader_check(self):
        """Clear the slots of readers whose process died; how many there were."""
        cdef int dead = 0, code
        self.enter()
        with nogil:
            code = mdb_reader_check(self.env, &dead)
        self.leave()
        if code != MDB_SUCCESS:
            fail(code, f"check the readers of index {self.path}")
        return dead

    def copy(self, str target, *, bint compact=False):
        """A consistent copy as of now into the empty directory `target`, while others read and write."""
        cdef bytes where = os.fsencode(target)
        cdef const char* c_path = where
        cdef int code
        self.enter()
        with nogil:
            code = mdb_env_copy2(self.env, c_path, MDB_CP_COMPACT if compact else 0)
        self.leave()
        if code != MDB_SUCCESS:
            fail(code, f"copy index {self.path} to {target}")


cdef int errno_nomem = errno.ENOMEM


cdef int _line(const char* text, void* lines) noexcept with gil:
    (<list>lines).append(text.decode("utf-8", "replace"))
    return 0


cdef bytes _copy(MDB_val* value):
    return (<const char*>value.mv_data)[:value.mv_size]


cdef inline bint _same(MDB_val* a, MDB_val* b) noexcept nogil:
    return a.mv_size == b.mv_size and memcmp(a.mv_data, b.mv_data, a.mv_size) == 0


cdef inline bint _not_before(MDB_val* key, MDB_val* end) noexcept nogil:
    """Whether `key` >= `end`, as bytes."""
    cdef size_t size = key.mv_size if key.mv_size < end.mv_size else end.mv_size
    cdef int order = memcmp(key.mv_data, end.mv_data, size)
    return order > 0 or (order == 0 and key.mv_size >= end.mv_size)


def library_version():
    """Version of the liblmdb in use, such as (0, 9, 24)."""
    cdef int major, minor, patch
    mdb_version(&major, &minor, &patch)
    return major, minor, patch
