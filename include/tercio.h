/* SPDX-License-Identifier: MIT
 *
 * tercio: pools of workers started by fork, spawn, forkserver or threading.
 *
 * The only public header. It has two parts:
 *
 *   1. the C face: tasks are C functions in a constant table (tercio_map, tercio_stream, tercio_submit);
 *   2. the host face: what a language binding needs beyond that (tercio_host and the calls below it).
 *
 * Every call says, in this order: what it does; Caller: which threads may call it; Blocks; Ownership; Returns.
 * "Any thread" means any thread of the process that opened the pool. In a child that this process forked, every
 * call on a pool but tercio_close answers TERCIO_EFORKED (or does nothing, where it returns void).
 *
 * Structs that cross the border begin with their own size; set it to sizeof and everything else to zero, then fill
 * in what is needed: zero always means the default. So a program and a library of different versions fit: a smaller
 * struct than the library's lacks fields, which have their default, and is never written beyond its size; in a larger
 * one the fields that the library doesn't know must be zero, and where the library fills it they become zero. A size
 * that no version had (0, or more than 4096 bytes) is TERCIO_EINVAL.
 */
#ifndef TERCIO_H
#define TERCIO_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TERCIO_VERSION_MAJOR 0
#define TERCIO_VERSION_MINOR 1
#define TERCIO_VERSION_PATCH 0
#define TERCIO_VERSION (TERCIO_VERSION_MAJOR * 10000 + TERCIO_VERSION_MINOR * 100 + TERCIO_VERSION_PATCH)

#if defined(__GNUC__)
#define TERCIO_API __attribute__((visibility("default")))
#define TERCIO_PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define TERCIO_API
#define TERCIO_PRINTF(f, a)
#endif

/* ---- Errors -------------------------------------------------------------------------------------------------- */

/* X(number, name, text). A call answers 0 (or a count) on success and one of these, negative, on failure. */
#define TERCIO_ERRORS(X)                                                                 \
    X(-1, TERCIO_EINVAL, "an argument is out of range")                                  \
    X(-2, TERCIO_ENOMEM, "out of memory")                                                \
    X(-3, TERCIO_ESYSTEM, "a system call failed; errno tells which way")                 \
    X(-4, TERCIO_EUNSUPPORTED, "not supported on this platform")                         \
    X(-5, TERCIO_EFORKED, "the pool belongs to the process that forked this one")        \
    X(-6, TERCIO_ETHREADS, "other threads are running, and fork would copy their locks") \
    X(-7, TERCIO_ESTART, "a worker could not be started")                                \
    X(-8, TERCIO_ETABLE, "the worker's table of tasks differs from the parent's")        \
    X(-9, TERCIO_ECLOSED, "the pool was closed")                                         \
    X(-10, TERCIO_EBUSY, "the pool is busy with something that excludes this")           \
    X(-11, TERCIO_EAGAIN, "nothing yet")                                                 \
    X(-12, TERCIO_EINTERRUPTED, "interrupted by tercio_interrupt or a signal")           \
    X(-13, TERCIO_EFAILED, "the task reported an error")                                 \
    X(-14, TERCIO_EDIED, "the worker died while it ran this task")                       \
    X(-15, TERCIO_ETIMEDOUT, "the task ran longer than its limit")                       \
    X(-16, TERCIO_ECANCELED, "the task was cancelled")                                   \
    X(-17, TERCIO_ETOOBIG, "larger than a message can be")                               \
    X(-18, TERCIO_EPROTOCOL, "shared memory holds something no worker of ours writes")   \
    X(-19, TERCIO_ERIGHTS, "the forkserver was started with other users, groups or rights than this process has now")

enum {
#define TERCIO_X(number, name, text) name = number,
    TERCIO_ERRORS(TERCIO_X)
#undef TERCIO_X
};

/* The name ("TERCIO_EINVAL") and the text of an error. Caller: anyone, also in signal handlers. Blocks: no.
 * Ownership: static strings. Returns: never NULL; an unknown number gives "unknown error". */
TERCIO_API const char *tercio_error_name(int error);
TERCIO_API const char *tercio_error_text(int error);

/* TERCIO_VERSION of the library that runs, which may be newer than that of the header. */
TERCIO_API int tercio_version(void);

/* ---- Types --------------------------------------------------------------------------------------------------- */

typedef struct tercio_pool tercio_pool;
typedef struct tercio_run tercio_run;       /* one map, stream or series of submits under way */
typedef struct tercio_call tercio_call;     /* a worker's view of itself and of the call it is in */
typedef struct tercio_server tercio_server; /* a forkserver, to be shared by pools */

