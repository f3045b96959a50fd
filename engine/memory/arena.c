/* SPDX-License-Identifier: MIT
 *
 * The owner's side of the arenas: blocks, and who has them. The pages that they lie in are segment.c's.
 *
 * A page is committed when it has memory. Decommitted pages are written through the file, so that a lack of memory is
 * an error and not a signal (a first touch is cheaper that way, too); committed pages are written through the
 * mapping.
 */
#include "memory/arena.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/forks.h"
#include "channel/layout.h"
#include "memory/block.h"
#include "memory/segment.h"
#include "memory/views.h"
#include "plat/plat.h"
#include "tercio.h"

enum { looks_per_put = 4, puts_per_window = 64 };

tercio__arena *tercio__arena_new(tercio__file *file, _Atomic uint64_t *file_end, tercio__range *published,
                                 _Atomic uint32_t *n_published)
{
    tercio__arena *arena = calloc(1, sizeof *arena);
    if (!arena)
        return NULL;
    arena->records = calloc(16, sizeof *arena->records);
    if (!arena->records || tercio__file_use(file)) {
        free(arena->records);
        free(arena);
        return NULL;
    }
    arena->room_records = 16;
    arena->n_records = 1;
    arena->file = tercio__file_ref(file);
    arena->fd = tercio__file_fd(file);
    arena->generation = tercio__fork_generation();
    arena->page = tercio__page_size();
    arena->file_end = file_end;
    arena->published = published;
    arena->n_published = n_published;
    arena->next_segment = TERCIO__FIRST_SEGMENT;
    return arena;
}

/* ---- Records --------------------------------------------------------------------------------------------------- */

static uint32_t new_record(tercio__arena *arena)
{
    uint32_t id = arena->unused;
    if (id) {
        arena->unused = arena->records[id].next;
        return id;
    }
    if (arena->n_records == arena->room_records) {
        if (arena->room_records >= TERCIO__PAGES_FREE / 2)
            return 0;
        struct record *more = realloc(arena->records, 2 * (size_t)arena->room_records * sizeof *more);
        if (!more)
            return 0;
        arena->records = more;
        arena->room_records *= 2;
    }
    return arena->n_records++;
}

static void free_record(tercio__arena *arena, uint32_t id)
{
    arena->records[id] = (struct record){.next = arena->unused};
    arena->unused = id;
}

static void link_lent(tercio__arena *arena, uint32_t id)
{
    struct record *r = arena->records;
    uint32_t last = r[0].previous;
    r[id].previous = last;
    r[id].next = 0;
    r[last].next = id;
    r[0].previous = id;
    r[id].lent = true;
}

static void unlink_lent(tercio__arena *arena, uint32_t id)
{
    struct record *r = arena->records;
    r[r[id].previous].next = r[id].next;
    r[r[id].next].previous = r[id].previous;
    r[id].lent = false;
}

/* ---- Giving pages back ----------------------------------------------------------------------------------------- */

static void free_run(tercio__arena *arena, struct segment *s, uint32_t first, uint32_t pages)
{
    s->n_used -= pages;
    if (first && (s->tags[first - 1] & TERCIO__PAGES_FREE)) {
        uint32_t before = s->tags[first - 1] & ~TERCIO__PAGES_FREE;
        first -= before;
        pages += before;
    }
    if (first + pages < s->pages && (s->tags[first + pages] & TERCIO__PAGES_FREE))
        pages += s->tags[first + pages] & ~TERCIO__PAGES_FREE;
    tercio__set_free(s, first, pages);

    uint64_t peak = arena->peak[0] > arena->peak[1] ? arena->peak[0] : arena->peak[1];
    if (arena->committed > peak + TERCIO__KEEP_COMMITTED) {
        tercio__decommit(arena, s, first, first + pages);
        if (s->n_used == 0 && arena->n_segments > 1)
            tercio__segment_drop(arena, s);
    }
}

/* What was in use lately will be again, and fresh memory costs several times as much as committed. */
static void note_use(tercio__arena *arena)
{
    if (++arena->puts > puts_per_window) {
        arena->puts = 0;
        arena->peak[1] = arena->peak[0];
        arena->peak[0] = 0;
    }
    if (arena->in_use > arena->peak[0])
        arena->peak[0] = arena->in_use;
}

