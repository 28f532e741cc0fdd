/* A whole .press file in one call from Python: press_reader.h's functions in turn, every buffer allocated here. */

#include "_core.h"

#include <string.h>

#include "press_reader.h"

typedef struct {
    press_file file;
    void *directory, *scratch, *mixing;
    size_t scratch_size;
} reading;

static void free_reading(reading *self)
{
    PyMem_Free(self->directory);
    PyMem_Free(self->scratch);
    PyMem_Free(self->mixing);
}

static press_status open_file(reading *self, const Py_buffer *data, uint64_t max_decoded)
{
    press_status status;
    size_t size;

    Py_BEGIN_ALLOW_THREADS
    status = press_file_open(&self->file, data->buf, (size_t)data->len);
    Py_END_ALLOW_THREADS
    if (status) {
        return status;
    }

    size = press_file_memory(&self->file);
    self->directory = PyMem_Malloc(size);
    if (!self->directory) {
        PyErr_NoMemory();
        return PRESS_OK;
    }
    Py_BEGIN_ALLOW_THREADS
    status = press_file_directory(&self->file, self->directory, size, max_decoded);
    Py_END_ALLOW_THREADS
    return status;
}

/* Scratch memory for the tensor that needs most, and the state of mixed contexts where there are any. */
static press_status make_room(reading *self)
{
    uint32_t k;
    int is_mixed = 0;

    for (k = 0; k < self->file.n_tensors; k++) {
        press_entry entry;
        size_t size;
        press_status status = press_file_entry(&self->file, k, &entry);

        if (!status) {
            status = press_file_scratch(&entry, &size);
        }
        if (status) {
            return status;
        }
        self->scratch_size = size > self->scratch_size ? size : self->scratch_size;
        is_mixed |= press_is_mixed(entry.tensor.encoding);
    }

    self->scratch = PyMem_Malloc(self->scratch_size);
    self->mixing = is_mixed ? PyMem_Malloc(sizeof(press_mixing)) : NULL;
    if (!self->scratch || (is_mixed && !self->mixing)) {
        PyErr_NoMemory();
    } else if (is_mixed) {
        press_file_mixing(&self->file, (press_mixing *)self->mixing);
    }
    return PRESS_OK;
}

static PyObject *shape_of(const press_tensor *tensor)
{
    PyObject *shape = PyTuple_New(tensor->n_dims);
    unsigned k;

    for (k = 0; shape && k < tensor->n_dims; k++) {
        PyObject *length = PyLong_FromUnsignedLong(tensor->dims[k]);

        if (!length || PyTuple_SetItem(shape, (Py_ssize_t)k, length)) {
            Py_CLEAR(shape);
        }
    }
    return shape;
}

/* Name, type, shape and values of a tensor; NULL with an error of Python, or without one and what is wrong. */
static PyObject *read_tensor(reading *self, uint32_t k, press_status *status)
{
    press_entry entry;
    PyObject *values;

    *status = press_file_entry(&self->file, k, &entry);
    if (*status) {
        return NULL;
    }
    values = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)entry.values_size);
    if (!values) {
        return NULL;
    }

    Py_BEGIN_ALLOW_THREADS
    *status = press_file_values(&self->file, &entry, self->scratch, self->scratch_size, PyByteArray_AsString(values),
                                entry.values_size);
    Py_END_ALLOW_THREADS
    if (*status) {
        Py_DECREF(values);
        return NULL;
    }
    return Py_BuildValue("(s#iNN)", entry.name, (Py_ssize_t)entry.name_size, (int)entry.tensor.type,
                         shape_of(&entry.tensor), values);
}

static PyObject *read_tensors(reading *self, press_status *status)
{
    PyObject *tensors = PyList_New((Py_ssize_t)self->file.n_tensors);
    uint32_t k;

    for (k = 0; tensors && k < self->file.n_tensors; k++) {
        PyObject *tensor = read_tensor(self, k, status);

        if (!tensor || PyList_SetItem(tensors, (Py_ssize_t)k, tensor)) {
            Py_CLEAR(tensors);
        }
    }
    return tensors;
}

static PyObject *read_graph(reading *self, press_status *status)
{
    PyObject *graph = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)self->file.graph_size);

    if (graph) {
        Py_BEGIN_ALLOW_THREADS
        *status = press_file_graph(&self->file, PyBytes_AsString(graph), self->file.graph_size);
        Py_END_ALLOW_THREADS
        if (*status) {
            Py_CLEAR(graph);
        }
    }
    return graph;
}

PyObject *core_read_file(PyObject *module, PyObject *args)
{
    PyObject *graph = NULL, *tensors = NULL;
    reading self;
    Py_buffer data;
    Py_ssize_t max_decoded;
    press_status status;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*n:read_file", &data, &max_decoded)) {
        return NULL;
    }
    memset(&self, 0, sizeof self);
    status = open_file(&self, &data, max_decoded > 0 ? (uint64_t)max_decoded : 0);
    if (!status && !PyErr_Occurred()) {
        graph = read_graph(&self, &status);
    }
    if (graph) {
        status = make_room(&self);
    }
    if (graph && !status && !PyErr_Occurred()) {
        tensors = read_tensors(&self, &status);
    }
    free_reading(&self);
    PyBuffer_Release(&data);

    if (tensors) {
        return Py_BuildValue("(NN)", graph, tensors);
    }
    Py_XDECREF(graph);
    if (PyErr_Occurred()) {
        return NULL;
    }
    Py_RETURN_NONE;
}
