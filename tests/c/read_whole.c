#include "read_whole.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    uint8_t *out;
    size_t size, left;
} output;

/* Room for the next bytes; NULL if there is not enough. */
static uint8_t *next(output *to, size_t size)
{
    uint8_t *at = to->out + to->size;

    if (size > to->left) {
        return NULL;
    }
    to->size += size;
    to->left -= size;
    return at;
}

/* Elements of this machine's byte order, little-endian. */
static void put_little_endian(uint8_t *to, const uint8_t *values, size_t size, size_t item_size)
{
    const uint16_t one = 1;
    int is_little = *(const uint8_t *)&one == 1;
    size_t k;

    for (k = 0; k < size; k++) {
        to[k] = values[is_little ? k : k - k % item_size + (item_size - 1 - k % item_size)];
    }
}

static press_status put_tensor(press_file *file, const press_entry *entry, int is_codes, output *to)
{
    size_t scratch_size, size = is_codes ? 2 * entry->elements : entry->values_size;
    press_status status = press_file_scratch(entry, &scratch_size);
    uint8_t *scratch, *values, *at;
    press_grid grid;

    if (status != PRESS_OK) {
        return status;
    }
    at = next(to, size);
    if (!at) {
        return PRESS_SMALL_BUFFER;
    }

    scratch = malloc(scratch_size + 1);
    values = malloc(size + 1);
    if (!scratch || !values) {
        status = PRESS_SMALL_BUFFER;
    } else if (is_codes) {
        uint8_t *support = values + entry->elements;

        status = press_file_codes(file, entry, scratch, scratch_size, values, support, &grid);
        if (status == PRESS_OK && !(grid.flags & PRESS_SUPPORT)) {
            memset(support, 1, entry->elements);
        }
        memcpy(at, values, size);
    } else {
        status = press_file_values(file, entry, scratch, scratch_size, values, size);
        put_little_endian(at, values, size, press_type_size(entry->tensor.type));
    }
    free(values);
    free(scratch);

    return status;
}

/* Values and codes are decoded apart: two passes, each with the model of mixed contexts from its beginning. */
static press_status put_tensors(press_file *file, press_mixing *mixing, int codes, output *to)
{
    uint32_t k;

    press_file_mixing(file, mixing);
    for (k = 0; k < file->n_tensors; k++) {
        press_entry entry;
        press_status status = press_file_entry(file, k, &entry);

        if (status == PRESS_OK && (!codes || press_is_quantized(entry.tensor.encoding))) {
            status = put_tensor(file, &entry, codes, to);
        }
        if (status != PRESS_OK) {
            return status;
        }
    }
    return PRESS_OK;
}

static press_status put_all(press_file *file, output *to)
{
    press_mixing *mixing = malloc(sizeof *mixing);
    press_status status;
    uint8_t *graph;

    if (!mixing) {
        return PRESS_SMALL_BUFFER;
    }
    status = put_tensors(file, mixing, 0, to);
    if (status == PRESS_OK) {
        status = put_tensors(file, mixing, 1, to);
    }
    free(mixing);
    if (status != PRESS_OK) {
        return status;
    }

    graph = next(to, file->graph_size);
    return graph ? press_file_graph(file, graph, file->graph_size) : PRESS_SMALL_BUFFER;
}

press_status read_whole(const uint8_t *data, size_t size, uint64_t max_decoded, uint8_t *out, size_t out_size,
                        size_t *written)
{
    output to = {out, 0, out_size};
    press_file file;
    press_status status = press_file_open(&file, data, size);
    size_t memory_size;
    uint8_t *memory;

    *written = 0;
    if (status != PRESS_OK) {
        return status;
    }
    memory_size = press_file_memory(&file);
    memory = malloc(memory_size + 1);
    if (!memory) {
        return PRESS_SMALL_BUFFER;
    }
    status = press_file_directory(&file, memory, memory_size, max_decoded);
    if (status == PRESS_OK) {
        status = put_all(&file, &to);
    }
    free(memory);
    *written = to.size;

    return status;
}
