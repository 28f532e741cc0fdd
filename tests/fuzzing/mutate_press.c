/* How libFuzzer changes a .press file: a part at a time, and everything around it made right again.

   A file is taken apart into its tensors (directory and blobs), the shared tables and the graph. One of these is
   changed, then the file is put together: lengths are right, and directory and graph are zlib streams of stored
   blocks, whose checksums nobody looks at, or one LZMA stream of literals. What cannot be taken apart is changed byte
   by byte. */

#include <stdlib.h>
#include <string.h>

#include "press_parts.h"

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
size_t LLVMFuzzerCustomCrossOver(const uint8_t *one, size_t one_size, const uint8_t *two, size_t two_size, uint8_t *out,
                                 size_t max_size, unsigned seed);

enum { MOST = 1 << 14, MOST_TENSORS = 8, MOST_NAME = 64, HEADER = 56 };

typedef struct {
    uint8_t bytes[MOST];
    size_t size;
} part;

typedef struct {
    char name[MOST_NAME];
    size_t name_size;
    press_tensor spec;
    part blob;
} tensor_part;

typedef struct {
    uint32_t n_tensors;
    tensor_part tensors[MOST_TENSORS];
    int has_tables, squeezes_tables, is_joint;
    part tables, graph;
} model;

static uint32_t state;

/* Below n. Source: Marsaglia 2003, "Xorshift RNGs". */
static uint32_t pick(uint32_t n)
{
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return n ? state % n : 0;
}

static int set(part *to, const uint8_t *bytes, size_t size)
{
    if (size > MOST) {
        return 0;
    }
    if (size) {
        memcpy(to->bytes, bytes, size);
    }
    to->size = size;
    return 1;
}

/* ---- Apart and together ------------------------------------------------------------------------------------- */

static int take_apart(const uint8_t *data, size_t size, model *into)
{
    static uint8_t memory[2 * MOST];
    press_file file;
    uint32_t k;

    into->n_tensors = 0;
    if (press_file_open(&file, data, size) != PRESS_OK || press_file_memory(&file) > sizeof memory ||
        press_file_directory(&file, memory, sizeof memory, UINT64_MAX) != PRESS_OK) {
        return 0;
    }

    for (k = 0; k < file.n_tensors && k < MOST_TENSORS; k++) {
        tensor_part *tensor = &into->tensors[k];
        press_entry entry;

        if (press_file_entry(&file, k, &entry) != PRESS_OK || entry.name_size > MOST_NAME ||
            !set(&tensor->blob, entry.tensor.blob, entry.tensor.blob_size)) {
            return 0;
        }
        memcpy(tensor->name, entry.name, entry.name_size);
        tensor->name_size = entry.name_size;
        tensor->spec = entry.tensor;
        into->n_tensors++;
    }

    into->has_tables = file.shared.data != NULL;
    into->squeezes_tables = file.tables_stream != NULL;
    into->is_joint = file.is_joint;
    into->graph.size = file.graph_size;
    return set(&into->tables, file.shared.data, file.shared.size) && file.graph_size <= MOST &&
           press_file_graph(&file, into->graph.bytes, file.graph_size) != PRESS_BAD_LZMA;
}

typedef struct {
    uint8_t *bytes;
    size_t size, most;
} output;

static void add(output *to, const void *bytes, size_t size)
{
    if (size > to->most - to->size) {
        to->most = to->size; /* full: the result is thrown away */
        return;
    }
    if (size) {
        memcpy(to->bytes + to->size, bytes, size);
    }
    to->size += size;
}

static void add_integer(output *to, uint64_t value, unsigned n_bytes)
{
    for (; n_bytes > 0; n_bytes--, value >>= 8) {
        uint8_t byte = (uint8_t)value;
        add(to, &byte, 1);
    }
}

/* A chunk that holds its inflated length and a zlib stream of one stored block. */
static void add_stored(output *to, const char *kind, const part *content)
{
    static const uint8_t head[3] = {0x78, 0x01, 0x01};

    add(to, kind, 4);
    add_integer(to, content->size + 15, 8);
    add_integer(to, content->size, 4);
    add(to, head, sizeof head);
    add_integer(to, content->size, 2);
    add_integer(to, content->size ^ 0xffff, 2);
    add(to, content->bytes, content->size);
    add_integer(to, 0, 4); /* of Adler-32: not looked at */
}

/* An LZMA stream of literals alone, with an end mark: enough to reach what is behind. */
typedef struct {
    output *to;
    uint64_t low;
    uint32_t range;
    uint8_t cache;
    uint64_t n_cached;
    uint16_t probabilities[1 << 13];
} lzma_writer;

