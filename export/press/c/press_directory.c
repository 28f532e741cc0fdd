/* The tensor directory: FORMAT.md, "Tensor directory".

   It is decompressed into the caller's memory once, checked, and stays there as it is. An index follows it: where each
   record starts (4 bytes), and where its blob ends (8 bytes), so that any tensor is found at once. Shared code tables that
   are compressed come behind that: they are decompressed on the same occasion. */

#include "press_internal.h"
#include "press_parts.h"

enum { MAX_TENSORS = 65536, MAX_NAME_BYTES = 1024, SMALLEST_RECORD = 6, SMALLEST_RECORD_1_0 = 18, PER_TENSOR = 12 };

static void put_integer(uint8_t *at, uint64_t value, unsigned n_bytes)
{
    for (; n_bytes > 0; n_bytes--, value >>= 8) {
        *at++ = (uint8_t)value;
    }
}

/* At most so many records fit. */
static size_t most_tensors(const press_file *file)
{
    const size_t most = file->directory_size / (file->is_joint ? SMALLEST_RECORD : SMALLEST_RECORD_1_0);

    return most < MAX_TENSORS ? most : MAX_TENSORS;
}

static int needs_lzma(const press_file *file) { return file->is_joint || file->tables_stream; }

size_t press_file_memory(const press_file *file)
{
    /* one byte to align them */
    const size_t probabilities = needs_lzma(file) ? 2 * press_lzma_probabilities(0) + 1 : 0;

    return file->directory_size + PER_TENSOR * most_tensors(file) + file->tables_size + probabilities;
}

/* The next varint of the directory; returns 0 where there is none. */
static int take_number(const press_file *file, size_t *at, uint64_t *value)
{
    press_stream stream;

    stream.data = file->directory;
    stream.size = file->directory_size;
    stream.position = 8 * (uint64_t)*at;
    if (press_take_varint(&stream, value) != PRESS_OK) {
        return 0;
    }
    *at = (size_t)(stream.position / 8);
    return 1;
}

static int take_name(const press_file *file, size_t *at, uint64_t size, press_entry *entry)
{
    if (size == 0 || size > MAX_NAME_BYTES || size > file->directory_size - *at) {
        return 0;
    }
    entry->name = (const char *)file->directory + *at;
    entry->name_size = (size_t)size;
    *at += (size_t)size;
    return 1;
}

/* Splits the record at `at`, and says how long its blob is; returns where it ends, or 0 if it does not end. */
static size_t split(const press_file *file, size_t at, press_entry *entry, uint64_t *blob_size)
{
    press_tensor *tensor = &entry->tensor;
    uint64_t value;
    unsigned k;

    entry->crc32 = 0;
    if (!take_number(file, &at, &value) || !take_name(file, &at, value, entry) || file->directory_size - at < 3) {
        return 0;
    }
    tensor->encoding = file->directory[at];
    tensor->type = file->directory[at + 1];
    tensor->n_dims = file->directory[at + 2];
    at += 3;
    if (tensor->n_dims > PRESS_MAX_DIMENSIONS) {
        return 0;
    }
    for (k = 0; k < PRESS_MAX_DIMENSIONS; k++) {
        tensor->dims[k] = 1;
        if (k < tensor->n_dims) {
            if (!take_number(file, &at, &value) || value > UINT32_MAX) {
                return 0;
            }
            tensor->dims[k] = (uint32_t)value;
        }
    }
    return take_number(file, &at, blob_size) ? at : 0;
}

/* The same for a record as versions 1.0 and 1.1 have it. */
static size_t split_1_0(const press_file *file, size_t at, press_entry *entry, uint64_t *blob_size)
{
    const uint8_t *bytes = file->directory;
    press_tensor *tensor = &entry->tensor;
    size_t rest;
    unsigned k;

    if (file->directory_size - at < SMALLEST_RECORD_1_0) {
        return 0;
    }
    at += 2;
    if (!take_name(file, &at, press_integer(bytes + at - 2, 2), entry) || file->directory_size - at < 2) {
        return 0;
    }
    tensor->type = bytes[at];
    tensor->n_dims = bytes[at + 1];
    at += 2;
    rest = 4 * (size_t)tensor->n_dims + 13;
    if (tensor->n_dims > PRESS_MAX_DIMENSIONS || file->directory_size - at < rest) {
        return 0;
    }
    for (k = 0; k < PRESS_MAX_DIMENSIONS; k++) {
        tensor->dims[k] = k < tensor->n_dims ? (uint32_t)press_integer(bytes + at + 4 * k, 4) : 1;
    }
    at += rest;
    tensor->encoding = bytes[at - 13];
    entry->crc32 = (uint32_t)press_integer(bytes + at - 12, 4);
    *blob_size = press_integer(bytes + at - 8, 8);

    return at;
}

