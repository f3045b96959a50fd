/* SPDX-License-Identifier: MIT
 *
 * For tests that need a process of their own: one that lowers its limits, is killed, or must not leave traces.
 */
#ifndef CHILD_H
#define CHILD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

/* In a child the framework's own checks would return into the framework of the parent. */
#define CHECK(condition)                                                                \
    do {                                                                                \
        if (!(condition)) {                                                             \
            fprintf(stderr, "%s:%d: in a child: %s\n", __FILE__, __LINE__, #condition); \
            _exit(1);                                                                   \
        }                                                                               \
    } while (0)

static inline int wait_status(pid_t pid)
{
    int status = -1;
    while (waitpid(pid, &status, 0) < 0)
        ;
    return status;
}

/* Runs `body` in a child, which ends well if it returns. */
static inline void in_child(void (*body)(void))
{
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        alarm(60);
        body();
        _exit(0);
    }
    assert_int_equal(wait_status(pid), 0);
}

#endif
