/* SPDX-License-Identifier: MIT
 *
 * What a host, or a task, may ask for inside a worker: answering, waiting for room, buffers.
 */
#include "worker/call.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/atomics.h"
#include "base/fault.h"
#include "base/forks.h"
#include "channel/channel.h"
#include "channel/layout.h"
#include "memory/arena.h"
#include "memory/block.h"
#include "memory/views.h"
#include "plat/plat.h"
#include "tercio.h"
#include "worker/longest.h"

enum { LONGEST_SPIN = 20000, SKIPS = 16 };

/* ---- Ringing and sleeping --------------------------------------------------------------------------------------- */

/* First the ring, then the announcement is taken back: a worker that is stopped or killed in between has kept nothing
 * from anybody. A later announcement has another number, and stays. */
static void ring(tercio_call *call, _Atomic uint32_t *wants, uint32_t seen, int bell, bool said)
{
    tercio__at("ring: owed");
    /* A task that closed descriptors which weren't its own leaves a worker that nobody would hear: its end is heard. */
    if (!tercio__bell_ring(bell) && call->start->process) {
        if (said) /* its answer is there, and the next item has not begun */
            tercio__call_phase(call, TERCIO_STATE_WAIT);
        _exit(127);
    }
    tercio__at("ring: rung");
    (void)atomic_compare_exchange_strong_explicit(wants, &seen, seen & ~TERCIO__WANTS, memory_order_seq_cst,
                                                  memory_order_relaxed);
}

static void ring_if_wanted(tercio_call *call, _Atomic uint32_t *wants, int bell, bool said)
{
    uint32_t seen = LOAD(*wants, relaxed);
    if (seen & TERCIO__WANTS)
        ring(call, wants, seen, bell, said);
}

/* True when half of the ring is unread: then whoever reads it shall. */
static bool is_half_full(tercio_call *call)
{
    uint64_t half = call->taker.map.ring_bytes / 2;
    if (tercio__taker_unread(&call->taker) <= half)
        return false;
    call->taker.up_head = LOAD(call->words->up_head, acquire);
    return tercio__taker_unread(&call->taker) > half;
}

void tercio__call_ring(tercio_call *call, bool passed)
{
    call->owes_ring = false;
    tercio__taker_tell(&call->taker);
    atomic_thread_fence(memory_order_seq_cst); /* B2 */
    uint32_t wants = LOAD(call->page->caller_wants, relaxed);
    if ((wants & TERCIO__WANTS) == TERCIO__WANT_ANY)
        ring(call, &call->page->caller_wants, wants, call->start->caller_bell, true);
    else if ((wants & TERCIO__WANTS) == TERCIO__WANT_LOW_WATER) {
        if ((passed && call->taker.head >= LOAD(call->words->low_water, relaxed)) || is_half_full(call))
            ring(call, &call->page->caller_wants, wants, call->start->caller_bell, true);
    }
    ring_if_wanted(call, &call->page->supervisor_wants, call->start->supervisor_bell, true);
}

static void ring_whoever_listens(tercio_call *call)
{
    tercio__taker_tell(&call->taker);
    atomic_thread_fence(memory_order_seq_cst); /* B2 */
    ring_if_wanted(call, &call->page->caller_wants, call->start->caller_bell, false);
    ring_if_wanted(call, &call->page->supervisor_wants, call->start->supervisor_bell, false);
}

static bool spin(tercio_call *call, bool (*ready)(tercio_call *))
{
    uint64_t budget = call->spin_ns;
    if (budget == 0) {
        if (++call->spin_skips < SKIPS)
            return false;
        call->spin_skips = 0;
        budget = LONGEST_SPIN / 4;
    }
    uint64_t end = tercio__now() + budget;
    do {
        for (int i = 0; i < 16; i++)
            if (ready(call)) {
                call->spin_ns = LONGEST_SPIN;
                return true;
            }
        tercio__yield();
    } while (tercio__now() < end);
    call->spin_ns = call->spin_ns > LONGEST_SPIN / 8 ? call->spin_ns / 2 : 0;
    return false;
}

