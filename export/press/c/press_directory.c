/* The tensor directory: FORMAT.md, "Tensor directory".

   It is inflated into the caller's memory once, checked, and stays there as it is, but for one thing: the length of
   each blob is replaced by where the blob ends, so that any tensor is found at once. An index of where each record
   starts follows it. */

#include "press_parts.h"

enum { MAX_TENSORS = 65536, MAX_NAME_BYTES = 1024, SMALLEST_RECORD = 18 };

static void put_integer(uint8_t *at, uint64_t value, unsigned n_bytes)
{
    for (; n_bytes > 0; n_bytes--, value >>= 8) {
        *at++ = (uint8_t)value;
    }
}

size_t press_file_memory(const press_file *file)
{
    size_t most = file->directory_size < 4 ? 0 : (file->directory_size - 4) / SMALLEST_RECORD;

    return file->directory_size + 4 * (most < MAX_TENSORS ? most : MAX_TENSORS);
}

/* Splits the record at `at`; returns where it ends, or 0 if it does not end. */
static size_t split(const uint8_t *bytes, size_t n_bytes, size_t at, press_entry *entry)
{
    press_tensor *tensor = &entry->tensor;
    size_t left = n_bytes - at, n_name, rest;
    unsigned k;

    if (left < SMALLEST_RECORD) {
        return 0;
    }
    n_name = (size_t)press_integer(bytes + at, 2);
    if (n_name == 0 || n_name > MAX_NAME_BYTES || left - 2 < n_name + 2) {
        return 0;
    }
    at += 2;
    entry->name = (const char *)bytes + at;
    entry->name_size = n_name;
    at += n_name;

    tensor->type = bytes[at];
    tensor->n_dims = bytes[at + 1];
    at += 2;
    if (tensor->n_dims > PRESS_MAX_DIMENSIONS) {
        return 0;
    }
    rest = 4 * (size_t)tensor->n_dims + 13;
    if (n_bytes - at < rest) {
        return 0;
    }

    for (k = 0; k < PRESS_MAX_DIMENSIONS; k++) {
        tensor->dims[k] = k < tensor->n_dims ? (uint32_t)press_integer(bytes + at + 4 * k, 4) : 1;
    }
    at += rest;
    tensor->encoding = bytes[at - 13];
    entry->crc32 = (uint32_t)press_integer(bytes + at - 12, 4);

    return at;
}

static const uint8_t *index_of(const press_file *file) { return file->directory + file->directory_size; }

static size_t record_at(const press_file *file, uint32_t k)
{
    return (size_t)press_integer(index_of(file) + 4 * (size_t)k, 4);
}

/* -1, 0 or 1: how the names of two records, given by where these start, compare. */
static int compare(const press_file *file, size_t one, size_t two)
{
    const uint8_t *a = file->directory + one, *b = file->directory + two;

    return press_compare_names(a + 2, (size_t)press_integer(a, 2), b + 2, (size_t)press_integer(b, 2));
}

/* One step of a heap sort of the index by names: the entry at `root` sinks among the first `n`. */
static void sink(press_file *file, uint8_t *index, size_t root, size_t n)
{
    uint64_t moving = press_integer(index + 4 * root, 4);

    for (;;) {
        size_t child = 2 * root + 1;
        uint64_t below;

        if (child >= n) {
            break;
        }
        below = press_integer(index + 4 * child, 4);
        if (child + 1 < n && compare(file, (size_t)below, (size_t)press_integer(index + 4 * child + 4, 4)) < 0) {
            below = press_integer(index + 4 * ++child, 4);
        }
        if (compare(file, (size_t)moving, (size_t)below) >= 0) {
            break;
        }
        put_integer(index + 4 * root, below, 4);
        root = child;
    }
    put_integer(index + 4 * root, moving, 4);
}

