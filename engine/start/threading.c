/* SPDX-License-Identifier: MIT
 *
 * threading: a worker is a thread of this process. Its channel lies in the heap; it can be asked to stop, but not
 * killed: one that doesn't listen is left behind, with the memory that it uses.
 */
#include <stdlib.h>

#include "start.h"

static void *live(void *data)
{
    tercio__worker_live(data);
    return NULL;
}

static int start(tercio__worker *worker, tercio__started *made)
{
    tercio_pool *pool = worker->pool;
    tercio__worker_start *begin = malloc(sizeof *begin);
    if (begin == NULL)
        return TERCIO_ENOMEM;
    *begin = (tercio__worker_start){
        .file = pool->file,
        .page = pool->page,
        .channel = worker->sender.map.words,
        .host = pool->host,
        .host_user = pool->host_user,
        .method = TERCIO_THREADING,
        .caller_bell = pool->caller_bell,
        .keeper_bell = pool->keeper_bell,
    };
    if (pthread_create(&made->thread, NULL, live, begin)) {
        free(begin);
        return TERCIO_ESYSTEM;
    }
    made->thread_runs = true;
    made->data = begin;
    return 0;
}

static int collect(tercio__worker *worker, tercio__exit *how)
{
    if (!worker->goodbye)
        return TERCIO_EAGAIN;
    if (worker->thread_runs)
        pthread_join(worker->thread, NULL); /* it has said its last word: a few instructions are left */
    worker->thread_runs = false;
    free(worker->starter_data);
    worker->starter_data = NULL;
    *how = (tercio__exit){0};
    return 0;
}

const tercio__starter tercio__threading_starter = {.start = start, .collect = collect};
