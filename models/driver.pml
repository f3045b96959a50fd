/* SPDX-License-Identifier: MIT
 *
 * Three callers, each with a run of its own, and one who finishes the pool: wait.c (tercio__run_wait, hand_over,
 * tercio__pool_wait), collect.c (tercio__pump). One of the sleepers drives: it sleeps on the bell that the worker
 * rings, and puts what has come where it belongs. The others sleep on bells of their own. The last result of
 * the first comes only when the second has ended: tasks may wait for each other.
 * What has to hold: all four end.
 *
 *   NO_PASS_ON    a driver that leaves wakes nobody
 *   ONLY_DRIVERS  who never drove wakes nobody as it leaves, though the driver may have passed its place on to it
 *   ONE_BELL      who finishes sleeps on the driver's bell too, and hears of nothing else
 *   NO_HAND_OUT   the driver doesn't ring those for whom something has come
 */
#define CALLERS 3
#define WANTED(n) ((n) == 0 -> 2 : 1)   /* results of each run */

bool lock_, driver, wants;
bool bell[5];                   /* 0: the callers' bell; 1, 2, 3: of a run; 4: of who finishes */
byte published[CALLERS], moved[CALLERS], incoming[CALLERS];
bool waits[CALLERS], pool_waits, ended[CALLERS];
byte waits_on[CALLERS], pool_waits_on;

inline lock() { atomic { !lock_ -> lock_ = true } }
inline unlock() { lock_ = false }

#define BUSY (moved[0] < WANTED(0) || moved[1] < WANTED(1) || moved[2] < WANTED(2))
#define NEWS (published[0] != moved[0] || published[1] != moved[1] || published[2] != moved[2])

inline move(n)
{
    d_step { incoming[n] = incoming[n] + published[n] - moved[n]; moved[n] = published[n] }
}

inline hand_out(n)
{
#ifndef NO_HAND_OUT
    if
    :: waits[n] && incoming[n] -> bell[waits_on[n]] = true
    :: else
    fi
#else
    skip
#endif
}

inline pump()
{
    move(0);
    move(1);
    move(2);
    hand_out(0);
    hand_out(1);
    hand_out(2);
#ifndef ONE_BELL
    if
    :: pool_waits && !BUSY -> bell[pool_waits_on] = true
    :: else
    fi
#endif
}

inline hand_over()
{
#ifndef NO_PASS_ON
    if
    :: waits[0] -> bell[waits_on[0]] = true
    :: !waits[0] && waits[1] -> bell[waits_on[1]] = true
    :: !waits[0] && !waits[1] && waits[2] -> bell[waits_on[2]] = true
#ifndef ONE_BELL
    :: !waits[0] && !waits[1] && !waits[2] && pool_waits -> bell[pool_waits_on] = true
#endif
    :: else
    fi
#else
    skip
#endif
}

proctype worker()
{
    byte n;
    do
    :: published[0] < WANTED(0) && (published[0] + 1 < WANTED(0) || ended[1]) -> n = 0; goto publish
    :: published[1] < WANTED(1) -> n = 1; goto publish
    :: published[2] < WANTED(2) -> n = 2; goto publish
    :: published[0] == WANTED(0) && published[1] == WANTED(1) && published[2] == WANTED(2) -> break
publish:
        published[n]++;
        atomic {                /* what may come between these is bell.pml's */
            if
            :: wants -> bell[0] = true; wants = false
            :: else
            fi
        }
    od
}

proctype caller(byte me)
{
    byte got;
    bool drives, drove;
next:
    drove = false;
    lock();
    do
    :: true ->
        pump();
        if
        :: incoming[me] -> break
        :: else
        fi;
        drives = !driver;
        waits[me] = true;
        waits_on[me] = (drives -> 0 : me + 1);
        driver = true;
        drove = drove || drives;
        wants = true;
        if
        :: NEWS
        :: else ->
            unlock();
            bell[waits_on[me]];
            lock()
        fi;
        bell[waits_on[me]] = false;
        waits[me] = false;
        if
        :: drives -> driver = false
        :: else
        fi
    od;
    if
#ifdef ONLY_DRIVERS
    :: drove && !driver -> hand_over()
#else
    :: !driver -> hand_over()
#endif
    :: else
    fi;
    got = got + incoming[me];
    incoming[me] = 0;
    unlock();
    if
    :: got < WANTED(me) -> goto next
    :: else
    fi;
    ended[me] = true
}

proctype finisher()
{
    bool drives;
    lock();
    do
    :: true ->
        pump();
        if
        :: !BUSY -> break
        :: else
        fi;
        drives = !driver;
        pool_waits = true;
#ifdef ONE_BELL
        pool_waits_on = 0;
#else
        pool_waits_on = (drives -> 0 : 4);
#endif
        driver = true;
        wants = true;
        if
        :: NEWS
        :: else ->
            unlock();
            bell[pool_waits_on];
            lock()
        fi;
        bell[pool_waits_on] = false;
        pool_waits = false;
        if
        :: drives -> driver = false
        :: else
        fi;
        if
#ifdef ONLY_DRIVERS
        :: drives -> hand_over()
#else
        :: !driver -> hand_over()
#endif
        :: else
        fi
    od;
    unlock()
}

init { atomic { run worker(); run caller(0); run caller(1); run caller(2); run finisher() } }
