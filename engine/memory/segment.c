/* SPDX-License-Identifier: MIT
 *
 * Segments of the pool's file, and the pages in them.
 *
 * What is known of them lies in the owner's heap, so nothing that another process does to the shared pages can
 * confuse it, and a kill leaves nothing to repair. The pages of a segment are told apart by one tag each:
 *
 *     first and last page of a free run     FREE | pages of the run
 *     first page of a block                 the number of its record
 *     last page of a longer block           0
 *     all others                            left over; never looked at
 *
 * so that a run that becomes free finds its neighbours in one look each.
 */
#include "memory/segment.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "channel/layout.h"
#include "memory/block.h"
#include "plat/plat.h"
#include "tercio.h"

#define LARGEST_SEGMENT (UINT64_C(64) << 20)
#define SEGMENT_UNIT (UINT64_C(2) << 20)

/* ---- Committed pages ---------------------------------------------------------------------------------------------------- */

uint32_t tercio__same_commitment(const struct segment *s, uint32_t page, uint32_t end)
{
    bool committed = tercio__is_committed(s, page);
    uint64_t whole = committed ? UINT64_MAX : 0;
    while (page < end)
        if (page % 64 == 0 && end - page >= 64 && s->committed[page / 64] == whole)
            page += 64;
        else if (tercio__is_committed(s, page) == committed)
            page++;
        else
            break;
    return page;
}

void tercio__set_committed(tercio__arena *arena, struct segment *s, uint32_t page, uint32_t end, bool committed)
{
    for (; page < end; page++) {
        if (tercio__is_committed(s, page) == committed)
            continue;
        s->committed[page / 64] ^= UINT64_C(1) << (page % 64);
        arena->committed += committed ? arena->page : (uint64_t)0 - arena->page;
    }
}

void tercio__decommit(tercio__arena *arena, struct segment *s, uint32_t page, uint32_t end)
{
    tercio__shm_punch(arena->fd, s->offset + (uint64_t)page * arena->page, (uint64_t)(end - page) * arena->page);
    tercio__set_committed(arena, s, page, end, false);
}

/* ---- Segments -------------------------------------------------------------------------------------------------- */

void tercio__set_free(struct segment *s, uint32_t first, uint32_t pages)
{
    s->tags[first] = s->tags[first + pages - 1] = TERCIO__PAGES_FREE | pages;
    if (pages > s->largest)
        s->largest = pages;
}

/* Writes a range down before it gets memory. In this order a kill in between leaves a range of no size. A fence of the
 * compiler is enough, as for a signal handler: a kill falls between two instructions, and who reads this after a death
 * has learned of it from the kernel. */
static int publish(tercio__arena *arena, uint64_t offset, uint64_t size, uint32_t *slot)
{
    if (!arena->published)
        return 0;
    uint32_t n = atomic_load_explicit(arena->n_published, memory_order_relaxed), i = 0; /* we alone write it */
    while (i < n && arena->published[i].size)
        i++;
    if (i == TERCIO__SEGMENTS)
        return TERCIO_ENOMEM;
    arena->published[i].offset = offset;
    atomic_signal_fence(memory_order_release);
    tercio__at("segment: offset written");
    arena->published[i].size = size;
    tercio__at("segment: size written");
    if (i == n)
        atomic_store_explicit(arena->n_published, n + 1, memory_order_release);
    *slot = i;
    return 0;
}

static void withdraw(tercio__arena *arena, uint32_t slot)
{
    if (!arena->published)
        return;
    arena->published[slot].size = 0;
    atomic_signal_fence(memory_order_release);
}

void tercio__segment_delete(struct segment *s)
{
    if (s) {
        free(s->tags);
        free(s->committed);
        free(s);
    }
}

struct segment *tercio__segment_add(tercio__arena *arena, uint64_t need, int *error)
{
    uint64_t size = arena->next_segment;
    if (need >= size / 4)
        size = (need + SEGMENT_UNIT - 1) / SEGMENT_UNIT * SEGMENT_UNIT;
    *error = TERCIO_ENOMEM;
    if (size / arena->page >= TERCIO__PAGES_FREE)
        return NULL;

