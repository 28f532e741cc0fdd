/*
 * The core as a Python module, under the stable ABI of Python 3.11: arguments are checked here, the work is in press.h's
 * functions, and long work lets other threads run. `modelpress.export.coding.core` is what uses it.
 */
#include "_core.h"

#include "press_internal.h"

static PyObject *damaged; /* the exception for bytes that are refused */

/* ---- Helpers ---- */

static PyObject *refused(press_status status)
{
    if (status == PRESS_BAD_ARGUMENT || status == PRESS_SMALL_BUFFER || status == PRESS_LEFT_OUT) {
        PyErr_SetString(PyExc_ValueError, press_message(status));
    } else {
        PyErr_SetString(damaged, press_message(status));
    }
    return NULL;
}

static PyObject *wrong_size(const char *what)
{
    PyErr_Format(PyExc_ValueError, "%s is too small or of a wrong size", what);
    return NULL;
}

static void release(Py_buffer *buffers, int n)
{
    while (n-- > 0) {
        if (buffers[n].obj) {
            PyBuffer_Release(&buffers[n]);
        }
    }
}

/* A contiguous buffer of an object; none for None. */
static int get_buffer(PyObject *object, Py_buffer *buffer, int writable)
{
    memset(buffer, 0, sizeof *buffer);
    if (object == Py_None) {
        return 1;
    }
    return PyObject_GetBuffer(object, buffer, writable ? PyBUF_WRITABLE : PyBUF_SIMPLE) == 0;
}

static int get_mixing(PyObject *object, Py_buffer *buffer)
{
    if (!get_buffer(object, buffer, 1)) {
        return 0;
    }
    if (buffer->obj && ((size_t)buffer->len < sizeof(press_mixing) || (uintptr_t)buffer->buf % sizeof(uint64_t))) {
        PyBuffer_Release(buffer);
        wrong_size("the state of mixed contexts");
        return 0;
    }
    return 1;
}

static void free_shared(PyObject *capsule)
{
    PyMem_Free(PyCapsule_GetPointer(capsule, "press_shared"));
}

static int get_shared(PyObject *object, press_shared **shared)
{
    *shared = NULL;
    if (object == Py_None) {
        return 1;
    }
    *shared = (press_shared *)PyCapsule_GetPointer(object, "press_shared");
    return *shared != NULL;
}

static int get_dims(PyObject *dims, press_tensor *tensor)
{
    Py_ssize_t n = PyTuple_Size(dims), k;

    if (n < 0) {
        return 0;
    }
    if (n > PRESS_MAX_DIMENSIONS) {
        refused(PRESS_BAD_TYPE);
        return 0;
    }
    tensor->n_dims = (uint8_t)n;
    for (k = 0; k < n; k++) {
        unsigned long value = PyLong_AsUnsignedLong(PyTuple_GetItem(dims, k));

        if (PyErr_Occurred()) {
            return 0;
        }
        if (value > 0xFFFFFFFFul) {
            refused(PRESS_BAD_TYPE);
            return 0;
        }
        tensor->dims[k] = (uint32_t)value;
    }
    return 1;
}

static PyObject *parts_tuple(const press_parts *parts)
{
    return Py_BuildValue("(nnnn)", (Py_ssize_t)parts->header, (Py_ssize_t)parts->scales, (Py_ssize_t)parts->tables,
                         (Py_ssize_t)parts->payload);
}

/* ---- Reading tensors ---- */

static PyObject *open_shared(PyObject *module, PyObject *args)
{
    Py_buffer data;
    press_shared *shared;
    press_status status;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*:open_shared", &data)) {
        return NULL;
    }
    shared = (press_shared *)PyMem_Malloc(sizeof *shared + (size_t)data.len + 1);
    if (!shared) {
        PyBuffer_Release(&data);
        return PyErr_NoMemory();
    }
    memcpy(shared + 1, data.buf, (size_t)data.len);
    status = press_shared_open(shared, (const uint8_t *)(shared + 1), (size_t)data.len);
    PyBuffer_Release(&data);
    if (status) {
        PyMem_Free(shared);
        return refused(status);
    }
    return PyCapsule_New(shared, "press_shared", free_shared);
}

static PyObject *start_mixing(PyObject *module, PyObject *object)
{
    Py_buffer mixing;

    (void)module;
    if (!get_mixing(object, &mixing)) {
        return NULL;
    }
    if (mixing.obj) {
        press_mixing_start((press_mixing *)mixing.buf);
        PyBuffer_Release(&mixing);
    }
    Py_RETURN_NONE;
}

/* One decoding, with its memory. */
typedef struct decoding {
    press_tensor tensor;
    press_shared *shared;
    Py_buffer buffers[3]; /* blob, mixing, values */
    void *scratch;
    size_t scratch_size;
    press_parts parts;
} decoding;

