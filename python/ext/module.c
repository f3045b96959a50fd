/* SPDX-License-Identifier: MIT
 *
 * tercio._core: the module. See core.h for the rules, _core.pyi for what it offers.
 */
#include "codec.h"

PyObject *core_no_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    return PyErr_Format(PyExc_TypeError, "cannot create '%s' instances", type->tp_name);
}

/* From Python 3.13 on a user sets the number of CPUs by -X cpu_count=N or PYTHON_CPU_COUNT. Returns: below 1: not set;
 * -2: an exception. */
static long configured_cpus(void)
{
    PyObject *config = PySys_GetObject("_get_cpu_count_config"); /* borrowed */
    PyObject *number = config == NULL ? NULL : PyObject_CallNoArgs(config);
    if (number == NULL)
        return config == NULL ? -1 : -2;
    long cpus = PyLong_AsLong(number);
    Py_DECREF(number);
    return cpus == -1 && PyErr_Occurred() ? -2 : cpus;
}

static PyObject *usable_cpu_count(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none))
{
    long cpus = configured_cpus();
    if (cpus == -2)
        return NULL;
    return cpus > 0 ? PyLong_FromLong(cpus) : PyLong_FromUnsignedLong(tercio_usable_cpus());
}

static PyObject *set_ending(PyObject *module, PyObject *ending)
{
    core_state *st = PyModule_GetState(module);
    st->ending_in = ending == Py_True ? PyThread_get_thread_ident() : 0;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"usable_cpu_count", usable_cpu_count, METH_NOARGS,
     "usable_cpu_count()\n--\n\nThe CPUs that this process may use: affinity and quota."},
    {"catch_crashes", crash_catch, METH_VARARGS,
     "catch_crashes(fd, target, at, most)\n--\n\nHas faulthandler write the stack of a crash of this process, by STACK_SIGNAL."},
    {"set_ending", set_ending, METH_O,
     "set_ending(ending)\n--\n\nSays whether this thread brings the interpreter to its end."},
    {"stay", attach_stay, METH_NOARGS,
     "stay()\n--\n\nAt the interpreter's end it keeps a thread that nobody waits for."},
    {"worker_main", worker_main, METH_O,
     "worker_main(argument)\n--\n\nDoes the work of a worker or server and ends the process."},
    {"encode", (PyCFunction)(void (*)(void))codec_encode, METH_VARARGS | METH_KEYWORDS,
     "encode(obj, serializer='pickle')\n--\n\nOne value as it travels: [head, buffers...]."},
    {"decode", (PyCFunction)(void (*)(void))codec_decode, METH_VARARGS | METH_KEYWORDS,
     "decode(parts, serializer='pickle')\n--\n\nThe value that encode() took."},
    {NULL, NULL, 0, NULL},
};

static int add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **type, bool visible)
{
    *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    if (*type == NULL)
        return -1;
    return visible ? PyModule_AddType(module, *type) : 0;
}

static PyObject *method_names(void)
{
    PyObject *list = PyList_New(0);
    tercio_method known;
    for (int method = TERCIO_DEFAULT + 1; list != NULL; method++) {
        const char *text = tercio_method_name((tercio_method)method);
        if (tercio_method_parse(text, &known) != 0) /* "unknown": behind the last one */
            break;
        PyObject *name = PyUnicode_FromString(text);
        if (name == NULL || PyList_Append(list, name) < 0)
            Py_CLEAR(list);
        Py_XDECREF(name);
    }
    if (list == NULL)
        return NULL;
    PyObject *tuple = PyList_AsTuple(list);
    Py_DECREF(list);
    return tuple;
}

static int module_exec(PyObject *module)
{
    core_state *st = PyModule_GetState(module);
    st->module = module;
    attach_init();
    if (add_type(module, &call_spec, &st->call_type, true) < 0 ||
        add_type(module, &server_spec, &st->server_type, true) < 0 ||
        add_type(module, &pool_spec, &st->pool_type, true) < 0 ||
        add_type(module, &run_spec, &st->run_type, true) < 0 ||
        add_type(module, &async_spec, &st->async_type, true) < 0 ||
        add_type(module, &block_spec, &st->block_type, false) < 0 ||
        add_type(module, &collector_spec, &st->collector_type, false) < 0)
        return -1;
    st->interrupted = PyErr_NewExceptionWithDoc("tercio._core._Interrupted",
                                                "Raised inside a task that was cancelled or ran out of time.",
                                                PyExc_BaseException, NULL);
    if (st->interrupted == NULL)
        return -1;
    st->five = PyLong_FromLong(5);
    st->kw_buffer_callback = Py_BuildValue("(s)", "buffer_callback");
    st->kw_buffers = Py_BuildValue("(s)", "buffers");
    if (st->five == NULL || st->kw_buffer_callback == NULL || st->kw_buffers == NULL)
        return -1;
    PyObject *names = method_names();
    if (names == NULL)
        return -1;
    if (PyModule_AddObject(module, "METHODS", names) < 0) {
        Py_DECREF(names);
        return -1;
    }
    if (PyModule_AddIntConstant(module, "STACK_SIGNAL", CORE_STACK_SIGNAL) < 0)
        return -1;
    PyObject *main = PyBool_FromLong(PyInterpreterState_Get() == PyInterpreterState_Main());
    if (PyModule_AddObject(module, "IS_MAIN_INTERPRETER", main) < 0) {
        Py_DECREF(main);
        return -1;
    }
    return PyModule_AddIntConstant(module, "ENGINE_VERSION", tercio_version());
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    core_state *st = PyModule_GetState(module);
    Py_VISIT(st->call_type);
    Py_VISIT(st->server_type);
    Py_VISIT(st->pool_type);
    Py_VISIT(st->run_type);
    Py_VISIT(st->async_type);
    Py_VISIT(st->block_type);
    Py_VISIT(st->collector_type);
    Py_VISIT(st->interrupted);
    Py_VISIT(st->main);
    for (int i = 0; i < FN_COUNT; i++)
        Py_VISIT(st->functions[i]);
    for (int i = 0; i < CORE_SIGNALS; i++)
        Py_VISIT(st->former[i]);
    return 0;
}

static int module_clear(PyObject *module)
{
    core_state *st = PyModule_GetState(module);
    Py_CLEAR(st->call_type);
    Py_CLEAR(st->server_type);
    Py_CLEAR(st->pool_type);
    Py_CLEAR(st->run_type);
    Py_CLEAR(st->async_type);
    Py_CLEAR(st->block_type);
    Py_CLEAR(st->collector_type);
    Py_CLEAR(st->interrupted);
    Py_CLEAR(st->main);
    Py_CLEAR(st->five);
    Py_CLEAR(st->kw_buffer_callback);
    Py_CLEAR(st->kw_buffers);
    for (int i = 0; i < FN_COUNT; i++)
        Py_CLEAR(st->functions[i]);
    for (int i = 0; i < CORE_SIGNALS; i++)
        Py_CLEAR(st->former[i]);
    return 0;
}

static void module_free(void *module)
{
    module_clear(module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "tercio._core",
    .m_doc = "The extension: Python functions and objects put into the engine. Private.",
    .m_size = sizeof(core_state),
    .m_methods = methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void);
PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&definition);
}
