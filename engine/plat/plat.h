/* SPDX-License-Identifier: MIT
 *
 * What the engine asks of an operating system, in objects. One folder a system (linux/, later darwin/ and windows/),
 * chosen by the build; nothing above this header knows which. Functions return 0 (or a value >= 0) or a negative
 * TERCIO_E...; where they fail with TERCIO_ESYSTEM, errno says why.
 */
#ifndef TERCIO_PLAT_H
#define TERCIO_PLAT_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- Shared memory: a nameless file that travels by descriptor ------------------------------------------------- */

enum { TERCIO__MAP_SHARED, TERCIO__MAP_PRIVATE };

/* A new nameless file of no size: close-on-exec, never executable, sealed against shrinking. Returns: descriptor. */
int tercio__shm_create(void);
/* Gets real memory for [offset, offset + size), growing the file: later stores there can't fail. Never raises SIGXFSZ.
 * What was written there before may be zeros afterwards. */
int tercio__shm_reserve(int fd, uint64_t offset, uint64_t size);
/* Copies bytes to the file at offset, growing it; cheaper than a store for pages never touched. */
int tercio__shm_write(int fd, uint64_t offset, const void *data, size_t size);
/* Gives the memory of the range back, where the system can. */
void tercio__shm_punch(int fd, uint64_t offset, uint64_t size);
/* Maps a page-aligned range. TERCIO__MAP_SHARED mappings are neither inherited by forked children nor dumped;
 * TERCIO__MAP_PRIVATE ones are inherited. Returns: 0 and *address. */
int tercio__shm_map(int fd, uint64_t offset, size_t size, int how, void **address);
void tercio__shm_unmap(void *address, size_t size);
size_t tercio__page_size(void);

/* ---- Sleeping on a word of shared memory (event counts) -------------------------------------------------------- */

/* Sleeps while *word == seen, at most until `deadline` (tercio__now; 0: for ever). May return early for no reason,
 * and returns when a signal handler ran. */
void tercio__word_wait(_Atomic uint32_t *word, uint32_t seen, uint64_t deadline);
void tercio__word_wake(_Atomic uint32_t *word); /* all who sleep on it; async-signal-safe */

/* ---- A bell that a descriptor can stand for -------------------------------------------------------------------- */

int tercio__bell_create(void); /* close-on-exec, non-blocking. Returns: descriptor */
/* Returns: false where the descriptor is no bell (any more). Async-signal-safe; errno is kept. */
bool tercio__bell_ring(int fd);
void tercio__bell_clear(int fd);
/* Waits until one of the n descriptors (those below 0 are skipped) is readable, with `sigmask` (may be NULL)
 * installed meanwhile, atomically. deadline as above. Returns: 1; 0 at the deadline; TERCIO_EINTERRUPTED. */
int tercio__bells_wait(const int *fds, size_t n, uint64_t deadline, const sigset_t *sigmask);

/* ---- Time ------------------------------------------------------------------------------------------------------ */

uint64_t tercio__now(void);                   /* nanoseconds, monotonic */
uint64_t tercio__deadline(double seconds);    /* now + seconds; below 0 or huge: 0, for ever */
uint64_t tercio__nanoseconds(double seconds); /* at least 0; what would not fit: some thirty years */
void tercio__yield(void);                     /* let another thread run on this CPU */

/* ---- Signals: in sets of bits, number n is bit n - 1 ------------------------------------------------------------- */

uint64_t tercio__signals_of(const sigset_t *mask);
uint64_t tercio__signals_blocked(void);       /* in this thread */
uint64_t tercio__signals_ignored(void);       /* in this process */
void tercio__signals_block(uint64_t blocked); /* exactly these, in this thread */
void tercio__signals_ignore(uint64_t ignored);
/* Makes this process, which is to be a worker, take the signals that the pool needs: `interrupt` ends waits and does
 * nothing else, SIGINT does nothing unless it is ignored. `blocked` is the parent's mask, and this thread's from here on,
 * but for what the pool needs. May be called again. */
void tercio__signals_enter(uint64_t blocked, int interrupt);
/* Notes what a worker does on a signal before it is given `handler`; NULL: the caller gives it one. What a task forks has
 * the former action again. */
void tercio__signal_take(int signal, void (*handler)(int), int flags);
/* Before a fork, and behind it: the child has the dispositions and the mask of one whose parent is no worker. */
void tercio__signals_fork(void);
void tercio__signals_forked(bool in_child);

/* ---- Processes ------------------------------------------------------------------------------------------------- */

typedef struct {
    int code;          /* exit code; -1: killed, or unknown */
    int signal;        /* that killed it; 0: none, or unknown */
    uint64_t peak_rss; /* bytes; 0: unknown */
} tercio__exit;

/* A handle on a child of this process, which stays valid (readable at death) whoever reaps it. Returns: descriptor.
 * Where handles are poor (an old kernel, a sandbox) its number is needed beside it. */
int tercio__process_handle(int pid);
/* How a dead child ended; reaps it. Never blocks. Returns: 0; TERCIO_EAGAIN while it lives. */
int tercio__process_reap(int handle, int pid, tercio__exit *);
/* Sends a signal through the handle, never to a stranger. Returns: 0; TERCIO_EINVAL when it is gone. */
int tercio__process_signal(int handle, int pid, int signal);
/* A worker and all that it starts, and what that starts, is a family. Processes that have left the process group of the
 * worker and of this process are nobody's. Returns: a new one, of this process; never 0. */
