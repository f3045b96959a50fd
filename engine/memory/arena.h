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
#ifndef TERCIO_MEMORY_ARENA_H
#define TERCIO_MEMORY_ARENA_H

#include <stddef.h>
#include <stdint.h>

#include "channel/layout.h"
#include "memory/block.h"
#include "memory/views.h"
#include "tercio.h"

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
/* Gives free memory back to the system but for TERCIO__KEEP_COMMITTED bytes. Until then what was in use lately is kept, used
 * or not: fresh memory costs several times as much. */
void tercio__arena_trim(tercio__arena *);
/* From now on the block is taken back when it was returned. `borrower` (not 0) is for reap. */
void tercio__arena_unhold(tercio__arena *, const tercio_block *, uint32_t borrower);
/* Frees all that is lent to a borrower who is dead. */
void tercio__arena_reap(tercio__arena *, uint32_t borrower);
/* The borrower is a thread that nobody looks after any more, and that may read on: each block is freed as soon as it is
 * returned, without the arena. Heap blocks alone. */
void tercio__arena_abandon(tercio__arena *, uint32_t borrower);
/* The data of a block of this arena. */
const void *tercio__arena_data(tercio__arena *, const tercio_block *);
uint64_t tercio__arena_in_use(const tercio__arena *); /* bytes lent or pinned */
uint64_t tercio__arena_held(const tercio__arena *);   /* bytes of memory, free ones included */

#endif
