/* SPDX-License-Identifier: MIT
 * Some items kill the process that works on them. Each is reported with what killed it; all the others are done.
 *
 *     crash [fork|spawn|forkserver]
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tercio.h>

enum { ITEMS = 20 };

static int fragile(tercio_call *call, tercio_bytes in, void *out)
{
    int number;
    memcpy(&number, in.data, sizeof number);
    if (number % 7 == 3)
        raise(SIGSEGV);
    if (number == 5)
        exit(42);
    if (number == 6)
        return tercio_fail(call, 1, "six is not to my taste");
    number *= 10;
    memcpy(out, &number, sizeof number);
    return 0;
}

static const tercio_task tasks[] = {{"fragile", fragile, sizeof(int)}};
static const tercio_table table = {sizeof table, sizeof tasks[0], 1, tasks, NULL, NULL};

static int next_number(void *user, tercio_bytes *input)
{
    int *number = user;
    if (++*number >= ITEMS)
        return 0;
    input->data = number;
    input->size = sizeof *number;
    return 1;
}

int main(int argc, char **argv)
{
    tercio_options options = {.size = sizeof options, .table = &table, .n_workers = 2};
    tercio_result result = {.size = sizeof result};
    tercio_pool *pool;
    tercio_run *run;
    int number = -1, done = 0, lost = 0;

    tercio_worker_entry(argc, argv, &table);
    if (argc > 1 && tercio_method_parse(argv[1], &options.method) != 0) {
        fprintf(stderr, "crash: no such start method: %s\n", argv[1]);
        return 2;
    }
    if (options.method == TERCIO_THREADING) {
        fprintf(stderr, "crash: a thread that crashes takes the program along; choose processes\n");
        return 2;
    }
    int error = tercio_open(&pool, &options);
    if (error == 0) {
        error = tercio_stream(pool, 0, next_number, &number, NULL, &run);
        while (error == 0 && (error = tercio_next(run, -1, &result)) == 1) {
            if (result.status == 0)
                printf("item %2d: %d\n", (int)result.index, *(const int *)result.out.data);
            else if (result.signal)
                printf("item %2d: killed by signal %d (%s)\n", (int)result.index, result.signal,
                       strsignal(result.signal));
            else if (result.status == TERCIO_EDIED)
                printf("item %2d: exited with %d\n", (int)result.index, result.code);
            else
                printf("item %2d: error %d: %s\n", (int)result.index, result.code, result.message);
            done += result.status == 0;
            lost += result.status != 0;
            tercio_release(run, &result);
            error = 0;
        }
        if (error >= 0)
            tercio_run_close(run);
        tercio_close(pool);
    }
    if (error < 0) {
        fprintf(stderr, "crash: %s\n", tercio_error_text(error));
        return 1;
    }
    printf("%d done, %d lost\n", done, lost);
    return 0;
}
