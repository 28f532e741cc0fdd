/* The fuzzer's subject and mutator without libFuzzer: files, and some changes to each. No search, no sanitizer.

       without_libfuzzer CHANGES FILE ... */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

enum { MOST = 4096 };

/* One byte set, bytes cut off, or a byte added. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size)
{
    unsigned choice = (unsigned)rand() % 8;

    if (choice == 0 && size < max_size) {
        data[size] = (uint8_t)rand();
        return size + 1;
    }
    if (choice == 1 && size > 0) {
        return (size_t)rand() % size;
    }
    if (size > 0) {
        data[(size_t)rand() % size] = (uint8_t)rand();
    }
    return size;
}

int main(int n_arguments, char **arguments)
{
    int n_changes = n_arguments > 1 ? atoi(arguments[1]) : 0, k, change;

    srand(1);
    for (k = 2; k < n_arguments; k++) {
        static uint8_t file[MOST], data[MOST];
        FILE *stream = fopen(arguments[k], "rb");
        size_t read, size;

        if (!stream) {
            fprintf(stderr, "%s: cannot be read\n", arguments[k]);
            return 1;
        }
        read = size = fread(file, 1, MOST, stream);
        fclose(stream);
        memcpy(data, file, MOST);
        (void)LLVMFuzzerTestOneInput(data, size);
        for (change = 0; change < n_changes; change++) {
            if (change % 8 == 0) { /* from the file again, before there is nothing left of it */
                memcpy(data, file, MOST);
                size = read;
            }
            size = LLVMFuzzerCustomMutator(data, size, MOST, (unsigned)rand());
            (void)LLVMFuzzerTestOneInput(data, size);
        }
    }
    printf("%d files, %d changes of each\n", n_arguments - 2, n_changes);

    return 0;
}
