/* A tensor decoded: which code reads which encoding, with what memory; FORMAT.md, "Encodings". */

#include "press_internal.h"

#define LAST_ENCODING PRESS_SPLIT_LINKED
#define HUFFMAN_TABLES 22 /* of sign rows: 15 of rows, 7 of magnitudes */

const char *press_message(press_status status)
{
#ifdef PRESS_NO_MESSAGES
    (void)status;
    return "";
#else
    static const char *const messages[PRESS_STATUSES] = {
        "all is well",
        "bytes end before the last symbol",
        "bytes are left over",
        "padding bits are not zero",
        "an integer is not in its shortest form",
        "a code table is no prefix code, or has symbols beyond its encoding",
        "a code table has no symbol, but symbols follow",
        "a stored nonzero may be 0",
        "shared code tables that are referred to do not exist",
        "a lane does not end with its last symbol",
        "quantization flags, width or axis are not defined",
        "a scale or offset is not finite, or a scale is not positive",
        "the largest code times scale overflows its type",
        "a code is outside its range",
        "gaps lead beyond the tensor, or the last gap is a filler",
        "kernel masks are not defined, or have taps beyond the end of the tensor",
        "a context-mixing stream holds a magnitude beyond its tensor, or ends early",
        "a context-mixing stream does not end as its levels do",
        "a row has more elements than mixed contexts allow",
        "this encoding does not hold tensors of this type or shape",
        "holds NaN or infinity, or a boolean or a number of few bits beyond its type",
        "a byte plane is not defined",
        "compressed sparse rows contradict each other",
        "an encoding is unknown; a newer modelpress wrote it",
        "this build leaves an encoding out",
        "a buffer is too small",
        "arguments that make no sense",
        "not a .press file",
        "the file is shorter or longer than it declares; copy it again",
        "bytes changed since the file was written",
        "chunks are missing, occur twice or go beyond the end",
        "a zlib stream cannot be inflated to the size declared",
        "a field of the tensor directory is out of range",
        "a tensor name is empty, too long, not printable text, or used twice",
        "the graph is no ONNX model, or is not complete in itself",
        "a newer modelpress wrote this file",
        "the tensors are larger in memory than the limit",
        "tensors of mixed contexts are read in the order of the file",
        "split values are not defined, or a zero is not written as one",
        "sign rows are not defined, or signs or magnitudes lie beyond the end of the tensor",
        "an LZMA stream does not give the bytes declared",
    };

    return (unsigned)status < PRESS_STATUSES ? messages[status] : "an unknown status";
#endif
}

