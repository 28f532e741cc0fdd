"""A quantized network as C99 for microcontrollers: weights coded in flash, zeros skipped."""
