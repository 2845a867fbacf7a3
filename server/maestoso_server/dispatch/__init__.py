"""How work reaches workers and results come back; who owns a task, and when.

session, proof, matching, deliveries, meanwhile, ticks   pure machines, each with one law
dispatcher, reports, assignments                         put together: still no I/O, so it is simulated
loops, streams, polling, demand                          the awaiting half: statements and waits
node, cluster, expiry, deadlines, messages               this node among the others, and time
"""
