/* The libFuzzer program: gives its inputs to `one_input` of the module that FUZZ_TARGET names.
 *
 * The targets are Cython modules: they reach the native functions as the rest of pacs_core does. The interpreter
 * that modules need is started once; an exception that a target lets through is a crash. (The name is not an
 * argument because libFuzzer, when it merges, starts itself again without those that are not its own.) */

#include <Python.h>
#include <stdint.h>
#include <stdlib.h>

static int (*one_input)(const uint8_t *, size_t);

static void die(void)
{
    PyErr_Print();
    abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    PyConfig config;
    PyObject *module, *exported, *capsule;
    const char *name = getenv("FUZZ_TARGET");

    (void)argc, (void)argv;
    if (name == NULL) {
        fputs("FUZZ_TARGET is to name a module: tools/fuzz does\n", stderr);
        exit(2);
    }
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
    if (one_input(data, size) < 0)
        die();
    return 0;
}
