"""Watching sources: a hint when something below one may have changed.

    watcher    all sources; a change of the configuration
    sentry     one source: is its directory there, is it the same, how can it be watched
    feed       one source's events, from the kernel
    polling    finding changes by looking, where the kernel does not tell them
    scope      what of a source wakes anybody: pure
    mounts     which file systems lie at and below a source

A hint is never the truth: the comparison is. What is promised is that after a change a hint comes, or, when it may have
been lost, a hint that asks for a whole comparison.
"""
