/* SPDX-License-Identifier: MIT
 *
 * Results on their way from the rings to whoever asks for them. Small answers are copied out of the ring at once, so
 * that one slow reader never blocks a ring that others need. Entries lie side by side in pages; a page is freed when
 * all of its entries were read and released.
 */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { FIRST_PAGE = 1 << 12, NEXT_PAGE = 1 << 15 };

typedef struct {
    tercio__entry entry;
    size_t bytes; /* of all: this header, blocks, out, message */
} stored;

static size_t round16(size_t bytes) { return (bytes + 15) & ~(size_t)15; }

int tercio__inbox_add(tercio__inbox *inbox, const tercio__entry *entry, const tercio_block *blocks, const void *out,
                      const char *message)
{
    size_t block_bytes = entry->n_blocks * sizeof(tercio_block);
    size_t bytes = round16(sizeof(stored) + block_bytes + entry->out_size + entry->message_size);
    tercio__inbox_page *page = inbox->last;

    if (page == NULL || page->size - page->used < bytes) {
        size_t size = page == NULL ? FIRST_PAGE : NEXT_PAGE;
        if (size < bytes)
            size = bytes;
        page = malloc(sizeof *page + size);
        if (page == NULL)
            return TERCIO_ENOMEM;
        page->next = NULL;
        page->used = page->read = page->refs = 0;
        page->size = size;
        if (inbox->last == NULL)
            inbox->first = page;
        else
            inbox->last->next = page;
        inbox->last = page;
    }
    unsigned char *at = page->bytes + page->used;
    stored *head = (stored *)(void *)at;
    head->entry = *entry;
    head->bytes = bytes;
    at += sizeof *head;
    if (block_bytes)
        memcpy(at, blocks, block_bytes);
    at += block_bytes;
    if (entry->out_size)
        memcpy(at, out, entry->out_size);
    if (entry->message_size)
        memcpy(at + entry->out_size, message, entry->message_size);
    page->used += bytes;
    return 0;
}

static void drop_first_page(tercio__inbox *inbox)
{
    tercio__inbox_page *page = inbox->first;
    inbox->first = page->next;
    if (inbox->first == NULL)
        inbox->last = NULL;
    if (page->refs == 0)
        free(page);
    else
        page->size = 0; /* the last release frees it */
}

bool tercio__inbox_take(tercio__inbox *inbox, tercio_result *result)
{
    tercio__inbox_page *page = inbox->first;
    if (page == NULL)
        return false;
    stored *head = (stored *)(void *)(page->bytes + page->read);
    const tercio__entry *entry = &head->entry;
    unsigned char *at = (unsigned char *)(head + 1);

    page->read += head->bytes;
    page->refs++;
    result->size = sizeof *result;
    result->index = entry->index;
    result->status = entry->status;
    result->code = entry->code;
    result->signal = entry->signal;
    result->out_of_memory = entry->out_of_memory;
    result->worker = entry->worker;
    result->attempts = entry->attempts;
    result->peak_rss = entry->peak_rss;
    result->kind = entry->kind;
    result->pid = entry->pid;
    result->cookie = entry->cookie;
    result->n_blocks = entry->n_blocks;
    result->blocks = entry->n_blocks ? (const tercio_block *)(const void *)at : NULL;
    result->out.data = at + entry->n_blocks * sizeof(tercio_block);
    result->out.size = entry->out_size;
    result->message[0] = '\0';
    if (entry->message_size) {
        size_t n = entry->message_size < sizeof result->message ? entry->message_size : sizeof result->message;
        memcpy(result->message, (const char *)result->out.data + entry->out_size, n);
        result->message[n - 1] = '\0';
    }
    result->internal = page;
    if (page->read == page->used)
        drop_first_page(inbox);
    return true;
}

void tercio__inbox_release(tercio__inbox *inbox, tercio_result *result)
{
    tercio__inbox_page *page = result->internal;
    if (page == NULL)
        return;
    result->internal = NULL;
    (void)inbox;
    if (--page->refs == 0 && page->size == 0)
        free(page);
}

void tercio__inbox_clear(tercio__inbox *inbox, void (*drop)(void *user, tercio_result *), void *user)
{
    tercio_result result;
    while (tercio__inbox_take(inbox, &result)) {
        if (drop)
            drop(user, &result);
        tercio__inbox_release(inbox, &result);
    }
}