static size_t split_record(const press_file *file, size_t at, press_entry *entry, uint64_t *blob_size)
{
    return (file->is_joint ? split : split_1_0)(file, at, entry, blob_size);
}

static const uint8_t *index_of(const press_file *file) { return file->directory + file->directory_size; }

static size_t record_at(const press_file *file, uint32_t k)
{
    return (size_t)press_integer(index_of(file) + PER_TENSOR * (size_t)k, 4);
}

/* Where the blob of a tensor ends. */
static size_t end_of(const press_file *file, uint32_t k)
{
    return (size_t)press_integer(index_of(file) + PER_TENSOR * (size_t)k + 4, 8);
}

/* -1, 0 or 1: how the names of two records, given by where these start, compare. */
static int compare(const press_file *file, size_t one, size_t two)
{
    press_entry a, b;
    uint64_t size;

    (void)split_record(file, one, &a, &size);
    (void)split_record(file, two, &b, &size);
    return press_compare_names((const uint8_t *)a.name, a.name_size, (const uint8_t *)b.name, b.name_size);
}

/* One step of a heap sort by names of records, given by where they start: that at `root` sinks among the first `n`. */
static void sink(press_file *file, uint8_t *index, size_t root, size_t n)
{
    uint64_t moving = press_integer(index + PER_TENSOR * root, 4);

    for (;;) {
        size_t child = 2 * root + 1;
        uint64_t below;

        if (child >= n) {
            break;
        }
        below = press_integer(index + PER_TENSOR * child, 4);
        if (child + 1 < n &&
            compare(file, (size_t)below, (size_t)press_integer(index + PER_TENSOR * (child + 1), 4)) < 0) {
            below = press_integer(index + PER_TENSOR * ++child, 4);
        }
        if (compare(file, (size_t)moving, (size_t)below) >= 0) {
            break;
        }
        put_integer(index + PER_TENSOR * root, below, 4);
        root = child;
    }
    put_integer(index + PER_TENSOR * root, moving, 4);
}

/* Whether all names differ, whatever the case of their ASCII letters. Leaves the starts in the index sorted by names. */
static int names_differ(press_file *file, uint8_t *index)
{
    size_t n = file->n_tensors, k;

    for (k = n / 2; k-- > 0;) {
        sink(file, index, k, n);
    }
    for (k = n; k-- > 1;) {
        uint64_t last = press_integer(index + PER_TENSOR * k, 4);

        put_integer(index + PER_TENSOR * k, press_integer(index, 4), 4);
        put_integer(index, last, 4);
        sink(file, index, 0, k);
    }

    for (k = 1; k < n; k++) {
        if (compare(file, record_at(file, (uint32_t)k - 1), record_at(file, (uint32_t)k)) == 0) {
            return 0;
        }
    }
    return 1;
}

/* Elements and bytes of a tensor whose record was split; fails where the type or the shape is none. */
static int measure(press_entry *entry)
{
    size_t item_size = press_type_size(entry->tensor.type);

    if (item_size == 0 || press_count_elements(&entry->tensor, &entry->elements) != PRESS_OK) {
        return 0;
    }
    entry->values_size = entry->elements * item_size;
    return 1;
}

/* A tensor of the index, with its own stored bytes. */
static void load(const press_file *file, uint32_t number, press_entry *entry)
{
    const size_t start = number ? end_of(file, number - 1) : 0;
    uint64_t size;

    (void)split_record(file, record_at(file, number), entry, &size);
    entry->number = number;
    entry->tensor.blob = file->blobs + start;
    entry->tensor.blob_size = (size_t)size;
    (void)measure(entry);
}

/* The tensor that another is the same as; PRESS_BAD_DIRECTORY if there is none. */
static press_status same_as(const press_file *file, const press_entry *entry, press_entry *other)
{
    const press_tensor *tensor = &entry->tensor;
    press_stream stream = {NULL, 0, 0};
    uint64_t number;
    unsigned k;

    stream.data = tensor->blob;
    stream.size = tensor->blob_size;
    if (press_take_varint(&stream, &number) != PRESS_OK || stream.position != 8 * (uint64_t)stream.size ||
        number >= entry->number) {
        return PRESS_BAD_DIRECTORY;
    }
    load(file, (uint32_t)number, other);
    if (other->tensor.type != tensor->type || other->tensor.n_dims != tensor->n_dims ||
        other->tensor.encoding == PRESS_SAME || press_is_mixed(other->tensor.encoding)) {
        return PRESS_BAD_DIRECTORY;
    }
    for (k = 0; k < tensor->n_dims; k++) {
        if (other->tensor.dims[k] != tensor->dims[k]) {
            return PRESS_BAD_DIRECTORY;
        }
    }
    return PRESS_OK;
}