void tercio__call_sleep(tercio_call *call, uint32_t asleep, bool (*ready)(tercio_call *))
{
    tercio__channel *words = call->words;
    /* A thread that looks must not hold what the thread that it waits for needs. */
    bool pause_first = call->start->method == TERCIO_THREADING;
    if (ready(call) || (!pause_first && spin(call, ready)))
        return;
    if (call->host->pause)
        call->host->pause(call->user, call);
    while (!pause_first || !spin(call, ready)) {
        pause_first = false;
        uint32_t seen = LOAD(words->bell, relaxed);
        STORE(words->asleep, asleep, seq_cst); /* B1 */
        atomic_thread_fence(memory_order_seq_cst);
        tercio__at("sleep: announced");
        if (ready(call))
            break;
        tercio__word_wait(&words->bell, seen, 0);
        if (ready(call) || LOAD(words->bell, relaxed) != seen)
            break;
    }
    tercio__at("sleep: awake");
    STORE(words->asleep, TERCIO__AWAKE, relaxed); /* a wake too many is harmless */
    if (call->host->resume)
        call->host->resume(call->user, call);
    if (!ready(call) && call->host->signals)
        call->host->signals(call->user, call);
}

void tercio_call_wake(tercio_call *call)
{
    atomic_fetch_add_explicit(&call->words->bell, 1, memory_order_seq_cst);
}

bool tercio_call_take_signal(tercio_call *call, int signal)
{
    if (!call->start->process || tercio__signals_ignored() >> (signal - 1) & 1)
        return false;
    tercio__signal_take(signal, NULL, 0);
    return true;
}

/* ---- Records ------------------------------------------------------------------------------------------------------ */

static bool room_ready(tercio_call *call)
{
    uint64_t head = LOAD(call->words->up_head, acquire); /* A4 */
    return head != call->taker.up_head || LOAD(call->words->stop, acquire) == TERCIO__STOP_NOW;
}

static tercio__arena *arena_of(tercio_call *call)
{
    if (call->arena == NULL)
        call->arena =
            tercio__arena_new(call->file, &call->page->file_end, call->words->segments, &call->words->n_segments);
    return call->arena;
}

/* Backpressure: blocks that the parent has not read count, views that it keeps don't. */
static void wait_for_readers(tercio_call *call, uint64_t bytes)
{
    while (call->unread_blocks && call->unread_blocks + bytes > call->page->arena_bytes) {
        call->taker.up_head = LOAD(call->words->up_head, acquire); /* A4 */
        if (call->taker.up_head >= call->unread_until) {
            call->unread_blocks = 0;
            return;
        }
        if (LOAD(call->words->stop, acquire) == TERCIO__STOP_NOW)
            return;
        ring_whoever_listens(call);
        tercio__call_sleep(call, TERCIO__ASLEEP_FOR_ROOM, room_ready);
    }
}

enum { BLOCKS_ON_STACK = 16 };

