/* SPDX-License-Identifier: MIT
 *
 * Large payloads in shared memory. Each side allocates from its own arena alone; the other side maps what it is
 * lent, privately, and says when it is done with it by one store to the block's header. So no lock joins the two,
 * and whoever dies leaves nothing half-done that the other needs.
 *
 * A block is a whole number of pages:
 *
 *     struct tercio__block_head (64 bytes)   state: written by the owner before it lends, then by the borrower once
 *     data
 *
 * Owner:     arena_put (LENT) ... reclaim (sees RETURNED, reuses) or free (whatever the state: the borrower is dead
 *            or was never told).
 * Borrower:  view_open (private mapping) ... view_close (RETURNED).
 *
 * A view that this process held while it forked is never returned: the child still reads the same pages, and reuse
 * would show there. Its block stays lent until the pool's memory goes.
 *
 * Under threading there is no file: a block is heap memory, its offset is its address, and a view is the block
 * itself.
 */
#ifndef TERCIO_ARENA_H
#define TERCIO_ARENA_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "channel_layout.h"
#include "tercio.h"

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

/* The file, counted: views outlive pools. Thread-safe. */
typedef struct tercio__file tercio__file;
/* Takes the descriptor over; fd < 0: heap (threading). Returns NULL: no memory. */
tercio__file *tercio__file_new(int fd);
tercio__file *tercio__file_ref(tercio__file *);
void tercio__file_unref(tercio__file *); /* the last one closes the descriptor */
/* The pool is gone: views need not be returned any more, and the descriptor is closed as soon as no arena and no call
 * uses it. */
void tercio__file_retire(tercio__file *);
int tercio__file_fd(const tercio__file *);
/* Around a fork: takes the lock if it is free, so that the child's copy can be walked. Returns: whether it has it. */
bool tercio__file_hold(tercio__file *);
void tercio__file_let_go(tercio__file *);
/* In a child that was forked since the file was made: closes the descriptor, and frees the file whatever refers to it.
 * Views that are open there may be closed later. `is_whole`: the lock was held during the fork. */
void tercio__file_forget(tercio__file *, bool is_whole);
/* Rings `bell` once views of more than TERCIO__KEEP_WARM bytes were closed in this process from now on; -1: don't. */
void tercio__file_listen(tercio__file *, int bell);
uint64_t tercio__file_returned(tercio__file *); /* bytes of views closed since then; caller: the process that made it */

/* The owner's side. Not thread-safe: under the pool's lock in the parent, the worker's one thread in a worker. */
typedef struct tercio__arena tercio__arena;

/* `file_end` is page.file_end; `published` (may be NULL) and `n_published` are where ranges are written down before
 * they get memory, so that another process can free them after a death. Returns NULL: no memory. */
tercio__arena *tercio__arena_new(tercio__file *, _Atomic uint64_t *file_end, tercio__range *published,
                                 _Atomic uint32_t *n_published);
void tercio__arena_delete(tercio__arena *); /* unmaps; the memory itself goes with the file */

/* Copies `size` bytes into a new block. state: TERCIO__BLOCK_LENT or _PINNED. Returns: 0; TERCIO_ENOMEM, _ESYSTEM. */
int tercio__arena_put(tercio__arena *, const void *data, size_t size, uint32_t state, tercio_block *);
/* The same with n pieces one behind the other. */
int tercio__arena_putv(tercio__arena *, const tercio_bytes *pieces, size_t n, uint32_t state, tercio_block *);
/* A block whose data the caller fills in place (memory is reserved). */
int tercio__arena_alloc(tercio__arena *, size_t size, uint32_t state, tercio_block *, void **data);
void tercio__arena_free(tercio__arena *, const tercio_block *);
/* Looks at a few lent blocks, oldest first, and takes back those that were returned; put calls it, and looks at all
 * of them before it asks for a new segment. */
void tercio__arena_reclaim(tercio__arena *);
/* Gives free memory back to the system but for TERCIO__KEEP_WARM bytes. Until then what was in use lately is kept, used
 * or not: fresh memory costs several times as much. */
void tercio__arena_trim(tercio__arena *);
#define TERCIO__KEEP_WARM (UINT64_C(64) << 20)
/* From now on the block is taken back when it was returned. `borrower` (not 0) is for bury. */
void tercio__arena_unhold(tercio__arena *, const tercio_block *, uint32_t borrower);
/* Frees all that is lent to a borrower who is dead. */
void tercio__arena_bury(tercio__arena *, uint32_t borrower);
/* The borrower is a thread that nobody looks after any more, and that may read on: each block is freed as soon as it is
 * returned, without the arena. Heap blocks alone. */
void tercio__arena_abandon(tercio__arena *, uint32_t borrower);
/* The data of a block of this arena. */
const void *tercio__arena_data(tercio__arena *, const tercio_block *);
uint64_t tercio__arena_in_use(const tercio__arena *); /* bytes lent or pinned */
uint64_t tercio__arena_held(const tercio__arena *);   /* bytes of memory, free ones included */

/* The borrower's side; any thread. What the block's descriptor says is checked against the file and the block's
 * head, and the block must still be lent or pinned. Views of pinned blocks are never returned, so there may be
 * several. Returns: 0; TERCIO_EPROTOCOL, _ENOMEM, _ESYSTEM, _ECLOSED (the file was retired). */
int tercio__view_open(tercio__file *, const tercio_block *, tercio_view *);
void tercio__view_close(tercio_view *);
/* Tells the owner that a block which was never opened is not needed. */
void tercio__block_return(tercio__file *, const tercio_block *);

/* The owner of these ranges is dead: gives their memory back, but for the blocks in `kept` (told to this process and
 * not opened yet) and those of views that are open, which follow when they are returned or closed.
 * Caller: the process that made the file; the owner must be gone. Returns: 0; TERCIO_ENOMEM: nothing was done. */
int tercio__file_discard(tercio__file *, const tercio__range *, size_t n, const tercio_block *kept, size_t n_kept);

/* Registers the fork handler of this process, once; counts forks. */
void tercio__fork_watch(void);
uint32_t tercio__fork_generation(void); /* changes in a forked child */
uint32_t tercio__fork_count(void);      /* changes in a parent that forked, too */

#endif
