"""The units of systemd, as data: `chatkeep setup` writes the place of the program into them."""
