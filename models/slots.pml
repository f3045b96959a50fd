/* SPDX-License-Identifier: MIT
 *
 * The slots of one channel: channel.c, and what collect.c, dispatch.c and deaths.c make of them. Two slots, so that
 * each is used again; the parent takes messages back when it likes; the worker may be killed between any two steps,
 * and a new one gets a new channel.
 * What has to hold: each message is answered once (run, or lost with the worker that ran it, or taken back for good),
 * none is run twice, and all are answered in the end.
 *
 *   NO_SEQUENCE    the worker looks at a slot's state alone
 *   NO_CAS         the worker takes a slot by a load and a store
 *   PASSED_LAST    the parent reads the records before it looks how far the worker is
 *   VICTIM_ALWAYS  a worker killed behind its answer is taken to have been running
 *   REVOKED_FREE   a revoked slot is used again before the worker has passed it
 */
#define SLOTS 2
#define MESSAGES 4
#define NOBODY 255

mtype = { EMPTY, READY, TAKEN, REVOKED };

/* shared memory */
mtype state[SLOTS];
byte number[SLOTS];             /* sequence in the slot's word */
byte message[SLOTS];
byte down_head, up_tail;
byte record[8];                 /* messages whose answers were published, in order */

/* what really happened */
byte ran[MESSAGES], answered[MESSAGES];

bool worker_lives, kill_it, worker_stops, is_dead;
byte kills;

#ifdef NO_SEQUENCE
#define MINE(s) true
#else
#define MINE(s) (number[s] == head)
#endif

proctype worker()
{
    byte head, s, m;
    mtype saw;
    {
    do
    :: worker_stops -> break
    :: state[head % SLOTS] != EMPTY && MINE(head % SLOTS) ->    /* else it sleeps: nap.pml */
        s = head % SLOTS;
        saw = state[s];
        if
        :: saw == READY ->
#ifdef NO_CAS
            state[s] = TAKEN;
#else
            atomic {
                if
                :: state[s] == READY && MINE(s) -> state[s] = TAKEN
                :: else -> goto pass
                fi
            };
#endif
            m = message[s];
            ran[m]++;
            assert(ran[m] == 1);
            record[up_tail] = m;
            up_tail++
        :: else
        fi;
pass:   head++;
        down_head = head
    od;
    worker_lives = false
    } unless { atomic { kill_it -> kill_it = false; worker_lives = false; is_dead = true } }
}

byte tail, reclaimed, read, where_[16];
byte todo[MESSAGES];            /* 1: to be sent */
bool over[16];                  /* by sequence: nothing is owed for it */

inline answer(m)
{
    answered[m]++;
    assert(answered[m] == 1)
}

inline pump()
{
#ifndef PASSED_LAST
    passed = down_head;
#endif
    do
    :: read < up_tail ->
        answer(record[read]);
        r = reclaimed;
        do
        :: r < tail && !over[r] && where_[r] == record[read] -> over[r] = true; r++
        :: r < tail && (over[r] || where_[r] != record[read]) -> r++
        :: r >= tail -> break
        od;
        read++
    :: else -> break
    od;
#ifdef PASSED_LAST
    passed = down_head;
#endif
    do
    :: reclaimed < passed ->
        if
        :: !over[reclaimed] -> over[reclaimed] = true; todo[where_[reclaimed]] = 1 /* left before its end: again */
        :: else
        fi;
        reclaimed++
    :: else -> break
    od
}

#ifdef REVOKED_FREE
#define ROOM (tail - reclaimed < SLOTS || state[tail % SLOTS] == REVOKED)
#else
#define ROOM (tail - reclaimed < SLOTS)
#endif

inline put(m)
{
    message[tail % SLOTS] = m;
    where_[tail] = m;
    over[tail] = false;
    todo[m] = 0;
    atomic { number[tail % SLOTS] = tail; state[tail % SLOTS] = READY }
    tail++
}

inline revoke(q, won)
{
    atomic {
        if
        :: state[q % SLOTS] == READY && number[q % SLOTS] == q -> state[q % SLOTS] = REVOKED; won = true
        :: else -> won = false
        fi
    }
}

inline gone()
{
    pump();
    q = reclaimed;
    do
    :: q < tail ->
        revoke(q, won);
        if
        :: won && !over[q] -> todo[where_[q]] = 1
#ifdef VICTIM_ALWAYS
        :: !won && state[q % SLOTS] == TAKEN -> answer(where_[q])
#else
        :: !won && !over[q] -> answer(where_[q])    /* lost, or never begun: counted as lost */
#endif
        :: else
        fi;
        over[q] = true;
        q++
    :: else -> break
    od;
    atomic {
        is_dead = false;
        tail = 0; reclaimed = 0; read = 0; down_head = 0; up_tail = 0;
        state[0] = EMPTY; state[1] = EMPTY; number[0] = 0; number[1] = 0;
        worker_lives = true
    }
    run worker()
}

#define ALL_ANSWERED (answered[0] + answered[1] + answered[2] + answered[3] == MESSAGES)

proctype parent()
{
    byte m, revokes, q, passed, r;
    bool won;
    do
    :: ALL_ANSWERED -> break
    :: is_dead -> gone()
    :: !is_dead && !ALL_ANSWERED && (read != up_tail || down_head != reclaimed) -> pump()
    :: !is_dead && !ALL_ANSWERED && ROOM && tail < 14 && (todo[0] || todo[1] || todo[2] || todo[3]) ->
        if
        :: todo[0] -> m = 0
        :: !todo[0] && todo[1] -> m = 1
        :: !todo[0] && !todo[1] && todo[2] -> m = 2
        :: else -> m = 3
        fi;
        put(m)
    :: !is_dead && revokes < 2 && tail > reclaimed ->
        revokes++;
        q = tail - 1;
        revoke(q, won);
        if
        :: won && !over[q] -> over[q] = true; todo[where_[q]] = 1
        :: else
        fi
    :: !is_dead && worker_lives && kills < 1 && !kill_it -> kills++; kill_it = true
    od;
    worker_stops = true
}

init {
    byte i;
    for (i : 0 .. MESSAGES - 1) { todo[i] = 1 }
    state[0] = EMPTY; state[1] = EMPTY;
    worker_lives = true;
    atomic { run worker(); run parent() }
}