typedef struct {
    const void *data;
    size_t size; /* bytes */
} tercio_bytes;

typedef enum { TERCIO_DEFAULT, TERCIO_FORK, TERCIO_SPAWN, TERCIO_FORKSERVER, TERCIO_THREADING } tercio_method;
typedef enum { TERCIO_READONLY, TERCIO_COPY_ON_WRITE } tercio_sharing;

/* One task. `run` gets the input's bytes and, if out_size is not 0, `out_size` zeroed bytes for its answer; with
 * out_size 0 it answers through tercio_reply. It returns 0, or a code of its own above 0 (see tercio_fail). */
typedef struct {
    const char *name;
    int (*run)(tercio_call *, tercio_bytes in, void *out);
    size_t out_size;
} tercio_task;

/* The tasks of a program, the same in parent and worker; `task_size` is sizeof(tercio_task). `init` runs once in a
 * worker before its first task, `exit` once when a worker that has worked ends; both return 0 or a code above 0. */
typedef struct {
    size_t size, task_size, n_tasks;
    const tercio_task *tasks;
    int (*init)(tercio_call *, void **state);
    int (*exit)(tercio_call *, void *state);
} tercio_table;

struct tercio_host;

typedef struct {
    size_t size;
    const tercio_table *table; /* the C face; NULL when `host` is given */
    tercio_method method;      /* TERCIO_DEFAULT: fork on Unix */
    unsigned n_workers;        /* 0: the CPUs this process may use */
    char *const *worker_argv;  /* spawn, forkserver: argv of a worker's command, NULL-ended; one argument is added
                                    at its end. NULL: this program's own executable, whose main begins with
                                    tercio_worker_entry */
    size_t ring_bytes;         /* bytes of each worker's ring, each way; 0: 256 KiB */
    size_t arena_bytes;        /* most bytes of large payloads that wait unread, each way; 0: 256 MiB */
    const int *cpu_ids;        /* n_cpu_ids = n_workers: worker i is pinned to CPU cpu_ids[i] */
    size_t n_cpu_ids;
    double grace;                      /* seconds between asking and killing; 0: one second */
    double init_timeout, exit_timeout; /* seconds; 0: none */
    bool threads_at_fork;              /* fork though other threads run in this process */
    /* hosts only, from here on */
    const struct tercio_host *host;
    void *host_user;             /* handed to every callback that runs in this process */
    const tercio_bytes *prepare; /* n_prepare pieces, copied one behind the other into memory that the workers share;
                                    host->enter gets them as one, writable, its own, for the worker's life */
    size_t n_prepare;
    tercio_server *server; /* TERCIO_FORKSERVER: borrowed; NULL: the pool starts one of its own */
    bool no_group;         /* a worker that is killed leaves alone what it has started */
    bool observe;          /* note how long each item takes, and ask host->describe about the longest */
    const void
        *sigmask; /* a sigset_t *, may be NULL: installed while tercio_open waits for a forkserver, as tercio_wait has
                              it. A signal handler that runs meanwhile ends the call with TERCIO_EINTERRUPTED. It is
                              the mask that workers keep, too; NULL: the mask of the thread that calls tercio_open */
    /* not for hosts alone */
    size_t max_pending; /* most items of tercio_submit that are handed in and not finished; 0: 10,000, or two a worker
                           where that is more. What waits in the pool is also bounded by arena_bytes */
    size_t stack_size;  /* bytes of stack of each thread that the pool starts: workers under threading, and the
                           supervisor, which calls host->notify. 0, or less than the system's default for threads: that */
    /* for hosts */
    const tercio_bytes *worker_pipe; /* spawn, forkserver: two pieces, to live as long as the pool. The argument isn't
                              added to worker_argv: a pipe holds it between these two, some 4000 bytes at most, and the
                              number of the pipe's end is appended to the last of worker_argv. For programs whose
                              command line is another's to parse */
    const int *descriptors; /* spawn, forkserver: n_descriptors of this process's, which each worker gets a copy of; see
                               tercio_call_descriptor. Copied: the caller may close its own after tercio_open */
    size_t n_descriptors;
} tercio_options;

