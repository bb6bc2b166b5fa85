/* A bounded queue with free-running counters in memory; a page is queued once until it is taken. */
#include <stdbool.h>

#include "bits.h"

struct ring {
    u64 head, tail;
};

static inline bool push(struct ring *ring, u64 *slots, u64 size, u64 page)
{
    if (ring->tail - ring->head >= size) {
        return false;
    }
    slots[ring->tail & (size - 1)] = page;
    ring->tail++;
    return true;
}

static inline u64 pop(struct ring *ring, const u64 *slots, u64 size)
{
    return slots[ring->head++ & (size - 1)];
}

/* Offer events in bursts, then take everything. out: entries queued, and the sum of entry x place. */
void ring(const uint32_t *pages, u64 count, u64 burst, u64 *slots, u64 size, struct ring *ring, u64 *queued, u64 *out)
{
    u64 total = 0;

    for (u64 first = 0; first < count; first += burst) {
        u64 last = first + burst < count ? first + burst : count;
        for (u64 i = first; i < last; i++) {
            u64 page = pages[i], bit = 1ull << (page % 64);
            if (!(queued[page / 64] & bit) && push(ring, slots, size, page)) {
                queued[page / 64] |= bit;
            }
        }
        while (ring->tail - ring->head > 0) {
            u64 place = ring->head, page = pop(ring, slots, size);
            queued[page / 64] &= ~(1ull << (page % 64));
            total += page * place;
        }
    }
    out[0] = ring->tail;
    out[1] = total;
}
