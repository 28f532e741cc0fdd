/* Functions of the Python module `_core` that lie outside `_core.c`. */
#ifndef PRESS_CORE_H
#define PRESS_CORE_H

#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>

PyObject *core_read_file(PyObject *module, PyObject *args);

#endif
