/* SPDX-License-Identifier: MIT
 *
 * Inboxes: entries come out as they went in, whole; what was handed out outlives the inbox until it is released.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <string.h>

#include "pool/inbox.h"

static int add(tercio__inbox *inbox, uint64_t index, size_t size, uint32_t n_blocks, const char *message)
{
    tercio_block blocks[8];
    unsigned char *out = malloc(size + 1);
    for (uint32_t i = 0; i < n_blocks; i++)
        blocks[i] = (tercio_block){index + i, size};
    memset(out, (int)(index & 0xFF), size);
    tercio__entry entry = {.index = index,
                           .status = -(int32_t)(index % 5),
                           .code = (int32_t)index,
                           .n_blocks = n_blocks,
                           .out_size = size,
                           .message_size = message ? (uint32_t)strlen(message) + 1 : 0};
    int error = tercio__inbox_add(inbox, &entry, blocks, out, message);
    free(out);
    return error;
}

static void check(const tercio_result *result, uint64_t index, size_t size, uint32_t n_blocks, const char *message)
{
    const unsigned char *out = result->out.data;
    assert_int_equal(result->index, index);
    assert_int_equal(result->status, -(int)(index % 5));
    assert_int_equal(result->code, index);
    assert_int_equal(result->n_blocks, n_blocks);
    assert_int_equal(result->out.size, size);
    for (size_t i = 0; i < size; i++)
        assert_int_equal(out[i], index & 0xFF);
    for (uint32_t i = 0; i < n_blocks; i++)
        assert_int_equal(result->blocks[i].offset, index + i);
    assert_string_equal(result->message, message ? message : "");
}

static size_t size_of(uint64_t index)
{
    return index % 97 == 0 ? 100000 : index * 31 % 700;
}

static void in_order_and_whole(void **state)
{
    tercio__inbox inbox = {0};
    tercio_result result;
    (void)state;
    for (uint64_t round = 0; round < 3; round++) {
        for (uint64_t i = 0; i < 500; i++)
            assert_int_equal(add(&inbox, i, size_of(i), (uint32_t)(i % 4), i % 3 ? NULL : "a message"), 0);
        for (uint64_t i = 0; i < 500; i++) {
            assert_true(tercio__inbox_take(&inbox, &result));
            check(&result, i, size_of(i), (uint32_t)(i % 4), i % 3 ? NULL : "a message");
            tercio__inbox_release(&inbox, &result);
            tercio__inbox_release(&inbox, &result); /* twice is once */
        }
        assert_true(tercio__inbox_empty(&inbox));
        assert_false(tercio__inbox_take(&inbox, &result));
    }
}

static void kept_while_others_come_and_go(void **state)
{
    enum { KEPT = 50 };
    tercio__inbox inbox = {0};
    tercio_result kept[KEPT], result;
    (void)state;
    for (uint64_t i = 0; i < KEPT; i++) {
        assert_int_equal(add(&inbox, 2 * i, 300, 1, NULL), 0);
        assert_int_equal(add(&inbox, 2 * i + 1, 300, 0, NULL), 0);
        assert_true(tercio__inbox_take(&inbox, &kept[i]));
        assert_true(tercio__inbox_take(&inbox, &result));
        tercio__inbox_release(&inbox, &result);
    }
    tercio__inbox_clear(&inbox, NULL, NULL);
    for (uint64_t i = KEPT; i-- > 0;) {
        check(&kept[i], 2 * i, 300, 1, NULL);
        tercio__inbox_release(&inbox, &kept[i]);
    }
}

static void long_messages_are_cut(void **state)
{
    tercio__inbox inbox = {0};
    tercio_result result;
    char text[1000];
    (void)state;
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    assert_int_equal(add(&inbox, 1, 0, 0, text), 0);
    assert_true(tercio__inbox_take(&inbox, &result));
    assert_int_equal(strlen(result.message), sizeof result.message - 1);
    tercio__inbox_release(&inbox, &result);
}

static void count_one(void *user, tercio_result *result)
{
    uint64_t *sum = user;
    *sum += result->index;
}

static void cleared(void **state)
{
    tercio__inbox inbox = {0};
    tercio_result kept;
    uint64_t sum = 0;
    (void)state;
    for (uint64_t i = 0; i <= 200; i++)
        assert_int_equal(add(&inbox, i, 500, 0, NULL), 0);
    assert_true(tercio__inbox_take(&inbox, &kept));
    tercio__inbox_clear(&inbox, count_one, &sum);
    assert_int_equal(sum, 200 * 201 / 2);
    assert_true(tercio__inbox_empty(&inbox));
    check(&kept, 0, 500, 0, NULL);
    tercio__inbox_release(&inbox, &kept);
    tercio__inbox_clear(&inbox, count_one, &sum);
    assert_int_equal(sum, 200 * 201 / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_order_and_whole),
        cmocka_unit_test(kept_while_others_come_and_go),
        cmocka_unit_test(long_messages_are_cut),
        cmocka_unit_test(cleared),
    };
    return cmocka_run_group_tests_name("inbox", tests, NULL, NULL);
}
