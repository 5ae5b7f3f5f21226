"""What the daemon does next: pure. Inputs and a clock go in, actions come out; nothing here waits, reads or writes."""