uint64_t tercio__family_new(void);
/* This process founds it. Returns: false where the system can't tell families apart. */
bool tercio__family_join(uint64_t family);
/* Kills the family of a worker that is dead, and those of pools in it. Takes as long as a look at each process of the
 * system. errno is kept. */
void tercio__family_kill(uint64_t family, int worker);
/* Puts this process into the process group of another one, where that may be. */
void tercio__join_group_of(int pid);
/* Kills the process group that the process leads. Only while it is not reaped yet. */
void tercio__process_kill_group(int pid);

/* Kills a child that is not reaped yet and that there is no handle of, and waits for its end, which nothing may hold
 * up. errno is kept. */
void tercio__process_end(int pid);

/* True when a child that is dead, but not reaped yet, was killed or ended with a code other than 0. */
bool tercio__process_failed(int handle, int pid);

/* How many processes of this process's own control group the kernel has killed for want of memory so far. Returns: 0;
 * TERCIO_EUNSUPPORTED where nobody counts that for the group alone. */
int tercio__memory_kills(uint64_t *n);

/* Standard output and error of C: what a forked child has inherited in its buffers is its parent's to write. */
void tercio__forget_output(void);
void tercio__write_output(void);

/* Makes this process end when `parent` does, also in the middle of C code. In a child, before anything else. */
/* `lasting`: the thread that started this process ends with its process; then nothing that a task does to signals
 * can keep this process alive. Where it doesn't, `line` is what does: one end of the parent's lifeline, which is closed
 * here (-1: none). */
int tercio__die_with_parent(int parent, bool lasting, int line);
/* A lifeline: it breaks when the last process that holds ends[1] is gone; ends[0] is for those who end with it.
 * Both close-on-exec. */
int tercio__lifeline(int ends[2]);
bool tercio__is_main_thread(void);
/* A thread with so many bytes of stack, or the system's default if that is more. Returns: 0; TERCIO_ESYSTEM. */
int tercio__thread_start(pthread_t *, size_t stack, void *(*run)(void *), void *data);
/* Bytes that this process's main thread may use for its stack, as far as a thread can have as many. */
size_t tercio__main_stack(void);
/* True when the process that is our parent now isn't `parent` any more. */
bool tercio__parent_gone(int parent);

/* Number of threads of this process, without those of this layer, nor those that were joined; 0: unknown. */
int tercio__count_threads(void);
int tercio__pin_thread(const int *cpus, size_t n);
unsigned tercio__cpus_usable(void);
/* Path of this program's executable, which stays right though the file was replaced. Returns: 0. */
int tercio__own_executable(char *path, size_t size);

/* Runs argv as a new process with just the n descriptors of `keep` open beside 0, 1, 2 (no other than close-on-exec
 * ones are closed), without signal handlers and with the mask `blocked`; what is ignored here is ignored there, unless
 * `reset`. Costs the same whatever this process's size. Returns: pid and *handle; an error of exec is this call's. */
int tercio__spawn(char *const *argv, const int *keep, size_t n, uint64_t blocked, bool reset, int *handle);

/* What a child gets from the thread that makes it, where that is not the process that forks it: the mask of files' modes,
 * niceness and scheduling, limits, CPUs, ... Read in the pool's process, applied in a server's child; what the system
 * refuses stays as the server has it. */
enum { TERCIO__LIMITS = 16 };
typedef struct {
    int32_t umask, oom_score, nice, policy, priority, io_priority, personality, timer_slack;
    uint64_t limits[TERCIO__LIMITS][2]; /* soft, hard */
    uint8_t limit_known[TERCIO__LIMITS];
    uint32_t cpu_bytes, reserved;
    uint8_t cpus[1024];
} tercio__inherited;
void tercio__inherited_read(tercio__inherited *);
void tercio__inherited_apply(const tercio__inherited *);
/* A number for what this thread may do and where it lives: users, groups, capabilities, namespaces, root directory. A
 * server that was started with another one must not serve it. */
uint64_t tercio__rights(void);

/* A connected pair of message sockets, close-on-exec. */
int tercio__pair(int fds[2]);
/* Sends / receives one message of `size` bytes with at most 8 descriptors. *n_fds: the room at `fds`, then how many
 * came; a message with more, or of more bytes, is an error (TERCIO_EPROTOCOL). Where this process has no descriptor left
 * for those that came, it is TERCIO_ESYSTEM with EMFILE, and the bytes are there. Returns bytes (0: the peer is gone). */
int tercio__send(int fd, const void *data, size_t size, const int *fds, size_t n_fds);
int tercio__receive(int fd, void *data, size_t size, int *fds, size_t *n_fds, bool block);

/* Marks the open file behind a descriptor, for all of its descriptors in all processes. Returns: false where that can't be. */
bool tercio__descriptor_mark(int fd);
bool tercio__descriptor_is_marked(int fd); /* false, too, where it is closed */
/* Two numbers that name a pipe or a socket among those that are open at the same time. Returns: false for anything else, and
 * where it is closed. */
bool tercio__descriptor_identity(int fd, uint64_t identity[2]);

/* Waits on many descriptors: the supervisor's set. */
int tercio__set_create(void); /* descriptor */
int tercio__set_add(int set, int fd, uint64_t token);
void tercio__set_remove(int set, int fd);
/* Returns: number of tokens; 0 at the deadline. */
int tercio__set_wait(int set, uint64_t *tokens, int n, uint64_t deadline);

#endif