static void shift_low(lzma_writer *self)
{
    if (self->low < 0xff000000u || self->low >> 32) {
        uint8_t carry = (uint8_t)(self->low >> 32);

        for (; self->n_cached > 0; self->n_cached--) {
            add_integer(self->to, (uint8_t)(self->cache + carry), 1);
            self->cache = 0xff;
        }
        self->cache = (uint8_t)(self->low >> 24);
    }
    self->n_cached++;
    self->low = (uint32_t)self->low << 8;
}

static void put_bit(lzma_writer *self, unsigned which, unsigned bit)
{
    uint16_t *probability = &self->probabilities[which];
    uint32_t bound = (self->range >> 11) * *probability;

    if (bit) {
        self->low += bound;
        self->range -= bound;
        *probability = (uint16_t)(*probability - (*probability >> 5));
    } else {
        self->range = bound;
        *probability = (uint16_t)(*probability + ((2048 - *probability) >> 5));
    }
    while (self->range < 1u << 24) {
        self->range <<= 8;
        shift_low(self);
    }
}

static void put_tree(lzma_writer *self, unsigned tree, unsigned n, unsigned value)
{
    unsigned node = 1;

    while (n-- > 0) {
        put_bit(self, tree + node, value >> n & 1);
        node = node << 1 | (value >> n & 1);
    }
}

/* Where kinds of decisions are: any places do, as no two of them meet in such a stream. */
enum { IS_MATCH = 0, IS_REPEATED = 1, LENGTH = 2, SHORT = 3, SLOT = 16, ALIGN = 96, LITERAL = 256 };

static void add_lzma(output *to, const part *one, const part *two)
{
    static lzma_writer self;
    size_t k;

    self.to = to;
    self.low = 0;
    self.range = UINT32_MAX;
    self.cache = 0;
    self.n_cached = 1;
    for (k = 0; k < sizeof self.probabilities / sizeof *self.probabilities; k++) {
        self.probabilities[k] = 1024;
    }
    for (k = 0; k < one->size + two->size; k++) {
        put_bit(&self, IS_MATCH, 0);
        put_tree(&self, LITERAL, 8, k < one->size ? one->bytes[k] : two->bytes[k - one->size]);
    }
    put_bit(&self, IS_MATCH, 1);
    put_bit(&self, IS_REPEATED, 0);
    put_bit(&self, LENGTH, 0);
    put_tree(&self, SHORT, 3, 0);
    put_tree(&self, SLOT, 6, 63);
    for (k = 0; k < 26; k++) { /* direct bits, all set */
        self.range >>= 1;
        self.low += self.range;
        while (self.range < 1u << 24) {
            self.range <<= 8;
            shift_low(&self);
        }
    }
    put_tree(&self, ALIGN, 4, 15);
    for (k = 0; k < 5; k++) {
        shift_low(&self);
    }
}

/* Where the length of a chunk goes, which is known later. */
static size_t begin_chunk(output *to, const char *kind)
{
    add(to, kind, 4);
    add_integer(to, 0, 8);
    return to->size - 8;
}

static void end_chunk(output *to, size_t start)
{
    size_t size = to->size - start - 8, k;

    for (k = 0; k < 8 && to->size < to->most; k++) {
        to->bytes[start + k] = (uint8_t)((uint64_t)size >> (8 * k));
    }
}

/* A chunk of both. */
static void add_joint(output *to, const part *directory, const part *graph)
{
    size_t start = begin_chunk(to, "META");

    add_integer(to, directory->size, 4);
    add_integer(to, graph->size, 4);
    add_lzma(to, directory, graph);
    end_chunk(to, start);
}

static void add_tables(output *to, const model *from)
{
    static const part nothing;
    size_t start = begin_chunk(to, from->squeezes_tables ? "TABZ" : "TABL");

    if (from->squeezes_tables) {
        add_integer(to, from->tables.size, 4);
        add_lzma(to, &from->tables, &nothing);
    } else {
        add(to, from->tables.bytes, from->tables.size);
    }
    end_chunk(to, start);
}

static void add_varint(output *to, uint64_t value)
{
    for (; value > 127; value >>= 7) {
        add_integer(to, (value & 127) | 128, 1);
    }
    add_integer(to, value, 1);
}

static void write_joint_directory(const model *from, part *directory)
{
    output to = {directory->bytes, 0, MOST};
    uint32_t k;
    unsigned j;

    add_varint(&to, from->n_tensors);
    for (k = 0; k < from->n_tensors; k++) {
        const tensor_part *tensor = &from->tensors[k];

        add_varint(&to, tensor->name_size);
        add(&to, tensor->name, tensor->name_size);
        add_integer(&to, tensor->spec.encoding, 1);
        add_integer(&to, tensor->spec.type, 1);
        add_integer(&to, tensor->spec.n_dims, 1);
        for (j = 0; j < tensor->spec.n_dims; j++) {
            add_varint(&to, tensor->spec.dims[j]);
        }
        add_varint(&to, tensor->blob.size);
    }
    directory->size = to.size;
}

