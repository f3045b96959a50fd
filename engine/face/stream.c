/* SPDX-License-Identifier: MIT
 *
 * Runs of the C face that the user holds: tercio_stream and tercio_submit. All of it happens in the thread that calls
 * tercio_next: asking for inputs, framing, sending, and keeping answers that came before their turn.
 *
 * Inputs are asked for only while fewer than `ahead` items are between `next` and the user, so that neither a slow
 * item nor a slow user lets anything grow without bound.
 */
#include "face/stream.h"

#include <stdlib.h>
#include <string.h>

#include "base/abi.h"
#include "face/framing.h"
#include "face/table.h"
#include "plat/plat.h"
#include "pool/run.h"
#include "pool/wait.h"
#include "state/pool.h"
#include "tercio.h"

enum {
    FEED = 16,            /* messages sent in a row before answers are looked at */
    DELIVER = 32,         /* answers given in a row before the workers are fed */
    AHEAD_MESSAGES = 512, /* a worker, where the user sets no bound ... */
    AHEAD_ITEMS = 16384,  /* ... and these in all, if that keeps the workers busy */
};
#define MESSAGE ((size_t)16 << 10)

/* A large answer, mapped while the user looks at it; result->cookie points to it. */
typedef struct held {
    struct held *next, *previous;
    tercio_view view;
} held;

struct tercio__face {
    tercio_map_options options;
    int (*next)(void *user, tercio_bytes *input); /* NULL: a submit */
    void *user;
    uint64_t ahead;

    /* The message that is being put together. */
    unsigned char *frames;
    size_t used, room;
    tercio_bytes large; /* the last item, if it is large: the user's bytes, which live until `next` is called again */
    bool has_large, sealed;
    uint32_t n_framed;

    int end;    /* 0: there may be more inputs; 1: there are none; below 0: `next` failed */
    bool ended; /* and the engine knows */
    uint64_t n_asked, n_given, n_kept;
    unsigned since_feed;

    uint64_t turn;         /* index of the item whose answer is next */
    tercio_result **early; /* by index modulo early_room */
    size_t early_room;     /* a power of two */
    held *held;
};

/* ---- Results ------------------------------------------------------------------------------------------------------ */

void tercio__face_explain(tercio_result *result)
{
    const char *text = result->out.data;
    size_t size = result->out.size;

    if (result->status == 0)
        return;
    if (result->kind != TERCIO_KIND_RESULT && size >= sizeof(int32_t)) {
        int32_t code;
        memcpy(&code, text, sizeof code);
        result->code = code;
        text += sizeof code;
        size -= sizeof code;
    }
    if (size == 0 && result->message[0] == '\0') {
        text = tercio_error_text(result->status);
        size = strlen(text);
    }
    if (size) { /* what the task said, rather than what the engine said of it */
        if (size >= sizeof result->message)
            size = sizeof result->message - 1;
        memcpy(result->message, text, size);
        result->message[size] = '\0';
    }
    result->out = (tercio_bytes){NULL, 0};
}

static void hold(tercio_run *run, tercio_result *result)
{
    struct tercio__face *face = run->face;
    held *node = malloc(sizeof *node);
    int error = node ? tercio_take(run, &result->blocks[0], &node->view) : TERCIO_ENOMEM;
    if (error) {
        free(node);
        result->status = error;
        tercio__face_explain(result);
        return;
    }
    node->previous = NULL;
    node->next = face->held;
    if (node->next)
        node->next->previous = node;
    face->held = node;
    result->out = (tercio_bytes){node->view.data, node->view.size};
    result->cookie = (uint64_t)(uintptr_t)node;
}

static void release_held(tercio_run *run, tercio_result *result)
{
    held *node = (held *)(uintptr_t)result->cookie;
    if (node == NULL)
        return;
    if (node->previous)
        node->previous->next = node->next;
    else
        run->face->held = node->next;
    if (node->next)
        node->next->previous = node->previous;
    tercio_give(&node->view);
    free(node);
    result->cookie = 0;
    result->out = (tercio_bytes){NULL, 0};
}

