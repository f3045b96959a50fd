/* SPDX-License-Identifier: MIT
 *
 * The items that took longest. The worker keeps a short list in its channel, sorted, with a text for each; whoever
 * reads it may come in the middle of a change. That is worth no lock: what is read is for people, and right again at
 * the next look.
 */
#include <string.h>

#include "call.h"

#define LOAD(word, order) atomic_load_explicit(&(word), memory_order_##order)
#define STORE(word, value, order) atomic_store_explicit(&(word), (value), memory_order_##order)

/* ---- In the worker ---------------------------------------------------------------------------------------------- */

static void put_text(tercio__channel *words, uint32_t place, const char *text, size_t size)
{
    uint64_t copy[TERCIO_LONGEST_TEXT / 8] = {0};
    memcpy(copy, text, size < sizeof copy ? size : sizeof copy - 1);
    for (size_t i = 0; i < TERCIO_LONGEST_TEXT / 8; i++)
        STORE(words->longest_text[place][i], copy[i], relaxed);
}

bool tercio__note_longest(tercio_call *call, uint64_t index, uint64_t ns)
{
    tercio__channel *words = call->words;
    tercio__longest *list = words->longest;
    if (ns <= LOAD(list[TERCIO__TOP - 1].ns, relaxed))
        return false;
    uint32_t n = 0;
    while (n < TERCIO__TOP && LOAD(list[n].text, relaxed))
        n++;
    /* The shortest of a full list leaves, and its text's place is free. */
    uint32_t at = n < TERCIO__TOP ? n : TERCIO__TOP - 1;
    uint32_t text = n < TERCIO__TOP ? n + 1 : LOAD(list[at].text, relaxed);
    for (; at > 0 && LOAD(list[at - 1].ns, relaxed) < ns; at--) {
        STORE(list[at].ns, LOAD(list[at - 1].ns, relaxed), relaxed);
        STORE(list[at].index, LOAD(list[at - 1].index, relaxed), relaxed);
        STORE(list[at].text, LOAD(list[at - 1].text, relaxed), relaxed);
    }
    STORE(list[at].ns, ns, relaxed);
    STORE(list[at].index, index, relaxed);
    STORE(list[at].text, text, relaxed);
    char said[TERCIO_LONGEST_TEXT];
    size_t size = 0;
    const tercio_host *host = call->host;
    if (host != NULL && host->size > offsetof(tercio_host, describe) && host->describe)
        size = host->describe(call->user, call, said, sizeof said - 1);
    put_text(words, text - 1, said, size < sizeof said ? size : sizeof said - 1);
    return true;
}

/* ---- In the parent ---------------------------------------------------------------------------------------------- */

/* Puts what a worker's channel tells into a list that is sorted and of n entries. */
static void merge(tercio__past *past, const tercio__channel *words)
{
    for (uint32_t i = 0; i < TERCIO__TOP; i++) {
        const tercio__longest *entry = &words->longest[i];
        uint64_t ns = LOAD(entry->ns, relaxed);
        uint32_t text = LOAD(entry->text, relaxed), at = TERCIO__TOP;
        while (at > 0 && past[at - 1].ns < ns)
            at--;
        if (ns == 0 || at == TERCIO__TOP)
            continue;
        memmove(&past[at + 1], &past[at], (TERCIO__TOP - 1 - at) * sizeof *past);
        past[at] = (tercio__past){.ns = ns, .index = LOAD(entry->index, relaxed)};
        uint64_t copy[TERCIO_LONGEST_TEXT / 8] = {0};
        if (text >= 1 && text <= TERCIO__TOP) /* a worker may have written anything */
            for (size_t j = 0; j < TERCIO_LONGEST_TEXT / 8; j++)
                copy[j] = LOAD(words->longest_text[text - 1][j], relaxed);
        memcpy(past[at].text, copy, sizeof copy);
        past[at].text[sizeof past[at].text - 1] = 0;
    }
}

void tercio__keep_longest(tercio__worker *worker)
{
    merge(worker->past_longest, worker->sender.map.words);
}

int tercio_get_longest(tercio_pool *pool, unsigned index, tercio_longest *longest, size_t n)
{
    if (pool == NULL || index >= pool->n_workers || (n && tercio__struct_fits(longest, sizeof longest->size)))
        return TERCIO_EINVAL;
    if (!tercio__is_ours(pool))
        return TERCIO_EFORKED;
    size_t size = n ? longest->size : 0, filled = 0;
    tercio__past all[TERCIO__TOP];
    tercio__lock(pool);
    const tercio__worker *worker = &pool->workers[index];
    memcpy(all, worker->past_longest, sizeof all);
    if (worker->state != TERCIO_STATE_NONE && worker->sender.map.words)
        merge(all, worker->sender.map.words);
    tercio__unlock(pool);
    for (; filled < n && filled < TERCIO__TOP && all[filled].ns; filled++) {
        tercio_longest one = {.index = all[filled].index, .seconds = (double)all[filled].ns * 1e-9};
        memcpy(one.text, all[filled].text, sizeof one.text);
        memcpy((char *)longest + filled * size, &size, sizeof size);
        tercio__struct_write((char *)longest + filled * size, &one, sizeof one);
    }
    return (int)filled;
}
