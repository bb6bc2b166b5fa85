/*
 * A precopy migration that sends page by page: TCG's log, three bitmap layers, virtual time from the prices of the work.
 * It computes what the engine computes for max_bandwidth 0 (no rate limit): the same pages, rounds and times.
 */
#include <stdbool.h>

#include "bits.h"

#define NEVER (~0ull)
#define PS_PER_MS 1000000000ull
#define PAGE_SIZE 4096ull

enum { BUFFER = 32768, MAX_PIECES = 64, HEADER = 8, ZERO = 9 };
enum { SECTION_HEADER = 5, SECTION_FOOTER = 5, END_MARK = 8, WINDOW_MS = 100, MAX_WAIT_MS = 50 };

struct parameters {
    u64 pages, words, events;
    u64 find_call_ps, find_word_ps, refind_ps, normal_ps, zero_ps;  /* prices of sending */
    u64 l2_word_ps, l2_touched_ps, l2_page_ps;                      /* prices of a sync */
    u64 setup_ps, loop_pass_ps, vm_stop_ps, device_state_ps;
    u64 device_bytes, downtime_ms, give_up_ps;
};

struct arrays {
    const u64 *t_ns;
    const uint32_t *page;
    const uint16_t *origin;
    u64 *armed, *l2, *l3, *content, *zeros; /* content: stale and zero pages of each word, interleaved */
    uint8_t *turned;
};

struct results {
    u64 pages, zero_pages, find_calls, find_words, rounds, end_ps, flushed, flushes, redundant, stale, events, pending;
};

struct migration {
    const struct parameters *is;
    struct arrays at;
    u64 now_ps, next_ps, next_event, cursor, pending;
    u64 flushed, queued, pieces, buffered, flushes;
    u64 find_calls, find_words, normal, zero, redundant, rounds;
    bool in_buffer, running;
};

/* -- the stream -- */

static inline void flush(struct migration *m)
{
    m->flushes += m->queued != 0;
    m->flushed += m->queued;
    m->queued = m->pieces = m->buffered = 0;
    m->in_buffer = false;
}

static inline void put_buffered(struct migration *m, u64 count)
{
    while (count) {
        if (!m->in_buffer) {
            m->in_buffer = true;
            m->pieces++;
        }
        u64 part = count < BUFFER - m->buffered ? count : BUFFER - m->buffered;
        m->buffered += part;
        m->queued += part;
        count -= part;
        if (m->buffered == BUFFER || m->pieces >= MAX_PIECES) {
            flush(m);
        }
    }
}

static inline void put_page(struct migration *m, bool zero)
{
    if (zero) {
        put_buffered(m, ZERO);
        return;
    }
    put_buffered(m, HEADER);
    m->pieces++;
    m->in_buffer = false;
    m->queued += PAGE_SIZE;
    if (m->pieces >= MAX_PIECES) {
        flush(m);
    }
}

/* -- the guest -- */

static inline u64 event_ps(const struct migration *m, u64 event)
{
    return event < m->is->events ? m->at.t_ns[event] * 1000 : NEVER;
}

/* Events up to now. */
static inline void catch_up(struct migration *m)
{
    while (m->next_ps <= m->now_ps) {
        u64 page = m->at.page[m->next_event], word = page / 64, bit = 1ull << (page % 64);
        if (m->at.origin[m->next_event] > 0x1fff) {
            m->at.l2[word] |= bit;
        } else if (m->at.armed[word] & bit) {
            m->at.armed[word] &= ~bit;
            m->at.l2[word] |= bit;
        }
        m->at.content[2 * word] |= bit;
        if (m->at.content[2 * word + 1] & bit) {
            m->at.content[2 * word + 1] &= ~bit;
            m->at.turned[word / 64] = 1;
        }
        m->next_ps = event_ps(m, ++m->next_event);
    }
}

/* Classes of pages are looked at once a call. */
static void settle(struct migration *m)
{
    for (u64 block = 0; block < (m->is->words + 63) / 64; block++) {
        if (m->at.turned[block]) {
            m->at.turned[block] = 0;
            for (u64 word = block * 64; word < block * 64 + 64 && word < m->is->words; word++) {
                m->at.zeros[word] = m->at.content[2 * word + 1];
            }
        }
    }
}

/* -- finding and sending -- */

static inline u64 find(struct migration *m, u64 *cost_ps)
{
    u64 size = m->is->pages, from = m->cursor, page = find_next_bit(m->at.l3, size, from);

    m->find_calls++;
    *cost_ps += m->is->find_call_ps;
    if (from < size) {
        u64 words = (page < size ? page : size - 1) / 64 - from / 64 + 1;
        m->find_words += words;
        *cost_ps += words * m->is->find_word_ps;
    }
    return page;
}