static void free_block(tercio__arena *arena, uint32_t id)
{
    struct record r = arena->records[id];
    if (r.lent)
        unlink_lent(arena, id);
    free_record(arena, id);
    arena->in_use -= r.bytes;
    if (!r.segment) {
        arena->committed -= r.bytes;
        tercio__heap_block_end(r.head); /* never told, or told to somebody who is gone */
        tercio__heap_block_drop(r.head);
        return;
    }
    /* A descriptor of it that somebody kept by mistake must not be believed. */
    r.head->magic = 0;
    atomic_store_explicit(&r.head->state, TERCIO__BLOCK_FREE, memory_order_relaxed);
    free_run(arena, r.segment, r.first, r.pages);
}

/* Looks at `looks` lent blocks; those that still are go behind the others, so that one that is kept for long hides
 * none. */
static void look(tercio__arena *arena, uint32_t looks)
{
    for (; looks && arena->records[0].next; looks--) {
        uint32_t id = arena->records[0].next;
        /* Acquire: the borrower's last reads come before our next writes. */
        uint32_t state = atomic_load_explicit(&arena->records[id].head->state, memory_order_acquire);
        if (state == TERCIO__BLOCK_RETURNED) {
            free_block(arena, id);
        } else {
            unlink_lent(arena, id);
            link_lent(arena, id);
        }
    }
}

void tercio__arena_reclaim(tercio__arena *arena)
{
    look(arena, looks_per_put);
}

/* Gives free memory back but for `keep` bytes, and the segments that are then empty. */
static void give_up(tercio__arena *arena, uint64_t keep)
{
    look(arena, arena->n_records);
    uint64_t kept = arena->in_use + keep, excess = arena->committed > kept ? arena->committed - kept : 0;
    for (size_t i = arena->n_segments; i-- > 0;) {
        struct segment *s = arena->segments[i];
        excess = tercio__segment_decommit(arena, s, excess);
        if (s->n_used == 0 && arena->n_segments > 1 && !tercio__is_committed(s, 0) &&
            tercio__same_commitment(s, 0, s->pages) == s->pages)
            tercio__segment_drop(arena, s);
    }
}

void tercio__arena_trim(tercio__arena *arena)
{
    if (arena->fd < 0)
        return;
    give_up(arena, TERCIO__KEEP_COMMITTED);
    arena->peak[0] = arena->in_use;
    arena->peak[1] = 0;
    arena->puts = 0;
}

/* ---- Putting --------------------------------------------------------------------------------------------------- */

static int heap_block(tercio__arena *arena, size_t size, uint32_t id)
{
    struct record *r = &arena->records[id];
    size_t bytes = (size + sizeof *r->head + 63) / 64 * 64;
    tercio__block_head *head = aligned_alloc(64, bytes);
    if (!head)
        return TERCIO_ENOMEM;
    *r = (struct record){.head = head, .bytes = bytes};
    arena->committed += bytes;
    return 0;
}

/* Pages for a block: out of a segment there is, after a look at all that was lent, or out of a new one. */
static int file_block(tercio__arena *arena, size_t size, uint32_t id)
{
    uint64_t bytes = (size + sizeof(tercio__block_head) + arena->page - 1) / arena->page * arena->page;
    if (bytes / arena->page >= TERCIO__PAGES_FREE)
        return TERCIO_ENOMEM;
    uint32_t pages = (uint32_t)(bytes / arena->page), first = 0;
    struct segment *s = NULL;
    for (int round = 0; round < 2 && !s; round++) {
        if (round)
            look(arena, arena->n_records);
        for (size_t i = 0; i < arena->n_segments && !s; i++)
            if (tercio__segment_find(arena, arena->segments[i], pages, &first))
                s = arena->segments[i];
    }
    if (!s) {
        int error;
        s = tercio__segment_add(arena, bytes, &error);
        if (!s) { /* what is kept committed may be in the way */
            give_up(arena, 0);
            s = tercio__segment_add(arena, bytes, &error);
        }
        if (!s)
            return error;
        first = 0;
    }
    uint32_t run = s->tags[first] & ~TERCIO__PAGES_FREE;
    s->tags[first + pages - 1] = 0;
    s->tags[first] = id;
    if (run > pages)
        tercio__set_free(s, first + pages, run - pages);
    s->n_used += pages;
    void *head = s->memory + (uint64_t)first * arena->page;
    arena->records[id] = (struct record){.head = head, .segment = s, .first = first, .pages = pages, .bytes = bytes};
    return 0;
}