int tercio__call_send(tercio_call *call, int kind, int status, int code, const tercio_bytes *parts, size_t n_parts)
{
    tercio_block few[BLOCKS_ON_STACK], *blocks = few;
    uint32_t n_blocks = 0;
    uint64_t large = 0;
    bool head_in_block = n_parts && parts[0].size > tercio__inline_limit(call->page->ring_bytes);
    size_t first = head_in_block ? 0 : 1, head_size = n_parts && !head_in_block ? parts[0].size : 0;
    int error = 0;

    if (n_parts > first) {
        size_t most = n_parts - first;
        if (LOAD(call->words->gate, relaxed) == TERCIO__GATE_DEAD)
            return TERCIO_ECLOSED; /* a thread that was left behind: nobody would give the blocks back */
        if (most * sizeof *blocks > call->page->ring_bytes / 4 || most > UINT16_MAX)
            return TERCIO_ETOOBIG;
        if (arena_of(call) == NULL || (most > BLOCKS_ON_STACK && (blocks = malloc(most * sizeof *blocks)) == NULL))
            return TERCIO_ENOMEM;
        for (size_t i = first; i < n_parts; i++)
            large += parts[i].size;
        wait_for_readers(call, large);
        for (size_t i = first; i < n_parts && !error; i++) {
            error = tercio__arena_put(call->arena, parts[i].data, parts[i].size, TERCIO__BLOCK_LENT, &blocks[n_blocks]);
            n_blocks += error == 0;
            tercio__at("send: block lent");
        }
        if (error)
            goto out;
    }
    uint64_t bytes = n_blocks * sizeof(tercio_block) + head_size;
    tercio__record *record;
    while ((record = tercio__taker_reserve(&call->taker, bytes)) == NULL) {
        if (LOAD(call->words->stop, acquire) == TERCIO__STOP_NOW) {
            error = TERCIO_ECLOSED;
            goto out;
        }
        ring_whoever_listens(call);
        tercio__at("send: no room");
        tercio__call_sleep(call, TERCIO__ASLEEP_FOR_ROOM, room_ready);
    }
    record->kind = (uint16_t)kind;
    record->n_blocks = (uint16_t)n_blocks;
    record->sequence = call->sequence;
    record->item = call->item;
    record->status = status;
    record->code = code;
    record->payload = head_in_block ? TERCIO__IN_BLOCK : (uint32_t)head_size;
    unsigned char *at = (unsigned char *)(record + 1);
    if (n_blocks)
        memcpy(at, blocks, n_blocks * sizeof *blocks);
    if (head_size)
        memcpy(at + n_blocks * sizeof *blocks, parts[0].data, head_size);
    tercio__taker_publish(&call->taker, record);
    call->in_row = kind == TERCIO__REC_RESULT;
    if (large) {
        call->unread_blocks += large;
        call->unread_until = call->taker.up_tail;
    }
out:
    if (error)
        while (n_blocks > 0)
            tercio__arena_free(call->arena, &blocks[--n_blocks]);
    if (blocks != few)
        free(blocks);
    return error;
}

/* The answer as a short record, where it can be one. */
static bool send_short(tercio_call *call, int status, int code, const tercio_bytes *parts, size_t n_parts)
{
    return call->in_row && status == 0 && code == 0 && n_parts == 1 && parts[0].size <= TERCIO__SHORT_MOST &&
           tercio__taker_put_short(&call->taker, parts[0]);
}

int tercio_commit(tercio_call *call, int status, int code, const tercio_bytes *parts, size_t n_parts)
{
    tercio__channel *words = call->words;
    if (tercio_call_stray(call))
        _exit(0);
    uint64_t since = call->timed ? LOAD(words->item_since, relaxed) : 0, now = call->timed ? tercio__now() : 0;
    if (call->timed) /* a wait for room is on no item's time */
        STORE(words->item_since, 0, relaxed);
    tercio__at("commit: item over");
    int error = 0;
    if (!send_short(call, status, code, parts, n_parts))
        error = tercio__call_send(call, TERCIO__REC_RESULT, status, code, parts, n_parts);
    if (error == TERCIO_ECLOSED)
        return 1;
    if (error) {
        if (call->timed)
            STORE(words->item_since, since, release);
        return error;
    }
    call->item++;
    STORE(words->n_done, LOAD(words->n_done, relaxed) + 1, relaxed);
    tercio__at("commit: counted");
    if (call->timed) {
        (void)tercio__note_longest(call, call->slot->index + call->item - 1, now - since);
        now = tercio__now();
        /* A reader that reads the time before and after the item gets the two that belong together. */
        STORE(words->item_sequence, call->sequence << 32 | call->item, release);
        tercio__at("commit: next item named");
        STORE(words->item_since, call->item < call->slot->n_items ? now : 0, release);
    }
    if (!call->quiet || is_half_full(call))
        tercio__call_ring(call, false);
    return tercio_stopping(call);
}

/* ---- What is left for the parent ------------------------------------------------------------------------------------ */