size_t press_type_size(unsigned type)
{
    static const uint8_t sizes[] = {0, 4, 1, 1, 2, 2, 4, 8, 0, 1, 2, 8, 4, 8, 0, 0, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

    return type < sizeof sizes ? sizes[type] : 0;
}

press_status press_count_elements(const press_tensor *tensor, size_t *count)
{
    uint64_t bounded = 1, product = 1, width = press_type_size(tensor->type);
    unsigned k;

    if (tensor->n_dims > PRESS_MAX_DIMENSIONS) {
        return PRESS_BAD_TYPE;
    }
    for (k = 0; k < tensor->n_dims; k++) {
        bounded *= tensor->dims[k] ? tensor->dims[k] : 1; /* below 2^32 before, so below 2^64 */
        product *= tensor->dims[k];
        if (bounded > 0xFFFFFFFFu) {
            return PRESS_BAD_TYPE;
        }
    }
    if (product * (width > 4 ? width : 4) > SIZE_MAX / 2) {
        return PRESS_BAD_TYPE; /* more than this machine can address */
    }
    *count = (size_t)product;
    return PRESS_OK;
}

int press_is_quantized(unsigned encoding)
{
    return (encoding >= PRESS_PACKED_1_0 && encoding <= PRESS_CSR_1_0) ||
           (encoding >= PRESS_PACKED && encoding <= PRESS_MIXED) || encoding == PRESS_SIGN_ROWS ||
           encoding == PRESS_LINKED;
}

int press_is_compressed(unsigned encoding)
{
    return encoding == PRESS_BYTE_PLANES || encoding == PRESS_LZMA;
}

int press_is_mixed(unsigned encoding)
{
    return press_of_contexts(encoding) || encoding == PRESS_SPLIT_MIXED || encoding == PRESS_SPLIT_LINKED;
}

static int is_split(unsigned encoding)
{
    return encoding == PRESS_SPLIT || encoding == PRESS_SPLIT_MIXED || encoding == PRESS_SPLIT_LINKED;
}

static int is_huffman(unsigned encoding)
{
    return (encoding >= PRESS_HUFFMAN && encoding <= PRESS_KERNEL_MASKS) || encoding == PRESS_SIGN_ROWS;
}

static press_cursor cursor_of(const press_tensor *tensor)
{
    static const uint8_t nothing = 0;
    press_cursor cursor = {&nothing, 0, 0, {0, 0, 0, 0}};

    if (tensor->blob_size) {
        cursor.data = tensor->blob;
        cursor.size = tensor->blob_size;
    }
    return cursor;
}

/* ---- Parameters and tables of a Huffman encoding ---- */

typedef struct huffman {
    const uint8_t *parameters;
    unsigned n_tables;  /* in all */
    unsigned n_first;   /* in the first of two groups; 0 where there is one group */
    size_t per_slab;    /* elements */
    unsigned n_rows, n_groups; /* symbols of sign rows and of their magnitudes */
    press_code codes[HUFFMAN_TABLES];
} huffman;

/* Whether the tables of an encoding are many, and their runs short: of kernels, tap by tap. */
static int is_of_kernels(unsigned encoding)
{
    return encoding == PRESS_KERNEL_MASKS || encoding == PRESS_SIGN_ROWS;
}

static press_status take_parameters(press_cursor *cursor, unsigned encoding, huffman *all)
{
    const unsigned n =
        encoding == PRESS_SIGN_ROWS ? 5 : encoding == PRESS_KERNEL_MASKS ? 3 : encoding == PRESS_CSR;
    const uint8_t *p = press_take(cursor, n, &cursor->parts.header);

    if (!p) {
        return PRESS_ENDS_EARLY;
    }
    all->parameters = p;
    all->n_tables = 1;
    all->n_first = 0;
    all->per_slab = PRESS_SLAB_ELEMENTS;
    if (encoding == PRESS_CSR) {
        if (p[0] < 1 || p[0] > 8) {
            return PRESS_BAD_GAPS;
        }
        all->n_first = 1;
        all->n_tables = 2;
    }
    if (encoding == PRESS_KERNEL_MASKS) {
        if (p[1] < 1 || p[1] > p[0] || p[0] > 9 || (p[2] != 1 && p[2] != 9)) {
            return PRESS_BAD_KERNELS;
        }
        all->n_first = 1;
        all->n_tables = 1u + p[2];
        all->per_slab = PRESS_KERNEL_SLAB / p[0] * p[0];
    }
    if (encoding == PRESS_SIGN_ROWS) {
        if (!press_sign_row_symbols(p, &all->n_first, &all->n_groups)) {
            return PRESS_BAD_SIGN_ROWS;
        }
        all->n_rows = all->n_first;
        all->n_first = all->n_first / 2 + 2;
        all->n_tables = all->n_first + 7;
        all->per_slab = PRESS_KERNEL_SLAB / p[0] * p[0];
    }
    return PRESS_OK;
}

/* A group of tables: the tensor's own, or one of the file. */
static press_status take_group(press_cursor *cursor, const press_shared *shared, unsigned n, press_code *codes)
{
    const uint8_t *number = press_take(cursor, 1, &cursor->parts.header);
    const uint8_t *data;
    size_t left, taken;
    unsigned k;

    if (!number) {
        return PRESS_ENDS_EARLY;
    }
    if (*number) {
        if (!shared || *number > shared->n_groups || shared->data[shared->starts[*number - 1]] != n) {
            return PRESS_NO_SUCH_TABLES;
        }
        data = shared->data + shared->starts[*number - 1] + 1;
        left = shared->size - shared->starts[*number - 1] - 1;
    } else {
        data = cursor->data + cursor->at;
        left = cursor->size - cursor->at;
    }
    for (k = 0; k < n; k++) {
        press_status status = press_read_code(data, left, &codes[k], &taken);

        if (status) {
            return status;
        }
        data += taken;
        left -= taken;
        if (!*number) {
            (void)press_take(cursor, taken, &cursor->parts.tables);
        }
    }
    return PRESS_OK;
}

/* Tables must have the symbols of their encoding only. */
static press_status check_tables(unsigned encoding, const huffman *all)
{
    unsigned k;

    if (encoding == PRESS_SIGN_ROWS) {
        for (k = 0; k < all->n_tables; k++) {
            const press_code *code = &all->codes[k];

            if (code->lowest < 0 ||
                (unsigned)code->lowest + code->n > (k < all->n_first ? all->n_rows : all->n_groups)) {
                return PRESS_BAD_TABLE;
            }
        }
        return PRESS_OK;
    }
    if (all->n_first) {
        const press_code *first = &all->codes[0];

        if (first->lowest < 0 || first->lowest + first->n > 1 << all->parameters[0]) {
            return PRESS_BAD_TABLE;
        }
    }
    for (k = all->n_first; encoding != PRESS_HUFFMAN && k < all->n_tables; k++) {
        const press_code *code = &all->codes[k];
        int at = -code->lowest;

        if (at >= 0 && at < code->n && code->lengths[at >> 1] >> 4 * (at & 1) & 15) {
            return PRESS_STORED_ZERO;
        }
    }
    return PRESS_OK;
}

static press_status take_tables(press_cursor *cursor, unsigned encoding, const press_shared *shared, huffman *all)
{
    press_status status = take_parameters(cursor, encoding, all);

    if (status == PRESS_OK && all->n_first) {
        status = take_group(cursor, shared, all->n_first, all->codes);
    }
    if (status == PRESS_OK) {
        status = take_group(cursor, shared, all->n_tables - all->n_first, all->codes + all->n_first);
    }
    return status ? status : check_tables(encoding, all);
}

/* ---- Slabs ---- */

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Whether levels lie in the memory of their values: those that are put together may be of a byte only. */
static int levels_in_values(const press_sink *sink)
{
    return sink->values && !sink->split;
}

/* Where the levels of a slab are kept: at the end of the memory of their values, or in scratch memory. */
static int16_t *place_of_levels(const press_sink *sink, size_t start, size_t count, uint8_t *scratch)
{
    size_t width = sink->grid->type == PRESS_FLOAT ? 4 : 2;

    if (!levels_in_values(sink)) {
        return (int16_t *)(void *)scratch;
    }
    return (int16_t *)(void *)(sink->values + width * start + (width - 2) * count);
}

/* Where the gaps of a slab are kept: a byte each, in the memory of their codes or values, which come last. */
static uint8_t *place_of_gaps(const press_sink *sink, size_t start, uint8_t *scratch)
{
    if (sink->split) {
        return sink->values + press_type_size(sink->split->type) * start;
    }
    if (sink->values) {
        return sink->grid->type == PRESS_FLOAT ? sink->values + 4 * start : scratch;
    }
    return sink->codes + start;
}

/* The lengths of several slabs; the bytes of a single one are all that are left. */
static press_status take_slab(press_cursor *cursor, const uint8_t *lengths, size_t n_slabs, size_t slab,
                              press_stream *stream)
{
    stream->position = 0;
    stream->size = n_slabs > 1 ? press_load32(lengths + 4 * slab) : cursor->size - cursor->at;
    stream->data = press_take(cursor, stream->size, &cursor->parts.payload);
    return stream->data ? PRESS_OK : PRESS_ENDS_EARLY;
}

static press_status decode_huffman(press_cursor *cursor, const press_tensor *tensor, const press_shared *shared,
                                   const press_sink *sink, uint8_t *scratch)
{
    huffman all;
    press_lookup lookups[HUFFMAN_TABLES];
    const size_t count = sink->grid->elements;
    const uint8_t *lengths;
    size_t n_slabs, slab;
    unsigned k;
    press_status status = take_tables(cursor, tensor->encoding, shared, &all);

    if (status) {
        return status;
    }
    n_slabs = count / all.per_slab + (count % all.per_slab != 0);
    lengths = press_take(cursor, n_slabs > 1 ? 4 * n_slabs : 0, &cursor->parts.header);
    if (!lengths) {
        return PRESS_ENDS_EARLY;
    }

    for (k = 0; k < all.n_tables; k++) {
        int many = !is_of_kernels(tensor->encoding) && count >= 4 * PRESS_LANE_SYMBOLS;

        press_make_lookup(&lookups[k], &all.codes[k], scratch, many);
        scratch += PRESS_LOOKUP_BYTES + (is_of_kernels(tensor->encoding) ? 0 : PRESS_MANY_BYTES);
    }
    for (slab = 0; status == PRESS_OK && slab < n_slabs; slab++) {
        size_t start = slab * all.per_slab, n = least(count - start, all.per_slab);
        int16_t *levels = place_of_levels(sink, start, n, scratch);
        uint8_t *rest = levels_in_values(sink) ? scratch : scratch + (2 * n + 7) / 8 * 8;
        press_stream stream;

        if (tensor->encoding == PRESS_CSR) {
            rest = place_of_gaps(sink, start, scratch);
        }
        status = take_slab(cursor, lengths, n_slabs, slab, &stream);
        if (status == PRESS_OK) {
            status = press_decode_slab(&stream, tensor->encoding, all.parameters, lookups, n, rest, levels);
        }
        if (status == PRESS_OK) {
            status = press_put_levels(sink, start, n, levels);
        }
    }
    return status;
}

/* Rows, inputs of each, and taps of each input; PRESS_BAD_ROWS: rows are too long. */
static press_status mixed_geometry(const press_tensor *tensor, size_t *rows, size_t *inputs, size_t *taps)
{
    unsigned k;

    *rows = tensor->n_dims < 2 ? 1 : tensor->dims[0];
    *inputs = tensor->n_dims < 2 ? (tensor->n_dims ? tensor->dims[0] : 1) : tensor->dims[1];
    *taps = 1;
    for (k = 2; k < tensor->n_dims; k++) {
        *taps *= tensor->dims[k];
    }
    return (uint64_t)*inputs * *taps > (uint64_t)1 << 20 ? PRESS_BAD_ROWS : PRESS_OK;
}

#ifndef PRESS_NO_MIXED
static size_t mixed_slab_rows(size_t inputs, size_t taps)
{
    const size_t row = inputs * taps, rows = row ? PRESS_MIXED_SLAB / row : 1;

    return rows ? rows : 1;
}

static press_status decode_mixed(press_cursor *cursor, const press_tensor *tensor, press_mixing *mixing,
                                 const press_sink *sink, uint8_t *scratch)
{
    size_t rows, inputs, taps, step, n_slabs, slab, width = 1;
    const uint8_t *lengths;
    int low, high;
    press_status status = mixed_geometry(tensor, &rows, &inputs, &taps);

    if (status) {
        return status;
    }
    if (!mixing) {
        return PRESS_BAD_ARGUMENT;
    }
    if (tensor->n_dims > 2 && tensor->dims[tensor->n_dims - 1] > 1) {
        width = tensor->dims[tensor->n_dims - 1];
    }
    step = mixed_slab_rows(inputs, taps);
    n_slabs = sink->grid->elements ? rows / step + (rows % step != 0) : 0;
    lengths = press_take(cursor, n_slabs > 1 ? 4 * n_slabs : 0, &cursor->parts.header);
    if (!lengths) {
        return PRESS_ENDS_EARLY;
    }
    press_sink_bounds(sink, &low, &high);

    for (slab = 0; status == PRESS_OK && slab < n_slabs; slab++) {
        size_t row = slab * step, n_rows = least(rows - row, step), row_size = inputs * taps;
        int16_t *levels = place_of_levels(sink, row * row_size, n_rows * row_size, scratch);
        uint8_t *work = levels_in_values(sink) ? scratch : scratch + (2 * n_rows * row_size + 7) / 8 * 8;
        press_stream stream;

        status = take_slab(cursor, lengths, n_slabs, slab, &stream);
        if (status == PRESS_OK) {
            status = press_mixed_decode(mixing, stream.data, stream.size, n_rows, inputs, taps, width, low, high,
                                        tensor->encoding == PRESS_LINKED, work, levels, NULL);
        }
        if (status == PRESS_OK) {
            status = press_put_levels(sink, row * row_size, n_rows * row_size, levels);
        }
    }
    return status;
}
#endif

/* ---- What is offered ---- */

static press_status huffman_scratch(const press_tensor *tensor, const press_grid *grid, press_cursor *cursor,
                                    size_t *size)
{
    huffman all;
    size_t n;
    press_status status = take_parameters(cursor, tensor->encoding, &all);

    if (status) {
        return status;
    }
    n = least(grid->elements, all.per_slab);
    *size = (2 * n + 7) / 8 * 8;
    if (is_of_kernels(tensor->encoding)) {
        *size += all.n_tables * PRESS_LOOKUP_BYTES + 9 * ((n + all.parameters[0] - 1) / all.parameters[0]);
    } else {
        *size += all.n_tables * (PRESS_LOOKUP_BYTES + PRESS_MANY_BYTES);
    }
    return PRESS_OK;
}

static press_status mixed_scratch(const press_tensor *tensor, size_t count, size_t *size)
{
    size_t rows, inputs, taps;
    press_status status = mixed_geometry(tensor, &rows, &inputs, &taps);

#ifdef PRESS_NO_MIXED
    (void)status;
    (void)count;
    (void)size;
    return PRESS_LEFT_OUT;
#else
    if (status == PRESS_OK && count) { /* without elements nothing bounds the number of inputs or taps */
        rows = least(rows, mixed_slab_rows(inputs, taps));
        *size = (2 * rows * inputs * taps + 7) / 8 * 8 + press_mixed_work(rows, inputs, taps, tensor->encoding == PRESS_LINKED);
    }
    return status;
#endif
}

press_status press_scratch_size(const press_tensor *tensor, size_t *size)
{
    press_cursor cursor = cursor_of(tensor);
    const press_tensor *levels = tensor;
    press_tensor inner;
    press_grid grid;
    size_t count;
    press_status status = press_count_elements(tensor, &count);

    *size = 0;
    if (status == PRESS_OK && tensor->encoding == PRESS_CODED_PLANES) {
        *size = PRESS_LOOKUP_BYTES + PRESS_MANY_BYTES + least(count, PRESS_SLAB_ELEMENTS);
    }
    if (status == PRESS_OK && is_split(tensor->encoding)) {
        press_split split;

        levels = &inner;
        status = press_take_split(&cursor, tensor, &inner, &split);
        grid.elements = count;
    } else if (status == PRESS_OK && press_is_quantized(tensor->encoding)) {
        status = press_take_grid(&cursor, tensor, &grid);
    } else {
        return status;
    }
    if (status) {
        return status;
    }
    if (is_huffman(levels->encoding)) {
        return huffman_scratch(levels, &grid, &cursor, size);
    }
    if (press_of_contexts(levels->encoding)) {
        return mixed_scratch(levels, count, size);
    }
    *size = 2 * PRESS_LOOKUP_BYTES + 2 * 256;
    return PRESS_OK;
}

/* What comes after the grid, or the front of split values. */
static press_status decode_levels(press_cursor *cursor, const press_tensor *tensor, const press_shared *shared,
                                  press_mixing *mixing, void *scratch, const press_sink *sink)
{
    if (is_huffman(tensor->encoding)) {
        return decode_huffman(cursor, tensor, shared, sink, (uint8_t *)scratch);
    }
    if (press_of_contexts(tensor->encoding)) {
#ifdef PRESS_NO_MIXED
        (void)mixing;
        return PRESS_LEFT_OUT;
#else
        return decode_mixed(cursor, tensor, mixing, sink, (uint8_t *)scratch);
#endif
    }
    if (tensor->encoding == PRESS_PACKED) {
        return press_decode_packed(cursor, sink, (int16_t *)scratch);
    }
#ifdef PRESS_NO_1_0
    return PRESS_LEFT_OUT;
#else
    return press_decode_old(cursor, tensor, sink, scratch);
#endif
}

static press_status decode_quantized(press_cursor *cursor, const press_tensor *tensor, const press_shared *shared,
                                     press_mixing *mixing, void *scratch, size_t scratch_size, press_sink *sink,
                                     press_grid *grid)
{
    size_t needed;
    press_status status = press_scratch_size(tensor, &needed);

    if (status == PRESS_OK && needed > scratch_size) {
        status = PRESS_SMALL_BUFFER;
    }
    if (status == PRESS_OK) {
        status = press_take_grid(cursor, tensor, grid);
    }
    if (status) {
        return status;
    }
    sink->grid = grid;
    if (!sink->values && grid->flags & PRESS_SUPPORT && !sink->codes) {
        return PRESS_BAD_ARGUMENT;
    }
    return decode_levels(cursor, tensor, shared, mixing, scratch, sink);
}

static press_status decode_split(press_cursor *cursor, const press_tensor *tensor, const press_shared *shared,
                                 press_mixing *mixing, void *scratch, size_t count, uint8_t *values)
{
    press_sink sink = {NULL, NULL, NULL, NULL, NULL};
    press_grid grid;
    press_split split;
    press_tensor inner;
    press_status status = press_take_split(cursor, tensor, &inner, &split);

    if (status) {
        return status;
    }
    memset(&grid, 0, sizeof grid);
    grid.elements = count;
    sink.grid = &grid;
    sink.values = values;
    sink.split = &split;
    status = decode_levels(cursor, &inner, shared, mixing, scratch, &sink);
    if (status == PRESS_OK) {
        status = press_finish_split(&split);
    }
    return status ? status : press_check_values(tensor->type, values, count, 1);
}

/* Nothing of a blob may be left. */
static press_status ended(const press_cursor *cursor, press_status status, press_parts *parts)
{
    if (status == PRESS_OK && cursor->at != cursor->size) {
        status = PRESS_LEFT_OVER;
    }
    if (status == PRESS_OK && parts) {
        *parts = cursor->parts;
    }
    return status;
}

press_status press_decode_codes(const press_tensor *tensor, const press_shared *shared, press_mixing *mixing,
                                void *scratch, size_t scratch_size, uint8_t *codes, uint8_t *support,
                                press_grid *grid, press_parts *parts)
{
    press_cursor cursor = cursor_of(tensor);
    press_sink sink = {NULL, NULL, NULL, NULL, NULL};

    if (!press_is_quantized(tensor->encoding)) {
        return PRESS_BAD_ARGUMENT;
    }
    sink.codes = codes;
    sink.support = support;
    return ended(&cursor,
                 decode_quantized(&cursor, tensor, shared, mixing, scratch, scratch_size, &sink, grid), parts);
}

press_status press_decode_values(const press_tensor *tensor, const press_shared *shared, press_mixing *mixing,
                                 void *scratch, size_t scratch_size, void *values, size_t values_size,
                                 press_parts *parts)
{
    press_cursor cursor = cursor_of(tensor);
    press_sink sink = {NULL, NULL, NULL, NULL, NULL};
    press_grid grid;
    size_t count, needed;
    press_status status = press_count_elements(tensor, &count);

    if (status) {
        return status;
    }
    if (tensor->encoding > LAST_ENCODING || tensor->encoding == PRESS_SAME) {
        return PRESS_BAD_ENCODING;
    }
    if (press_is_compressed(tensor->encoding)) {
        return PRESS_BAD_ARGUMENT;
    }
    if (values_size < count * press_type_size(tensor->type)) {
        return PRESS_SMALL_BUFFER;
    }
    sink.values = (uint8_t *)values;
    if (press_is_quantized(tensor->encoding)) {
        return ended(&cursor,
                     decode_quantized(&cursor, tensor, shared, mixing, scratch, scratch_size, &sink, &grid), parts);
    }
    status = press_scratch_size(tensor, &needed);
    if (status == PRESS_OK && needed > scratch_size) {
        status = PRESS_SMALL_BUFFER;
    }
    if (status == PRESS_OK && is_split(tensor->encoding)) {
        return ended(&cursor, decode_split(&cursor, tensor, shared, mixing, scratch, count, (uint8_t *)values), parts);
    }
    return ended(&cursor,
                 status ? status : press_decode_plain(&cursor, tensor, count, scratch, (uint8_t *)values), parts);
}
