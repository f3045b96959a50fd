/* SPDX-License-Identifier: MIT
 *
 * The items that took longest, as the worker writes them down: a short list in its channel, sorted, with a text for each.
 * The parent reads it at any time, also in the middle of a change. That is worth no lock: what is read is for people, and
 * right again at the next look.
 */
#include "worker/longest.h"

#include <string.h>

#include "base/atomics.h"
#include "channel/layout.h"
#include "tercio.h"
#include "worker/call.h"

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
