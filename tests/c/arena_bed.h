/* SPDX-License-Identifier: MIT
 *
 * An arena to try things with, and bytes to put there. Included by test_arena.c and test_arena_storm.c.
 */
#ifndef ARENA_BED_H
#define ARENA_BED_H

#include "child.h"

#include <string.h>
#include <sys/stat.h>

#include "base/forks.h"
#include "memory/arena.h"
#include "memory/views.h"
#include "plat/plat.h"

#define MIB (UINT64_C(1) << 20)

/* An arena and all that it is given. */
struct bed {
    tercio__file *file;
    tercio__arena *arena;
    _Atomic uint64_t end;
    tercio__range published[TERCIO__SEGMENTS];
    _Atomic uint32_t n_published;
};

static inline void make(struct bed *bed, bool heap)
{
    memset(bed, 0, sizeof *bed);
    atomic_init(&bed->end, 3 * tercio__page_size());
    int fd = heap ? -1 : tercio__shm_create();
    bed->file = tercio__file_new(fd);
    if (bed->file == NULL)
        abort();
    bed->arena = tercio__arena_new(bed->file, &bed->end, bed->published, &bed->n_published);
    if (bed->arena == NULL)
        abort();
}

static inline void unmake(struct bed *bed)
{
    tercio__arena_delete(bed->arena);
    tercio__file_unref(bed->file);
}

/* What a block is filled with: noise, from a place that depends on the seed. The length is prime, so that it never
 * agrees with pages. */
enum { noise_size = 65521 };
static unsigned char noise[noise_size];

static inline void make_noise(void)
{
    uint32_t x = 1;
    for (size_t i = 0; i < noise_size; i++)
        noise[i] = (unsigned char)((x = x * 1664525u + 1013904223u) >> 24);
}

static inline unsigned char *bytes_of(uint64_t seed, size_t size)
{
    unsigned char *bytes = malloc(size + 1);
    size_t from = (size_t)(seed * 7919 % noise_size);
    for (size_t at = 0, n; at < size; at += n, from = 0) {
        n = size - at < noise_size - from ? size - at : noise_size - from;
        memcpy(bytes + at, noise + from, n);
    }
    return bytes;
}

static inline bool holds(const void *data, uint64_t seed, size_t size)
{
    size_t from = (size_t)(seed * 7919 % noise_size);
    for (size_t at = 0, n; at < size; at += n, from = 0) {
        n = size - at < noise_size - from ? size - at : noise_size - from;
        if (memcmp((const unsigned char *)data + at, noise + from, n) != 0)
            return false;
    }
    return true;
}

static inline int put(struct bed *bed, uint64_t seed, size_t size, uint32_t state, tercio_block *block)
{
    unsigned char *bytes = bytes_of(seed, size);
    int error = tercio__arena_put(bed->arena, bytes, size, state, block);
    free(bytes);
    return error;
}

/* Bytes that the file has memory for. */
static inline uint64_t memory_of(const struct bed *bed)
{
    struct stat about;
    assert_int_equal(fstat(tercio__file_fd(bed->file), &about), 0);
    return (uint64_t)about.st_blocks * 512;
}

static inline uint64_t in_use(const struct bed *bed)
{
    return tercio__arena_in_use(bed->arena);
}

#endif
