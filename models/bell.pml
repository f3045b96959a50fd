/* SPDX-License-Identifier: MIT
 *
 * A caller that sleeps, two workers that may be killed between any two steps, the keeper that sees deaths: wait.c
 * (announce, news_after_announcing), call.c (ring), supervise.c (tercio__worker_gone, tercio__ring_all).
 * What has to hold: the caller ends, whoever is killed where. A caller asleep for ever is an invalid end state.
 *
 *   NO_LOOK        the caller sleeps without looking once more after its announcement
 *   NO_FENCE       a worker's publishing is seen only after it has looked at `wants`
 *   NO_DEATH_BELL  the keeper doesn't ring when a worker dies
 */
#define WORKERS 2
#define ITEMS 2

byte published[WORKERS], taken[WORKERS];
bool dead[WORKERS], buried[WORKERS];
bool wants, bell;
bool caller_done, killed[WORKERS];

inline ring(was)
{
    atomic { was = wants; wants = false }
    /* A worker killed here has taken the announcement with it. */
    if
    :: was -> bell = true
    :: else
    fi
}

proctype worker(byte me)
{
    byte i;
    bool was, seen;
    {
    do
    :: i < ITEMS ->
#ifdef NO_FENCE
        seen = wants;
        published[me]++;
#else
        published[me]++;
        seen = wants;
#endif
        if
        :: seen -> ring(was)
        :: else
        fi;
        i++
    :: else -> break
    od
    } unless { killed[me] };
    dead[me] = killed[me]
}

proctype executioner(byte me)
{
    if
    :: killed[me] = true
    :: skip
    fi
}

proctype keeper()
{
    byte w;
    do
    :: dead[0] && !buried[0] -> w = 0; goto gone
    :: dead[1] && !buried[1] -> w = 1; goto gone
    :: caller_done -> break
    od;
    goto over;
gone:
    buried[w] = true;
#ifndef NO_DEATH_BELL
    bell = true;
#endif
    if
    :: dead[1 - w] && !buried[1 - w] -> w = 1 - w; goto gone
    :: caller_done -> goto over
    fi;
over:
    skip
}

#define NEWS (published[0] != taken[0] || published[1] != taken[1])
#define OWED(w) (taken[w] < ITEMS && !(buried[w] && published[w] == taken[w]))

proctype caller()
{
    do
    :: true ->
        taken[0] = published[0];
        taken[1] = published[1];
        if
        :: !OWED(0) && !OWED(1) -> break
        :: else
        fi;
        wants = true;
#ifndef NO_LOOK
        if
        :: NEWS -> goto again
        :: else
        fi;
#endif
        bell;
        bell = false;
again:
        skip
    od;
    caller_done = true
}

init {
    atomic {
        run worker(0); run worker(1); run executioner(0); run executioner(1); run keeper(); run caller()
    }
}
