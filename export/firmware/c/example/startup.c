/* A bare Cortex-M: vectors, memory as C expects it, floating point switched on, and output by semihosting. */
#include <stddef.h>
#include <stdint.h>

extern uint32_t _stack_top, _data_start, _data_end, _data_load, _bss_start, _bss_end;
int main(void);
void reset(void);
void semihosting_write(const char *text);
void semihosting_exit(int status);

#define CPACR (*(volatile uint32_t *)0xE000ED88u)
#define CPACR_FPU (0xFu << 20)

static void stop(void)
{
    semihosting_write("fault\n");
    semihosting_exit(1);
}

void reset(void)
{
    uint32_t *to = &_data_start;
    const uint32_t *from = &_data_load;

#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    CPACR |= CPACR_FPU;
    __asm volatile("dsb\n\tisb");
#endif
    while (to < &_data_end) {
        *to++ = *from++;
    }
    for (to = &_bss_start; to < &_bss_end; to++) {
        *to = 0;
    }
    semihosting_exit(main());
}

typedef void handler(void);

__attribute__((section(".vectors"), used)) static const struct {
    uint32_t *stack;
    handler *handlers[15];
} vectors = {&_stack_top, {reset, stop, stop, stop, stop, stop, NULL, NULL, NULL, NULL, stop, stop, NULL, stop, stop}};

/* ---- Semihosting: a debugger or emulator does what the program asks ---- */

static int32_t ask(int32_t operation, const void *parameter)
{
    register int32_t r0 __asm("r0") = operation;
    register const void *r1 __asm("r1") = parameter;

    __asm volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

void semihosting_write(const char *text)
{
    ask(4, text); /* SYS_WRITE0 */
}

void semihosting_exit(int status)
{
    const uint32_t reason[2] = {0x20026, (uint32_t)status}; /* ADP_Stopped_ApplicationExit */

    ask(0x20, reason); /* SYS_EXIT_EXTENDED */
    for (;;) {
    }
}

/* What compilers call by themselves; a C library has better ones. */
void *memset(void *to, int value, size_t n);
void *memcpy(void *to, const void *from, size_t n);

__attribute__((weak)) void *memset(void *to, int value, size_t n)
{
    volatile uint8_t *at = (volatile uint8_t *)to;

    while (n--) {
        *at++ = (uint8_t)value;
    }
    return to;
}

__attribute__((weak)) void *memcpy(void *to, const void *from, size_t n)
{
    volatile uint8_t *at = (volatile uint8_t *)to;
    const uint8_t *source = (const uint8_t *)from;

    while (n--) {
        *at++ = *source++;
    }
    return to;
}
