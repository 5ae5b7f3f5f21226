"""The work of this device without words: what a backup does, for the command and for the daemon alike."""
