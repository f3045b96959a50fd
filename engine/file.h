/* SPDX-License-Identifier: MIT
 *
 * What arena.c (the owner's side) and file.c (the borrower's) know of each other.
 */
#ifndef TERCIO_FILE_H
#define TERCIO_FILE_H

#include "arena.h"

#define TERCIO__BLOCK_MAGIC UINT64_C(0x6b636f6c626f6974)

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
