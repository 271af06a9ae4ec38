"""Jobs: trainings as rows with a state, an owner and a heartbeat, and the stepper that moves them on.

Nothing here trains, evaluates or decides: that happens in processes that a launcher starts, and in what the gateway's
`tuning` room injects. Light: the gateway imports it.
"""
