"""The ceremony of a passkey, in the browser or with a security key: a process that lives for one, and ends."""