/* Pages until none is left or the deadline has passed, looked at after page 0, 64, 128, ... */
static void send_pages(struct migration *run, u64 deadline_ps)
{
    struct migration m = *run; /* a copy: its fields can live in registers */
    u64 size = m.is->pages;

    for (u64 call = 0;; call++) {
        u64 cost_ps = 0;

        if (m.running && m.next_ps <= m.now_ps) {
            catch_up(&m);
        }
        u64 page = find(&m, &cost_ps);
        if (page >= size) {
            m.cursor = 0;
            page = find(&m, &cost_ps);
            if (page >= size) {
                m.now_ps += cost_ps;
                break;
            }
        }
        u64 word = page / 64, bit = 1ull << (page % 64);
        m.at.l3[word] &= ~bit;
        m.cursor = page + 1;
        m.pending--;

        m.redundant += !(m.at.content[2 * word] & bit);
        m.at.content[2 * word] &= ~bit;

        bool zero = m.at.zeros[word] & bit;
        put_page(&m, zero);
        if (zero) {
            m.zero++;
            cost_ps += m.is->zero_ps;
        } else {
            m.normal++;
            cost_ps += m.is->normal_ps;
        }
        m.now_ps += cost_ps + m.is->refind_ps;
        if (call % 64 == 0 && m.now_ps >= deadline_ps) {
            break;
        }
    }
    *run = m;
}

static void iterate(struct migration *m, u64 deadline_ps)
{
    settle(m);
    put_buffered(m, SECTION_HEADER);
    if (m->running) {
        catch_up(m);
    }
    send_pages(m, deadline_ps);
    if (m->running) {
        catch_up(m);
    }
    put_buffered(m, END_MARK + SECTION_FOOTER);
    flush(m);
}

static void sync(struct migration *m)
{
    u64 touched = 0, carried = 0, new = 0, used = (m->is->pages + 63) / 64;
    u64 *restrict l2 = m->at.l2, *restrict l3 = m->at.l3;

    for (u64 i = 0; i < m->is->words; i++) {
        m->at.armed[i] = ~0ull;
    }
    for (u64 i = 0; i < used; i++) {
        u64 bits = l2[i];
        if (bits) {
            u64 old = l3[i];
            touched++;
            carried += __builtin_popcountll(bits);
            new += __builtin_popcountll(bits & ~old);
            l3[i] = old | bits;
            l2[i] = 0;
        }
    }
    m->pending += new;
    m->rounds++;
    m->now_ps += used * m->is->l2_word_ps + touched * m->is->l2_touched_ps + carried * m->is->l2_page_ps;
}

void migrate(const struct parameters *is, const struct arrays *at, struct results *out)
{
    struct migration m = { .is = is, .at = *at, .pending = is->pages, .running = true };
    u64 threshold = 0, window_ms = 0, window_bytes = 0;

    m.next_ps = event_ps(&m, 0);
    m.now_ps = is->setup_ps;
    catch_up(&m);
    sync(&m);
    while (m.now_ps < is->give_up_ps) {
        m.now_ps += is->loop_pass_ps;
        if (m.pending * PAGE_SIZE < threshold) {
            catch_up(&m);
            sync(&m);
        }
        if (!m.pending || m.pending * PAGE_SIZE < threshold) {
            break;
        }
        iterate(&m, m.now_ps + (MAX_WAIT_MS + 1) * PS_PER_MS);

        u64 now_ms = m.now_ps / PS_PER_MS, spent_ms = now_ms - window_ms;
        if (spent_ms >= WINDOW_MS) {
            threshold = (double)(m.flushed - window_bytes) / spent_ms * is->downtime_ms;
            window_ms = now_ms;
            window_bytes = m.flushed;
        }
    }
    m.now_ps += is->vm_stop_ps;
    catch_up(&m);
    m.running = false;
    sync(&m);
    iterate(&m, NEVER);
    put_buffered(&m, is->device_bytes);
    flush(&m);
    m.now_ps += is->device_state_ps;

    u64 stale = 0;
    for (u64 word = 0; word < is->words; word++) {
        stale += __builtin_popcountll(at->content[2 * word]);
    }
    *out = (struct results){ m.normal + m.zero, m.zero, m.find_calls, m.find_words, m.rounds, m.now_ps,
                             m.flushed, m.flushes, m.redundant, stale, m.next_event, m.pending };
}
