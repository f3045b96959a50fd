/* SPDX-License-Identifier: MIT
 *
 * Results on their way to the caller, before they are handed out. pool/inbox.c fills and empties the pages.
 */
#ifndef TERCIO_STATE_RESULT_H
#define TERCIO_STATE_RESULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tercio__inbox_page tercio__inbox_page;

/* Results on their way to the caller: pages of entries. Filled under the lock, then handed over whole. */
struct tercio__inbox_page {
    tercio__inbox_page *next, *previous;
    size_t used, size, read;
    size_t refs; /* entries handed out and not released */
    _Alignas(16) unsigned char bytes[];
};

typedef struct {
    tercio__inbox_page *first, *last;
    tercio__inbox_page *read; /* to the end, but with entries that are out */
} tercio__inbox;

/* A result without its bytes. */
typedef struct {
    uint64_t index, cookie, peak_rss;
    int32_t status, code, signal, kind, pid;
    uint32_t worker, attempts, n_blocks;
    uint32_t n_items; /* of a row; 0: one */
    size_t out_size;
    uint32_t message_size; /* with the zero at its end; 0: none */
    bool out_of_memory;
} tercio__entry;

static inline bool tercio__inbox_empty(const tercio__inbox *inbox)
{
    return inbox->first == NULL;
}

#endif