typedef struct {
    size_t size;
    size_t chunk;       /* items a message; 0: chosen from n (tercio_map) or 1 */
    size_t max_active;  /* most items handed out and not yet answered; 0: as many as keep the workers busy */
    uint64_t total;     /* for progress; 0: unknown */
    double timeout;     /* seconds for each item; 0: none */
    unsigned retries;   /* an item whose worker died is tried again so many times */
    unsigned lifespan;  /* a worker is replaced after the chunk in which it completes so many items; 0: never */
    bool unordered;     /* tercio_next gives results as they come */
    bool stop_on_error; /* the first error ends the run: what is queued is dropped */
    void (*progress)(void *user, uint64_t done, uint64_t total); /* in the caller's thread, between results */
    void *user;
    /* hosts only, from here on */
    bool in_turn;   /* message i goes to worker i mod n_workers, and nothing is taken back */
    bool notify;    /* call host->notify when there is a result and nobody waits for it */
    bool low_water; /* the caller wants everything: wake it when a queue has half drained, or half of a worker's ring is
                       unread, not at each result. Decided for a message when it is handed out */
    bool rows;      /* results may be of several items: see tercio_result.n_items */
    /* for all callers again */
    bool strict_order; /* no worker ever goes back in the run: nothing is handed out ahead of what a worker runs, and a
                          message that is tried again goes to a worker that has begun no later one. For tasks whose
                          result depends on the state of their worker. Without it a worker goes back where the
                          alternative is to wait for a task that takes long. With in_turn it changes nothing */
} tercio_map_options;

typedef struct {
    size_t size;
    uint64_t index;     /* of the item, from 0 */
    int status;         /* 0, or TERCIO_EFAILED, EDIED, ETIMEDOUT, ECANCELED, ... */
    int code;           /* the task's own code, or the exit code of a worker that died; -1: unknown */
    int signal;         /* that killed the worker; 0: none, or unknown */
    bool out_of_memory; /* the worker was killed for want of memory, by the kernel's counters of this process's own
                           control group. false: it was not, or that can't be known (no such counter, or it counts
                           fewer kills than workers that were killed) */
    unsigned worker;    /* index of the worker, from 0 */
    unsigned attempts;  /* times that the item was handed to a worker */
    uint64_t peak_rss;  /* bytes; of a worker that died; 0: unknown */
    char message[256];  /* for people; empty on success */
    tercio_bytes out;   /* valid until tercio_release */
    /* hosts only, from here on */
    int kind;                          /* TERCIO_KIND_... */
    int pid;                           /* of the worker that died; else 0 */
    uint64_t cookie;                   /* of the message */
    const struct tercio_block *blocks; /* large parts of the answer; see tercio_take */
    size_t n_blocks;
    void *internal;
    uint32_t n_items; /* 1; more with options.rows: good answers of so many items, from `index` on, in a row in `out`;
                         tercio_row_next takes them out */
} tercio_result;

typedef struct {
    size_t size;
    uint64_t tasks, restarts;
    double start, init, wait, work, exit; /* seconds, over all that were this worker */
    int pid;                              /* 0: a thread, or not running */
    int state;                            /* TERCIO_STATE_... */
    uint64_t running;                     /* index of the item that runs, if state is TERCIO_STATE_WORK */
    bool died;                            /* one that was this worker ended without being asked: the last one by ... */
    int died_signal, died_code;           /* ... this signal (0: none, or unknown), or with this code (-1: unknown) */
    uint64_t killed;                      /* times that this worker died of SIGKILL, and not of the pool's */
    uint64_t cut_short;                   /* times that the pool killed it because host->leave took too long */
} tercio_stats;

enum { TERCIO_LONGEST = 5, TERCIO_LONGEST_TEXT = 256 };

/* An item that took long. */
typedef struct {
    size_t size;
    uint64_t index; /* within its run */
    double seconds;
    char text[TERCIO_LONGEST_TEXT]; /* what host->describe wrote, ended by a 0; UTF-8 that may be cut or mixed up,
                                       since nothing is locked for it */
} tercio_longest;

enum {
    TERCIO_STATE_NONE,
    TERCIO_STATE_START,
    TERCIO_STATE_INIT,
    TERCIO_STATE_WAIT,
    TERCIO_STATE_WORK,
    TERCIO_STATE_EXIT,
    TERCIO_STATE_DEAD
};

/* ---- The C face ---------------------------------------------------------------------------------------------- */

/* The method named "fork", "spawn", "forkserver", "threading" or "default". Caller: anyone. Blocks: no.
 * Returns: 0; TERCIO_EINVAL for another name; TERCIO_EUNSUPPORTED where this platform lacks it (*method is set). */
TERCIO_API int tercio_method_parse(const char *name, tercio_method *method);

/* "fork" and so on; "default" is resolved to the platform's. Returns: a static string, never NULL. */
TERCIO_API const char *tercio_method_name(tercio_method method);