void tercio__call_forget_left(tercio_call *call)
{
    free(call->left_bytes);
    call->left_bytes = NULL;
    call->left = false;
    call->left_size = 0;
    call->left_status = 0;
}

int tercio_leave(tercio_call *call, int status, const tercio_bytes *parts, size_t n_parts)
{
    /* Not for large things: a failure's text, an exit function's result. Parts are joined by the host. */
    size_t size = 0;
    for (size_t i = 0; i < n_parts; i++)
        size += parts[i].size;
    unsigned char *bytes = malloc(size + 1);
    if (bytes == NULL)
        return TERCIO_ENOMEM;
    tercio__call_forget_left(call);
    for (size_t i = 0; i < n_parts; i++) {
        if (parts[i].size)
            memcpy(bytes + call->left_size, parts[i].data, parts[i].size);
        call->left_size += parts[i].size;
    }
    call->left_bytes = bytes;
    call->left_status = status;
    call->left = true;
    return 0;
}

void tercio__call_send_left(tercio_call *call, int kind, int status)
{
    tercio_bytes part = {call->left_bytes, call->left_size};
    if (call->left_status)
        status = call->left_status;
    if (tercio__call_send(call, kind, status, 0, &part, 1) && kind != TERCIO__REC_EXIT)
        (void)tercio__call_send(call, kind, status, 0, NULL, 0);
}

/* ---- Looking things up ------------------------------------------------------------------------------------------------ */

unsigned tercio_worker_id(tercio_call *call)
{
    return call->words->index;
}

uint64_t tercio_call_index(tercio_call *call)
{
    return call->slot ? call->slot->index + call->item : 0;
}

tercio_method tercio_call_method(tercio_call *call)
{
    return call->start->method;
}

int tercio_call_descriptor(tercio_call *call, size_t i)
{
    return i < call->start->n_descriptors ? call->start->descriptors[i] : -1;
}

void **tercio_call_user(tercio_call *call)
{
    return &call->host_pointer;
}

uint64_t tercio__call_table_hash(const tercio_call *call)
{
    return call->page->table_hash;
}

bool tercio_call_stray(tercio_call *call)
{
    return call->fork_generation != tercio__fork_generation();
}

bool tercio_is_stopping(const tercio_call *call)
{
    return LOAD(call->words->stop, acquire) == TERCIO__STOP_NOW ||
           (call->slot && LOAD(call->words->cancel, acquire) == call->sequence + 1);
}

bool tercio_stopping(tercio_call *call)
{
    bool stops = tercio_is_stopping(call);
    call->told |= stops;
    return stops;
}

int tercio__call_open(tercio_call *call, const tercio_block *block, tercio_view *view)
{
    int error = tercio__view_open(call->file, block, view);
    if (error == TERCIO_ESYSTEM && errno == EBADF && call->start->process) {
        /* A task before this one closed all descriptors. What comes next is for another worker: it has not begun. */
        tercio__call_phase(call, TERCIO_STATE_WAIT);
        _exit(127);
    }
    return error;
}

int tercio_call_take(tercio_call *call, const tercio_block *block, tercio_view *view)
{
    int error = tercio__call_open(call, block, view);
    if (error == 0)
        ((tercio_block *)(uintptr_t)block)->offset = 0; /* the view gives it back, not the end of the message */
    return error;
}

void *tercio_shared(tercio_call *call, uint32_t id, size_t *size)
{
    if (id >= TERCIO__SHARES || id >= LOAD(call->page->n_shares, acquire))
        return NULL;
    if (!call->share_open[id]) {
        tercio__range range = call->page->shares[id];
        tercio_block block = {range.offset, range.size & ~TERCIO__SHARE_WRITABLE};
        if (tercio__view_open(call->file, &block, &call->shares[id]))
            return NULL;
        call->share_open[id] = true;
    }
    if (size)
        *size = call->shares[id].size;
    return call->shares[id].data;
}

void tercio__call_phase(tercio_call *call, uint32_t phase)
{
    tercio__at("phase: about to change");
    STORE(call->words->phase, phase, release);
    tercio__at("phase: changed");
}
