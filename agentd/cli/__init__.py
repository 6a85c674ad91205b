"""The command line: argv -> call -> print."""
