/* SPDX-License-Identifier: MIT
 *
 * The descriptors that pools of this process have for themselves. A worker that is forked inherits all of them, its own
 * pool's and the others', and has a use for three of its own pool's at most. The rest would not only lie about: a file's
 * memory stays as long as somebody has it open, and a lifeline whole (plat.h says what one is), so that two pools could
 * keep each other's workers alive when the parent is gone. So a forked worker closes them.
 *
 * A number that was closed in a worker may be another descriptor's there. Copies of the parent's pools, runs and servers,
 * which a host's collector may find in a worker, must not close it: each knows its process by its fork generation.
 */
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "arena.h"
#include "descriptors.h"

/* Numbers beyond these are closed by nobody. Of the table, only what is used is memory. */
enum { WORD = 64, WORDS = (1 << 20) / WORD };

static pthread_mutex_t lock =
    PTHREAD_MUTEX_INITIALIZER; /* held across a worker's fork, so that the child's table is whole */
static bool forked;            /* by the application: the table is another process's, and perhaps half written */
static size_t n_words;
static uint64_t words[WORDS]; /* a bit a descriptor */

static void forget_all(void)
{
    memset(words, 0, n_words * sizeof *words);
    n_words = 0;
    forked = false;
}

static void take_lock(void)
{
    pthread_mutex_lock(&lock);
    if (forked)
        forget_all(); /* such a child may have closed them all, and others have got their numbers */
}

void tercio__owned_forked(void)
{
    pthread_mutex_init(&lock, NULL); /* a thread may have it that the child doesn't have */
    forked = true;
}

int tercio__owned(int fd)
{
    if (fd < 0 || fd / WORD >= WORDS)
        return fd;
    size_t word = (size_t)fd / WORD;
    take_lock();
    words[word] |= UINT64_C(1) << (unsigned)fd % WORD;
    if (word >= n_words)
        n_words = word + 1;
    pthread_mutex_unlock(&lock);
    return fd;
}

void tercio__owned_close(int fd, uint32_t of_generation)
{
    if (fd < 0 || of_generation != tercio__fork_generation())
        return;
    take_lock();
    if ((size_t)fd / WORD < n_words)
        words[(size_t)fd / WORD] &= ~(UINT64_C(1) << (unsigned)fd % WORD);
    close(fd); /* under the lock: the number is nobody else's before it is off the table */
    pthread_mutex_unlock(&lock);
}

void tercio__owned_hold(void)
{
    take_lock();
}

void tercio__owned_let_go(void)
{
    pthread_mutex_unlock(&lock);
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
    for (size_t word = 0; word < n_words; word++)
        for (uint64_t left = words[word]; left; left &= left - 1) {
            int fd = (int)(word * WORD) + __builtin_ctzll(left);
            if (!is_among(fd, keep, n_keep))
                close(fd);
        }
    forget_all();
}