/* The CPUs that this process may use: affinity and cgroup quota, rounded up, at least 1. */
TERCIO_API unsigned tercio_usable_cpus(void);

/* Counts up in each forked child: what was made under another number is another process's.
 * Caller: any thread. Blocks: no. */
TERCIO_API uint32_t tercio_fork_generation(void);

/* The first line of main in a program that uses spawn or forkserver: where this process was started as a worker or
 * a server it does that work and exits; else it returns at once. Caller: main, before any thread is started. */
TERCIO_API void tercio_worker_entry(int argc, char **argv, const tercio_table *);

/* Opens a pool and starts all of its workers. The table, and the host, are borrowed until tercio_close; under threading,
 * a thread that was left behind uses them until it ends.
 * Caller: any thread. Blocks: until the workers live (a host's pool: until they are started).
 * Ownership: *pool is the caller's, for tercio_close. On error *pool is NULL and nothing is left running.
 * Returns: 0; TERCIO_EINVAL, _EUNSUPPORTED, _ENOMEM, _ESYSTEM, _ETHREADS, _ESTART, _ETABLE. */
TERCIO_API int tercio_open(tercio_pool **pool, const tercio_options *);

/* Puts bytes where every worker can see them, once for all workers. Copied: the caller keeps `bytes`.
 * TERCIO_COPY_ON_WRITE: a worker may write, and sees its own writes alone (under threading: shared by all).
 * Caller: any thread. Blocks: while it copies. Ownership: the pool's, until tercio_close.
 * Returns: 0 and *id; TERCIO_ENOMEM, _ESYSTEM, _ECLOSED, _EFORKED. */
TERCIO_API int tercio_share(tercio_pool *, tercio_sharing, tercio_bytes bytes, uint32_t *id);

/* Runs task number `task` on n items of in_size bytes that lie side by side at `in`; answers go to `out`, out_size
 * bytes an item (may be NULL when out_size is 0: such answers are dropped). Items that failed leave their part of
 * `out` untouched. Caller: any thread; runs of one pool may be under way in several threads. Blocks: until done.
 * Returns: 0; the number of items that failed, with the first by index in *first_error (may be NULL); or negative:
 * TERCIO_EINVAL, _ENOMEM, _ECLOSED, _EFORKED, _EINTERRUPTED, _ESTART. After stop_on_error items not run count as failed. */
TERCIO_API int tercio_map(tercio_pool *, unsigned task, const void *in, size_t in_size, size_t n, void *out,
                          const tercio_map_options *, tercio_result *first_error);

/* Starts a run whose inputs come from `next`: 1 and *input (valid until the next call), 0 at the end, below 0 to
 * fail the run with that number. `next` is called in the thread that calls tercio_next, never under a lock.
 * Ownership: *run is the caller's, for tercio_run_close. Returns: 0 or an error as tercio_map. */
TERCIO_API int tercio_stream(tercio_pool *, unsigned task, int (*next)(void *user, tercio_bytes *input), void *user,
                             const tercio_map_options *, tercio_run **run);

/* Starts a run of one item. What no worker can take yet waits in the pool, up to options.max_pending items.
 * Caller: any thread. Blocks: no. Ownership: the bytes are copied; *run is the caller's, for tercio_run_close.
 * Returns: 0; TERCIO_EAGAIN: as many items are unfinished as the pool may hold (see tercio_wait_room); or an error as
 * tercio_map. On error *run is NULL. */
TERCIO_API int tercio_submit(tercio_pool *, unsigned task, tercio_bytes input, const tercio_map_options *,
                             tercio_run **run);

/* Waits until tercio_submit would take an item: other threads may be faster, so this and tercio_submit are called by
 * turns. Results need not be taken for it: an item is finished when its worker has answered. timeout in seconds: 0 looks
 * only, below 0 waits for ever. `sigmask` as in tercio_wait.
 * Caller: any thread, but not one that runs a task of this pool, nor a host's callback: those would wait for themselves.
 * Blocks: up to timeout.
 * Returns: 0; TERCIO_EAGAIN when the time is up; TERCIO_EINTERRUPTED, _ECLOSED, _EFORKED, _ESTART. */
TERCIO_API int tercio_wait_room(tercio_pool *, double timeout, const void *sigmask);

/* The next result of a run. timeout in seconds: 0 looks only, below 0 waits for ever.
 * Caller: one thread at a time for a run. Blocks: up to timeout.
 * Ownership: result->out is shared memory or the run's until tercio_release or tercio_run_close.
 * Returns: 1 result; 0 end; TERCIO_EAGAIN when the time is up; TERCIO_EINTERRUPTED, _ECLOSED, _EFORKED, _ESTART; or
 * what `next` of tercio_stream failed with, after the results of all before it. */