/* Checks every record, from `at` on, and fills the index. */
static press_status check_records(press_file *file, size_t at, uint8_t *index, uint64_t max_decoded)
{
    uint64_t end = 0, decoded = 0, size;
    uint32_t k;

    for (k = 0; k < file->n_tensors; k++) {
        press_entry entry, other;
        size_t next = split_record(file, at, &entry, &size);

        if (next == 0 || !measure(&entry)) {
            return PRESS_BAD_DIRECTORY;
        }
        if (!press_is_text((const uint8_t *)entry.name, entry.name_size, 1)) {
            return PRESS_BAD_NAME;
        }
        if (size > file->blobs_size - end) {
            return PRESS_BAD_DIRECTORY;
        }
        end += size;
        put_integer(index + PER_TENSOR * (size_t)k, at, 4);
        put_integer(index + PER_TENSOR * (size_t)k + 4, end, 8);
        at = next;

        decoded += entry.values_size; /* of at most 2^16 tensors of 2^35 bytes */
        if (entry.tensor.encoding == PRESS_SAME) {
            load(file, k, &entry);
            if (same_as(file, &entry, &other) != PRESS_OK) {
                return PRESS_BAD_DIRECTORY;
            }
            if (PRESS_CHECKS_SUMS && !file->is_joint &&
                press_crc32(entry.tensor.blob, entry.tensor.blob_size) != entry.crc32) {
                return PRESS_CHANGED;
            }
        }
    }

    if (at != file->directory_size || end != file->blobs_size) {
        return PRESS_BAD_DIRECTORY;
    }
    return decoded > max_decoded ? PRESS_TOO_LARGE : PRESS_OK;
}

/* The bytes of the directory into `bytes`, those of shared code tables behind its index. */
static press_status decompress(press_file *file, uint8_t *bytes)
{
    uint8_t *tables = bytes + file->directory_size + PER_TENSOR * most_tensors(file);
    uint8_t *memory = tables + file->tables_size;
    press_status status;

    if (needs_lzma(file)) {
        file->probabilities = (uint16_t *)(void *)(memory + ((uintptr_t)memory & 1));
    }
    if (file->is_joint) {
        status = press_unlzma(file->directory_stream, file->directory_stream_size, 0, file->probabilities, bytes, 0,
                              bytes, file->directory_size, 0);
    } else {
        status = press_inflate(file->directory_stream, file->directory_stream_size, bytes, file->directory_size);
    }

    if (status == PRESS_OK && file->tables_stream) {
        status = press_unlzma(file->tables_stream, file->tables_stream_size, 0, file->probabilities, tables, 0, tables,
                              file->tables_size, 1);
        if (status == PRESS_OK) {
            status = press_shared_open(&file->shared, tables, file->tables_size);
        }
    }
    return status;
}

press_status press_file_directory(press_file *file, void *memory, size_t memory_size, uint64_t max_decoded)
{
    uint8_t *bytes = memory, *index = bytes + file->directory_size;
    uint64_t n_tensors, size;
    press_status status;
    size_t first = 0, at;
    uint32_t k;

    if (memory_size < press_file_memory(file)) {
        return PRESS_SMALL_BUFFER;
    }
    status = decompress(file, bytes);
    if (status != PRESS_OK) {
        return status;
    }
    file->directory = bytes;
    if (file->is_joint) {
        if (!take_number(file, &first, &n_tensors)) {
            return PRESS_BAD_DIRECTORY;
        }
    } else {
        first = 4;
        if (file->directory_size < first) {
            return PRESS_BAD_DIRECTORY;
        }
        n_tensors = press_integer(bytes, 4);
    }
    if (n_tensors > most_tensors(file)) {
        return PRESS_BAD_DIRECTORY;
    }
    file->n_tensors = (uint32_t)n_tensors;

    status = check_records(file, first, index, max_decoded);
    if (status == PRESS_OK && !names_differ(file, index)) {
        status = PRESS_BAD_NAME;
    }
    if (status != PRESS_OK) {
        file->n_tensors = 0;
        return status;
    }

    /* the starts once more, in the order of the file */
    at = first;
    for (k = 0; k < file->n_tensors; k++) {
        press_entry entry;

        put_integer(index + PER_TENSOR * (size_t)k, at, 4);
        at = split_record(file, at, &entry, &size);
    }
    return PRESS_OK;
}

press_status press_file_entry(const press_file *file, uint32_t number, press_entry *entry)
{
    press_entry other;

    if (number >= file->n_tensors) {
        return PRESS_BAD_ARGUMENT;
    }
    load(file, number, entry);
    if (entry->tensor.encoding == PRESS_SAME) {
        (void)same_as(file, entry, &other); /* it was checked */
        entry->tensor = other.tensor;
        entry->crc32 = other.crc32;
    }
    return PRESS_OK;
}
