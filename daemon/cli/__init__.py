"""The command line: arguments, words for people, exit codes."""