static void write_directory(const model *from, part *directory)
{
    output to = {directory->bytes, 0, MOST};
    uint32_t k;
    unsigned j;

    if (from->is_joint) {
        write_joint_directory(from, directory);
        return;
    }
    add_integer(&to, from->n_tensors, 4);
    for (k = 0; k < from->n_tensors; k++) {
        const tensor_part *tensor = &from->tensors[k];

        add_integer(&to, tensor->name_size, 2);
        add(&to, tensor->name, tensor->name_size);
        add_integer(&to, tensor->spec.type, 1);
        add_integer(&to, tensor->spec.n_dims, 1);
        for (j = 0; j < tensor->spec.n_dims; j++) {
            add_integer(&to, tensor->spec.dims[j], 4);
        }
        add_integer(&to, tensor->spec.encoding, 1);
        add_integer(&to, 0, 4);
        add_integer(&to, tensor->blob.size, 8);
    }
    directory->size = to.size;
}

/* Returns 0 where it does not fit. */
static size_t put_together(const model *from, const part *directory, uint8_t *data, size_t max_size)
{
    output to = {data, 0, max_size};
    uint64_t blobs = 0;
    uint32_t k;

    add(&to, "\x89PRESS\r\n\1\0\1\0", 12);
    add_integer(&to, (from->has_tables ? 4u : 3u) - (from->is_joint ? 1u : 0), 4);
    add_integer(&to, 0, 8);
    for (k = 0; k < 4; k++) {
        add_integer(&to, 0, 8);
    }

    for (k = 0; k < from->n_tensors; k++) {
        blobs += from->tensors[k].blob.size;
    }
    add(&to, "DATA", 4);
    add_integer(&to, blobs, 8);
    for (k = 0; k < from->n_tensors; k++) {
        add(&to, from->tensors[k].blob.bytes, from->tensors[k].blob.size);
    }
    if (from->has_tables) {
        add_tables(&to, from);
    }
    if (from->is_joint) {
        add_joint(&to, directory, &from->graph);
    } else {
        add_stored(&to, "GRPH", &from->graph);
        add_stored(&to, "TDIR", directory);
    }

    if (to.size < HEADER || to.size == to.most) {
        return 0;
    }
    for (k = 0; k < 8; k++) {
        data[16 + k] = (uint8_t)((uint64_t)to.size >> (8 * k));
    }
    return to.size;
}

/* ---- Changes ------------------------------------------------------------------------------------------------ */

static void change(part *what)
{
    what->size = LLVMFuzzerMutate(what->bytes, what->size, MOST);
}

/* Grid, parameters and tables are at the front: change some bytes there, and leave their number mostly as it is. */
static void change_front(part *blob)
{
    size_t front = blob->size < 40 ? blob->size : 1 + pick(40), again;
    uint8_t bytes[64];

    memcpy(bytes, blob->bytes, front);
    again = LLVMFuzzerMutate(bytes, front, pick(3) ? front : sizeof bytes);
    if (blob->size - front + again <= MOST) {
        memmove(blob->bytes + again, blob->bytes + front, blob->size - front);
        memcpy(blob->bytes, bytes, again);
        blob->size = blob->size - front + again;
    }
}

static void put_length(uint8_t *at, size_t is_high, unsigned length)
{
    *at = (uint8_t)((*at & (is_high ? 15u : 240u)) | length << (is_high * 4));
}

/* Two codeword lengths of one table, if there is one: Kraft's equality still holds. */
static void swap_lengths(part *tables)
{
    size_t first, second;
    unsigned a, b;

    if (tables->size == 0) {
        return;
    }
    first = pick((uint32_t)(2 * tables->size));
    second = first + 1 + pick(12);
    if (second >= 2 * tables->size) {
        return;
    }
    a = tables->bytes[first / 2] >> (first % 2 * 4) & 15u;
    b = tables->bytes[second / 2] >> (second % 2 * 4) & 15u;
    put_length(&tables->bytes[first / 2], first % 2, b);
    put_length(&tables->bytes[second / 2], second % 2, a);
}