/* Copies to a place in a block of a segment. */
static int fill(tercio__arena *arena, const struct record *r, uint64_t at, const void *data, size_t size)
{
    const struct segment *s = r->segment;
    const char *from = data;
    uint64_t begin = (uint64_t)r->first * arena->page + at;
    while (size) {
        uint32_t page = (uint32_t)(begin / arena->page);
        uint64_t end = (uint64_t)tercio__same_commitment(s, page, r->first + r->pages) * arena->page;
        size_t n = end - begin < size ? (size_t)(end - begin) : size;
        if (tercio__is_committed(s, page)) {
            memcpy(s->memory + begin, from, n);
        } else {
            int error = tercio__shm_write(arena->fd, s->offset + begin, from, n);
            if (error)
                return error;
        }
        begin += n;
        from += n;
        size -= n;
    }
    return 0;
}

static int commit_pages(tercio__arena *arena, const struct record *r)
{
    uint32_t end = r->first + r->pages;
    for (uint32_t page = r->first; page < end;) {
        uint32_t to = tercio__same_commitment(r->segment, page, end);
        if (!tercio__is_committed(r->segment, page)) {
            int error = tercio__shm_reserve(arena->fd, r->segment->offset + (uint64_t)page * arena->page,
                                            (uint64_t)(to - page) * arena->page);
            if (error)
                return error;
        }
        page = to;
    }
    return 0;
}

/* pieces NULL: nothing is copied, and all of the block gets memory. */
static int put(tercio__arena *arena, const tercio_bytes *pieces, size_t n, size_t size, uint32_t state,
               tercio_block *block, void **data)
{
    assert(state == TERCIO__BLOCK_LENT || state == TERCIO__BLOCK_PINNED || state == TERCIO__BLOCK_HELD);
    assert(arena->generation == tercio__fork_generation());
    if (size > (size_t)PTRDIFF_MAX / 2)
        return TERCIO_ENOMEM;
    tercio__arena_reclaim(arena);
    uint32_t id = new_record(arena);
    if (!id)
        return TERCIO_ENOMEM;
    int error = arena->fd < 0 ? heap_block(arena, size, id) : file_block(arena, size, id);
    if (error)
        goto no_block;
    struct record *r = &arena->records[id];

    tercio__block_head head = {.magic = TERCIO__BLOCK_MAGIC, .generation = ++arena->serial, .size = size};
    atomic_init(&head.state, state == TERCIO__BLOCK_HELD ? TERCIO__BLOCK_LENT : state);
    if (!r->segment) {
        memcpy(r->head, &head, sizeof head);
        atomic_init(tercio__heap_block_refs(r->head), state == TERCIO__BLOCK_PINNED ? 1 : 2);
        r->head->reserved[1] = id;
        char *to = (char *)(r->head + 1);
        for (size_t i = 0; i < n; to += pieces[i].size, i++)
            if (pieces[i].size)
                memcpy(to, pieces[i].data, pieces[i].size);
    } else {
        uint64_t at = sizeof head;
        error = pieces ? 0 : commit_pages(arena, r);
        if (!error && !pieces)
            tercio__set_committed(arena, r->segment, r->first, r->first + r->pages, true);
        if (!error)
            error = fill(arena, r, 0, &head, sizeof head);
        for (size_t i = 0; i < n && !error; at += pieces[i].size, i++)
            error = fill(arena, r, at, pieces[i].data, pieces[i].size);
        if (error)
            goto no_memory;
        tercio__set_committed(arena, r->segment, r->first, r->first + r->pages, true);
    }
    tercio__at("block: filled");
    if (state == TERCIO__BLOCK_LENT)
        link_lent(arena, id);
    arena->in_use += r->bytes;
    note_use(arena);
    block->offset = r->segment ? r->segment->offset + (uint64_t)r->first * arena->page : (uint64_t)(uintptr_t)r->head;
    block->size = size;
    if (data)
        *data = r->head + 1;
    return 0;

no_memory : {
    int saved_errno = errno;
    struct record failed = *r;
    tercio__decommit(arena, failed.segment, failed.first, failed.first + failed.pages);
    free_run(arena, failed.segment, failed.first, failed.pages);
    errno = saved_errno;
}
no_block:
    free_record(arena, id);
    return error;
}

