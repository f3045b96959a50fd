/* SPDX-License-Identifier: MIT
 *
 * The descriptors that the pools of this process own. A forked worker inherits those of all pools, and uses at most
 * three, of its own pool. The others must not stay open: the memory of a file lives as long as any process has the
 * file open, and a lifeline (plat.h) stays whole as long as any process has its end open, so two pools could keep
 * each other's workers alive after the parent is gone. So a forked worker closes them.
 *
 * In a worker, or in a child that the application forked, a number may have been closed and reused for another
 * descriptor. The copies of the parent's pools, runs and servers are identified by their fork generation, and close
 * in a child only what is certainly the parent's: a descriptor whose open file has the mark of pools, and which this
 * process didn't make.
 */
#include "base/forks.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include "plat/plat.h"
#include "tercio.h"

/* Numbers beyond these are closed by nobody. Of the table, only what is used is memory. */
enum { WORD = 64, WORDS = (1 << 20) / WORD };

/* A bit a descriptor. No lock: what runs while a fork is prepared may wait for another thread that is in here. */
static _Atomic uint64_t words[WORDS];

static _Atomic size_t n_words;
static _Thread_local bool forks_a_worker;

static bool is_of_the_table(int fd)
{
    /* What has a standard stream's number stays: whoever writes to that would write to what comes in its place. */
    return fd > STDERR_FILENO && fd / WORD < WORDS;
}

static uint64_t bit(int fd)
{
    return UINT64_C(1) << (unsigned)fd % WORD;
}

int tercio__owned(int fd)
{
    if (fd >= 0) {
        (void)tercio__owned_copy(fd); /* first: to another thread, a mark without an entry is a forked parent's */
        (void)tercio__descriptor_mark(fd);
    }
    return fd;
}

int tercio__owned_copy(int fd)
{
    if (!is_of_the_table(fd))
        return fd;
    size_t needs = (size_t)fd / WORD + 1, n = atomic_load(&n_words);
    while (n < needs && !atomic_compare_exchange_weak(&n_words, &n, needs))
        ;
    atomic_fetch_or(&words[needs - 1], bit(fd));
    return fd;
}

static bool is_own(int fd)
{
    return (atomic_load(&words[fd / WORD]) & bit(fd)) != 0;
}

static void close_own(int fd)
{
    /* In this order: a worker that is forked between has one descriptor more; the other way it might close what has just
     * got the number. */
    if (is_of_the_table(fd))
        atomic_fetch_and(&words[fd / WORD], ~bit(fd));
    close(fd);
}

void tercio__owned_close(int fd, uint32_t of_generation)
{
    if (fd < 0)
        return;
    if (of_generation == tercio__fork_generation())
        close_own(fd);
    else if (is_of_the_table(fd) && !is_own(fd) && tercio__descriptor_is_marked(fd))
        close(fd);
}

void tercio__owned_copy_close(int fd, uint32_t of_generation, const uint64_t identity[2])
{
    uint64_t now[2];
    if (fd < 0)
        return;
    if (of_generation == tercio__fork_generation())
        close_own(fd);
    else if (is_of_the_table(fd) && !is_own(fd) && tercio__descriptor_identity(fd, now) && now[0] == identity[0] &&
             now[1] == identity[1])
        close(fd);
}

void tercio__owned_fork(bool begins)
{
    forks_a_worker = begins;
}

bool tercio__owned_forks_a_worker(void)
{
    return forks_a_worker;
}

static void forget_all(void)
{
    size_t n = atomic_exchange(&n_words, 0);
    for (size_t i = 0; i < n; i++)
        atomic_store(&words[i], 0);
}

static bool is_among(int fd, const int *keep, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (keep[i] == fd)
            return true;
    return false;
}

void tercio__owned_drop(const int *keep, size_t n_keep)
{
    size_t n = atomic_load(&n_words);
    for (size_t i = 0; i < n; i++)
        for (uint64_t left = atomic_load(&words[i]); left; left &= left - 1) {
            int fd = (int)(i * WORD) + __builtin_ctzll(left);
            if (!is_among(fd, keep, n_keep))
                close(fd);
        }
    forget_all();
    forks_a_worker = false;
}

static _Atomic uint32_t generation, forks;

/* Counted on both sides of the fork: a view opened between this and the fork is copied to the child too, and would
 * not see a change that came before it. */
static void prepare_fork(void)
{
    atomic_fetch_add(&forks, 1);
    tercio__signals_fork();
}

static void leave_fork(void)
{
    atomic_fetch_add(&forks, 1);
    tercio__signals_forked(false);
}

static void enter_child(void)
{
    atomic_fetch_add(&forks, 1);
    atomic_fetch_add(&generation, 1);
    if (!forks_a_worker) /* such a child may close all that it has, and others get their numbers */
        forget_all();
    tercio__signals_forked(true);
}

static void register_watch(void)
{
    (void)pthread_atfork(prepare_fork, leave_fork, enter_child);
}

void tercio__fork_watch(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, register_watch);
}

uint32_t tercio__fork_generation(void)
{
    return atomic_load(&generation);
}

uint32_t tercio_fork_generation(void)
{
    tercio__fork_watch(); /* or forks before the first pool would not count */
    return tercio__fork_generation();
}

uint32_t tercio__fork_count(void)
{
    return atomic_load(&forks);
}