static int give(tercio_run *run, tercio_result *result, tercio_result *to)
{
    struct tercio__face *face = run->face;
    if (result->status)
        tercio__face_explain(result);
    else if (result->n_blocks)
        hold(run, result);
    face->n_given++;
    face->since_feed++;
    if (to != result)
        tercio__result_write(to, result);
    if (face->options.progress)
        face->options.progress(face->options.user, face->n_given, face->options.total);
    return 1;
}

/* ---- Order -------------------------------------------------------------------------------------------------------- */

static int make_early_room(struct tercio__face *face, uint64_t distance)
{
    size_t room = face->early_room ? face->early_room : 64;
    while (room <= distance)
        room *= 2;
    if (room == face->early_room)
        return 0;
    tercio_result **early = calloc(room, sizeof(tercio_result *));
    if (early == NULL)
        return TERCIO_ENOMEM;
    for (uint64_t i = face->turn; i < face->turn + face->early_room; i++)
        early[i & (room - 1)] = face->early[i & (face->early_room - 1)];
    free(face->early);
    face->early = early;
    face->early_room = room;
    return 0;
}

static int keep(struct tercio__face *face, const tercio_result *result)
{
    uint64_t distance = result->index - face->turn;
    if (distance >= face->n_asked)
        return TERCIO_EPROTOCOL;
    int error = make_early_room(face, distance);
    if (error)
        return error;
    tercio_result *kept = malloc(sizeof *kept);
    if (kept == NULL)
        return TERCIO_ENOMEM;
    *kept = *result;
    face->early[result->index & (face->early_room - 1)] = kept;
    face->n_kept++;
    return 0;
}

/* The kept answer whose turn it is. At the end of a run that was stopped some are missing: then the first there is. */
static tercio_result *whose_turn(struct tercio__face *face, bool skip)
{
    if (face->n_kept == 0)
        return NULL;
    tercio_result **at = &face->early[face->turn & (face->early_room - 1)];
    while (*at == NULL && skip)
        at = &face->early[++face->turn & (face->early_room - 1)];
    tercio_result *result = *at;
    if (result) {
        *at = NULL;
        face->turn++;
        face->n_kept--;
    }
    return result;
}

static int give_kept(tercio_run *run, tercio_result *kept, tercio_result *to)
{
    int given = give(run, kept, to);
    free(kept);
    return given;
}

/* ---- Inputs ------------------------------------------------------------------------------------------------------- */

static int frame(struct tercio__face *face, tercio_bytes input)
{
    bool is_large = input.size > TERCIO__FACE_LARGE;
    tercio__face_frame head = {.size = is_large ? 0 : (uint32_t)input.size,
                               .flags = is_large ? TERCIO__FACE_IN_BLOCK : 0};
    size_t padded = tercio__face_pad(head.size), need = face->used + sizeof head + padded;

    if (need > face->room) {
        size_t room = need < 4096 ? 4096 : need * 2;
        unsigned char *frames = realloc(face->frames, room);
        if (frames == NULL)
            return TERCIO_ENOMEM;
        face->frames = frames;
        face->room = room;
    }
    unsigned char *at = face->frames + face->used;
    memcpy(at, &head, sizeof head);
    at += sizeof head;
    if (head.size) {
        memcpy(at, input.data, head.size);
        memset(at + head.size, 0, padded - head.size);
    }
    face->used = need;
    face->n_framed++;
    face->n_asked++;
    if (is_large) {
        face->large = input;
        face->has_large = true;
    }
    /* A large item closes its message: its bytes needn't be copied, for `next` isn't called until it is sent. */
    face->sealed = is_large || face->n_framed >= face->options.chunk || face->used >= MESSAGE;
    return 0;
}

static void begin_message(struct tercio__face *face)
{
    face->used = 0;
    face->n_framed = 0;
    face->has_large = face->sealed = false;
}