static int start_decoding(decoding *d, int encoding, int type, PyObject *dims, PyObject *blob, PyObject *shared,
                          PyObject *mixing)
{
    press_status status;

    memset(d, 0, sizeof *d);
    d->tensor.encoding = (uint8_t)encoding;
    d->tensor.type = (uint8_t)type;
    if (!get_dims(dims, &d->tensor) || !get_shared(shared, &d->shared) || !get_buffer(blob, &d->buffers[0], 0)) {
        return 0;
    }
    if (!get_mixing(mixing, &d->buffers[1])) {
        release(d->buffers, 1);
        return 0;
    }
    d->tensor.blob = (const uint8_t *)d->buffers[0].buf;
    d->tensor.blob_size = (size_t)d->buffers[0].len;
    status = press_scratch_size(&d->tensor, &d->scratch_size);
    if (status) {
        release(d->buffers, 2);
        refused(status);
        return 0;
    }
    d->scratch = PyMem_Malloc(d->scratch_size + 8);
    if (!d->scratch) {
        release(d->buffers, 2);
        PyErr_NoMemory();
        return 0;
    }
    return 1;
}

static void end_decoding(decoding *d)
{
    PyMem_Free(d->scratch);
    release(d->buffers, 3);
}

static PyObject *decode_values(PyObject *module, PyObject *args)
{
    int encoding, type;
    PyObject *dims, *blob, *shared, *mixing, *values;
    decoding d;
    press_status status;

    (void)module;
    if (!PyArg_ParseTuple(args, "iiO!OOOO:decode_values", &encoding, &type, &PyTuple_Type, &dims, &blob, &shared,
                          &mixing, &values) ||
        !start_decoding(&d, encoding, type, dims, blob, shared, mixing)) {
        return NULL;
    }
    if (!get_buffer(values, &d.buffers[2], 1)) {
        end_decoding(&d);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    status = press_decode_values(&d.tensor, d.shared, (press_mixing *)d.buffers[1].buf, d.scratch, d.scratch_size,
                                 d.buffers[2].buf, (size_t)d.buffers[2].len, &d.parts);
    Py_END_ALLOW_THREADS
    end_decoding(&d);
    return status ? refused(status) : parts_tuple(&d.parts);
}

/* A parameter as a bytearray of float; None if it is absent. */
static PyObject *floats_of(const uint8_t *parameter, size_t n, int is_half)
{
    PyObject *array;
    char *at;
    size_t k;

    if (!parameter) {
        Py_RETURN_NONE;
    }
    array = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)(4 * n));
    if (!array) {
        return NULL;
    }
    at = PyByteArray_AsString(array);
    for (k = 0; k < n; k++) {
        float value = press_parameter(parameter, k, is_half);

        memcpy(at + 4 * k, &value, 4);
    }
    return array;
}

/* What a quantized tensor is made of: bits, axis, flags, scale, offset, channel scale, codes, support, parts. */
static PyObject *quantized_tuple(const press_grid *grid, PyObject *codes, PyObject *support, const press_parts *parts)
{
    return Py_BuildValue("(iiiNNNNNN)", grid->bits, grid->axis, grid->flags,
                         floats_of(grid->scale, grid->n_scales, grid->flags & PRESS_SHORT_SCALE),
                         floats_of(grid->offset, grid->n_scales, grid->flags & PRESS_SHORT_OFFSET),
                         floats_of(grid->channel_scale, grid->channels, grid->flags & PRESS_SHORT_CHANNEL_SCALE),
                         codes, support, parts_tuple(parts));
}

static PyObject *decode_codes(PyObject *module, PyObject *args)
{
    int encoding, type;
    PyObject *dims, *blob, *shared, *mixing, *codes = NULL, *support = NULL, *result;
    decoding d;
    press_grid grid;
    press_status status;
    size_t front;
    uint8_t *code_bytes, *support_bytes = NULL;

    (void)module;
    if (!PyArg_ParseTuple(args, "iiO!OOO:decode_codes", &encoding, &type, &PyTuple_Type, &dims, &blob, &shared,
                          &mixing) ||
        !start_decoding(&d, encoding, type, dims, blob, shared, mixing)) {
        return NULL;
    }
    status = press_read_grid(&d.tensor, &grid, &front);
    if (status) {
        end_decoding(&d);
        return refused(status);
    }

    codes = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)grid.elements);
    if (grid.flags & PRESS_SUPPORT) {
        support = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)grid.elements);
    } else {
        support = Py_None;
        Py_INCREF(support);
    }
    if (!codes || !support) {
        Py_XDECREF(codes);
        Py_XDECREF(support);
        end_decoding(&d);
        return NULL;
    }
    code_bytes = (uint8_t *)PyByteArray_AsString(codes);
    if (support != Py_None) {
        support_bytes = (uint8_t *)PyByteArray_AsString(support);
    }
    Py_BEGIN_ALLOW_THREADS
    status = press_decode_codes(&d.tensor, d.shared, (press_mixing *)d.buffers[1].buf, d.scratch, d.scratch_size,
                                code_bytes, support_bytes, &grid, &d.parts);
    Py_END_ALLOW_THREADS
    if (status) {
        Py_DECREF(codes);
        Py_DECREF(support);
        end_decoding(&d);
        return refused(status);
    }
    result = quantized_tuple(&grid, codes, support, &d.parts); /* takes both */
    end_decoding(&d);
    return result;
}