TERCIO_API int tercio_next(tercio_run *, double timeout, tercio_result *);

/* The next answer of a result of several items: row begins as the result's `out`, and is moved on. Caller: anyone.
 * Blocks: no. Ownership: *answer lies where the row does. Returns: whether there was one. */
TERCIO_API bool tercio_row_next(tercio_bytes *row, tercio_bytes *answer);

/* Gives back what a result holds. Caller: as tercio_next. A result may be kept while others are asked for. */
TERCIO_API void tercio_release(tercio_run *, tercio_result *);

/* Stops one item (tercio_submit: 0): what is queued never runs; what runs is interrupted, and killed after the
 * grace. Its result has status TERCIO_ECANCELED. Caller: any thread. Blocks: no.
 * Returns: 0; TERCIO_EINVAL when there is no such item under way (also: it is done). */
TERCIO_API int tercio_cancel(tercio_run *, uint64_t index);

/* A descriptor that is readable when tercio_next won't block: for poll and event loops. Ownership: the run's.
 * Returns: the descriptor, or an error. */
TERCIO_API int tercio_run_fd(tercio_run *);

/* Ends a run: what is queued is dropped, what runs goes on to the end of its item, results unread are dropped.
 * Caller: the thread that calls tercio_next. Blocks: no. */
TERCIO_API void tercio_run_close(tercio_run *);

/* What each worker did. Fills at most n entries (set stats[0].size; the others follow it). Caller: any thread.
 * Returns: the number of workers. */
TERCIO_API int tercio_get_stats(tercio_pool *, tercio_stats *stats, size_t n);

/* The items that took one worker longest, the longest first, over all that were this worker; items are timed with
 * options.observe, or in runs with a timeout. Fills at most n entries (set longest[0].size; the others follow it),
 * TERCIO_LONGEST at most. Caller: any thread. Returns: how many were filled. */
TERCIO_API int tercio_get_longest(tercio_pool *, unsigned worker, tercio_longest *longest, size_t n);

/* Makes whoever waits in this pool return TERCIO_EINTERRUPTED, once. Caller: anyone, also signal handlers. */
TERCIO_API void tercio_interrupt(tercio_pool *);

/* Waits for all work, then ends the workers; `on_exit` gets what each exit function left (kind TERCIO_KIND_EXIT).
 * timeout in seconds; 0 or below: none. The pool takes no more work afterwards: other callers get TERCIO_ECLOSED then.
 * When the limit passes, what is queued is dropped, worker processes are killed, and worker threads are asked to stop; those
 * that don't are left behind after the grace. Runs that lose work end with TERCIO_ECLOSED.
 * Caller: any thread, also several at a time. Blocks: up to timeout; with threads, for the grace beyond it.
 * Returns: 0; TERCIO_ETIMEDOUT when the limit has passed; TERCIO_EINTERRUPTED, _EFORKED, _ECLOSED. */
TERCIO_API int tercio_finish(tercio_pool *, double timeout, void (*on_exit)(void *user, const tercio_result *),
                             void *user);

/* The same, with `sigmask` (a sigset_t *, may be NULL) installed while it waits, as tercio_wait has it: a signal handler that
 * runs meanwhile ends the call with TERCIO_EINTERRUPTED. The call may be repeated. */
TERCIO_API int tercio_finish_masked(tercio_pool *, double timeout, const void *sigmask,
                                    void (*on_exit)(void *user, const tercio_result *), void *user);

/* Ends the workers, soft first, hard after the grace, and frees the pool. Runs that are still open become inert:
 * only tercio_run_close may be called on them. NULL is allowed. In a forked child it frees the child's copy of the pool and
 * closes the descriptors that the child has inherited, and touches nothing of the parent's; what another thread was changing
 * during the fork, and what worker threads have for themselves, stays allocated there.
 * Caller: any thread, when no other is in a call on this pool. Blocks: up to the grace. */
TERCIO_API void tercio_close(tercio_pool *);

/* False in the supervisor's thread of any pool, and in this pool's own worker threads: tercio_close would wait for its own
 * caller there. Caller: any thread. Blocks: no. */
TERCIO_API bool tercio_may_close(const tercio_pool *);

/* -- inside a task, init or exit: only on the call that was handed in, only by the thread that got it -- */

