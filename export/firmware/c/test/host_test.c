/*
 * The network on this machine: the test vectors, and what must be refused. With a file of input codes, one input after
 * the other, it writes the values of each to standard output instead.
 */
#include <stdio.h>
#include <stdlib.h>

#include "../model.h"
#include "test_same.h"

static uint32_t arena[(MODEL_ARENA_BYTES + 3) / 4];
static uint8_t codes[MODEL_INPUT_SIZE];
static press_nn_value values[MODEL_OUTPUT_SIZE];

static int run_file(const char *name)
{
    FILE *file = fopen(name, "rb");

    if (!file) {
        perror(name);
        return 1;
    }
    while (fread(codes, 1, sizeof codes, file) == sizeof codes) {
        if (model_run(arena, sizeof arena, codes, values) || fwrite(values, sizeof values, 1, stdout) != 1) {
            fclose(file);
            return 1;
        }
    }
    fclose(file);
    return 0;
}

static int expect(const char *what, int holds)
{
    printf("%s: %s\n", holds ? "ok" : "FAILED", what);
    return holds ? 0 : 1;
}

static int run_vectors(void)
{
    size_t image, k, equal = 0;

    for (image = 0; image < TEST_VECTORS; image++) {
        int same = model_run(arena, sizeof arena, test_codes + image * MODEL_INPUT_SIZE, values) == PRESS_NN_OK;

        for (k = 0; k < MODEL_OUTPUT_SIZE; k++) {
            same = same && test_same(values[k], image * MODEL_OUTPUT_SIZE + k);
        }
        equal += (size_t)same;
    }
    printf("%lu of %lu test vectors are as expected\n", (unsigned long)equal, (unsigned long)TEST_VECTORS);
    return expect("test vectors", equal == TEST_VECTORS);
}

int main(int n, char **arguments)
{
    int failed = 0;

    if (n > 1) {
        return run_file(arguments[1]);
    }
    failed |= run_vectors();
    failed |= expect("an arena too small is refused",
                     model_run(arena, MODEL_ARENA_BYTES - 1, test_codes, values) == PRESS_NN_SMALL_ARENA);
    failed |= expect("no arena is refused", model_run(NULL, MODEL_ARENA_BYTES, test_codes, values) == PRESS_NN_NULL);
    failed |= expect("an arena that is not aligned is refused",
                     model_run((uint8_t *)arena + 1, MODEL_ARENA_BYTES, test_codes, values) == PRESS_NN_UNALIGNED);
    return failed;
}
