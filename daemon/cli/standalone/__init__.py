"""The reader that needs no Chatkeep: what `chatkeep reader` prints as one file, here in its parts.

It is written from docs/format.md alone and imports nothing of Chatkeep outside this folder; a test holds it to that.
`daemon/cli/joining.py` joins the parts, and says in which order: each stands on those before it, and no two of them
define the same name at their top. [n] is section n of docs/format.md.
"""