TERCIO_API void *tercio_state(tercio_call *);                             /* what init left in *state */
TERCIO_API unsigned tercio_worker_id(tercio_call *);                      /* 0 ... n_workers - 1 */
TERCIO_API void *tercio_shared(tercio_call *, uint32_t id, size_t *size); /* of tercio_share; NULL: no such id */
TERCIO_API void *tercio_reply(tercio_call *, size_t size); /* room for the answer, valid until the task returns; NULL:
                                                                  no memory, or the task's answer is `out` */
/* Leaves a message (cut at 255 bytes) for the parent and returns `code`, so that a task may end with it. */
TERCIO_API int tercio_fail(tercio_call *, int code, const char *format, ...) TERCIO_PRINTF(3, 4);
TERCIO_API bool tercio_stopping(tercio_call *); /* the task was cancelled, or the pool ends: return soon */
/* The same, asked by another thread of the process, which has to know that the task runs; changes nothing. */
TERCIO_API bool tercio_is_stopping(const tercio_call *);

/* ---- The host face ------------------------------------------------------------------------------------------- */

enum {
    TERCIO_KIND_RESULT, /* of an item */
    TERCIO_KIND_START,  /* a worker could not start: `out` is what host->enter left */
    TERCIO_KIND_INIT,   /* host->init failed: `out` is what it left */
    TERCIO_KIND_EXIT,   /* what host->exit left */
};

/* A message: parts[0] is copied into the ring, every other part becomes a block of its own in shared memory, where
 * the receiver maps it privately without copying. Items inside parts[0] are framed by the host: a worker may be
 * asked to skip the first ones (they were done before). */
typedef struct {
    size_t size;
    uint64_t index;   /* of its first item, within the run */
    uint32_t n_items; /* at least 1 */
    uint64_t cookie;  /* comes back in each of its results */
    const tercio_bytes *parts;
    size_t n_parts; /* at least 1 */
    bool attended;  /* the caller waits for the result right away (tercio_wait): host->notify has nothing to report */
    /* The caller will push again at once, or call tercio_run_flush before it does anything else that may take long
     * (tercio_wait, tercio_next with a timeout, tercio_run_end and tercio_run_close flush by themselves): where the run's
     * messages are quick, workers may be woken for several at a time, and 20 ms later than they might have been. */
    bool more;
    bool exceeds; /* with wait_in_pool: taken also where options.max_pending is reached. For threads that must not wait:
                     those that run tasks of the pool, or its callbacks */
} tercio_message;

/* A large part where it was received. */
typedef struct tercio_block {
    uint64_t offset; /* names it in the pool's shared memory */
    uint64_t size;   /* bytes of data */
} tercio_block;

/* What a worker was handed. */
typedef struct {
    size_t size;
    uint64_t index;             /* of the first item of the message */
    uint32_t n_items;           /* of the whole message */
    uint32_t skip;              /* the first so many are done already */
    tercio_bytes message;       /* parts[0] */
    const tercio_block *blocks; /* the other parts, in order */
    size_t n_blocks;
    void *context; /* what host->open_context left for the run */
} tercio_chunk;

/* A block that is held in memory: writable, seen by this process alone. */
typedef struct {
    void *data;
    size_t size;
    void *internal[4];
} tercio_view;

/* Callbacks of a binding. `user` is options.host_user in the parent, and what tercio_worker_main or
 * tercio_server_main were given in a fresh process; fork inherits the parent's. NULL callbacks are skipped.
 * None is called under a lock of the engine. */
typedef struct tercio_host {
    size_t size;

    /* In the parent. */
    void (*before_fork)(void *user);               /* in the thread that forks; may be the supervisor's */
    void (*after_fork)(void *user, bool in_child); /* same thread; in the child first of all */
    void (*notify)(void *user, tercio_run *);      /* supervisor's thread: a run with options.notify has results */
    void (*drop)(void *user, tercio_bytes message, uint32_t n_items, uint32_t skip, bool is_answer);
    /* threading only: parts[0] of a message or an answer that
                                                         nobody will read (it may hold references) */

    /* In the worker; its thread is the process's main thread, or the worker's own under threading. */
    int (*enter)(void *user, tercio_call *, tercio_bytes prepare); /* 0; else the worker can't start, and what was
                                                         left with tercio_leave goes to the parent */
    int (*open_context)(void *user, tercio_call *, const tercio_chunk *context, void **state); /* 0; else the chunk's
                                                         items all fail with what was left with tercio_leave */
    void (*close_context)(void *user, tercio_call *, void *state);
    int (*init)(void *user, tercio_call *, void *context); /* before the first chunk; else 0 as enter: kind INIT */
    int (*run)(void *user, tercio_call *, const tercio_chunk *); /* tercio_commit for each item from skip on; 0 */
    void (*exit)(void *user, tercio_call *, void *context);      /* tercio_leave what the parent shall get: kind EXIT */
    /* Last of all; the process ends after it. A process that takes more than five graces from here to its end is killed. */
    void (*leave)(void *user, tercio_call *);
    void (*pause)(void *user, tercio_call *); /* the thread is about to wait: let other threads run */
    void (*resume)(void *user, tercio_call *);
    void (*signals)(void *user, tercio_call *);                             /* a signal came while it waited */
    size_t (*describe)(void *user, tercio_call *, char *text, size_t room); /* within tercio_commit: the item is among
                                                         the worker's longest; write at most room bytes for people
                                                         to read, and return how many */
    /* Processes only, after enter: calls rest(call), once, which runs the worker up to its goodbye; no other callback
     * follows. What the host does around it is the first and the last that the worker runs. */
    void (*live)(void *user, tercio_call *, void (*rest)(tercio_call *));
    /* Threads only, after enter: what the worker ran has ended its thread, by pthread_exit say, and this is what the
     * thread runs last. In place of close_context and leave, which are called where this is NULL. */
    void (*lost)(void *user, tercio_call *);
} tercio_host;

