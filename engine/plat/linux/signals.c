/* SPDX-License-Identifier: MIT
 *
 * What a worker does with signals, and what becomes of that in the processes that its tasks fork. A worker keeps the
 * dispositions and the mask of its parent, but for the few signals that it takes: their former actions are noted here,
 * and a fork gives them back before any of these signals can reach the child. A program that is executed needs no help:
 * the kernel resets handlers, and what is ignored was left ignored.
 *
 * Used by one thread while a worker begins; after that by forks alone.
 */
#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "../plat.h"
#include "linux.h"

enum { n_signals = 64 };

static struct {
    bool taken;
    void (*handler)(int); /* ours; NULL: the host's, which is any */
    struct sigaction former;
} signals[n_signals + 1];
static bool takes_any;
static uint64_t opened; /* blocked in the parent, and let in here */
static _Thread_local sigset_t before_fork;

static uint64_t bit(int signal)
{
    return UINT64_C(1) << (signal - 1);
}

static sigset_t set_of(uint64_t bits)
{
    sigset_t set;
    sigemptyset(&set);
    for (int s = 1; s <= n_signals; s++)
        if (bits & bit(s))
            sigaddset(&set, s);
    return set;
}

uint64_t tercio__signals_of(const sigset_t *mask)
{
    uint64_t bits = 0;
    for (int s = 1; s <= n_signals; s++)
        if (sigismember(mask, s) == 1)
            bits |= bit(s);
    return bits;
}

uint64_t tercio__signals_blocked(void)
{
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    return tercio__signals_of(&mask);
}

static bool is_ignored(int signal)
{
    struct sigaction action;
    return sigaction(signal, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

uint64_t tercio__signals_ignored(void)
{
    uint64_t bits = 0;
    for (int s = 1; s <= n_signals; s++)
        if (is_ignored(s))
            bits |= bit(s);
    return bits;
}

void tercio__signals_block(uint64_t blocked)
{
    sigset_t set = set_of(blocked);
    pthread_sigmask(SIG_SETMASK, &set, NULL);
}

void tercio__signals_ignore(uint64_t ignored)
{
    for (int s = 1; s <= n_signals; s++)
        if (ignored & bit(s))
            (void)signal(s, SIG_IGN);
}

/* ---- Forks of a worker --------------------------------------------------------------------------------------------- */

/* A signal that comes while the child still has the worker's handlers would be lost there. */
void tercio__signals_fork(void)
{
    if (!takes_any)
        return;
    sigset_t taken;
    sigemptyset(&taken);
    for (int s = 1; s <= n_signals; s++)
        if (signals[s].taken)
            sigaddset(&taken, s);
    pthread_sigmask(SIG_BLOCK, &taken, &before_fork);
}

void tercio__signals_forked(bool in_child)
{
    if (!takes_any)
        return;
    for (int s = 1; in_child && s <= n_signals; s++) {
        struct sigaction now;
        if (!signals[s].taken || sigaction(s, NULL, &now))
            continue;
        if (signals[s].handler == NULL || now.sa_handler == signals[s].handler) /* else it is the task's own */
            (void)sigaction(s, &signals[s].former, NULL);
        signals[s].taken = false;
        if (opened & bit(s))
            sigaddset(&before_fork, s);
    }
    if (in_child) {
        takes_any = false;
        opened = 0;
    }
    pthread_sigmask(SIG_SETMASK, &before_fork, NULL);
}

/* ---- A worker ------------------------------------------------------------------------------------------------------ */

void tercio__signal_take(int signal, void (*handler)(int), int flags)
{
    struct sigaction action;
    if (!signals[signal].taken && sigaction(signal, NULL, &signals[signal].former))
        return;
    signals[signal].taken = takes_any = true;
    signals[signal].handler = handler;
    if (handler == NULL)
        return;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = flags;
    sigfillset(&action.sa_mask);
    (void)sigaction(signal, &action, NULL);
}

/* Not SIG_IGN, which programs that a task starts would inherit. */
static void nothing(int signal)
{
    (void)signal;
}

void tercio__signals_enter(uint64_t blocked, int interrupt)
{
    if (!is_ignored(SIGINT))
        tercio__signal_take(SIGINT, nothing, SA_RESTART);
    if (!signals[interrupt].taken)
        tercio__signal_take(interrupt, nothing, 0); /* it shall end waits */
    uint64_t needed = 0;
    for (int s = 1; s <= n_signals; s++)
        if (signals[s].taken && s >= SIGRTMIN)
            needed |= bit(s);
    opened = blocked & needed;
    tercio__signals_block(blocked & ~needed);
}
