"""The kinds of step that a decision is made of. The numbers are stored in cursors.

A step is a tuple of JSON values, (kind, ...):

    (BIRTH, reference, path, scope)      the node gets its first row there
    (JOIN_BIRTH, reference, path, scope, fork)  the join of a fork's row gets its row
    (AGAIN, seq, delayed)                another attempt of an ended row
    (RUN, seq)                           an open row that the engine evaluates itself
    (SETTLE, seq, mode)                  a row has ended: retry, go on or fail
    (NOTIFY, seq)                        a row has ended whose chain goes on elsewhere
    (BRANCHES, fork, from)               the remaining branches of a wide fork
    (TURN, loop, turn)                   a turn of a loop has ended (0: it begins)
    (CLOSE, join)                        nothing is waited for any more
    (END, status, reason, seq)           the workflow ends before all is done; by that row (0: by none)
    (CANCEL, after)                      rows that are open although the workflow has ended
    (REVIVE, after, resume)              rows that ended unsuccessfully run again
    (RECOUNT, seq)                       a container's counters are counted anew
    (LAST, reference, path)              the row counts as the last one that was made
    (ASIDE, past, after, reference, path, scope)  that task's rows and all that follow leave the generation
    (AFRESH, reference, path, scope, input)  the node gets its first row there, with this input
    (DROP, after, reference, path)       open rows in the chain of that task are SKIPPED
    (UNREACHED, switch)                  its case is over: joins no longer wait for tasks of the others
    (CATCH, guard, part, status, reason, seq)  a row inside a part of a TRY, or of a compensation, failed
    (SWEEP, guard, after)                rows that are open inside it although that part is over
    (CHOOSE, guard)                      nothing is open inside it: a case, the next compensation
    (PART, guard, part)                  all chains of a part have ended
    (UNDO, compensation, part)           the next completed task is compensated

    END may have a fifth value: 1 where the end asks for compensation, 2 where that is done.
"""

BIRTH = 1
JOIN_BIRTH = 2
AGAIN = 3
RUN = 4
SETTLE = 5
NOTIFY = 6
BRANCHES = 7
TURN = 8
CLOSE = 9
END = 10
CANCEL = 11
REVIVE = 12
RECOUNT = 13
LAST = 14
ASIDE = 15
AFRESH = 16
DROP = 17
UNREACHED = 45

CATCH = 25
SWEEP = 26
CHOOSE = 27
PART = 28
UNDO = 29

# Modes of END.
COMPENSATING = 1
COMPENSATED = 2

# Modes of SETTLE.
BY_POLICY = 0
TIME_OUT_WORKFLOW = 1
"""The row timed out under TIME_OUT_WF: no retry, and the workflow's reason is the row's own."""
