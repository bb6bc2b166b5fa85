/* The guest's only program: it writes to its memory at a given pace, for ever.
 *
 * It runs as process 1. The kernel hands an unknown parameter of its command line to process 1 as an environment
 * variable: `wl=PATTERN:MEGABYTES:PAGES_PER_S`, with PATTERN sequential or random (pages drawn from a fixed seed), or
 * `wl=idle`. Every page of the working set is first filled, so that none is a zero page; then each write changes 8
 * bytes. "ready" on the console says that the filling is over. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, TICK_NS = 1000000, SECOND_NS = 1000000000 };

static uint64_t next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void fail(const char *why)
{
    printf("writer: %s\n", why);
    fflush(stdout);
    for (;;)
        pause();
}

static char *filled(size_t pages, uint64_t *state)
{
    char *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        fail("not enough memory");
    for (size_t word = 0; word < pages * PAGE / 8; word++)
        ((uint64_t *)memory)[word] = next(state);
    return memory;
}

int main(void)
{
    const char *asked = getenv("wl");
    char pattern[16] = "";
    unsigned long megabytes = 0, rate = 0;
    uint64_t state = 0x9E3779B97F4A7C15u;

    if (asked == NULL || strcmp(asked, "idle") == 0) {
        printf("writer: ready\n");
        fflush(stdout);
        for (;;)
            pause();
    }
    if (sscanf(asked, "%15[a-z]:%lu:%lu", pattern, &megabytes, &rate) != 3 || megabytes == 0 || rate == 0)
        fail("wl= must be PATTERN:MEGABYTES:PAGES_PER_S or idle");
    int random = strcmp(pattern, "random") == 0;
    if (!random && strcmp(pattern, "sequential") != 0)
        fail("the pattern is sequential or random");

    size_t pages = (size_t)megabytes * (1 << 20) / PAGE, at = 0;
    char *memory = filled(pages, &state);
    printf("writer: ready\n");
    fflush(stdout);

    struct timespec due;
    clock_gettime(CLOCK_MONOTONIC, &due);
    for (uint64_t owed = 0, written = 0;; written++) {
        while (owed < 1000) { /* thousandths of a page; one tick earns `rate` of them */
            due.tv_nsec += TICK_NS;
            if (due.tv_nsec >= SECOND_NS) {
                due.tv_nsec -= SECOND_NS;
                due.tv_sec++;
            }
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
            owed += rate;
        }
        owed -= 1000;
        at = random ? next(&state) % pages : (at + 1) % pages;
        *(volatile uint64_t *)(memory + at * PAGE) = written;
    }
}
