/* SPDX-License-Identifier: MIT
 *
 * A worker that sleeps on the word of its bell, two threads of the parent that hand it messages (or room, or the wish
 * that it stop): call.c (tercio__call_sleep), dispatch.c (tercio__wake). Signals wake it for no reason.
 * What has to hold: it runs every message.
 *
 *   NO_LOOK     it sleeps without looking once more after its announcement
 *   NO_FENCE    a parent looks at `asleep` before its message is seen
 *   NO_COUNT    the waker rings without changing the word that the sleeper compares
 */
#define PARENTS 2
#define MESSAGES 2
#define ALL (PARENTS * MESSAGES)

byte published, done, word;
bool asleep, woken;

proctype parent()
{
    byte i;
    bool seen, was;
    do
    :: i < MESSAGES ->
#ifdef NO_FENCE
        seen = asleep;
        published++;
#else
        published++;
        seen = asleep;
#endif
        if
        :: seen ->
            atomic { was = asleep; asleep = false }
            if
            :: was ->
#ifndef NO_COUNT
                word = (word + 1) % 8;
#endif
                woken = true        /* whoever sleeps on the word now; nobody else keeps this */
            :: else
            fi
        :: else
        fi;
        i++
    :: else -> break
    od
}

proctype worker()
{
    byte seen, signals;
    do
    :: done < ALL ->
        if
        :: done < published -> done++
        :: else ->
nap:        seen = word;
            asleep = true;
#ifndef NO_LOOK
            if
            :: done < published -> asleep = false; goto up
            :: else
            fi;
#endif
            /* The kernel compares and goes to sleep in one step. */
            atomic {
                if
                :: word == seen -> woken = false; goto sleep
                :: else -> goto wake
                fi
            }
sleep:      if
            :: woken
            :: signals < 2 -> signals++
            fi;
            if
            :: done < published || word != seen
            :: else -> goto nap
            fi;
wake:       asleep = false;
up:         skip
        fi
    :: else -> break
    od
}

init { atomic { run parent(); run parent(); run worker() } }
