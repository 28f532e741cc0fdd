/* Runs the network on the test vectors, and tells what they give, how many ticks a run takes, and how deep the stack. */
#include "../model.h"
#include "../test/test_same.h"

void semihosting_write(const char *text);

#define SYST_CSR (*(volatile uint32_t *)0xE000E010u)
#define SYST_RVR (*(volatile uint32_t *)0xE000E014u)
#define SYST_CVR (*(volatile uint32_t *)0xE000E018u)
#define TICKS 0xFFFFFFu

#define PAINT 0xA5A5A5A5u
#define PAINTED 4096u /* bytes of stack below main */

extern uint32_t _stack_top;
static uint32_t arena[(MODEL_ARENA_BYTES + 3) / 4];
static press_nn_value values[MODEL_OUTPUT_SIZE];

static void write_number(const char *name, uint32_t number)
{
    char text[12];
    unsigned at = sizeof text - 1;

    text[at] = 0;
    do {
        text[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    semihosting_write(name);
    semihosting_write(" ");
    semihosting_write(text + at);
    semihosting_write("\n");
}

/* The stack below here holds PAINT wherever nothing was stored since. */
static volatile uint32_t *paint(void)
{
    uint32_t here;
    volatile uint32_t *top = (volatile uint32_t *)(((uintptr_t)&here & ~(uintptr_t)3) - 64), *low = top - PAINTED / 4;
    volatile uint32_t *at;

    for (at = low; at < top; at++) {
        *at = PAINT;
    }
    return low;
}

static uint32_t stack_used(volatile uint32_t *low)
{
    while (*low == PAINT) {
        low++;
    }
    return (uint32_t)((uintptr_t)&_stack_top - (uintptr_t)low);
}

int main(void)
{
    volatile uint32_t *low = paint();
    uint32_t equal = 0, image, start = 0, k;

    SYST_RVR = TICKS;
    SYST_CVR = 0;
    SYST_CSR = 5;
    for (image = 0; image < TEST_VECTORS; image++) {
        press_nn_status status;
        uint32_t same = 1;

        start = SYST_CVR;
        status = model_run(arena, sizeof arena, test_codes + image * MODEL_INPUT_SIZE, values);
        start = (start - SYST_CVR) & TICKS;
        if (status) {
            write_number("status", (uint32_t)status);
            return 1;
        }
        for (k = 0; k < MODEL_OUTPUT_SIZE; k++) {
            same &= (uint32_t)test_same(values[k], image * MODEL_OUTPUT_SIZE + k);
        }
        equal += same;
    }
    write_number("images", TEST_VECTORS);
    write_number("equal", equal);
    write_number("ticks", start);
    write_number("stack", stack_used(low));
    return equal == TEST_VECTORS ? 0 : 1;
}
