/* SPDX-License-Identifier: MIT
 *
 * Two callers, each with a run of its own, and one who finishes the pool: wait.c (tercio__run_wait, pass_on,
 * tercio__pool_wait), collect.c (tercio__pump). One of the sleepers drives: it sleeps on the bell that the worker
 * rings, and puts what has come where it belongs. The others sleep on bells of their own.
 * What has to hold: all three end.
 *
 *   NO_PASS_ON    a driver that leaves wakes nobody
 *   ONE_BELL      who finishes sleeps on the driver's bell too, and hears of nothing else
 *   NO_HAND_OUT   the driver doesn't ring those for whom something has come
 */
#define CALLERS 2
#define WANTED 2        /* results of each run */

bool lock_, driver, wants;
bool bell[4];                   /* 0: the callers' bell; 1, 2: of a run; 3: of who finishes */
byte published[CALLERS], moved[CALLERS], incoming[CALLERS];
bool waits[CALLERS], pool_waits;
byte waits_on[CALLERS], pool_waits_on;

inline lock() { atomic { !lock_ -> lock_ = true } }
inline unlock() { lock_ = false }

#define BUSY (moved[0] < WANTED || moved[1] < WANTED)
#define NEWS (published[0] != moved[0] || published[1] != moved[1])

inline pump()
{
    d_step { incoming[0] = incoming[0] + published[0] - moved[0]; moved[0] = published[0] }
    d_step { incoming[1] = incoming[1] + published[1] - moved[1]; moved[1] = published[1] };
#ifndef NO_HAND_OUT
    if
    :: waits[0] && incoming[0] -> bell[waits_on[0]] = true
    :: else
    fi;
    if
    :: waits[1] && incoming[1] -> bell[waits_on[1]] = true
    :: else
    fi;
#endif
#ifndef ONE_BELL
    if
    :: pool_waits && !BUSY -> bell[pool_waits_on] = true
    :: else
    fi
#endif
}

inline pass_on()
{
#ifndef NO_PASS_ON
    if
    :: waits[0] -> bell[waits_on[0]] = true
    :: !waits[0] && waits[1] -> bell[waits_on[1]] = true
#ifndef ONE_BELL
    :: !waits[0] && !waits[1] && pool_waits -> bell[pool_waits_on] = true
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
    :: published[0] < WANTED -> n = 0; goto publish
    :: published[1] < WANTED -> n = 1; goto publish
    :: published[0] == WANTED && published[1] == WANTED -> break
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
    :: drove && !driver -> pass_on()
    :: else
    fi;
    got = got + incoming[me];
    incoming[me] = 0;
    unlock();
    if
    :: got < WANTED -> goto next
    :: else
    fi
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
        pool_waits_on = (drives -> 0 : 3);
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
        :: drives -> driver = false; pass_on()
        :: else
        fi
    od;
    unlock()
}

init { atomic { run worker(); run caller(0); run caller(1); run finisher() } }
