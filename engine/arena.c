/* SPDX-License-Identifier: MIT
 *
 * The owner's side of the arenas: segments of the pool's file, and an allocator of whole pages in each.
 *
 * What the allocator knows lies in its own heap, so nothing that another process does to the shared pages can
 * confuse it, and a kill leaves nothing to repair. The pages of a segment are told apart by one tag each:
 *
 *     first and last page of a free run     FREE | pages of the run
 *     first page of a block                 the number of its record
 *     last page of a longer block           0
 *     all others                            left over; never looked at
 *
 * so that a run that becomes free finds its neighbours in one look each.
 *
 * A page is warm when it has memory. Cold ones are written through the file, where a lack of memory is an error and
 * not a signal (and where a first touch is cheaper, too); warm ones are stored to.
 */
#include "arena.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fault.h"
#include "file.h"
#include "plat/plat.h"

#define FREE UINT32_C(0x80000000)
#define FIRST_SEGMENT (UINT64_C(4) << 20)
#define LARGEST_SEGMENT (UINT64_C(64) << 20)
#define SEGMENT_UNIT (UINT64_C(2) << 20)

enum { looks_per_put = 4, puts_per_window = 64 };

struct segment {
    uint64_t offset;
    uint32_t pages, largest; /* largest: no free run is longer */
    uint32_t n_used;         /* pages of blocks */
    uint32_t slot;           /* in `published` */
    char *memory;
    uint32_t *tags;
    uint64_t *warm; /* a bit a page */
};

struct record {
    tercio__block_head *head;
    struct segment *segment; /* NULL: heap */
    uint32_t first, pages;
    uint64_t bytes;
    uint32_t next, previous; /* in the list of lent blocks, or of unused records (next) */
    uint32_t borrower;       /* 0: unknown */
    bool lent;
};

struct tercio__arena {
    tercio__file *file;
    int fd;
    uint32_t generation; /* of the process that made it */
    uint32_t serial;
    size_t page;
    _Atomic uint64_t *file_end;
    tercio__range *published;
    _Atomic uint32_t *n_published;
    struct segment **segments; /* by offset */
    size_t n_segments, room_segments;
    uint64_t next_segment;  /* bytes */
    struct record *records; /* 0 is the head of the list of lent blocks, which is a ring */
    uint32_t n_records, room_records, unused;
    uint64_t in_use, warm; /* bytes */
    uint64_t peak[2];      /* most in use in this window of puts, and in the one before */
    unsigned puts;         /* in this window */
};

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
    arena->next_segment = FIRST_SEGMENT;
    return arena;
}

/* ---- Warmth ---------------------------------------------------------------------------------------------------- */

static bool is_warm(const struct segment *s, uint32_t page)
{
    return s->warm[page / 64] >> (page % 64) & 1;
}

/* The end of the stretch of equal warmth that begins at `page`. */
static uint32_t same_warmth(const struct segment *s, uint32_t page, uint32_t end)
{
    bool warm = is_warm(s, page);
    uint64_t whole = warm ? UINT64_MAX : 0;
    while (page < end)
        if (page % 64 == 0 && end - page >= 64 && s->warm[page / 64] == whole)
            page += 64;
        else if (is_warm(s, page) == warm)
            page++;
        else
            break;
    return page;
}

static void set_warm(tercio__arena *arena, struct segment *s, uint32_t page, uint32_t end, bool warm)
{
    for (; page < end; page++) {
        if (is_warm(s, page) == warm)
            continue;
        s->warm[page / 64] ^= UINT64_C(1) << (page % 64);
        arena->warm += warm ? arena->page : (uint64_t)0 - arena->page;
    }
}

static void make_cold(tercio__arena *arena, struct segment *s, uint32_t page, uint32_t end)
{
    tercio__shm_punch(arena->fd, s->offset + (uint64_t)page * arena->page, (uint64_t)(end - page) * arena->page);
    set_warm(arena, s, page, end, false);
}

/* ---- Segments -------------------------------------------------------------------------------------------------- */

