/* SPDX-License-Identifier: MIT
 *
 * Results on their way from the rings to whoever asks for them. Small answers are copied out of the ring at once, so
 * that one slow reader never blocks a ring that others need. Entries lie side by side in pages; a page is freed when
 * all of its entries were read and released.
 */
#include "pool/inbox.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "state/result.h"
#include "tercio.h"

enum { FIRST_PAGE = 1 << 12, NEXT_PAGE = 1 << 15 };

/* An entry as it lies in a page: a good answer of a few bytes takes a cache line. */
typedef struct {
    uint64_t index, cookie;
    uint32_t bytes; /* of all: this header, blocks, out, trouble, message */
    uint32_t out_size;
    int32_t status, code;
    uint32_t worker, attempts;
    uint16_t n_blocks;
    uint8_t kind;
    bool troubled; /* a `trouble` and the message follow */
    uint32_t n_items;
} stored;

typedef struct {
    uint64_t peak_rss;
    int32_t signal, pid;
    uint32_t message_size;
    bool out_of_memory;
} trouble;

static size_t round8(size_t bytes)
{
    return (bytes + 7) & ~(size_t)7;
}

static tercio__inbox_page *add_page(tercio__inbox *inbox, size_t bytes)
{
    size_t size = inbox->last == NULL ? FIRST_PAGE : NEXT_PAGE;
    if (size < bytes)
        size = bytes;
    tercio__inbox_page *page = malloc(sizeof *page + size);
    if (page == NULL)
        return NULL;
    page->next = NULL;
    page->used = page->read = page->refs = 0;
    page->size = size;
    if (inbox->last == NULL)
        inbox->first = page;
    else
        inbox->last->next = page;
    inbox->last = page;
    return page;
}

int tercio__inbox_add(tercio__inbox *inbox, const tercio__entry *entry, const tercio_block *blocks, const void *out,
                      const char *message)
{
    size_t block_bytes = entry->n_blocks * sizeof(tercio_block), out_bytes = round8(entry->out_size);
    bool troubled = entry->signal || entry->pid || entry->message_size || entry->peak_rss || entry->out_of_memory;
    size_t bytes =
        sizeof(stored) + block_bytes + out_bytes + (troubled ? sizeof(trouble) + round8(entry->message_size) : 0);
    tercio__inbox_page *page = inbox->last;

    if ((page == NULL || page->size - page->used < bytes) && (page = add_page(inbox, bytes)) == NULL)
        return TERCIO_ENOMEM;
    unsigned char *at = page->bytes + page->used;
    stored *head = (stored *)(void *)at;
    *head = (stored){.index = entry->index,
                     .cookie = entry->cookie,
                     .bytes = (uint32_t)bytes,
                     .out_size = (uint32_t)entry->out_size,
                     .status = entry->status,
                     .code = entry->code,
                     .worker = entry->worker,
                     .attempts = entry->attempts,
                     .n_blocks = (uint16_t)entry->n_blocks,
                     .kind = (uint8_t)entry->kind,
                     .troubled = troubled,
                     .n_items = entry->n_items ? entry->n_items : 1};
    at += sizeof *head;
    if (block_bytes)
        memcpy(at, blocks, block_bytes);
    at += block_bytes;
    if (entry->out_size)
        memcpy(at, out, entry->out_size);
    at += out_bytes;
    if (troubled) {
        *(trouble *)(void *)at = (trouble){.peak_rss = entry->peak_rss,
                                           .signal = entry->signal,
                                           .pid = entry->pid,
                                           .message_size = entry->message_size,
                                           .out_of_memory = entry->out_of_memory};
        if (entry->message_size)
            memcpy(at + sizeof(trouble), message, entry->message_size);
    }
    page->used += bytes;
    return 0;
}

static void drop_first_page(tercio__inbox *inbox)
{
    tercio__inbox_page *page = inbox->first;
    inbox->first = page->next;
    if (inbox->first == NULL)
        inbox->last = NULL;
    if (page->refs == 0) {
        free(page);
        return;
    }
    page->size = 0; /* the last release frees it, or the end of the run */
    page->previous = NULL;
    page->next = inbox->read;
    if (page->next)
        page->next->previous = page;
    inbox->read = page;
}

static void take_trouble(tercio_result *result, const unsigned char *at)
{
    const trouble *t = (const trouble *)(const void *)at;
    result->peak_rss = t->peak_rss;
    result->signal = t->signal;
    result->pid = t->pid;
    result->out_of_memory = t->out_of_memory;
    if (t->message_size) {
        size_t n = t->message_size < sizeof result->message ? t->message_size : sizeof result->message;
        memcpy(result->message, at + sizeof *t, n);
        result->message[n - 1] = '\0';
    }
}

bool tercio__inbox_take(tercio__inbox *inbox, tercio_result *result)
{
    tercio__inbox_page *page = inbox->first;
    if (page == NULL)
        return false;
    const stored *head = (const stored *)(const void *)(page->bytes + page->read);
    const unsigned char *at = (const unsigned char *)(head + 1);

    page->read += head->bytes;
    page->refs++;
    result->size = sizeof *result;
    result->index = head->index;
    result->status = head->status;
    result->code = head->code;
    result->worker = head->worker;
    result->attempts = head->attempts;
    result->kind = head->kind;
    result->cookie = head->cookie;
    result->n_blocks = head->n_blocks;
    result->n_items = head->n_items;
    result->blocks = head->n_blocks ? (const tercio_block *)(const void *)at : NULL;
    at += head->n_blocks * sizeof(tercio_block);
    result->out = (tercio_bytes){at, head->out_size};
    result->signal = result->pid = 0;
    result->peak_rss = 0;
    result->out_of_memory = false;
    result->message[0] = '\0';
    if (head->troubled)
        take_trouble(result, at + round8(head->out_size));
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
    if (--page->refs > 0 || page->size > 0)
        return;
    if (page->previous)
        page->previous->next = page->next;
    else
        inbox->read = page->next;
    if (page->next)
        page->next->previous = page->previous;
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

void tercio__inbox_end(tercio__inbox *inbox)
{
    while (inbox->read) {
        tercio__inbox_page *page = inbox->read;
        inbox->read = page->next;
        free(page);
    }
}
