"""The command line, a file a command: each reads its arguments, calls one function, and prints what came."""