static PyObject *dequantize(PyObject *module, PyObject *args)
{
    int type, flags;
    Py_ssize_t channels, inner;
    PyObject *objects[6]; /* codes, support, scale, offset, channel scale, values */
    Py_buffer buffers[6];
    press_grid grid;
    int k;
    size_t count;

    (void)module;
    if (!PyArg_ParseTuple(args, "iinnOOOOOO:dequantize", &type, &flags, &channels, &inner, &objects[0], &objects[1],
                          &objects[2], &objects[3], &objects[4], &objects[5])) {
        return NULL;
    }
    for (k = 0; k < 6; k++) {
        if (!get_buffer(objects[k], &buffers[k], k == 5)) {
            release(buffers, k);
            return NULL;
        }
    }
    memset(&grid, 0, sizeof grid);
    count = (size_t)buffers[0].len;
    grid.bits = 8;
    grid.type = (uint8_t)type;
    grid.flags = (uint8_t)(flags & ~(PRESS_SHORT_SCALE | PRESS_SHORT_OFFSET | PRESS_SHORT_CHANNEL_SCALE));
    grid.elements = count;
    grid.channels = (size_t)channels;
    grid.inner = (size_t)inner;
    grid.n_scales = (size_t)buffers[2].len / 4;
    grid.scale = (const uint8_t *)buffers[2].buf;
    grid.offset = (const uint8_t *)buffers[3].buf;
    grid.channel_scale = (const uint8_t *)buffers[4].buf;
    if ((size_t)buffers[5].len != count * press_type_size(grid.type) || (count && (!channels || !inner)) ||
        (grid.flags & PRESS_SUPPORT && (size_t)buffers[1].len != count) ||
        (grid.n_scales != 1 && grid.n_scales != grid.channels) ||
        (grid.offset && buffers[3].len != buffers[2].len) ||
        (grid.channel_scale && (size_t)buffers[4].len != 4 * grid.channels)) {
        release(buffers, 6);
        return wrong_size("an array");
    }
    Py_BEGIN_ALLOW_THREADS
    press_dequantize(&grid, 0, count, (const uint8_t *)buffers[0].buf, (const uint8_t *)buffers[1].buf,
                     buffers[5].buf);
    Py_END_ALLOW_THREADS
    release(buffers, 6);
    Py_RETURN_NONE;
}

static PyObject *csr_to_dense(PyObject *module, PyObject *args)
{
    Py_ssize_t rows, columns;
    Py_buffer data, indices, indptr, codes, support;
    press_status status = PRESS_BAD_CSR;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*y*y*nnw*w*:csr_to_dense", &data, &indices, &indptr, &rows, &columns, &codes,
                          &support)) {
        return NULL;
    }
    if (rows >= 0 && columns >= 0 && indices.len == 8 * data.len && indptr.len == 8 * (rows + 1) &&
        codes.len == rows * columns && support.len == codes.len && (uintptr_t)indices.buf % 8 == 0 &&
        (uintptr_t)indptr.buf % 8 == 0) {
        Py_BEGIN_ALLOW_THREADS
        status = press_csr_to_dense((const uint8_t *)data.buf, (const int64_t *)indices.buf,
                                    (const int64_t *)indptr.buf, (size_t)data.len, (size_t)rows, (size_t)columns,
                                    (uint8_t *)codes.buf, (uint8_t *)support.buf);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&data);
    PyBuffer_Release(&indices);
    PyBuffer_Release(&indptr);
    PyBuffer_Release(&codes);
    PyBuffer_Release(&support);
    if (status) {
        return refused(status);
    }
    Py_RETURN_NONE;
}

/* ---- Runs ---- */

static PyObject *read_run(PyObject *module, PyObject *args)
{
    Py_buffer stream, lengths, symbols;
    Py_ssize_t size, n, count;
    long long position;
    int wide, many;
    press_code code;
    press_lookup lookup;
    press_stream bits;
    press_status status = PRESS_BAD_ARGUMENT;
    void *memory = NULL;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*nLy*npw*:read_run", &stream, &size, &position, &lengths, &n, &wide, &symbols)) {
        return NULL;
    }
    count = symbols.len / (wide ? 2 : 1);
    if (size >= 0 && size <= stream.len && position >= 0 && position <= 8 * (long long)size && n >= 0 &&
        n <= (wide ? PRESS_MAX_ALPHABET : 256) && lengths.len == (n + 1) / 2) {
        status = press_check_lengths((const uint8_t *)lengths.buf, (unsigned)n, &code);
    }
    many = !wide && (size_t)count >= 4 * PRESS_LANE_SYMBOLS;
    if (status == PRESS_OK) {
        code.lowest = 0;
        memory = PyMem_Malloc(PRESS_LOOKUP_BYTES + PRESS_MANY_BYTES);
        status = memory ? PRESS_OK : PRESS_SMALL_BUFFER;
    }
    if (status == PRESS_OK) {
        bits.data = (const uint8_t *)stream.buf;
        bits.size = (size_t)size;
        bits.position = (uint64_t)position;
        Py_BEGIN_ALLOW_THREADS
        press_make_lookup(&lookup, &code, memory, many);
        status = press_take_run(&bits, &lookup, (size_t)count, wide, symbols.buf);
        Py_END_ALLOW_THREADS
        position = (long long)bits.position;
    }
    PyMem_Free(memory);
    PyBuffer_Release(&stream);
    PyBuffer_Release(&lengths);
    PyBuffer_Release(&symbols);
    return status ? refused(status) : PyLong_FromLongLong(position);
}