int tercio__arena_putv(tercio__arena *arena, const tercio_bytes *pieces, size_t n, uint32_t state, tercio_block *block)
{
    size_t size = 0;
    for (size_t i = 0; i < n; i++) {
        if (pieces[i].size > (size_t)PTRDIFF_MAX - size)
            return TERCIO_ENOMEM;
        size += pieces[i].size;
    }
    static const tercio_bytes nothing;
    return put(arena, n ? pieces : &nothing, n, size, state, block, NULL);
}

int tercio__arena_put(tercio__arena *arena, const void *data, size_t size, uint32_t state, tercio_block *block)
{
    tercio_bytes piece = {data, size};
    return tercio__arena_putv(arena, &piece, 1, state, block);
}

int tercio__arena_alloc(tercio__arena *arena, size_t size, uint32_t state, tercio_block *block, void **data)
{
    return put(arena, NULL, 0, size, state, block, data);
}

/* The record of a block of this arena; 0: there is none, which is a mistake of the caller's. */
static uint32_t record_of(const tercio__arena *arena, const tercio_block *block)
{
    assert(arena->generation == tercio__fork_generation());
    uint32_t id = 0;
    if (arena->fd < 0) {
        id = (uint32_t)((tercio__block_head *)(uintptr_t)block->offset)->reserved[1];
    } else {
        const struct segment *s = tercio__segment_at(arena, block->offset);
        uint32_t page = s ? (uint32_t)((block->offset - s->offset) / arena->page) : 0;
        uint32_t tag = s ? s->tags[page] : 0;
        if (tag && !(tag & TERCIO__PAGES_FREE) && tag < arena->n_records && arena->records[tag].segment == s &&
            arena->records[tag].first == page)
            id = tag;
    }
    assert(id && "a block of this arena, freed once");
    return id;
}

void tercio__arena_free(tercio__arena *arena, const tercio_block *block)
{
    uint32_t id = record_of(arena, block);
    if (id)
        free_block(arena, id);
}

void tercio__arena_unhold(tercio__arena *arena, const tercio_block *block, uint32_t borrower)
{
    uint32_t id = record_of(arena, block);
    if (!id || arena->records[id].lent)
        return;
    arena->records[id].borrower = borrower;
    link_lent(arena, id);
}

void tercio__arena_reap(tercio__arena *arena, uint32_t borrower)
{
    for (uint32_t id = arena->records[0].next, next; id; id = next) {
        next = arena->records[id].next;
        if (arena->records[id].borrower == borrower)
            free_block(arena, id);
    }
}

void tercio__arena_abandon(tercio__arena *arena, uint32_t borrower)
{
    for (uint32_t id = arena->records[0].next, next; id; id = next) {
        struct record r = arena->records[id];
        next = r.next;
        if (r.borrower != borrower || r.segment)
            continue;
        unlink_lent(arena, id);
        free_record(arena, id);
        arena->in_use -= r.bytes;
        arena->committed -= r.bytes;
        tercio__heap_block_drop(r.head); /* the borrower's own reference stays until it returns the block */
    }
}

const void *tercio__arena_data(tercio__arena *arena, const tercio_block *block)
{
    uint32_t id = record_of(arena, block);
    return arena->records[id].head + 1;
}

uint64_t tercio__arena_in_use(const tercio__arena *arena)
{
    return arena->in_use;
}

uint64_t tercio__arena_held(const tercio__arena *arena)
{
    return arena->committed;
}

void tercio__arena_delete(tercio__arena *arena)
{
    if (!arena)
        return;
    /* In a forked child the mappings were not inherited, and others may lie there by now; the heap's blocks were copied. */
    bool ours = arena->generation == tercio__fork_generation();
    bool pool_is_gone = !ours || tercio__file_retired(arena->file);
    for (uint32_t id = 1; id < arena->n_records && arena->fd < 0; id++)
        if (arena->records[id].head) {
            if (pool_is_gone) /* then nobody will look at what was lent and not seen yet */
                tercio__heap_block_end(arena->records[id].head);
            tercio__heap_block_drop(arena->records[id].head);
        }
    for (size_t i = 0; i < arena->n_segments; i++) {
        if (ours)
            tercio__shm_unmap(arena->segments[i]->memory, (size_t)arena->segments[i]->pages * arena->page);
        tercio__segment_delete(arena->segments[i]);
    }
    free(arena->segments);
    free(arena->records);
    tercio__file_unuse(arena->file);
    tercio__file_unref(arena->file);
    free(arena);
}
