/* SPDX-License-Identifier: MIT
 *
 * An arena's insides: segments of the pool's file, the pages in them, and which of those have memory. Private to
 * arena.c (blocks: who has which) and segment.c (pages: which are free, and which are committed).
 */
#ifndef TERCIO_MEMORY_SEGMENT_H
#define TERCIO_MEMORY_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "channel/layout.h"
#include "memory/block.h"
#include "memory/views.h"

#define TERCIO__PAGES_FREE UINT32_C(0x80000000) /* a tag: the rest of it is the length of a free run */

#define TERCIO__FIRST_SEGMENT (UINT64_C(4) << 20)

struct segment {
    uint64_t offset;
    uint32_t pages, largest; /* largest: no free run is longer */
    uint32_t n_used;         /* pages of blocks */
    uint32_t slot;           /* in `published` */
    char *memory;
    uint32_t *tags;
    uint64_t *committed; /* a bit a page */
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
    uint64_t in_use, committed; /* bytes */
    uint64_t peak[2];           /* most in use in this window of puts, and in the one before */
    unsigned puts;              /* in this window */
};

static inline bool tercio__is_committed(const struct segment *s, uint32_t page)
{
    return s->committed[page / 64] >> (page % 64) & 1;
}

/* The end of the stretch of pages of one kind, committed or not, that begins at `page`. */
uint32_t tercio__same_commitment(const struct segment *, uint32_t page, uint32_t end);
void tercio__set_committed(tercio__arena *, struct segment *, uint32_t page, uint32_t end, bool committed);
/* Gives the memory of these pages back. */
void tercio__decommit(tercio__arena *, struct segment *, uint32_t page, uint32_t end);
void tercio__set_free(struct segment *, uint32_t first, uint32_t pages);
/* Returns NULL and an error where there is none to be had. */
struct segment *tercio__segment_add(tercio__arena *, uint64_t need, int *error);
void tercio__segment_drop(tercio__arena *, struct segment *);
void tercio__segment_delete(struct segment *); /* the heap's part of it alone */
struct segment *tercio__segment_at(const tercio__arena *, uint64_t offset);
/* The first free run that is long enough; the lowest pages are the likeliest to be committed. Returns: false: none. */
bool tercio__segment_find(const tercio__arena *, struct segment *, uint32_t pages, uint32_t *first);
/* Decommits free runs until `excess` bytes are gone. Returns: how many are left to go. */
uint64_t tercio__segment_decommit(tercio__arena *, struct segment *, uint64_t excess);

#endif
