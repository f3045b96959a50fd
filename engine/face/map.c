/* SPDX-License-Identifier: MIT
 *
 * tercio_map: items of one size that lie side by side, answers of one size too. Nothing is framed, kept or ordered:
 * each good answer is copied from its ring to its place by whoever reads the ring (run->landing). What comes as a
 * result is a failure, or an answer too large for a ring.
 */
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "base/abi.h"
#include "face/framing.h"
#include "face/stream.h"
#include "face/table.h"
#include "pool/push.h"
#include "pool/run.h"
#include "pool/wait.h"
#include "state/pool.h"
#include "tercio.h"

/* Answers taken before the workers are fed again. */
enum { BATCH = 256, SPLITS = 64 };

/* A chunk chosen here stays below it: such a message travels in the ring. */
#define MESSAGE ((size_t)32 << 10)

typedef struct {
    tercio_run *run;
    const tercio_map_options *options;
    const unsigned char *in;
    unsigned char *out;
    size_t in_size, out_size, n, chunk;
    size_t sent, taken, good; /* items handed in; items that came back as results; those that are well */
    uint64_t landed;          /* items that went to their places without */
    bool ended;
    tercio_bytes parts[2];
    tercio_result *first_error;
    size_t first_index;
} mapping;

static size_t choose_chunk(const tercio_pool *pool, const tercio_map_options *options, size_t in_size, size_t n)
{
    size_t chunk = options->chunk;
    if (chunk == 0) {
        chunk = n / ((size_t)pool->n_workers * SPLITS);
        if (in_size && chunk > MESSAGE / in_size)
            chunk = MESSAGE / in_size;
    }
    if (options->max_active && chunk > options->max_active)
        chunk = options->max_active;
    return chunk == 0 ? 1 : chunk > UINT32_MAX ? UINT32_MAX : chunk;
}

static size_t answered(const mapping *map)
{
    return map->taken + (size_t)map->landed;
}

/* Items of the next message. */
static size_t next_items(const mapping *map)
{
    size_t left = map->n - map->sent;
    return left < map->chunk ? left : map->chunk;
}

static bool may_send(const mapping *map)
{
    size_t more = next_items(map);
    size_t active = map->sent - answered(map);
    return more > 0 && (map->options->max_active == 0 || active == 0 || active + more <= map->options->max_active);
}

static bool next_message(void *user, tercio_message *message)
{
    mapping *map = user;
    size_t k = next_items(map);
    if (!may_send(map))
        return false;
    tercio_bytes items = {map->in + map->sent * map->in_size, k * map->in_size};
    bool large = map->in_size > TERCIO__FACE_LARGE;
    map->parts[0] = large ? (tercio_bytes){NULL, 0} : items;
    map->parts[1] = items;
    message->index = map->sent;
    message->n_items = (uint32_t)k;
    message->parts = map->parts;
    message->n_parts = large ? 2 : 1;
    return true;
}

static void message_taken(void *user)
{
    mapping *map = user;
    map->sent += next_items(map);
}

/* Returns: 1 something was sent; 0 nothing; or an error. */
static int feed(mapping *map)
{
    int n = tercio__push_all(map->run, next_message, message_taken, map, &map->landed);
    if (n == TERCIO_ECANCELED) { /* it was stopped by an error */
        map->n = map->sent;
        n = 0;
    }
    if (n >= 0 && map->sent == map->n && !map->ended) {
        tercio_run_end(map->run);
        map->ended = true;
    }
    return n;
}

static void note_failure(mapping *map, tercio_result *result)
{
    if (map->first_error == NULL || result->index >= map->first_index)
        return;
    tercio__face_explain(result);
    map->first_index = (size_t)result->index;
    tercio__result_write(map->first_error, result);
}

static void take_answer(mapping *map, tercio_result *result)
{
    map->taken++;
    if (result->status == 0 && map->out_size) {
        if (result->n_blocks) {
            tercio_view view;
            result->status = tercio_take(map->run, &result->blocks[0], &view);
            if (result->status == 0) {
                memcpy(map->out + result->index * map->out_size, view.data,
                       view.size < map->out_size ? view.size : map->out_size);
                tercio_give(&view);
            }
        } else {
            result->status = TERCIO_EPROTOCOL; /* or it would have landed */
        }
    }
    if (result->status == 0)
        map->good++;
    else
        note_failure(map, result);
    tercio_release(map->run, result);
}

/* Feeds and takes until the end. Returns 0 or an error. */
static int go(mapping *map)
{
    size_t reported = 0;
    for (;;) {
        tercio_result result;
        int taken, moved = feed(map);
        if (moved < 0)
            return moved;
        for (int i = 0; i < BATCH && (taken = tercio__run_next(map->run, 0, &result)) == 1; i++)
            take_answer(map, &result);
        if (taken < 0 && taken != TERCIO_EAGAIN)
            return taken;
        if (taken == 0) /* all that was to land has */
            map->landed = map->run->landing.n;
        if (map->options->progress && answered(map) != reported) {
            reported = answered(map);
            map->options->progress(map->options->user, reported, map->options->total);
        }
        if (taken == 0)
            return 0;
        if (taken == 1 || moved)
            continue;
        int error = tercio__run_wait(map->run, -1, may_send(map), NULL);
        if (error && error != TERCIO_EAGAIN)
            return error;
    }
}

int tercio_map(tercio_pool *pool, unsigned task, const void *in, size_t in_size, size_t n, void *out,
               const tercio_map_options *options, tercio_result *first_error)
{
    tercio_map_options read;
    mapping map = {.options = &read, .in = in, .out = out, .in_size = in_size, .n = n, .first_index = SIZE_MAX};
    int error = tercio__map_options_read(&read, options);

    if (error)
        return error;
    if (first_error && (error = tercio__result_check(first_error)) != 0)
        return error;
    if (pool == NULL || pool->options.table == NULL)
        return TERCIO_EINVAL;
    const tercio_task *entry = tercio__table_task(pool->options.table, task);
    if (entry == NULL || (n && in_size && in == NULL) || (n && entry->out_size && out == NULL) ||
        (in_size && n > SIZE_MAX / in_size) || (entry->out_size && n > SIZE_MAX / entry->out_size))
        return TERCIO_EINVAL;
    if (read.total == 0)
        read.total = n;
    map.out_size = entry->out_size;
    map.chunk = choose_chunk(pool, &read, in_size, n);
    map.first_error = first_error;

    /* The limit on what is under way is kept here; and progress wants to hear of each answer. */
    tercio_map_options asked = read;
    asked.max_active = 0;
    asked.low_water = read.progress == NULL;
    error = tercio__face_open(pool, task, TERCIO__FACE_SIDE_BY_SIDE, in_size, &asked, &map.run);
    if (error == 0) {
        map.run->landing.wanted = true; /* nothing was handed in yet: nobody else looks */
        map.run->landing.out = map.out;
        map.run->landing.size = map.out_size;
        error = go(&map);
        map.good += error ? 0 : map.run->landing.n;
        tercio_run_close(map.run);
    }
    if (error) {
        tercio_result failure = {.size = sizeof failure};
        if (error != TERCIO_EFORKED && first_error && tercio_failure(pool, &failure) == 1) {
            tercio__face_explain(&failure);
            tercio__result_write(first_error, &failure);
        }
        return error;
    }
    size_t failed = n - map.good;
    return failed > INT_MAX ? INT_MAX : (int)failed;
}