/* Codewords, as `table_words` made them. */
static int get_words(PyObject *pair, press_codewords *code, Py_buffer *buffer)
{
    int lowest;
    PyObject *words;

    if (!PyArg_ParseTuple(pair, "iO", &lowest, &words) || !get_buffer(words, buffer, 0)) {
        return 0;
    }
    if (buffer->len % 4 || (uintptr_t)buffer->buf % 4) {
        PyBuffer_Release(buffer);
        wrong_size("a code table");
        return 0;
    }
    code->lowest = lowest;
    code->n = (uint32_t)(buffer->len / 4);
    code->words = (const uint32_t *)buffer->buf;
    code->silent = 0;
    {
        uint32_t used = 0, k;

        for (k = 0; k < code->n; k++) {
            used += code->words[k] >= 0x10000u;
        }
        code->silent = used < 2;
    }
    return 1;
}

static PyObject *table_words(PyObject *module, PyObject *object)
{
    Py_buffer lengths;
    PyObject *words;
    uint32_t *made;

    (void)module;
    if (!get_buffer(object, &lengths, 0)) {
        return NULL;
    }
    made = (uint32_t *)PyMem_Malloc(4 * (size_t)lengths.len + 4);
    if (!made) {
        release(&lengths, 1);
        return PyErr_NoMemory();
    }
    press_make_codewords((const uint8_t *)lengths.buf, (size_t)lengths.len, made);
    words = PyBytes_FromStringAndSize((const char *)made, 4 * lengths.len);
    PyMem_Free(made);
    release(&lengths, 1);
    return words;
}

/* What a writer wrote: bytes, and the position in bits. */
static PyObject *written(press_status status, const press_writer *writer)
{
    return status ? refused(status)
                  : Py_BuildValue("(y#L)", (const char *)writer->data, (Py_ssize_t)((writer->position + 7) / 8),
                                  (long long)writer->position);
}

static PyObject *write_run(PyObject *module, PyObject *args)
{
    Py_buffer symbols, words;
    PyObject *pair, *result;
    int wide, used, begun;
    press_codewords code;
    press_writer writer;
    press_status status;
    size_t count;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*pOii:write_run", &symbols, &wide, &pair, &used, &begun)) {
        return NULL;
    }
    if (!get_words(pair, &code, &words)) {
        PyBuffer_Release(&symbols);
        return NULL;
    }
    count = (size_t)symbols.len / (wide ? 2 : 1);
    code.lowest = 0;
    writer.capacity = 2 * count + (count >> 10) + 64;
    writer.position = (uint64_t)(used & 7);
    writer.data = (uint8_t *)PyMem_Malloc(writer.capacity);
    if (!writer.data) {
        result = PyErr_NoMemory();
    } else {
        writer.data[0] = (uint8_t)begun;
        Py_BEGIN_ALLOW_THREADS
        status = wide ? press_write_run(&writer, &code, (const int16_t *)symbols.buf, count)
                      : press_write_symbols(&writer, &code, (const uint8_t *)symbols.buf, count);
        Py_END_ALLOW_THREADS
        result = written(status, &writer);
        PyMem_Free(writer.data);
    }
    PyBuffer_Release(&words);
    PyBuffer_Release(&symbols);
    return result;
}

/* ---- Slabs ---- */

#define MOST_TABLES 22 /* of sign rows: 15 for signs and 7 for magnitudes */

static press_status put_slab(press_writer *writer, int encoding, const uint8_t *parameters,
                             const press_codewords *codes, const int16_t *levels, size_t count, void *scratch)
{
    switch (encoding) {
    case PRESS_HUFFMAN:
        return press_write_run(writer, &codes[0], levels, count);
    case PRESS_BITMAP:
        return press_write_bitmap(writer, &codes[0], levels, count, scratch);
    case PRESS_CSR:
        return press_write_gaps(writer, parameters[0], &codes[0], &codes[1], levels, count, scratch);
    case PRESS_SIGN_ROWS:
        return press_write_sign_rows(writer, parameters, codes, levels, count, scratch);
    default:
        return press_write_kernels(writer, parameters[0], parameters[1], parameters[2], &codes[0], &codes[1], levels,
                                   count, scratch);
    }
}

