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

/* A block of the heap lives until its owner and all of its views have dropped it. */
static inline _Atomic uint64_t *tercio__heap_block_refs(tercio__block_head *head)
{
    return (_Atomic uint64_t *)&head->reserved[0];
}

void tercio__heap_block_drop(tercio__block_head *);

#endif
