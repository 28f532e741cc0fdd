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
    return press_scratch_size(&entry->tensor, size);
}

/* Checks the sum of the stored bytes; and for mixed contexts, that every tensor before was read. */
static press_status begin(press_file *file, const press_entry *entry)
{
    press_entry other;
    uint32_t k;

    if (PRESS_CHECKS_SUMS && press_crc32(entry->tensor.blob, entry->tensor.blob_size) != entry->crc32) {
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
    if (tensor->encoding != PRESS_BYTE_PLANES) {
        status = press_decode_values(tensor, &file->shared, file->mixing, scratch, scratch_size, values,
                                     values_size, NULL);
        return end(file, entry, status);
    }

    if (tensor->type == PRESS_BOOL) {
        return PRESS_BAD_TYPE;
    }
    if (scratch_size < entry->values_size) {
        return PRESS_SMALL_BUFFER;
    }
    status = press_inflate(tensor->blob, tensor->blob_size, scratch, entry->values_size);
    return status == PRESS_OK ? press_join_planes(tensor, scratch, entry->values_size, values) : status;
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