/* Whether there are as many parameters and tables as the encoding has. */
static int is_slab(int encoding, const Py_buffer *parameters, Py_ssize_t n_tables)
{
    const uint8_t *p = (const uint8_t *)parameters->buf;
    unsigned rows, groups;

    switch (encoding) {
    case PRESS_HUFFMAN:
    case PRESS_BITMAP:
        return n_tables == 1;
    case PRESS_CSR:
        return parameters->len == 1 && p[0] >= 1 && p[0] <= 8 && n_tables == 2;
    case PRESS_KERNEL_MASKS:
        return parameters->len == 3 && p[0] >= 1 && p[0] <= 9 && p[1] >= 1 && p[1] <= p[0] &&
               (p[2] == 1 || p[2] == 9) && n_tables == 1 + p[2];
    case PRESS_SIGN_ROWS:
        return parameters->len == 5 && press_sign_row_symbols(p, &rows, &groups) &&
               n_tables == (Py_ssize_t)(rows / 2 + 2 + 7);
    default:
        return 0;
    }
}

static PyObject *write_slab(PyObject *module, PyObject *args)
{
    int encoding;
    Py_buffer parameters, levels, words[MOST_TABLES];
    PyObject *tables, *result = NULL;
    press_codewords codes[MOST_TABLES];
    press_writer writer = {NULL, 0, 0};
    press_status status;
    Py_ssize_t n_tables, k = 0;
    size_t count;
    void *scratch = NULL;

    (void)module;
    if (!PyArg_ParseTuple(args, "iy*y*O!:write_slab", &encoding, &parameters, &levels, &PyTuple_Type, &tables)) {
        return NULL;
    }
    count = (size_t)levels.len / 2;
    n_tables = PyTuple_Size(tables);
    if (!is_slab(encoding, &parameters, n_tables)) {
        wrong_size("the parameters");
    } else {
        while (k < n_tables && get_words(PyTuple_GetItem(tables, k), &codes[k], &words[k])) {
            k++;
        }
    }
    if (k && k == n_tables) {
        writer.capacity = PRESS_SLAB_BYTES(count);
        writer.data = (uint8_t *)PyMem_Malloc(writer.capacity);
        scratch = PyMem_Malloc(PRESS_SLAB_SCRATCH(count) + 64);
        if (!writer.data || !scratch) {
            PyErr_NoMemory();
        } else {
            Py_BEGIN_ALLOW_THREADS
            status = put_slab(&writer, encoding, (const uint8_t *)parameters.buf, codes, (const int16_t *)levels.buf,
                              count, scratch);
            Py_END_ALLOW_THREADS
            result = status ? refused(status)
                            : PyBytes_FromStringAndSize((const char *)writer.data,
                                                        (Py_ssize_t)((writer.position + 7) / 8));
        }
        PyMem_Free(scratch);
        PyMem_Free(writer.data);
    }
    release(words, (int)k);
    PyBuffer_Release(&parameters);
    PyBuffer_Release(&levels);
    return result;
}

static PyObject *write_packed(PyObject *module, PyObject *args)
{
    int lowest, bits;
    Py_buffer levels;
    press_writer writer = {NULL, 0, 0};
    press_status status;
    PyObject *result;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*ii:write_packed", &levels, &lowest, &bits)) {
        return NULL;
    }
    writer.capacity = (size_t)levels.len + 64;
    writer.data = (uint8_t *)PyMem_Malloc(writer.capacity);
    if (!writer.data) {
        PyBuffer_Release(&levels);
        return PyErr_NoMemory();
    }
    Py_BEGIN_ALLOW_THREADS
    status = press_write_packed(&writer, lowest, (unsigned)bits, (const int16_t *)levels.buf, (size_t)levels.len / 2);
    Py_END_ALLOW_THREADS
    result = status ? refused(status)
                    : PyBytes_FromStringAndSize((const char *)writer.data, (Py_ssize_t)((writer.position + 7) / 8));
    PyMem_Free(writer.data);
    PyBuffer_Release(&levels);
    return result;
}

static PyObject *levels_of(PyObject *module, PyObject *args)
{
    PyObject *objects[4]; /* codes, support, centres, levels */
    Py_buffer buffers[4];
    int is_signed, k;
    Py_ssize_t inner, start;

    (void)module;
    if (!PyArg_ParseTuple(args, "OOpOnnO:levels_of", &objects[0], &objects[1], &is_signed, &objects[2], &inner, &start,
                          &objects[3])) {
        return NULL;
    }
    for (k = 0; k < 4; k++) {
        if (!get_buffer(objects[k], &buffers[k], k == 3)) {
            release(buffers, k);
            return NULL;
        }
    }
    if (buffers[3].len != 2 * buffers[0].len || (buffers[1].obj && buffers[1].len != buffers[0].len) ||
        buffers[2].len < 2 || inner < 1 || start < 0) {
        release(buffers, 4);
        return wrong_size("an array");
    }
    Py_BEGIN_ALLOW_THREADS
    press_levels((const uint8_t *)buffers[0].buf, (const uint8_t *)buffers[1].buf, is_signed,
                 (const int16_t *)buffers[2].buf, (size_t)buffers[2].len / 2, (size_t)inner, (size_t)start,
                 (size_t)buffers[0].len, (int16_t *)buffers[3].buf);
    Py_END_ALLOW_THREADS
    release(buffers, 4);
    Py_RETURN_NONE;
}