    struct segment *s = calloc(1, sizeof *s);
    uint64_t *committed = NULL;
    uint32_t *tags = NULL;
    bool out = false;
    if (!s)
        return NULL;
    s->pages = s->largest = (uint32_t)(size / arena->page);
    s->tags = tags = calloc(s->pages, sizeof *tags);
    s->committed = committed = calloc(s->pages / 64 + 1, sizeof *committed);
    if (!tags || !committed)
        goto fail;
    if (arena->n_segments == arena->room_segments) {
        size_t room = arena->room_segments ? 2 * arena->room_segments : 8;
        struct segment **more = realloc(arena->segments, room * sizeof(struct segment *));
        if (!more)
            goto fail;
        arena->segments = more;
        arena->room_segments = room;
    }
    /* Ranges that were handed out before may have left the end anywhere; a page more makes up for it. */
    s->offset = atomic_fetch_add_explicit(arena->file_end, size, memory_order_relaxed);
    if (s->offset % arena->page) {
        s->offset = atomic_fetch_add_explicit(arena->file_end, size + arena->page, memory_order_relaxed);
        s->offset = (s->offset + arena->page - 1) / arena->page * arena->page;
    }
    *error = publish(arena, s->offset, size, &s->slot);
    if (*error)
        goto fail;
    out = true;
    tercio__at("segment: published");
    void *memory;
    *error = tercio__shm_map(arena->fd, s->offset, (size_t)size, TERCIO__MAP_SHARED, &memory);
    if (*error)
        goto fail;
    s->memory = memory;
    tercio__set_free(s, 0, s->pages);
    arena->segments[arena->n_segments++] = s;
    if (arena->next_segment < LARGEST_SEGMENT)
        arena->next_segment *= 2;
    return s;

fail:
    if (out)
        withdraw(arena, s->slot);
    tercio__segment_delete(s);
    return NULL;
}

/* An empty segment whose memory is gone is just address space and a line in a table that has an end. */
void tercio__segment_drop(tercio__arena *arena, struct segment *s)
{
    size_t i = 0;
    while (arena->segments[i] != s)
        i++;
    memmove(&arena->segments[i], &arena->segments[i + 1], (arena->n_segments - i - 1) * sizeof(struct segment *));
    arena->n_segments--;
    tercio__shm_unmap(s->memory, (size_t)s->pages * arena->page);
    withdraw(arena, s->slot);
    tercio__segment_delete(s);
}

struct segment *tercio__segment_at(const tercio__arena *arena, uint64_t offset)
{
    size_t low = 0, high = arena->n_segments;
    while (low < high) {
        size_t middle = (low + high) / 2;
        struct segment *s = arena->segments[middle];
        if (offset < s->offset)
            high = middle;
        else if (offset - s->offset >= (uint64_t)s->pages * arena->page)
            low = middle + 1;
        else
            return s;
    }
    return NULL;
}

bool tercio__segment_find(const tercio__arena *arena, struct segment *s, uint32_t pages, uint32_t *first)
{
    if (pages > s->largest)
        return false;
    uint32_t longest = 0;
    for (uint32_t at = 0; at < s->pages;) {
        uint32_t tag = s->tags[at];
        if (!(tag & TERCIO__PAGES_FREE)) {
            at += arena->records[tag].pages;
            continue;
        }
        uint32_t run = tag & ~TERCIO__PAGES_FREE;
        if (run >= pages) {
            *first = at;
            return true;
        }
        if (run > longest)
            longest = run;
        at += run;
    }
    s->largest = longest; /* the whole segment was seen */
    return false;
}

uint64_t tercio__segment_decommit(tercio__arena *arena, struct segment *s, uint64_t excess)
{
    for (uint32_t at = 0; at < s->pages && excess;) {
        uint32_t tag = s->tags[at], run = tag & ~TERCIO__PAGES_FREE;
        if (!(tag & TERCIO__PAGES_FREE)) {
            at += arena->records[tag].pages;
            continue;
        }
        for (uint32_t page = at, end = at + run, to; page < end && excess; page = to) {
            to = tercio__same_commitment(s, page, end);
            if (!tercio__is_committed(s, page))
                continue;
            uint64_t pages = (excess + arena->page - 1) / arena->page;
            if (pages < to - page)
                to = page + (uint32_t)pages;
            uint64_t bytes = (uint64_t)(to - page) * arena->page;
            tercio__decommit(arena, s, page, to);
            excess -= bytes < excess ? bytes : excess;
        }
        at += run;
    }
    return excess;
}
