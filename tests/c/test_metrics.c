/* SPDX-License-Identifier: MIT
 *
 * The items that took longest: the worker's list, what is kept of it, and readers who meet nonsense in it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pool/stats.h"
#include "state/pool.h"
#include "worker/call.h"
#include "worker/longest.h"

#define LOAD(word) atomic_load_explicit(&(word), memory_order_relaxed)

static unsigned asked;

static size_t describe(void *user, tercio_call *call, char *text, size_t room)
{
    (void)call;
    asked++;
    int n = snprintf(text, room, "item %d", *(int *)user);
    return n < 0 ? 0 : (size_t)n;
}

static size_t describe_at_length(void *user, tercio_call *call, char *text, size_t room)
{
    (void)user;
    (void)call;
    memset(text, 'x', room);
    return room;
}

typedef struct {
    tercio_host host;
    tercio__channel words;
    tercio_call call;
    tercio_pool pool;
    tercio__worker worker;
    int item;
} bench;

static int set_up(void **state)
{
    bench *b = aligned_alloc(_Alignof(bench), sizeof *b);
    if (b == NULL)
        return -1;
    memset(b, 0, sizeof *b);
    b->host = (tercio_host){.size = sizeof b->host, .describe = describe};
    b->call.words = &b->words;
    b->call.host = &b->host;
    b->call.user = &b->item;
    b->worker.sender.map.words = &b->words;
    b->worker.pool = &b->pool;
    if (pthread_mutex_init(&b->pool.lock, NULL))
        return -1;
    tercio__lock(&b->pool);
    asked = 0;
    *state = b;
    return 0;
}

static int tear_down(void **state)
{
    bench *b = *state;
    tercio__unlock(&b->pool);
    pthread_mutex_destroy(&b->pool.lock);
    free(b);
    return 0;
}

static bool note(bench *b, int item, uint64_t ns)
{
    b->item = item;
    return tercio__note_longest(&b->call, (uint64_t)item, ns);
}

static void is_kept(const bench *b, unsigned place, int item, uint64_t ns)
{
    char text[32];
    snprintf(text, sizeof text, "item %d", item);
    assert_int_equal(b->worker.past_longest[place].ns, ns);
    assert_int_equal(b->worker.past_longest[place].index, item);
    assert_string_equal(b->worker.past_longest[place].text, text);
}

static void the_longest_with_their_texts(void **state)
{
    bench *b = *state;
    static const uint64_t took[] = {30, 10, 50, 20, 40, 5, 60, 25, 60, 1};
    for (int i = 0; i < 10; i++)
        note(b, i, took[i]);
    tercio__keep_longest(&b->worker);
    is_kept(b, 0, 6, 60);
    is_kept(b, 1, 8, 60); /* of equals the first comes first */
    is_kept(b, 2, 2, 50);
    is_kept(b, 3, 4, 40);
    is_kept(b, 4, 0, 30);
}

static void nobody_is_asked_about_short_ones(void **state)
{
    bench *b = *state;
    for (int i = 0; i < 5; i++)
        assert_true(note(b, i, 100));
    assert_int_equal(asked, 5);
    assert_false(note(b, 5, 100));
    assert_false(note(b, 6, 1));
    assert_int_equal(asked, 5);
    assert_true(note(b, 7, 101));
    assert_int_equal(asked, 6);
}

static void lists_of_several_workers_are_one(void **state)
{
    bench *b = *state;
    for (int i = 0; i < 4; i++)
        note(b, i, (uint64_t)(10 * i + 10));
    tercio__keep_longest(&b->worker);
    memset(&b->words, 0, sizeof b->words); /* the next one in its place */
    for (int i = 10; i < 13; i++)
        note(b, i, (uint64_t)(10 * i - 65));
    tercio__keep_longest(&b->worker);
    is_kept(b, 0, 12, 55);
    is_kept(b, 1, 11, 45);
    is_kept(b, 2, 3, 40);
    is_kept(b, 3, 10, 35);
    is_kept(b, 4, 2, 30);
}

static void texts_are_cut_and_may_be_missing(void **state)
{
    bench *b = *state;
    b->host.describe = describe_at_length;
    note(b, 1, 20);
    b->host.describe = NULL;
    note(b, 2, 10);
    b->host.size = offsetof(tercio_host, describe); /* an older program's */
    note(b, 3, 5);
    tercio__keep_longest(&b->worker);
    assert_int_equal(strlen(b->worker.past_longest[0].text), TERCIO_LONGEST_TEXT - 1);
    assert_string_equal(b->worker.past_longest[1].text, "");
    assert_int_equal(b->worker.past_longest[2].index, 3);
    assert_int_equal(b->worker.past_longest[3].ns, 0);
}

/* A worker that was killed in the middle, or that wrote over its own memory. */
static void nonsense_is_survived(void **state)
{
    bench *b = *state;
    for (unsigned seed = 1; seed < 200; seed++) {
        srand(seed);
        for (unsigned i = 0; i < TERCIO_LONGEST; i++) {
            atomic_store(&b->words.longest[i].ns, (uint64_t)rand());
            atomic_store(&b->words.longest[i].text, (uint32_t)rand() % 9);
            for (unsigned j = 0; j < TERCIO_LONGEST_TEXT / 8; j++)
                atomic_store(&b->words.longest_text[i][j], UINT64_MAX);
        }
        memset(b->worker.past_longest, 0, sizeof b->worker.past_longest);
        tercio__keep_longest(&b->worker);
        for (unsigned i = 1; i < TERCIO_LONGEST; i++)
            assert_true(b->worker.past_longest[i - 1].ns >= b->worker.past_longest[i].ns);
        for (unsigned i = 0; i < TERCIO_LONGEST; i++)
            assert_true(strlen(b->worker.past_longest[i].text) < TERCIO_LONGEST_TEXT);
    }
    assert_true(LOAD(b->words.longest[0].ns) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_longest_with_their_texts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nobody_is_asked_about_short_ones, set_up, tear_down),
        cmocka_unit_test_setup_teardown(lists_of_several_workers_are_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(texts_are_cut_and_may_be_missing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nonsense_is_survived, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