/* Whether all levels are in -most .. most: they index counts. */
static int in_bounds(const Py_buffer *levels, int most)
{
    const int16_t *level = (const int16_t *)levels->buf;
    size_t count = (size_t)levels->len / 2, i;
    int bad = 0;

    for (i = 0; i < count; i++) {
        bad |= (level[i] < -most) | (level[i] > most);
    }
    return !bad;
}

/* Add to `n_counts` counts; `bounded`: levels index them. */
static PyObject *count_into(PyObject *args, const char *format, Py_ssize_t n_counts, int bounded,
                            void (*count)(const int16_t *, size_t, uint64_t *))
{
    Py_buffer levels, counts;
    int fits;

    if (!PyArg_ParseTuple(args, format, &levels, &counts)) {
        return NULL;
    }
    fits = counts.len == 8 * n_counts && (!bounded || in_bounds(&levels, 256));
    if (fits) {
        Py_BEGIN_ALLOW_THREADS
        count((const int16_t *)levels.buf, (size_t)levels.len / 2, (uint64_t *)counts.buf);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&levels);
    PyBuffer_Release(&counts);
    if (!fits) {
        return wrong_size("an array");
    }
    Py_RETURN_NONE;
}

static PyObject *count_levels(PyObject *module, PyObject *args)
{
    (void)module;
    return count_into(args, "y*w*:count_levels", 513, 1, press_count_levels);
}

static PyObject *count_gaps(PyObject *module, PyObject *args)
{
    (void)module;
    return count_into(args, "y*w*:count_gaps", 8 * 256, 0, press_count_gaps);
}

static PyObject *count_kernels(PyObject *module, PyObject *args)
{
    Py_buffer levels, masks, counts;
    int taps, width, contexts, fits;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*iiiw*w*:count_kernels", &levels, &taps, &width, &contexts, &masks, &counts)) {
        return NULL;
    }
    fits = taps >= 1 && taps <= 9 && width >= 1 && width <= taps && (contexts == 1 || contexts == 9) &&
           masks.len == (Py_ssize_t)8 << taps && counts.len == (Py_ssize_t)8 * 513 * contexts && in_bounds(&levels, 256);
    if (fits) {
        Py_BEGIN_ALLOW_THREADS
        press_count_kernels((const int16_t *)levels.buf, (size_t)levels.len / 2, (unsigned)taps, (unsigned)width,
                            (unsigned)contexts, (uint64_t *)masks.buf, (uint64_t *)counts.buf);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&levels);
    PyBuffer_Release(&masks);
    PyBuffer_Release(&counts);
    if (!fits) {
        return wrong_size("an array");
    }
    Py_RETURN_NONE;
}

/* Whether the parameters of sign rows are defined, and counts of so many bytes are those of their symbols. */
static int has_symbols(const Py_buffer *parameters, Py_ssize_t n_signs, Py_ssize_t n_groups)
{
    unsigned rows, groups;

    return parameters->len == 5 && press_sign_row_symbols((const uint8_t *)parameters->buf, &rows, &groups) &&
           n_signs == (Py_ssize_t)(8 * rows * (rows / 2 + 2)) && n_groups == (Py_ssize_t)(8 * 7 * groups);
}

static PyObject *count_sign_rows(PyObject *module, PyObject *args)
{
    Py_buffer levels, parameters, signs, groups;
    press_status status = PRESS_BAD_ARGUMENT;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*y*w*w*:count_sign_rows", &levels, &parameters, &signs, &groups)) {
        return NULL;
    }
    if (has_symbols(&parameters, signs.len, groups.len) &&
        in_bounds(&levels, ((const uint8_t *)parameters.buf)[2])) {
        Py_BEGIN_ALLOW_THREADS
        status = press_count_sign_rows((const int16_t *)levels.buf, (size_t)levels.len / 2,
                                       (const uint8_t *)parameters.buf, (uint64_t *)signs.buf, (uint64_t *)groups.buf);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&levels);
    PyBuffer_Release(&parameters);
    PyBuffer_Release(&signs);
    PyBuffer_Release(&groups);
    if (status) {
        return wrong_size("an array");
    }
    Py_RETURN_NONE;
}

/* ---- Elements that are split ---- */