static void set_free(struct segment *s, uint32_t first, uint32_t pages)
{
    s->tags[first] = s->tags[first + pages - 1] = FREE | pages;
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

static void free_segment(struct segment *s)
{
    if (s) {
        free(s->tags);
        free(s->warm);
        free(s);
    }
}

static struct segment *add_segment(tercio__arena *arena, uint64_t need, int *error)
{
    uint64_t size = arena->next_segment;
    if (need >= size / 4)
        size = (need + SEGMENT_UNIT - 1) / SEGMENT_UNIT * SEGMENT_UNIT;
    *error = TERCIO_ENOMEM;
    if (size / arena->page >= FREE)
        return NULL;

    struct segment *s = calloc(1, sizeof *s);
    uint64_t *warm = NULL;
    uint32_t *tags = NULL;
    bool out = false;
    if (!s)
        return NULL;
    s->pages = s->largest = (uint32_t)(size / arena->page);
    s->tags = tags = calloc(s->pages, sizeof *tags);
    s->warm = warm = calloc(s->pages / 64 + 1, sizeof *warm);
    if (!tags || !warm)
        goto fail;
    if (arena->n_segments == arena->room_segments) {
        size_t room = arena->room_segments ? 2 * arena->room_segments : 8;
        struct segment **more = realloc(arena->segments, room * sizeof(struct segment *));
        if (!more)
            goto fail;
        arena->segments = more;
        arena->room_segments = room;
    }
    /* Whoever handed ranges out before may have left the end anywhere; a page more makes up for it. */
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
    set_free(s, 0, s->pages);
    arena->segments[arena->n_segments++] = s;
    if (arena->next_segment < LARGEST_SEGMENT)
        arena->next_segment *= 2;
    return s;

fail:
    if (out)
        withdraw(arena, s->slot);
    free_segment(s);
    return NULL;
}

/* An empty segment whose memory is gone is just address space and a line in a table that has an end. */
static void drop_segment(tercio__arena *arena, struct segment *s)
{
    size_t i = 0;
    while (arena->segments[i] != s)
        i++;
    memmove(&arena->segments[i], &arena->segments[i + 1], (arena->n_segments - i - 1) * sizeof(struct segment *));
    arena->n_segments--;
    tercio__shm_unmap(s->memory, (size_t)s->pages * arena->page);
    withdraw(arena, s->slot);
    free_segment(s);
}

static struct segment *segment_of(const tercio__arena *arena, uint64_t offset)
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

/* The first free run that is long enough; the lowest pages are the likeliest to be warm. Returns: false: none. */
static bool find_run(const tercio__arena *arena, struct segment *s, uint32_t pages, uint32_t *first)
{
    if (pages > s->largest)
        return false;
    uint32_t longest = 0;
    for (uint32_t at = 0; at < s->pages;) {
        uint32_t tag = s->tags[at];
        if (!(tag & FREE)) {
            at += arena->records[tag].pages;
            continue;
        }
        uint32_t run = tag & ~FREE;
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

/* ---- Records --------------------------------------------------------------------------------------------------- */

static uint32_t new_record(tercio__arena *arena)
{
    uint32_t id = arena->unused;
    if (id) {
        arena->unused = arena->records[id].next;
        return id;
    }
    if (arena->n_records == arena->room_records) {
        if (arena->room_records >= FREE / 2)
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
    if (first && (s->tags[first - 1] & FREE)) {
        uint32_t before = s->tags[first - 1] & ~FREE;
        first -= before;
        pages += before;
    }
    if (first + pages < s->pages && (s->tags[first + pages] & FREE))
        pages += s->tags[first + pages] & ~FREE;
    set_free(s, first, pages);

    uint64_t peak = arena->peak[0] > arena->peak[1] ? arena->peak[0] : arena->peak[1];
    if (arena->warm > peak + TERCIO__KEEP_WARM) {
        make_cold(arena, s, first, first + pages);
        if (s->n_used == 0 && arena->n_segments > 1)
            drop_segment(arena, s);
    }
}

/* What was in use lately will be again: memory that is warm costs a fifth of fresh one. */
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
        arena->warm -= r.bytes;
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

/* Cools free runs of a segment until `excess` bytes are gone. Returns: how many are left to go. */
static uint64_t cool(tercio__arena *arena, struct segment *s, uint64_t excess)
{
    for (uint32_t at = 0; at < s->pages && excess;) {
        uint32_t tag = s->tags[at], run = tag & ~FREE;
        if (!(tag & FREE)) {
            at += arena->records[tag].pages;
            continue;
        }
        for (uint32_t page = at, end = at + run, to; page < end && excess; page = to) {
            to = same_warmth(s, page, end);
            if (!is_warm(s, page))
                continue;
            uint64_t pages = (excess + arena->page - 1) / arena->page;
            if (pages < to - page)
                to = page + (uint32_t)pages;
            uint64_t bytes = (uint64_t)(to - page) * arena->page;
            make_cold(arena, s, page, to);
            excess -= bytes < excess ? bytes : excess;
        }
        at += run;
    }
    return excess;
}

/* Gives free memory back but for `keep` bytes, and the segments that are then empty. */
static void give_up(tercio__arena *arena, uint64_t keep)
{
    look(arena, arena->n_records);
    uint64_t kept = arena->in_use + keep, excess = arena->warm > kept ? arena->warm - kept : 0;
    for (size_t i = arena->n_segments; i-- > 0 && excess;) {
        struct segment *s = arena->segments[i];
        excess = cool(arena, s, excess);
        if (s->n_used == 0 && arena->n_segments > 1 && !is_warm(s, 0) && same_warmth(s, 0, s->pages) == s->pages)
            drop_segment(arena, s);
    }
}

void tercio__arena_trim(tercio__arena *arena)
{
    if (arena->fd < 0)
        return;
    give_up(arena, TERCIO__KEEP_WARM);
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
    arena->warm += bytes;
    return 0;
}

/* Pages for a block: out of a segment there is, after a look at all that was lent, or out of a new one. */
static int file_block(tercio__arena *arena, size_t size, uint32_t id)
{
    uint64_t bytes = (size + sizeof(tercio__block_head) + arena->page - 1) / arena->page * arena->page;
    if (bytes / arena->page >= FREE)
        return TERCIO_ENOMEM;
    uint32_t pages = (uint32_t)(bytes / arena->page), first = 0;
    struct segment *s = NULL;
    for (int round = 0; round < 2 && !s; round++) {
        if (round)
            look(arena, arena->n_records);
        for (size_t i = 0; i < arena->n_segments && !s; i++)
            if (find_run(arena, arena->segments[i], pages, &first))
                s = arena->segments[i];
    }
    if (!s) {
        int error;
        s = add_segment(arena, bytes, &error);
        if (!s) { /* what is kept warm may be in the way */
            give_up(arena, 0);
            s = add_segment(arena, bytes, &error);
        }
        if (!s)
            return error;
        first = 0;
    }
    uint32_t run = s->tags[first] & ~FREE;
    s->tags[first + pages - 1] = 0;
    s->tags[first] = id;
    if (run > pages)
        set_free(s, first + pages, run - pages);
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
        uint64_t end = (uint64_t)same_warmth(s, page, r->first + r->pages) * arena->page;
        size_t n = end - begin < size ? (size_t)(end - begin) : size;
        if (is_warm(s, page)) {
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

static int warm_up(tercio__arena *arena, const struct record *r)
{
    uint32_t end = r->first + r->pages;
    for (uint32_t page = r->first; page < end;) {
        uint32_t to = same_warmth(r->segment, page, end);
        if (!is_warm(r->segment, page)) {
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
        error = pieces ? 0 : warm_up(arena, r);
        if (!error && !pieces)
            set_warm(arena, r->segment, r->first, r->first + r->pages, true);
        if (!error)
            error = fill(arena, r, 0, &head, sizeof head);
        for (size_t i = 0; i < n && !error; at += pieces[i].size, i++)
            error = fill(arena, r, at, pieces[i].data, pieces[i].size);
        if (error)
            goto no_memory;
        set_warm(arena, r->segment, r->first, r->first + r->pages, true);
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
    int kept = errno;
    struct record failed = *r;
    make_cold(arena, failed.segment, failed.first, failed.first + failed.pages);
    free_run(arena, failed.segment, failed.first, failed.pages);
    errno = kept;
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
        const struct segment *s = segment_of(arena, block->offset);
        uint32_t page = s ? (uint32_t)((block->offset - s->offset) / arena->page) : 0;
        uint32_t tag = s ? s->tags[page] : 0;
        if (tag && !(tag & FREE) && tag < arena->n_records && arena->records[tag].segment == s &&
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

void tercio__arena_bury(tercio__arena *arena, uint32_t borrower)
{
    for (uint32_t id = arena->records[0].next, next; id; id = next) {
        next = arena->records[id].next;
        if (arena->records[id].borrower == borrower)
            free_block(arena, id);
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
    return arena->warm;
}

void tercio__arena_delete(tercio__arena *arena)
{
    if (!arena)
        return;
    /* In a forked child the mappings were not inherited, and others may lie there by now. */
    bool ours = arena->generation == tercio__fork_generation();
    bool pool_is_gone = tercio__file_retired(arena->file);
    for (uint32_t id = 1; id < arena->n_records && ours && arena->fd < 0; id++)
        if (arena->records[id].head) {
            if (pool_is_gone) /* then nobody will look at what was lent and not seen yet */
                tercio__heap_block_end(arena->records[id].head);
            tercio__heap_block_drop(arena->records[id].head);
        }
    for (size_t i = 0; i < arena->n_segments; i++) {
        if (ours)
            tercio__shm_unmap(arena->segments[i]->memory, (size_t)arena->segments[i]->pages * arena->page);
        free_segment(arena->segments[i]);
    }
    free(arena->segments);
    free(arena->records);
    tercio__file_unuse(arena->file);
    tercio__file_unref(arena->file);
    free(arena);
}