/* Opens a run. `context` is sent to each worker once, when it meets the run's first message; same layout as a
 * message's parts. Returns: 0 or an error. */
TERCIO_API int tercio_run_open(tercio_pool *, const tercio_bytes *context, size_t n_context, const tercio_map_options *,
                               tercio_run **run);

/* Hands in a message. With `wait_in_pool` it is copied and waits where no worker can take it yet, and is refused when
 * options.max_pending messages are unfinished (see tercio_wait_room); without, when no worker has room. Never blocks. Caller: as tercio_next, or any thread with
 * wait_in_pool. Ownership: bytes are copied. Returns: 1 taken; 0 no room now; or an error. */
TERCIO_API int tercio_push(tercio_run *, const tercio_message *, bool wait_in_pool);

/* How many items the next message may have, for tercio_push to take it now without waiting in the pool: as many as
 * options.max_active leaves; INT_MAX where it sets no bound, or none of the run's items is under way.
 * Caller: as tercio_next. Blocks: no. Returns: the number; 0: no worker has room; or an error. */
TERCIO_API int tercio_run_room(tercio_run *);

/* Says that no message will follow: tercio_next answers 0 after the last result. */
TERCIO_API void tercio_run_end(tercio_run *);

/* Waits until tercio_next has something, or, with `or_room`, until tercio_push would take a message.
 * `sigmask` (a sigset_t *, may be NULL) is installed while it waits, atomically: block signals, check for them,
 * then wait with the old mask, and none is slept through.
 * Returns: 0; TERCIO_EAGAIN at timeout; TERCIO_EINTERRUPTED, with a sigmask also when a signal handler ran; _ECLOSED,
 * _ESTART. */
TERCIO_API int tercio_wait(tercio_run *, double timeout, bool or_room, const void *sigmask);

/* Ends a run as tercio_run_close does, but for the bytes of results that are out: those may be read on, in another
 * thread, until tercio_release and then tercio_run_close, which are all that may follow; neither touches the pool any
 * more. Caller: any thread, when no other is in a call on this run. Blocks: no. */
TERCIO_API void tercio_run_detach(tercio_run *);

/* Makes whoever waits for this run (tercio_wait, tercio_next) return TERCIO_EINTERRUPTED, once. Caller: any thread, not
 * signal handlers. Blocks: no. */
TERCIO_API void tercio_run_interrupt(tercio_run *);

/* The host has not waited after all for what it pushed as `attended`: it is told of the result. Caller: any thread.
 * Blocks: no. */
TERCIO_API void tercio_run_unattended(tercio_run *);

/* After messages that were pushed with `more`: no other one follows for now, and every worker that has any is to begin.
 * Caller: any thread. Blocks: no. */
TERCIO_API void tercio_run_flush(tercio_run *);

/* How many items of the run are answered, those included whose results tercio_next has not handed out yet.
 * Caller: as tercio_next. Blocks: no. Returns: the number; 0 once the pool is gone. */
TERCIO_API uint64_t tercio_run_done(tercio_run *);

/* The measured mean time of an item of this run, seconds; 0: none yet. */
TERCIO_API double tercio_item_time(tercio_run *);

/* Maps a block of a result (in the parent: blocks of tercio_next; in a worker: blocks of a chunk). The view may
 * outlive the result, the run and the pool. Blocks that are never taken go back at tercio_release, or when the chunk
 * is done. Caller: any thread. Ownership: *view is the caller's, for tercio_give. Returns: 0, _ENOMEM, _ESYSTEM. */
