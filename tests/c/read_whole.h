/* A whole .press file as one stretch of bytes that is the same on every machine, for comparing. */

#ifndef READ_WHOLE_H
#define READ_WHOLE_H

#include "press_reader.h"

/* Each tensor's values, little-endian; then of each that is quantized its codes and its support, a byte each (1
   where the grid has none), all codes after all values. After them the graph. *written: how many bytes that is. */
press_status read_whole(const uint8_t *data, size_t size, uint64_t max_decoded, uint8_t *out, size_t out_size,
                        size_t *written);

#endif