static PyObject *count_planes(PyObject *module, PyObject *args)
{
    Py_buffer values, counts;
    int width, fits;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*iw*:count_planes", &values, &width, &counts)) {
        return NULL;
    }
    fits = (width == 1 || width == 2 || width == 4 || width == 8) && values.len % width == 0 &&
           counts.len == (Py_ssize_t)8 * 256 * width;
    if (fits) {
        Py_BEGIN_ALLOW_THREADS
        press_count_planes((const uint8_t *)values.buf, (size_t)width, (size_t)(values.len / width),
                           (uint64_t *)counts.buf);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&values);
    PyBuffer_Release(&counts);
    if (!fits) {
        return wrong_size("an array");
    }
    Py_RETURN_NONE;
}

static PyObject *scan_floats(PyObject *module, PyObject *args)
{
    press_float_range range = {0xFFFFu, 0, 0, 0};
    Py_buffer values;
    unsigned type;
    size_t width;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*I:scan_floats", &values, &type)) {
        return NULL;
    }
    width = press_type_size(type);
    if (width && (size_t)values.len % width == 0) {
        Py_BEGIN_ALLOW_THREADS
        press_scan_floats((const uint8_t *)values.buf, type, (size_t)values.len / width, &range);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&values);
    return Py_BuildValue("(IIKK)", range.lowest, range.highest, (unsigned long long)range.mantissas,
                         (unsigned long long)range.stored);
}

static PyObject *float_levels(PyObject *module, PyObject *args)
{
    Py_buffer values, levels;
    unsigned type, exponent;
    int fits;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*IIw*:float_levels", &values, &type, &exponent, &levels)) {
        return NULL;
    }
    fits = (uint64_t)levels.len / 2 * press_type_size(type) == (uint64_t)values.len;
    if (fits) {
        Py_BEGIN_ALLOW_THREADS
        press_float_levels((const uint8_t *)values.buf, type, exponent, (size_t)levels.len / 2, (int16_t *)levels.buf);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&values);
    PyBuffer_Release(&levels);
    if (!fits) {
        return wrong_size("an array");
    }
    Py_RETURN_NONE;
}

static PyObject *write_mantissas(PyObject *module, PyObject *args)
{
    press_float_range range = {0xFFFFu, 0, 0, 0};
    PyObject *result = NULL;
    Py_buffer values;
    unsigned type, raw_bits;
    uint8_t *stream = NULL;
    size_t width, count = 0, size = 0;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*II:write_mantissas", &values, &type, &raw_bits)) {
        return NULL;
    }
    width = press_type_size(type);
    if (width && raw_bits <= 52) {
        count = (size_t)values.len / width;
        press_scan_floats((const uint8_t *)values.buf, type, count, &range);
        stream = (uint8_t *)PyMem_Malloc(PRESS_MANTISSA_BYTES(range.stored, raw_bits));
        if (!stream) {
            PyErr_NoMemory();
        } else {
            Py_BEGIN_ALLOW_THREADS
            size = press_write_mantissas((const uint8_t *)values.buf, type, raw_bits, count, stream);
            Py_END_ALLOW_THREADS
            result = PyBytes_FromStringAndSize((const char *)stream, (Py_ssize_t)size);
        }
        PyMem_Free(stream);
    } else {
        wrong_size("an element");
    }
    PyBuffer_Release(&values);
    return result;
}

/* ---- Mixed contexts ---- */

static PyObject *mixed_encode(PyObject *module, PyObject *args)
{
    PyObject *object, *result = NULL;
    Py_buffer mixing, levels;
    Py_ssize_t rows, inputs, taps, width;
    int lowest, highest, linked;
    size_t count, capacity, size = 0;
    void *work = NULL;
    uint8_t *stream = NULL;
    press_status status = PRESS_BAD_ARGUMENT;

    (void)module;
    if (!PyArg_ParseTuple(args, "Oy*nnnniip:mixed_encode", &object, &levels, &rows, &inputs, &taps, &width,
                          &lowest, &highest, &linked)) {
        return NULL;
    }
    if (!get_mixing(object, &mixing)) {
        PyBuffer_Release(&levels);
        return NULL;
    }
    count = (size_t)levels.len / 2;
    capacity = PRESS_MIXED_BYTES(count);
    if (mixing.obj && rows >= 0 && inputs >= 0 && taps >= 0 && width >= 1 && count <= PRESS_MIXED_LEVELS &&
        (uint64_t)rows * (uint64_t)inputs * (uint64_t)taps == count) {
        work = PyMem_Malloc(press_mixed_work((size_t)rows, (size_t)inputs, (size_t)taps, linked));
        stream = (uint8_t *)PyMem_Malloc(capacity);
        if (work && stream) {
            Py_BEGIN_ALLOW_THREADS
            status = press_mixed_encode((press_mixing *)mixing.buf, (const int16_t *)levels.buf, (size_t)rows,
                                        (size_t)inputs, (size_t)taps, (size_t)width, lowest, highest, linked, work,
                                        stream, capacity, &size);
            Py_END_ALLOW_THREADS
        }
    }
    result = status ? refused(status) : PyBytes_FromStringAndSize((const char *)stream, (Py_ssize_t)size);
    PyMem_Free(work);
    PyMem_Free(stream);
    PyBuffer_Release(&levels);
    release(&mixing, 1);
    return result;
}

