/* SPDX-License-Identifier: MIT
 *
 * A worker that sleeps on the word of its bell, for work or for room for its answers; two threads of the parent that hand
 * it messages, and put some of the wakes off; one that reads answers, and wakes it only where it sleeps for room:
 * call.c (tercio__call_sleep), wake.c (tercio__wake, tercio__wake_for_room, tercio__wake_owed). Signals wake it for no
 * reason.
 * What has to hold: it runs every message.
 *
 *   NO_LOOK     it sleeps without looking once more after its announcement
 *   NO_FENCE    a parent looks at `asleep` before its message is seen
 *   NO_COUNT    the waker rings without changing the word that the sleeper compares
 *   NO_FLUSH    a wake that was put off is forgotten
 *   ONE_KIND    it doesn't say what it sleeps for: always for work
 */
#define MESSAGES 2      /* of the first parent; the second one has one */
#define ALL (MESSAGES + 1)
#define ROOM 1          /* answers that nobody has read */
#define AWAKE 0
#define FOR_WORK 1
#define FOR_ROOM 2

byte published, done, answered, read, word, asleep;
bool woken;

inline wake()
{
    atomic { was = asleep; asleep = AWAKE }
    if
    :: was != AWAKE ->
#ifndef NO_COUNT
        word = (word + 1) % 8;
#endif
        woken = true        /* whoever sleeps on the word now; nobody else keeps this */
    :: else
    fi
}

proctype parent(byte mine)
{
    byte i, seen, was;
    bool owed;
    do
    :: i < mine ->
#ifdef NO_FENCE
        seen = asleep;
        published++;
#else
        published++;
        seen = asleep;
#endif
        if
        :: seen != AWAKE -> wake()
        :: seen == AWAKE
        :: owed = true      /* not looked at: more follow */
        fi;
        i++
    :: else -> break
    od;
#ifndef NO_FLUSH
    if
    :: owed && asleep != AWAKE -> wake()
    :: else
    fi
#endif
}

proctype reader()
{
    byte was;
    do
    :: read < ALL ->
        answered > read;
        read++;
        if
        :: asleep == FOR_ROOM -> wake()
        :: else
        fi
    :: else -> break
    od
}

inline nap(kind, ready)
{
    do
    :: true ->
        seen = word;
#ifdef ONE_KIND
        asleep = FOR_WORK;
#else
        asleep = kind;
#endif
#ifndef NO_LOOK
        if
        :: ready -> break
        :: else
        fi;
#endif
        /* The kernel compares and goes to sleep in one step. */
        atomic {
            if
            :: word == seen -> woken = false; sleeps = true
            :: else -> sleeps = false
            fi
        }
        if
        :: !sleeps -> break
        :: sleeps && woken
        :: sleeps && signals < 1 -> signals++
        fi;
        if
        :: ready || word != seen -> break
        :: else
        fi
    od;
    asleep = AWAKE
}

proctype worker()
{
    byte seen, signals;
    bool sleeps;
    do
    :: done < ALL ->
        if
        :: done < published ->
            do
            :: answered - read < ROOM -> break
            :: else -> nap(FOR_ROOM, answered - read < ROOM)
            od;
            answered++;
            done++
        :: else -> nap(FOR_WORK, done < published)
        fi
    :: else -> break
    od
}

init { atomic { run parent(MESSAGES); run parent(1); run reader(); run worker() } }
