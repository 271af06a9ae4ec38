"""The verbs of the CLI, a file a noun: each opens control state and calls the function its HTTP route calls."""
