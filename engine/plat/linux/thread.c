/* SPDX-License-Identifier: MIT
 *
 * Threads that run other people's code: how much stack they have.
 */
#include <errno.h>
#include <pthread.h>
#include <sys/resource.h>

#include "plat/plat.h"
#include "tercio.h"

/* What a main thread without a limit is taken for, and the most that is set aside for one with a limit. */
#define UNLIMITED_STACK ((size_t)64 << 20)
#define LARGEST_STACK ((size_t)1 << 30)

int tercio__thread_start(pthread_t *thread, size_t stack, void *(*run)(void *), void *data)
{
    pthread_attr_t attributes;
    size_t usual = 0;
    int error = pthread_attr_init(&attributes);
    if (error == 0) {
        (void)pthread_attr_getstacksize(&attributes, &usual);
        if (stack > usual)
            error = pthread_attr_setstacksize(&attributes, stack);
        if (error == 0)
            error = pthread_create(thread, &attributes, run, data);
        pthread_attr_destroy(&attributes);
    }
    if (error == 0)
        return 0;
    errno = error;
    return TERCIO_ESYSTEM;
}

size_t tercio__main_stack(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_STACK, &limit))
        return 0;
    if (limit.rlim_cur == RLIM_INFINITY)
        return UNLIMITED_STACK;
    return limit.rlim_cur < LARGEST_STACK ? (size_t)limit.rlim_cur : LARGEST_STACK;
}
