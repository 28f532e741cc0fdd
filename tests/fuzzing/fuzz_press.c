/* What libFuzzer runs: any bytes are read as a .press file, every tensor in every way.

   Buffers have exactly the sizes that were asked for, so that the address sanitizer sees one byte too many. Beyond
   not crashing, both ways to the values of a quantized tensor must agree. */

#include <stdlib.h>
#include <string.h>

#include "press_reader.h"

enum { MAX_DECODED = 1 << 17 };

static void *room(size_t size)
{
    void *memory = malloc(size ? size : 1);

    if (!memory) {
        abort();
    }
    return memory;
}

static void must(int holds)
{
    if (!holds) {
        abort();
    }
}

static int is_linked(int encoding)
{
    return encoding == PRESS_LINKED || encoding == PRESS_SPLIT_LINKED;
}

/* Codes, dequantized, are the values. */
static void check_codes(press_file *file, const press_entry *entry, void *scratch, size_t scratch_size,
                        const void *values)
{
    uint8_t *codes = room(entry->elements), *support = room(entry->elements);
    void *again = room(entry->values_size);
    press_grid grid;

    must(press_file_codes(file, entry, scratch, scratch_size, codes, support, &grid) == PRESS_OK);
    press_dequantize(&grid, 0, entry->elements, codes, support, again);
    must(memcmp(again, values, entry->values_size) == 0);
    free(again);
    free(support);
    free(codes);
}

static press_status read_tensor(press_file *file, const press_entry *entry)
{
    size_t scratch_size;
    press_status status = press_file_scratch(entry, &scratch_size);
    void *scratch, *values;

    if (status != PRESS_OK) {
        return status;
    }
    /* what a file declares must not cost memory; how linked input channels go together takes up to 2 MB */
    must(scratch_size <= 16 * entry->elements + (1 << 20) + (is_linked(entry->tensor.encoding) ? 1 << 21 : 0));
    scratch = room(scratch_size);
    values = room(entry->values_size);
    status = press_file_values(file, entry, scratch, scratch_size, values, entry->values_size);

    if (!press_is_mixed(entry->tensor.encoding)) {
        float *floats = room(entry->elements * sizeof *floats);
        press_status same = press_file_floats(file, entry, scratch, scratch_size, floats, entry->elements);

        must(same == status || same == PRESS_BAD_TYPE);
        must(same != PRESS_OK || entry->tensor.type != PRESS_FLOAT || memcmp(floats, values, entry->values_size) == 0);
        free(floats);
        if (status == PRESS_OK && press_is_quantized(entry->tensor.encoding)) {
            check_codes(file, entry, scratch, scratch_size, values);
        }
    }
    free(values);
    free(scratch);

    return status;
}

/* The model of mixed contexts, as press_file_mixing makes it; copied, as starting takes as long as a thousand files. */
static void give_mixing(press_file *file)
{
    static press_mixing fresh, mixing;
    static int is_made;

    if (!is_made) {
        press_file_mixing(file, &fresh);
        is_made = 1;
    }
    mixing = fresh;
    file->mixing = &mixing;
}

static void read_tensors(press_file *file)
{
    uint32_t k;

    for (k = 0; k < file->n_tensors; k++) {
        press_entry entry;

        must(press_file_entry(file, k, &entry) == PRESS_OK && entry.tensor.encoding != PRESS_SAME);
        if (press_is_mixed(entry.tensor.encoding) && !file->mixing) {
            give_mixing(file);
        }
        if (read_tensor(file, &entry) != PRESS_OK) {
            return;
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    press_file file;
    uint8_t *memory, *graph;
    size_t memory_size;

    if (press_file_open(&file, data, size) != PRESS_OK) {
        return 0;
    }
    memory_size = press_file_memory(&file);
    if (memory_size > 1 << 16 || file.graph_size > 1 << 16) {
        return 0; /* large buffers cost time and find nothing */
    }

    memory = room(memory_size);
    if (press_file_directory(&file, memory, memory_size, MAX_DECODED) == PRESS_OK) {
        read_tensors(&file);
    }
    graph = room(file.graph_size);
    (void)press_file_graph(&file, graph, file.graph_size);
    free(graph);
    free(memory);

    return 0;
}