static void change_shape(press_tensor *spec)
{
    static const uint32_t lengths[] = {0, 1, 2, 3, 4, 7, 8, 9, 17, 64, 300, 1000, 16385, UINT32_MAX};
    unsigned k = pick(spec->n_dims), choice = pick(5);

    if (choice == 0 && spec->n_dims < PRESS_MAX_DIMENSIONS) {
        spec->dims[spec->n_dims++] = 1 + pick(3);
    } else if (choice == 1 && spec->n_dims > 0) {
        spec->n_dims--;
    } else if (choice == 2 && spec->n_dims > 0) {
        spec->dims[k] += pick(2) ? 1 : UINT32_MAX;
    } else if (choice == 3 && spec->n_dims > 1) {
        uint32_t other = spec->dims[0];
        spec->dims[0] = spec->dims[k];
        spec->dims[k] = other;
    } else {
        spec->dims[k] = lengths[pick(sizeof lengths / sizeof *lengths)];
    }
}

/* The front of one blob, the end of another. */
static void splice(part *blob, const part *other)
{
    size_t front = pick((uint32_t)blob->size + 1), from = pick((uint32_t)other->size + 1), n = other->size - from;

    if (n > MOST - front) {
        n = MOST - front;
    }
    memmove(blob->bytes + front, other->bytes + from, n);
    blob->size = front + n;
}

static void add_tensor(model *to, const tensor_part *tensor)
{
    tensor_part *added;

    if (to->n_tensors == MOST_TENSORS) {
        return;
    }
    added = &to->tensors[to->n_tensors++];
    *added = *tensor;
    added->name[0] = (char)('0' + to->n_tensors);
}

static void change_tensor(model *all, tensor_part *tensor)
{
    switch (pick(16)) {
    case 0:
    case 1:
    case 2:
        change(&tensor->blob);
        break;
    case 3:
    case 4:
    case 5:
    case 6:
        change_front(&tensor->blob);
        break;
    case 7:
    case 8:
        swap_lengths(&tensor->blob);
        break;
    case 9:
    case 10:
        change_shape(&tensor->spec);
        break;
    case 11:
        tensor->spec.encoding = (uint8_t)pick(21);
        break;
    case 12:
        tensor->spec.type = (uint8_t)pick(28);
        break;
    case 13:
        splice(&tensor->blob, &all->tensors[pick(all->n_tensors)].blob);
        break;
    case 14:
        tensor->name_size = LLVMFuzzerMutate((uint8_t *)tensor->name, tensor->name_size, MOST_NAME);
        break;
    default:
        if (pick(2)) {
            add_tensor(all, tensor);
        } else {
            *tensor = all->tensors[--all->n_tensors];
        }
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    static model all;
    static part directory;
    size_t made;

    state = seed * 2654435761u + 1;
    if (pick(16) == 0 || !take_apart(data, size, &all)) {
        size = LLVMFuzzerMutate(data, size, max_size);
        if (size >= HEADER && pick(4)) {
            output to = {data + 16, 0, 8};
            add_integer(&to, size, 8);
        }
        return size;
    }

    switch (all.n_tensors ? pick(12) : pick(3)) {
    case 0:
        all.has_tables = 1;
        change(&all.tables);
        break;
    case 1:
        change(&all.graph);
        break;
    case 2:
        break; /* the directory, below */
    case 3:
        all.has_tables = 1;
        swap_lengths(&all.tables);
        break;
    default:
        change_tensor(&all, &all.tensors[pick(all.n_tensors)]);
    }

    if (pick(8) == 0) {
        all.is_joint = !all.is_joint;
    }
    if (pick(8) == 0) {
        all.squeezes_tables = !all.squeezes_tables;
    }
    write_directory(&all, &directory);
    if (all.n_tensors == 0 || pick(16) == 0) {
        change(&directory);
    }
    made = put_together(&all, &directory, data, max_size);
    return made ? made : size;
}

/* The tensors of one file beside those of another, or spliced with them. */
size_t LLVMFuzzerCustomCrossOver(const uint8_t *one, size_t one_size, const uint8_t *two, size_t two_size, uint8_t *out,
                                 size_t max_size, unsigned seed)
{
    static model all, other;
    static part directory;

    state = seed * 2654435761u + 1;
    if (!take_apart(one, one_size, &all) || !take_apart(two, two_size, &other) || !other.n_tensors) {
        return 0;
    }
    if (all.n_tensors && pick(2)) {
        splice(&all.tensors[pick(all.n_tensors)].blob, &other.tensors[pick(other.n_tensors)].blob);
    } else {
        add_tensor(&all, &other.tensors[pick(other.n_tensors)]);
    }
    if (other.has_tables && pick(2)) {
        all.has_tables = 1;
        all.tables = other.tables;
    }

    write_directory(&all, &directory);
    return put_together(&all, &directory, out, max_size);
}
