/* SPDX-License-Identifier: MIT */
#ifndef TERCIO_MEMORY_VIEWS_H
#define TERCIO_MEMORY_VIEWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "channel/layout.h"
#include "memory/block.h"
#include "tercio.h"

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
/* Rings `bell` once views of more than TERCIO__KEEP_COMMITTED bytes were closed in this process from now on; -1: don't. */
void tercio__file_listen(tercio__file *, int bell);
uint64_t tercio__file_returned(tercio__file *); /* bytes of views closed since then; caller: the process that made it */

#define TERCIO__KEEP_COMMITTED (UINT64_C(64) << 20)

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
/* Keeps the descriptor open until unuse. Returns: 0; TERCIO_ECLOSED when the file was retired. */
int tercio__file_use(tercio__file *);
void tercio__file_unuse(tercio__file *);
bool tercio__file_retired(tercio__file *);

/* A block of the heap lives until its owner and all of its views have dropped it; what is lent, also until the loan has
 * ended: a thread that is gone, and its arena with it, may have said so in a ring that nobody has read yet. */
static inline _Atomic uint64_t *tercio__heap_block_refs(tercio__block_head *head)
{
    return (_Atomic uint64_t *)&head->reserved[0];
}

void tercio__heap_block_drop(tercio__block_head *);
void tercio__heap_block_end(tercio__block_head *); /* of the loan, if it hasn't ended */

#endif
