"""The engine: pure functions from what a workflow is and what happened to what it becomes.

Nothing in this package reads a clock, makes a random number, waits, logs or does I/O.

Whoever uses it needs five things:

    plan.compile(definition) -> Plan            once for each snapshot
    state.View                                  a workflow's header and some of its rows
    events.*                                    what happened; the only inputs
    decide.decide(plan, view, events)           a generator: yields needs, returns a Decision
    View.apply(decision)                        after the decision was saved, and only then

and `messages`, for what one workflow tells another. The order of the floor, lower ones first:

    state, events, needs, decision              the types that others share
    expressions, document, durations, retry     the `${...}` language and small arithmetic
    policy, nodes, plan, fragment, conditions   a definition, worked out ahead
    reading, turn, cursor                       one decision in the making
    operators/                                  what each kind of task does
    settle, attempts, ending, revival, runs     the steps of which decisions are made (`steps`)
    results, timers, commands, again, signals   the events, one handler each
    decide                                      events in, steps done in order, a decision out

Three rules keep it right. Read before you act: a step that lacks a row changes nothing until it
has it. Rows are never changed in place: `Turn.edit` gives a copy. Whatever an outcome leads to is
a step, so that a pause, an end or a full decision can keep it for later without loss.
"""
