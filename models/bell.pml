/* SPDX-License-Identifier: MIT
 *
 * A caller that sleeps, two workers that may be killed between any two steps, one of which may be stopped there for
 * ever, the supervisor that sees deaths: announce.c (tercio__announce, tercio__news_after_announcing), call.c (ring), deaths.c (tercio__worker_gone,
 * tercio__ring_all).
 * What has to hold when nothing moves any more: the caller has ended, whoever was killed where; or somebody is
 * stopped, and what the others have published was taken all the same.
 *
 *   NO_LOOK        the caller sleeps without looking once more after its announcement
 *   NO_FENCE       a worker's publishing is seen only after it has looked at `wants`
 *   NO_DEATH_BELL  the supervisor doesn't ring when a worker dies
 *   TAKE_FIRST     a worker takes the announcement back before it rings
 *   NO_NUMBER      a worker takes back whatever is announced
 */
#define WORKERS 2
#define ITEMS(w) (2 - (w))
#define NOTHING 0               /* else the number of the announcement */

byte published[WORKERS], taken[WORKERS];
bool dead[WORKERS], buried[WORKERS];
byte wants;
bool bell;
bool caller_done, killed[WORKERS], stopped[WORKERS];

inline take_back(number)
{
#ifdef NO_NUMBER
    wants = NOTHING
#else
    atomic {
        if
        :: wants == number -> wants = NOTHING
        :: else
        fi
    }
#endif
}

inline ring(number)
{
#ifdef TAKE_FIRST
    take_back(number);
    bell = true
#else
    bell = true;
    take_back(number)
#endif
}

proctype worker(byte me)
{
    byte i, seen;
    {
    do
    :: i < ITEMS(me) ->
#ifdef NO_FENCE
        seen = wants;
        published[me]++;
#else
        published[me]++;
        seen = wants;
#endif
        if
        :: seen != NOTHING -> ring(seen)
        :: else
        fi;
        i++
    :: else -> break
    od
    } unless { killed[me] || stopped[me] };
    dead[me] = killed[me]
}

proctype executioner(byte me)
{
    if
    :: killed[me] = true
    :: me == 0 -> stopped[me] = true
    :: skip
    fi
}

proctype supervisor()
{
    byte w;
end_none:
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
end_one:
    if
    :: dead[1 - w] && !buried[1 - w] -> w = 1 - w; goto gone
    :: caller_done -> goto over
    fi;
over:
    skip
}

#define NEWS (published[0] != taken[0] || published[1] != taken[1])
#define OWED(w) (taken[w] < ITEMS(w) && !(buried[w] && published[w] == taken[w]))

proctype caller()
{
    byte number;
    do
    :: true ->
        taken[0] = published[0];
        taken[1] = published[1];
        if
        :: !OWED(0) && !OWED(1) -> break
        :: else
        fi;
        number++;
        wants = number;
#ifndef NO_LOOK
        if
        :: NEWS -> goto again
        :: else
        fi;
#endif
end_asleep:
        bell;
        bell = false;
again:
        skip
    od;
    caller_done = true
}

proctype judge()
{
end_of_all:
    timeout ->
        assert(caller_done || stopped[0] || stopped[1]);
        assert(caller_done || stopped[0] || published[0] == taken[0]);
        assert(caller_done || stopped[1] || published[1] == taken[1])
}

init {
    atomic {
        run worker(0); run worker(1); run executioner(0); run executioner(1); run supervisor(); run caller(); run judge()
    }
}