TERCIO_API int tercio_take(tercio_run *, const tercio_block *, tercio_view *);
TERCIO_API int tercio_call_take(tercio_call *, const tercio_block *, tercio_view *);
TERCIO_API void tercio_give(tercio_view *); /* any thread, also in forked children, also after tercio_close */

/* Publishes the answer of the item that runs, the next after the last commit. parts as in a message.
 * status 0 or TERCIO_EFAILED; `code` is handed through. Blocks: while the parent lags behind (host->pause is called).
 * Returns: 0 go on with the next item; 1 the rest of the chunk is not wanted: return from run; TERCIO_ENOMEM and
 * _ESYSTEM: nothing was published, try with something smaller (an error message). */
TERCIO_API int tercio_commit(tercio_call *, int status, int code, const tercio_bytes *parts, size_t n_parts);

/* Leaves bytes for the parent from enter, open_context, init or exit. Copied. Returns: 0 or TERCIO_ENOMEM. */
TERCIO_API int tercio_leave(tercio_call *, int status, const tercio_bytes *parts, size_t n_parts);

TERCIO_API uint64_t tercio_call_index(tercio_call *); /* of the item that runs */
TERCIO_API tercio_method tercio_call_method(tercio_call *);
TERCIO_API void **tercio_call_user(tercio_call *); /* a pointer of the host's own, NULL at first */
/* Number i of options.descriptors as this worker has it, close-on-exec. Ownership: the host's, to close once.
 * Returns: -1 where there is none. */
TERCIO_API int tercio_call_descriptor(tercio_call *, size_t i);
TERCIO_API bool tercio_call_stray(tercio_call *); /* this process is a fork that a task made: not the worker */
TERCIO_API void tercio_call_wake(tercio_call *);  /* from a signal handler: look up from waiting */
/* In host->enter of a process, before the host gives a signal a handler of its own: what a task forks has the former
 * action again. Returns: whether there is one to be taken; false for a signal that is ignored, which is to stay so. */
TERCIO_API bool tercio_call_take_signal(tercio_call *, int signal);

/* A fresh process that was started as a worker or server: `argument` is the one that was added to worker_argv.
 * Returns only if `argument` is not one of ours, or the host has a size that can't be: TERCIO_EINVAL. */
TERCIO_API int tercio_worker_main(const tercio_host *, void *user, const char *argument);

/* Starts a forkserver by running argv with one argument added; that program calls tercio_worker_main.
 * Ownership: *server is the caller's; close it after the pools that use it. Blocks: until it runs. */
TERCIO_API int tercio_server_open(tercio_server **server, char *const *argv);
/* The same, with the argument in a pipe: see worker_pipe. pipe is borrowed for the call; NULL: none. */
TERCIO_API int tercio_server_open_piped(tercio_server **server, char *const *argv, const tercio_bytes *pipe);
TERCIO_API void tercio_server_close(tercio_server *);
TERCIO_API int tercio_server_pid(tercio_server *);
/* Whether pools of this process may use the server: it isn't a parent's, and this thread has the users, groups,
 * capabilities, namespaces and root directory that the thread which started the server had then. tercio_open with another
 * server, and later starts of its workers, fail with TERCIO_ERIGHTS. Caller: any thread. Blocks: no. Returns: 1 or 0. */
TERCIO_API int tercio_server_fits(tercio_server *);

/* New limits for init and exit functions, seconds, 0 for none; workers that run keep running. Caller: any thread.
 * Blocks: no. Returns: 0; TERCIO_EINVAL, _EFORKED. */
TERCIO_API int tercio_set_timeouts(tercio_pool *, double init_timeout, double exit_timeout);

/* Process ids of the workers, 0 for those that are not running. Returns: the number of workers. */
TERCIO_API int tercio_worker_pids(tercio_pool *, int *pids, size_t n);

/* Interrupts what each worker runs, as cancel does, and drops what is queued: of one run, or (NULL) of all. */
TERCIO_API void tercio_abort(tercio_pool *, tercio_run *);

/* The first failure of the pool itself (a worker that can't start), kept until the pool is closed. Set result->size.
 * Caller: any thread. Blocks: no. Ownership: what *result points to is the pool's.
 * Returns: 1 and *result; 0: the pool has not failed; TERCIO_EINVAL. */
TERCIO_API int tercio_failure(tercio_pool *, tercio_result *);

#ifdef __cplusplus
}
#endif
#endif