/* Whether all names differ, whatever the case of their ASCII letters. Leaves the index sorted by names. */
static int names_differ(press_file *file, uint8_t *index)
{
    size_t n = file->n_tensors, k;

    for (k = n / 2; k-- > 0;) {
        sink(file, index, k, n);
    }
    for (k = n; k-- > 1;) {
        uint64_t last = press_integer(index + 4 * k, 4);

        put_integer(index + 4 * k, press_integer(index, 4), 4);
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

/* Checks every record, and makes lengths of blobs into their ends. */
static press_status check_records(press_file *file, uint8_t *memory, uint64_t max_decoded)
{
    uint64_t end = 0, decoded = 0;
    size_t at = 4;
    uint32_t k;

    for (k = 0; k < file->n_tensors; k++) {
        press_entry entry;
        size_t next = split(memory, file->directory_size, at, &entry);
        uint64_t size;

        if (next == 0 || !measure(&entry)) {
            return PRESS_BAD_DIRECTORY;
        }
        if (!press_is_text((const uint8_t *)entry.name, entry.name_size, 1)) {
            return PRESS_BAD_NAME;
        }

        size = press_integer(memory + next - 8, 8);
        if (size > file->blobs_size - end) {
            return PRESS_BAD_DIRECTORY;
        }
        end += size;
        put_integer(memory + next - 8, end, 8);
        put_integer(memory + file->directory_size + 4 * (size_t)k, at, 4);
        at = next;

        decoded += entry.values_size; /* of at most 2^16 tensors of 2^35 bytes */
    }

    if (at != file->directory_size || end != file->blobs_size) {
        return PRESS_BAD_DIRECTORY;
    }
    return decoded > max_decoded ? PRESS_TOO_LARGE : PRESS_OK;
}

press_status press_file_directory(press_file *file, void *memory, size_t memory_size, uint64_t max_decoded)
{
    uint8_t *bytes = memory;
    uint64_t n_tensors;
    press_status status;
    size_t at = 4;
    uint32_t k;

    if (memory_size < press_file_memory(file)) {
        return PRESS_SMALL_BUFFER;
    }
    status = press_inflate(file->directory_stream, file->directory_stream_size, bytes, file->directory_size);
    if (status != PRESS_OK) {
        return status;
    }

    if (file->directory_size < 4) {
        return PRESS_BAD_DIRECTORY;
    }
    n_tensors = press_integer(bytes, 4);
    if (n_tensors > MAX_TENSORS || n_tensors > (file->directory_size - 4) / SMALLEST_RECORD) {
        return PRESS_BAD_DIRECTORY;
    }
    file->directory = bytes;
    file->n_tensors = (uint32_t)n_tensors;

    status = check_records(file, bytes, max_decoded);
    if (status == PRESS_OK && !names_differ(file, bytes + file->directory_size)) {
        status = PRESS_BAD_NAME;
    }
    if (status != PRESS_OK) {
        file->n_tensors = 0;
        return status;
    }

    /* the index once more, in the order of the file */
    for (k = 0; k < file->n_tensors; k++) {
        press_entry entry;

        put_integer(bytes + file->directory_size + 4 * (size_t)k, at, 4);
        at = split(bytes, file->directory_size, at, &entry);
    }
    return PRESS_OK;
}

press_status press_file_entry(const press_file *file, uint32_t number, press_entry *entry)
{
    uint64_t start = 0, end;
    size_t at;

    if (number >= file->n_tensors) {
        return PRESS_BAD_ARGUMENT;
    }
    if (number > 0) {
        at = split(file->directory, file->directory_size, record_at(file, number - 1), entry);
        start = press_integer(file->directory + at - 8, 8);
    }

    at = split(file->directory, file->directory_size, record_at(file, number), entry);
    end = press_integer(file->directory + at - 8, 8);
    entry->number = number;
    entry->tensor.blob = file->blobs + (size_t)start;
    entry->tensor.blob_size = (size_t)(end - start);
    (void)measure(entry);

    return PRESS_OK;
}
