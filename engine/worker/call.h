/* SPDX-License-Identifier: MIT
 *
 * A worker's own state: what tercio_call points to. Private to this folder.
 */
#ifndef TERCIO_WORKER_CALL_H
#define TERCIO_WORKER_CALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "channel/channel.h"
#include "channel/layout.h"
#include "memory/block.h"
#include "memory/views.h"
#include "tercio.h"
#include "worker/worker.h"

enum { TERCIO__CONTEXTS = 8 };

typedef struct {
    uint32_t id; /* 0: free */
    bool failed; /* open_context said no; every item of it fails with what was left */
    void *state;
    uint64_t used_at;
} tercio__open_context;

struct tercio_call {
    const tercio__worker_start *start;
    const tercio_host *host;
    void *user;
    void *host_pointer; /* tercio_call_user */
    tercio__page *page;
    tercio__channel *words;
    tercio__taker taker;
    tercio__file *file;
    tercio__arena *arena; /* made when first needed */
    uint32_t trimmed;     /* what channel.trim was when it was heeded last */
    uint32_t fork_generation;

    /* what runs */
    uint64_t sequence;
    tercio__slot *slot; /* NULL: nothing */
    uint32_t item;      /* of the message: answered so far */
    uint32_t item_at_start;
    bool timed, quiet;      /* flags of the slot */
    bool in_row;            /* what was published last is the answer of the item before `item`, of this message */
    bool told;              /* the host has heard that the rest of the message is not wanted */
    uint64_t unread_blocks; /* bytes of blocks in records that the parent has not read ... */
    uint64_t unread_until;  /* ... all of them lie before this place of the up ring */

    tercio__open_context contexts[TERCIO__CONTEXTS];
    tercio__open_context *last;
    uint64_t n_takes;
    bool worked, inited;

    /* tercio_leave */
    bool left;
    int left_status;
    tercio_bytes left_parts[1];
    unsigned char *left_bytes;
    size_t left_size;

    uint64_t now; /* when the last thing ended; of quick messages, when one of the last did */
    unsigned n_unnoted;
    bool is_quick;
    bool owes_ring; /* messages were passed and nobody was told: this is done at the latest before it waits */
    uint64_t spin_ns;
    unsigned spin_skips;

    tercio_view prepare; /* options.prepare, for the worker's life */
    tercio_view shares[TERCIO__SHARES];
    bool share_open[TERCIO__SHARES];
};

/* Publishes a record; waits for room. Returns 0 or an error (nothing was published). */
int tercio__call_send(tercio_call *, int kind, int status, int code, const tercio_bytes *parts, size_t n_parts);
/* Sends what was left with tercio_leave, if anything, as `kind`; without anything, `status` alone. */
void tercio__call_send_left(tercio_call *, int kind, int status);
void tercio__call_forget_left(tercio_call *);
/* B2: rings the parent if it wants to hear; `passed`: a message was finished. */
void tercio__call_ring(tercio_call *, bool passed);
/* Sleeps until there may be something to do; `asleep`: TERCIO__ASLEEP or TERCIO__ASLEEP_FOR_ROOM. */
void tercio__call_sleep(tercio_call *, uint32_t asleep, bool (*ready)(tercio_call *));
void tercio__call_phase(tercio_call *, uint32_t phase);
/* As tercio__view_open, of the pool's file. Ends a process whose descriptor of that was closed by a task. */
int tercio__call_open(tercio_call *, const tercio_block *, tercio_view *);
/* page.table_hash of the pool that a worker belongs to (worker.c). */
uint64_t tercio__call_table_hash(const tercio_call *);

#endif