static int send(tercio_run *run, bool wait_in_pool)
{
    struct tercio__face *face = run->face;
    tercio_bytes parts[2] = {{face->frames, face->used}, face->large};
    tercio_message message = {
        .size = sizeof message,
        .index = face->n_asked - face->n_framed,
        .n_items = face->n_framed,
        .parts = parts,
        .n_parts = face->has_large ? 2 : 1,
    };
    return tercio_push(run, &message, wait_in_pool);
}

static bool may_ask(const struct tercio__face *face)
{
    return !face->end && face->n_asked - face->n_given < face->ahead;
}

/* Puts a message together. Returns: 1 there is one to send; 0 there isn't; or an error. */
static int gather(struct tercio__face *face)
{
    while (!face->sealed && may_ask(face)) {
        tercio_bytes input = {0};
        int more = face->next(face->user, &input);
        if (more <= 0) {
            face->end = more < 0 ? more : 1;
            break;
        }
        int error = input.size && input.data == NULL ? TERCIO_EINVAL : frame(face, input);
        if (error) {
            face->end = error; /* this input is lost, so the run can't go on behind it */
            break;
        }
    }
    return face->n_framed > 0;
}

/* Returns: number of messages sent, or an error. */
static int feed(tercio_run *run)
{
    struct tercio__face *face = run->face;
    int sent = 0;

    face->since_feed = 0;
    while (!face->ended && sent < FEED && gather(face)) {
        int taken = send(run, false);
        if (taken == 0)
            return sent;
        if (taken == TERCIO_ECANCELED) /* stopped by an error: what is left isn't wanted */
            face->end = face->end ? face->end : 1;
        else if (taken < 0)
            return taken;
        begin_message(face);
        sent += taken == 1;
    }
    if (face->end && face->n_framed == 0 && !face->ended) {
        face->ended = true;
        tercio_run_end(run);
    }
    return sent;
}

/* ---- Next --------------------------------------------------------------------------------------------------------- */

/* Takes answers from the engine until one may be given. Returns as tercio_next. */
static int take(tercio_run *run, tercio_result *to)
{
    struct tercio__face *face = run->face;
    tercio_result result;
    int taken;

    while ((taken = tercio__run_next(run, 0, &result)) == 1) {
        if (face->options.unordered)
            return give(run, &result, to);
        if (result.index == face->turn) {
            face->turn++;
            return give(run, &result, to);
        }
        int error = keep(face, &result);
        if (error) {
            tercio_release(run, &result);
            return error;
        }
    }
    if (taken != 0)
        return taken;
    tercio_result *kept = whose_turn(face, true);
    if (kept)
        return give_kept(run, kept, to);
    return face->end < 0 ? face->end : 0;
}

static int next_in_turn(tercio_run *run, double timeout, tercio_result *result)
{
    struct tercio__face *face = run->face;
    uint64_t deadline = timeout > 0 ? tercio__deadline(timeout) : 0;
    int error = tercio__run_check(run);

    if (error == 0)
        error = tercio__result_check(result);
    if (error)
        return error;
    for (;;) {
        int sent = 0;
        tercio_result *kept = whose_turn(face, false);
        if (kept)
            return give_kept(run, kept, result);
        if (face->since_feed >= DELIVER || tercio__inbox_empty(&run->current))
            sent = feed(run);
        if (sent < 0)
            return sent;
        int taken = take(run, result);
        if (taken != TERCIO_EAGAIN)
            return taken;
        if (sent == FEED)
            continue;
        if (timeout == 0)
            return TERCIO_EAGAIN;
        double left = timeout;
        if (deadline) {
            uint64_t now = tercio__now();
            if (now >= deadline)
                return TERCIO_EAGAIN;
            left = (double)(deadline - now) * 1e-9;
        }
        error = tercio__run_wait(run, left, face->n_framed > 0 || may_ask(face), NULL);
        if (error && error != TERCIO_EAGAIN)
            return error;
    }
}

/* ---- Opening and closing ------------------------------------------------------------------------------------------ */

