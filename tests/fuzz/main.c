/* The libFuzzer program: gives its inputs to `one_input` of the module that FUZZ_TARGET names.
 *
 * The targets are Cython modules: they reach the native functions as the rest of pacs_core does. The interpreter
 * that modules need is started once; an exception that a target lets through is a crash. (The name is not an
 * argument because libFuzzer, when it merges, starts itself again without those that are not its own.) */

#include <Python.h>
#include <stdint.h>
#include <stdlib.h>

static int (*one_input)(const uint8_t *, size_t);

/* FUZZ_GUARDED=N: of the objects of Python's own allocator one in N is an allocation that the sanitizer watches, as
 * with PYTHONMALLOC=malloc all are: what makes many objects takes a third of the time. Which ones, an input decides,
 * so that each does the same each time. Python's allocator frees what it did not allocate as malloc's. */

static PyMemAllocatorEx pooled;
static size_t guarded, turn;

static int is_guarded(void)
{
    return ++turn % guarded == 0;
}

static void *sampled_malloc(void *context, size_t size)
{
    return is_guarded() ? PyMem_RawMalloc(size) : pooled.malloc(context, size);
}

static void *sampled_calloc(void *context, size_t count, size_t size)
{
    return is_guarded() ? PyMem_RawCalloc(count, size) : pooled.calloc(context, count, size);
}

static void *arena(void *context, size_t size)
{
    (void)context;
    return malloc(size);
}

static void free_arena(void *context, void *start, size_t size)
{
    (void)context, (void)size;
    free(start);
}

static void sample(const char *one_in)
{
    PyMemAllocatorEx sampled;
    /* Only in memory of malloc's are pointers seen when leaks are looked for. */
    PyObjectArenaAllocator arenas = {NULL, arena, free_arena};

    PyObject_SetArenaAllocator(&arenas);
    PyMem_GetAllocator(PYMEM_DOMAIN_OBJ, &pooled);
    sampled = pooled;
    sampled.malloc = sampled_malloc;
    sampled.calloc = sampled_calloc;
    if ((guarded = strtoul(one_in, NULL, 10)) != 0)
        PyMem_SetAllocator(PYMEM_DOMAIN_OBJ, &sampled);
}

/* FNV-1a */
static size_t mixed(const uint8_t *data, size_t size)
{
    uint32_t number = 2166136261u;

    while (size--)
        number = (number ^ *data++) * 16777619u;
    return number;
}

static void die(void)
{
    PyErr_Print();
    abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    PyPreConfig before;
    PyConfig config;
    PyObject *module, *exported, *capsule;
    const char *name = getenv("FUZZ_TARGET");

    (void)argc, (void)argv;
    if (name == NULL) {
        fputs("FUZZ_TARGET is to name a module: tools/fuzz does\n", stderr);
        exit(2);
    }
    PyPreConfig_InitPythonConfig(&before);
    if (PyStatus_Exception(Py_PreInitialize(&before)))
        abort();
    if (getenv("FUZZ_GUARDED") != NULL)
        sample(getenv("FUZZ_GUARDED"));
    PyConfig_InitPythonConfig(&config);
    config.install_signal_handlers = 0;
    if (PyStatus_Exception(PyConfig_SetBytesString(&config, &config.program_name, VENV_PYTHON))
        || PyStatus_Exception(Py_InitializeFromConfig(&config)))
        abort();
    PyConfig_Clear(&config);
    if ((module = PyImport_ImportModule(name)) == NULL
        || (exported = PyObject_GetAttrString(module, "__pyx_capi__")) == NULL
        || (capsule = PyDict_GetItemString(exported, "one_input")) == NULL
        || (one_input = PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule))) == NULL)
        die();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    turn = mixed(data, size);
    if (one_input(data, size) < 0)
        die();
    return 0;
}
