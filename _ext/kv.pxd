"""liblmdb, bound natively: the only LMDB of the process.

An `Environment` is opened after the process starts and never used across a fork. Every call on it is one
transaction, without the GIL from begin to end; results are copies, never views into the map.
Natives that do more than `read`, `walk` and `write` bracket their work with `enter`/`leave`, take a
transaction with `begin_read`/`end_read` or `begin_write`/`commit_write`, and turn a code into an exception
with `fail`.
"""

from libc.stdint cimport uint64_t


cdef extern from "lmdb.h" nogil:
    ctypedef struct MDB_env:
        pass
    ctypedef struct MDB_txn:
        pass
    ctypedef struct MDB_cursor:
        pass
    ctypedef unsigned int MDB_dbi
    ctypedef struct MDB_val:
        size_t mv_size
        void* mv_data
    ctypedef struct MDB_stat:
        unsigned int ms_psize
        unsigned int ms_depth
        size_t ms_branch_pages
        size_t ms_leaf_pages
        size_t ms_overflow_pages
        size_t ms_entries
    ctypedef struct MDB_envinfo:
        void* me_mapaddr
        size_t me_mapsize
        size_t me_last_pgno
        size_t me_last_txnid
        unsigned int me_maxreaders
        unsigned int me_numreaders
    ctypedef enum MDB_cursor_op:
        MDB_FIRST
        MDB_GET_BOTH
        MDB_GET_BOTH_RANGE
        MDB_GET_CURRENT
        MDB_NEXT
        MDB_NEXT_DUP
        MDB_NEXT_NODUP
        MDB_SET
        MDB_SET_KEY
        MDB_SET_RANGE

    enum:
        MDB_NOTLS
        MDB_NOSYNC
        MDB_RDONLY
        MDB_CREATE
        MDB_CP_COMPACT
        MDB_DUPSORT
        MDB_DUPFIXED
        MDB_INTEGERKEY
        MDB_INTEGERDUP
        MDB_NODUPDATA
        MDB_SUCCESS
        MDB_NOTFOUND
        MDB_KEYEXIST
        MDB_PAGE_NOTFOUND
        MDB_CORRUPTED
        MDB_PANIC
        MDB_VERSION_MISMATCH
        MDB_INVALID
        MDB_MAP_FULL
        MDB_DBS_FULL
        MDB_READERS_FULL
        MDB_TXN_FULL
        MDB_CURSOR_FULL
        MDB_PAGE_FULL
        MDB_MAP_RESIZED
        MDB_INCOMPATIBLE
        MDB_BAD_RSLOT
        MDB_BAD_TXN
        MDB_BAD_VALSIZE
        MDB_BAD_DBI

    char* mdb_strerror(int err)
    char* mdb_version(int* major, int* minor, int* patch)
    int mdb_env_create(MDB_env** env)
    int mdb_env_open(MDB_env* env, const char* path, unsigned int flags, unsigned int mode)
    int mdb_env_copy2(MDB_env* env, const char* path, unsigned int flags)
    int mdb_env_stat(MDB_env* env, MDB_stat* stat)
    int mdb_env_info(MDB_env* env, MDB_envinfo* stat)
    void mdb_env_close(MDB_env* env)
    int mdb_env_sync(MDB_env* env, int force)
    int mdb_env_get_flags(MDB_env* env, unsigned int* flags)
    int mdb_env_set_flags(MDB_env* env, unsigned int flags, int onoff)
    int mdb_env_set_mapsize(MDB_env* env, size_t size)
    int mdb_env_set_maxreaders(MDB_env* env, unsigned int readers)
    int mdb_env_set_maxdbs(MDB_env* env, MDB_dbi dbs)
    int mdb_env_get_maxkeysize(MDB_env* env)
    int mdb_txn_begin(MDB_env* env, MDB_txn* parent, unsigned int flags, MDB_txn** txn)
    MDB_env* mdb_txn_env(MDB_txn* txn)
    int mdb_txn_commit(MDB_txn* txn)
    void mdb_txn_abort(MDB_txn* txn)
    void mdb_txn_reset(MDB_txn* txn)
    int mdb_txn_renew(MDB_txn* txn)
    int mdb_dbi_open(MDB_txn* txn, const char* name, unsigned int flags, MDB_dbi* dbi)
    int mdb_stat(MDB_txn* txn, MDB_dbi dbi, MDB_stat* stat)
    int mdb_get(MDB_txn* txn, MDB_dbi dbi, MDB_val* key, MDB_val* data)
    int mdb_put(MDB_txn* txn, MDB_dbi dbi, MDB_val* key, MDB_val* data, unsigned int flags)
    int mdb_del(MDB_txn* txn, MDB_dbi dbi, MDB_val* key, MDB_val* data)
    int mdb_cursor_open(MDB_txn* txn, MDB_dbi dbi, MDB_cursor** cursor)
    void mdb_cursor_close(MDB_cursor* cursor)
    int mdb_cursor_get(MDB_cursor* cursor, MDB_val* key, MDB_val* data, MDB_cursor_op op)
    int mdb_reader_check(MDB_env* env, int* dead)
    ctypedef int (*MDB_msg_func)(const char* msg, void* ctx) noexcept
    int mdb_reader_list(MDB_env* env, MDB_msg_func func, void* ctx)


cdef enum:
    MAX_TABLES = 16
    IDLE_READERS = 16


cdef class Environment:
    cdef MDB_env* env
    cdef MDB_dbi tables[MAX_TABLES]
    cdef int table_count
    cdef MDB_txn* idle[IDLE_READERS]  # readers at rest: a slot in the reader table, no snapshot
    cdef int idle_count
    cdef int active                   # calls under way
    cdef bint gate                    # new calls wait: it is being closed or reopened
    cdef bint unsynced                # see `condemned`
    cdef MDB_txn* pinned_at           # a snapshot that is kept: see `pin`
    cdef readonly bint lagging        # commits are not synced one by one
    cdef unsigned long forks          # forks seen when it was opened
    cdef uint64_t device              # of the directory
    cdef uint64_t inode
    cdef dict registry                # directories open in this process; here, for `__dealloc__` at exit
    cdef object names
    cdef readonly str path
    cdef readonly bint readonly
    cdef readonly size_t map_size
    cdef readonly unsigned int page_size
    cdef unsigned int max_readers

    cdef int enter(self) except -1
    cdef int enter_write(self) except -1
    cdef void leave(self) noexcept
    cdef MDB_txn* reader(self) noexcept
    cdef void rest(self, MDB_txn* txn) noexcept
    cdef int open_native(self) except -1
    cdef int close_native(self) except -1
    cdef int open_tables(self, MDB_env* env) except? -1
    cdef void rest_all(self) noexcept
    cdef MDB_dbi table(self, int number) except? 0


cdef int begin_read(MDB_env* env, MDB_txn** txn) noexcept nogil
cdef int begin_write(MDB_env* env, int lock_fd, MDB_txn** txn) noexcept nogil
cdef int end_write(MDB_txn* txn, int lock_fd, int code, bint* unsynced) noexcept nogil
cdef int fail(int code, str doing) except -1


cdef inline MDB_val view(const void* data, size_t size) noexcept nogil:
    cdef MDB_val value
    value.mv_data = <void*>data
    value.mv_size = size
    return value


cdef inline MDB_val number(uint64_t* id) noexcept nogil:
    """The key or value of an integer table."""
    return view(id, sizeof(uint64_t))
