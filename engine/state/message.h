/* SPDX-License-Identifier: MIT
 *
 * A message on its way to a worker, and what its run sends to each worker once.
 */
#ifndef TERCIO_STATE_MESSAGE_H
#define TERCIO_STATE_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tercio.h"

typedef struct tercio__worker tercio__worker;
typedef struct tercio__context tercio__context;
typedef struct tercio__chunk tercio__chunk;

enum { TERCIO__ABORT_NO, TERCIO__ABORT_CANCEL, TERCIO__ABORT_TIMEOUT, TERCIO__ABORT_DROP };

/* A message: in a worker's ring (then it lies in worker->inflight), or waiting in the pool (then it is on
 * pool->pending and owns a copy of its bytes). */
struct tercio__chunk {
    tercio_run *run; /* NULL: over, or its run was closed and nobody wants the answers */
    uint64_t index, cookie;
    uint64_t turn; /* number of the message within its run */
    uint32_t n_items;
    uint32_t done;     /* items answered: the first so many */
    uint32_t attempts; /* times that item number `done` was handed out */
    uint32_t n_blocks;
    bool head_in_block;
    bool anywhere;       /* any worker may have it, also one that has begun a later message of its run */
    bool over;           /* nothing is owed any more: answered, taken back or dropped */
    bool held;           /* counts in pool->n_held */
    uint32_t abort;      /* TERCIO__ABORT_...: why it is being stopped */
    uint32_t abort_item; /* the item that was meant */
    uint64_t timeout_ns; /* the run's, which it outlives; 0: none */
    tercio__context *context;
    uint32_t head_size; /* of parts[0] in the ring */
    uint64_t ring_end;  /* down_used behind it */
    uint64_t lent;      /* bytes of its blocks */
    /* on pool->pending only */
    tercio__chunk *next;
    unsigned char *copy; /* blocks, then parts[0] */
};

struct tercio__context {
    uint32_t id, refs;   /* the run, and each chunk under way */
    tercio_block block;  /* pinned; offset 0: none */
    tercio_block *parts; /* its large parts, pinned too */
    size_t n_parts;
    bool is_stranded;
    tercio__context *next; /* on pool->stranded */
};

#endif
