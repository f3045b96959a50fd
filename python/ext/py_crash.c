/* SPDX-License-Identifier: MIT
 *
 * A worker that crashes has its Python stack written where its parent reads it, and then crashes as it would have
 * without that: a faulthandler that the user has enabled, before or after, writes to the user's file as well.
 *
 * The stack itself is written by faulthandler, which can do so in a signal's handler. It is registered for a signal
 * that nothing else uses (tercio._postmortem does that), and the handlers here raise that signal.
 */
#include "core.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STACK_BYTES = 64 << 10 };

static const struct {
    int number;
    const char *text;
} crashes[] = {
    {SIGSEGV, "Fatal Python error: Segmentation fault\n\n"},
    {SIGFPE, "Fatal Python error: Floating-point exception\n\n"},
    {SIGABRT, "Fatal Python error: Aborted\n\n"},
    {SIGBUS, "Fatal Python error: Bus error\n\n"},
    {SIGILL, "Fatal Python error: Illegal instruction\n\n"},
};
enum { N_CRASHES = sizeof crashes / sizeof crashes[0] };

/* Of this process, for handlers. All copies of a descriptor share one offset, so what faulthandler writes step by step goes
 * to a file of this process's own, and from there to its place in the parent's. */
static struct {
    int fd, parents;
    off_t at;
    size_t most;
    pid_t pid;
    struct sigaction before[N_CRASHES];
} caught;

static void copy_to_parent(void)
{
    static char data[4096]; /* the stack may be what has run out */
    for (size_t done = 0; done < caught.most;) {
        size_t want = caught.most - done < sizeof data ? caught.most - done : sizeof data;
        ssize_t n = pread(caught.fd, data, want, (off_t)done);
        if (n <= 0 || pwrite(caught.parents, data, (size_t)n, caught.at + (off_t)done) != n)
            return;
        done += (size_t)n;
    }
}

static void on_crash(int number)
{
    int saved_errno = errno;
    size_t i = 0;
    while (i < N_CRASHES && crashes[i].number != number)
        i++;
    if (i == N_CRASHES)
        return;
    (void)sigaction(number, &caught.before[i], NULL); /* first: what crashes below is not caught here again */
    if (caught.pid == getpid()) {                     /* and not what a task has forked */
        sigset_t stack;
        sigemptyset(&stack);
        sigaddset(&stack, CORE_STACK_SIGNAL);
        (void)!write(caught.fd, crashes[i].text, strlen(crashes[i].text));
        (void)pthread_sigmask(SIG_UNBLOCK, &stack, NULL);
        (void)raise(CORE_STACK_SIGNAL);
        copy_to_parent();
    }
    errno = saved_errno;
    (void)raise(number);
}

/* A handler for an overflow of the stack needs one of its own. */
static void have_another_stack(void)
{
    stack_t now;
    if (sigaltstack(NULL, &now) < 0 || !(now.ss_flags & SS_DISABLE))
        return;
    stack_t another = {.ss_sp = malloc(STACK_BYTES), .ss_size = STACK_BYTES};
    if (another.ss_sp != NULL && sigaltstack(&another, NULL) < 0)
        free(another.ss_sp);
}

PyObject *crash_catch(PyObject *module, PyObject *args)
{
    int fd, parents;
    long long at;
    Py_ssize_t most;
    (void)module;
    struct sigaction action = {.sa_handler = on_crash, .sa_flags = SA_NODEFER | SA_ONSTACK}, before;
    if (!PyArg_ParseTuple(args, "iiLn:catch_crashes", &fd, &parents, &at, &most))
        return NULL;
    have_another_stack();
    caught.fd = fd;
    caught.parents = parents;
    caught.at = (off_t)at;
    caught.most = (size_t)most;
    caught.pid = getpid();
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < N_CRASHES; i++) {
        if (sigaction(crashes[i].number, &action, &before) < 0)
            return PyErr_SetFromErrno(PyExc_OSError);
        if (before.sa_handler != on_crash) /* a worker's worker by fork has it already */
            caught.before[i] = before;
    }
    Py_RETURN_NONE;
}
