/* SPDX-License-Identifier: MIT
 *
 * A block of shared memory: what it begins with.
 */
#ifndef TERCIO_MEMORY_BLOCK_H
#define TERCIO_MEMORY_BLOCK_H

#include <stdint.h>

enum {
    TERCIO__BLOCK_FREE,
    TERCIO__BLOCK_LENT,
    TERCIO__BLOCK_RETURNED,
    TERCIO__BLOCK_PINNED,
    TERCIO__BLOCK_HELD /* for put alone: lent, but not taken back before unhold, whatever the borrower says */
};

typedef struct {
    uint64_t magic;
    _Atomic uint32_t state;
    uint32_t generation;
    uint64_t size; /* of the data */
    uint64_t reserved[5];
} tercio__block_head;

_Static_assert(sizeof(tercio__block_head) == 64, "data begins on a cache line");

/* The owner's side. Not thread-safe: under the pool's lock in the parent, the worker's one thread in a worker. */
typedef struct tercio__arena tercio__arena;

#define TERCIO__BLOCK_MAGIC UINT64_C(0x6b636f6c626f6974)

/* What a packed block begins with. */
typedef struct {
    uint64_t magic, head_size, n_blocks, reserved[5]; /* a cache line: what follows is aligned like it */
} tercio__packed;

#endif