int tercio__face_open(tercio_pool *pool, unsigned task, uint64_t layout, size_t in_size,
                      const tercio_map_options *options, tercio_run **run)
{
    tercio__face_context context = {.magic = TERCIO__FACE_MAGIC, .task = task, .layout = layout, .in_size = in_size};
    tercio_bytes part = {&context, sizeof context};
    if (pool == NULL || pool->options.table == NULL || tercio__table_task(pool->options.table, task) == NULL)
        return TERCIO_EINVAL;
    return tercio_run_open(pool, &part, 1, options, run);
}

static void close_face(tercio_run *run)
{
    struct tercio__face *face = run->face;
    tercio_result *kept;

    while ((kept = whose_turn(face, true)) != NULL) {
        tercio_release(run, kept);
        free(kept);
    }
    while (face->held) {
        held *node = face->held;
        face->held = node->next;
        tercio_give(&node->view);
        free(node);
    }
    free(face->early);
    free(face->frames);
    free(face);
    if (tercio__run_is_ours(run)) { /* whoever hands out its messages looks whether it has a face */
        tercio__lock(run->pool);
        run->face = NULL;
        tercio__unlock(run->pool);
    } else {
        run->face = NULL;
    }
    run->face_calls = NULL;
}

static const tercio__face_calls calls = {next_in_turn, release_held, close_face};

static int open_held_run(tercio_pool *pool, unsigned task, const tercio_map_options *options, tercio_run **out)
{
    tercio_map_options asked;
    tercio_run *run;
    int error = tercio__map_options_read(&asked, options);

    if (error)
        return error;
    struct tercio__face *face = calloc(1, sizeof *face);
    if (face == NULL)
        return TERCIO_ENOMEM;
    face->options = asked;
    if (face->options.chunk == 0)
        face->options.chunk = 1;
    if (asked.max_active && face->options.chunk > asked.max_active)
        face->options.chunk = asked.max_active;
    asked.max_active = 0; /* kept here: what waits for its turn counts too */
    asked.rows = false;   /* each answer has its turn */
    error = tercio__face_open(pool, task, TERCIO__FACE_FRAMED, 0, &asked, &run);
    if (error) {
        free(face);
        return error;
    }
    run->face = face;
    run->face_calls = &calls;
    *out = run;
    return 0;
}

static uint64_t choose_ahead(const tercio_pool *pool, const tercio_map_options *options)
{
    uint64_t busy = 4 * (uint64_t)pool->n_workers * options->chunk;
    uint64_t most = AHEAD_MESSAGES * (uint64_t)pool->n_workers * options->chunk;
    if (options->max_active)
        return options->max_active;
    if (most > AHEAD_ITEMS)
        most = AHEAD_ITEMS;
    return busy > most ? busy : most;
}

int tercio_stream(tercio_pool *pool, unsigned task, int (*next)(void *user, tercio_bytes *input), void *user,
                  const tercio_map_options *options, tercio_run **run)
{
    if (run == NULL)
        return TERCIO_EINVAL;
    *run = NULL;
    if (next == NULL)
        return TERCIO_EINVAL;
    int error = open_held_run(pool, task, options, run);
    if (error)
        return error;
    (*run)->face->next = next;
    (*run)->face->user = user;
    (*run)->face->ahead = choose_ahead(pool, &(*run)->face->options);
    return 0;
}

int tercio_submit(tercio_pool *pool, unsigned task, tercio_bytes input, const tercio_map_options *options,
                  tercio_run **run)
{
    if (run == NULL)
        return TERCIO_EINVAL;
    *run = NULL;
    if (input.size && input.data == NULL)
        return TERCIO_EINVAL;
    int error = open_held_run(pool, task, options, run);
    if (error)
        return error;
    struct tercio__face *face = (*run)->face;
    face->end = 1;
    error = frame(face, input);
    if (error == 0) {
        int taken = send(*run, true);
        error = taken == 0 ? TERCIO_EAGAIN : taken;
    }
    if (error < 0) {
        tercio_run_close(*run);
        *run = NULL;
        return error;
    }
    begin_message(face);
    face->ended = true;
    tercio_run_end(*run);
    return 0;
}