static PyObject *mixed_decode(PyObject *module, PyObject *args)
{
    PyObject *object;
    Py_buffer mixing, stream, levels;
    Py_ssize_t rows, inputs, taps, width;
    int lowest, highest, linked;
    size_t end = 0;
    void *work = NULL;
    press_status status = PRESS_BAD_ARGUMENT;

    (void)module;
    if (!PyArg_ParseTuple(args, "Oy*nnnniipw*:mixed_decode", &object, &stream, &rows, &inputs, &taps, &width, &lowest,
                          &highest, &linked, &levels)) {
        return NULL;
    }
    if (!get_mixing(object, &mixing)) {
        PyBuffer_Release(&stream);
        PyBuffer_Release(&levels);
        return NULL;
    }
    if (mixing.obj && rows >= 0 && inputs >= 0 && taps >= 0 && width >= 1 &&
        (size_t)levels.len / 2 <= PRESS_MIXED_LEVELS &&
        (uint64_t)rows * (uint64_t)inputs * (uint64_t)taps == (uint64_t)levels.len / 2) {
        work = PyMem_Malloc(press_mixed_work((size_t)rows, (size_t)inputs, (size_t)taps, linked));
        if (work) {
            Py_BEGIN_ALLOW_THREADS
            status = press_mixed_decode((press_mixing *)mixing.buf, (const uint8_t *)stream.buf, (size_t)stream.len,
                                        (size_t)rows, (size_t)inputs, (size_t)taps, (size_t)width, lowest, highest, linked,
                                        work, (int16_t *)levels.buf, &end);
            Py_END_ALLOW_THREADS
        }
    }
    PyMem_Free(work);
    PyBuffer_Release(&stream);
    PyBuffer_Release(&levels);
    release(&mixing, 1);
    if (status == PRESS_MIXED_END) {
        return PyLong_FromSize_t(end);
    }
    return status ? refused(status) : PyLong_FromLong(-1);
}

/* ---- The module ---- */

static PyMethodDef methods[] = {
    {"read_file", core_read_file, METH_VARARGS, "Graph and tensors of a whole file; None where its bytes are refused."},
    {"open_shared", open_shared, METH_VARARGS, "What the chunk TABL holds, opened: for decode_codes and decode_values."},
    {"start_mixing", start_mixing, METH_O, "The state of mixed contexts as a file begins, into MIXING_BYTES bytes."},
    {"decode_codes", decode_codes, METH_VARARGS, "A quantized tensor as grid, codes, support and parts."},
    {"decode_values", decode_values, METH_VARARGS, "A tensor as values; returns its parts."},
    {"dequantize", dequantize, METH_VARARGS, "Values of codes."},
    {"csr_to_dense", csr_to_dense, METH_VARARGS, "Codes and support of compressed sparse rows."},
    {"read_run", read_run, METH_VARARGS, "Symbols of a run; returns the bit after it."},
    {"table_words", table_words, METH_O, "Codewords and lengths of a code, as the writers take them."},
    {"write_run", write_run, METH_VARARGS, "Bytes of a run, and the bit after it."},
    {"write_slab", write_slab, METH_VARARGS, "Bytes of a slab."},
    {"write_packed", write_packed, METH_VARARGS, "Levels at a fixed width."},
    {"levels_of", levels_of, METH_VARARGS, "Levels of codes."},
    {"count_levels", count_levels, METH_VARARGS, "Add how often each level occurs."},
    {"count_gaps", count_gaps, METH_VARARGS, "Add how often each gap symbol occurs, for every width."},
    {"count_kernels", count_kernels, METH_VARARGS, "Add how often masks, and levels under contexts, occur."},
    {"count_sign_rows", count_sign_rows, METH_VARARGS, "Add how often signs of rows and groups of magnitudes occur."},
    {"count_planes", count_planes, METH_VARARGS, "Add how often each byte occurs, plane by plane."},
    {"scan_floats", scan_floats, METH_VARARGS, "Lowest and highest exponent, bits of mantissas, elements that are not +0."},
    {"float_levels", float_levels, METH_VARARGS, "Signs and exponents as levels."},
    {"write_mantissas", write_mantissas, METH_VARARGS, "The mantissas of all elements but +0."},
    {"mixed_encode", mixed_encode, METH_VARARGS, "A stream of mixed contexts."},
    {"mixed_decode", mixed_decode, METH_VARARGS, "Undo mixed_encode; -1, or where a stream ends that should not."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_core", "The codes, compiled.", -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__core(void)
{
    PyObject *module = PyModule_Create(&definition);

    if (!module) {
        return NULL;
    }
    damaged = PyErr_NewException("modelpress.export.coding._core.Damaged", NULL, NULL);
    if (!damaged || PyModule_AddObjectRef(module, "Damaged", damaged) ||
        PyModule_AddIntConstant(module, "MIXING_BYTES", (long)sizeof(press_mixing))) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
