/* The tensors of an open file, one at a time. */

#include "press_parts.h"

#define NO_MORE_MIXED UINT32_MAX /* after an error, the model of mixed contexts is of no use */

void press_file_mixing(press_file *file, press_mixing *mixing)
{
#ifndef PRESS_NO_MIXED
    press_mixing_start(mixing);
#endif
    file->mixing = mixing;
    file->mixed_until = 0;
}

press_status press_file_scratch(const press_entry *entry, size_t *size)
{
    if (entry->tensor.encoding == PRESS_BYTE_PLANES) {
        *size = entry->values_size;
        return PRESS_OK;
    }
    if (entry->tensor.encoding == PRESS_LZMA) {
        unsigned properties = entry->tensor.blob_size ? *entry->tensor.blob : 0;

        if (properties > 224 || properties % 9 + properties / 9 % 5 > 4) {
            return PRESS_BAD_LZMA;
        }
        *size = (entry->values_size + 7) / 8 * 8 + 2 * press_lzma_probabilities(properties);
        return PRESS_OK;
    }
    return press_scratch_size(&entry->tensor, size);
}

/* Checks the sum of the stored bytes; and for mixed contexts, that every tensor before was read. */
static press_status begin(press_file *file, const press_entry *entry)
{
    press_entry other;
    uint32_t k;

    if (PRESS_CHECKS_SUMS && !file->is_joint && press_crc32(entry->tensor.blob, entry->tensor.blob_size) != entry->crc32) {
        return PRESS_CHANGED;
    }
    if (!press_is_mixed(entry->tensor.encoding)) {
        return PRESS_OK;
    }

    if (!file->mixing || entry->number < file->mixed_until) {
        return file->mixing ? PRESS_OUT_OF_ORDER : PRESS_BAD_ARGUMENT;
    }
    for (k = file->mixed_until; k < entry->number; k++) {
        if (press_file_entry(file, k, &other) != PRESS_OK || press_is_mixed(other.tensor.encoding)) {
            return PRESS_OUT_OF_ORDER;
        }
    }
    file->mixed_until = NO_MORE_MIXED;

    return PRESS_OK;
}

static press_status end(press_file *file, const press_entry *entry, press_status status)
{
    if (status == PRESS_OK && press_is_mixed(entry->tensor.encoding)) {
        file->mixed_until = entry->number + 1;
    }
    return status;
}

/* A tensor whose stored bytes are a stream of zlib or LZMA. */
static press_status decompress(const press_entry *entry, uint8_t *scratch, size_t scratch_size, void *values)
{
    press_tensor plain = entry->tensor;
    size_t needed, nothing;
    press_status status = press_file_scratch(entry, &needed);

    if (status == PRESS_OK && scratch_size < needed) {
        status = PRESS_SMALL_BUFFER;
    }
    if (status != PRESS_OK) {
        return status;
    }
    if (plain.encoding == PRESS_BYTE_PLANES) {
        if (plain.type == PRESS_BOOL) {
            return PRESS_BAD_TYPE;
        }
        status = press_inflate(plain.blob, plain.blob_size, scratch, entry->values_size);
        return status == PRESS_OK ? press_join_planes(&plain, scratch, entry->values_size, values) : status;
    }

    nothing = plain.blob_size ? 1 : 0; /* of properties */
    status = press_unlzma(plain.blob + nothing, plain.blob_size - nothing, nothing ? *plain.blob : 0,
                          (uint16_t *)(void *)(scratch + (entry->values_size + 7) / 8 * 8), scratch, 0, scratch,
                          entry->values_size, 1);
    if (status != PRESS_OK) {
        return status;
    }
    plain.blob = scratch;
    plain.blob_size = entry->values_size;
    plain.encoding = plain.type == PRESS_BOOL ? PRESS_RAW : PRESS_ANY_BITS;
    return press_decode_values(&plain, NULL, NULL, NULL, 0, values, entry->values_size, NULL);
}

press_status press_file_values(press_file *file, const press_entry *entry, void *scratch, size_t scratch_size,
                               void *values, size_t values_size)
{
    const press_tensor *tensor = &entry->tensor;
    press_status status = begin(file, entry);

    if (status != PRESS_OK) {
        return status;
    }
    if (values_size < entry->values_size) {
        return PRESS_SMALL_BUFFER;
    }
    if (press_is_compressed(tensor->encoding)) {
        return decompress(entry, scratch, scratch_size, values);
    }
    status = press_decode_values(tensor, &file->shared, file->mixing, scratch, scratch_size, values, values_size, NULL);
    return end(file, entry, status);
}

press_status press_file_floats(press_file *file, const press_entry *entry, void *scratch, size_t scratch_size,
                               float *values, size_t count)
{
    const uint8_t *halves;
    press_status status;
    size_t k;

    if (entry->tensor.type != PRESS_FLOAT && entry->tensor.type != PRESS_FLOAT16) {
        return PRESS_BAD_TYPE;
    }
    if (count < entry->elements) {
        return PRESS_SMALL_BUFFER;
    }
    if (entry->tensor.type == PRESS_FLOAT) {
        return press_file_values(file, entry, scratch, scratch_size, values, entry->values_size);
    }

    /* halves fill the upper half of the room: floats reach no half before it was read */
    halves = (uint8_t *)values + entry->values_size;
    status = press_file_values(file, entry, scratch, scratch_size, (uint8_t *)values + entry->values_size,
                               entry->values_size);
    for (k = 0; status == PRESS_OK && k < entry->elements; k++) {
        uint16_t half;
        uint8_t stored[2];

        memcpy(&half, halves + 2 * k, sizeof half);
        stored[0] = (uint8_t)half;
        stored[1] = (uint8_t)(half >> 8);
        values[k] = press_parameter(stored, 0, 1);
    }

    return status;
}

press_status press_file_codes(press_file *file, const press_entry *entry, void *scratch, size_t scratch_size,
                              uint8_t *codes, uint8_t *support, press_grid *grid)
{
    press_status status = begin(file, entry);

    if (status != PRESS_OK) {
        return status;
    }
    status = press_decode_codes(&entry->tensor, &file->shared, file->mixing, scratch, scratch_size, codes, support,
                                grid, NULL);
    return end(file, entry, status);
}
